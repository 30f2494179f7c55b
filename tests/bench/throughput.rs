// SPDX-License-Identifier: Apache-2.0
//! P3: what TCP throughput from a pod loses to a limit that it cannot reach, on
//! this machine. Sender and receiver share one processor, and what they move is
//! counted by the processor time that it took, so that it matters little what
//! else the machine does. Set-ups take turns; medians of all rounds are compared.

use std::fs;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tests::cni::Annotations;
use tests::flows::{Bulk, Progress};
use tests::kernel::has_fq;
use tests::node::{Node, with_node};

use crate::figure::{Bound, Figure};
use crate::packets::UNREACHABLE_BPS;
use crate::setups::Setup;
use crate::site::{Site, USUAL_MTU};

/// Rounds go on until the loss is known to one percentage point, or for so long.
const LONGEST: Duration = Duration::from_secs(75);
const FEWEST_ROUNDS: usize = 9;
const PRECISION_PERCENT: f64 = 1.0;
/// cubic leaves its slow start at random where round trips are this short.
const CONGESTION: &str = "reno";
const WARM_UP: Duration = Duration::from_millis(150);
const WINDOW: Duration = Duration::from_millis(400);
const SETUPS: [Setup; 3] = [Setup::None, Setup::Sluice, Setup::Upstream];

/// Gbit for each second of processor time, of each set-up in each round.
#[derive(Default)]
struct Rounds {
    gbit: [Vec<f64>; SETUPS.len()],
}

pub fn measure() -> Figure {
    let mut rounds = Rounds::default();
    let mut mode = "";
    with_node(|node| {
        mode = if has_fq() { "paced" } else { "policed" };
        node.boot_with("");
        node.start_agent();
        have_one_processor();
        let end = Instant::now() + LONGEST;
        while !rounds.are_enough() && Instant::now() < end {
            rounds.add(node);
        }
    });
    let [_, sluice, upstream] = [0, 1, 2].map(|which| rounds.loss_percent(which));
    let figure = Figure::new("P3", "TCP throughput lost to an unreachable limit", "%")
        .judge(sluice, Bound::AtMost, [6.0, 3.0])
        .detail(format!("{mode}, {} rounds", rounds.gbit[0].len()))
        .peer("standard error", rounds.error_percent(1))
        .peer("upstream", upstream);
    SETUPS.iter().zip(&rounds.gbit).fold(figure, |figure, (setup, gbit)| {
        figure.peer(format!("{}, Gbit for a processor's second", setup.name()), median(gbit))
    })
}

impl Rounds {
    /// Each round begins with another set-up.
    fn add(&mut self, node: &Node) {
        let number = self.gbit[0].len();
        for turn in 0..SETUPS.len() {
            let which = (number + turn) % SETUPS.len();
            self.gbit[which].push(gigabits_per_sec(SETUPS[which], node));
        }
    }

    fn are_enough(&self) -> bool {
        self.gbit[0].len() >= FEWEST_ROUNDS && self.error_percent(1) < PRECISION_PERCENT
    }

    fn loss_percent(&self, which: usize) -> f64 {
        (1.0 - median(&self.gbit[which]) / median(&self.gbit[0])) * 100.0
    }

    /// Standard error of the loss, by the spread of the middle of both.
    fn error_percent(&self, which: usize) -> f64 {
        let relative = |values: &[f64]| {
            let middle = median(values);
            let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
            // A normal distribution's deviation from its median one, and its median's error.
            1.4826 * 1.2533 * median(&distances) / (values.len() as f64).sqrt() / middle
        };
        relative(&self.gbit[0]).hypot(relative(&self.gbit[which])) * 100.0
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// This thread and those that it makes stay on one processor, ahead of what else needs it.
fn have_one_processor() {
    let mut processors = CpuSet::new();
    processors.set(0).expect("processor 0");
    sched_setaffinity(Pid::from_raw(0), &processors).expect("stay on processor 0");
    // SAFETY: the call has no pointers.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    assert_eq!(result, 0, "setpriority: {}", std::io::Error::last_os_error());
}

/// Nanoseconds that this process and the kernel's deferred network work have had.
fn processor_time_ns() -> f64 {
    let own = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("read the clock");
    own.tv_sec() as f64 * 1e9 + own.tv_nsec() as f64 + deferred_ns()
}

/// What ksoftirqd of processor 0 has had; nothing where /proc does not show it.
fn deferred_ns() -> f64 {
    let is_it = |pid: &String| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "ksoftirqd/0\n")
    };
    // It is among the first processes that a kernel makes.
    let Some(pid) = (2..100).map(|pid| pid.to_string()).find(is_it) else { return 0.0 };
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or_default()
}

fn gigabits_per_sec(setup: Setup, node: &Node) -> f64 {
    let site = Site::make(node, USUAL_MTU);
    setup.apply(&site, Annotations { egress: UNREACHABLE_BPS, ingress: UNREACHABLE_BPS });
    let progress = &Progress::new(1);
    let rate = thread::scope(|scope| {
        let bulk = Bulk::start(scope, [site.pod.v4(), site.remote.v4()], CONGESTION, progress);
        sleep(WARM_UP);
        let (start_ns, before) = (processor_time_ns(), progress.received()[0]);
        sleep(WINDOW);
        let bits = (progress.received()[0] - before) as f64 * 8.0;
        let rate = bits / (processor_time_ns() - start_ns);
        progress.stop();
        bulk.finish();
        rate
    });
    setup.remove(&site);
    rate
}
