// SPDX-License-Identifier: Apache-2.0
//! Pods that share the node's line in one direction: what each receives in every
//! second, and round trips of a quiet pod and of one that is busy.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, Scope, sleep};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tests::command::ip;
use tests::flows::{Bulk, End, Progress, Sent, offer_udp, swallow_udp};
use tests::meter::in_netns;
use tests::node::{Node, Pod};
use tests::probes::{Probed, Servers};

use crate::row::Direction;
use crate::sharing::Sharing;

const WARM_UP: Duration = Duration::from_secs(3);
pub const SECONDS: usize = 5;
const PROBES: usize = 250;
/// What the probes of a busy pod use of its part: an echo and a request of 64 bytes, 50 times a second.
const PROBES_BPS: f64 = ((64 + 28 + 14) + (64 + 52 + 14)) as f64 * 8.0 * 50.0;
/// Of the first pod; the remote is `REMOTE`.
const FIRST: u8 = 20;
const REMOTE: u8 = 9;
/// Who comes back has its part after this time.
const BACK: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    Tcp(usize),
    /// One TCP flow that sends for so many milliseconds and rests as long.
    Resting(u64),
    /// Offered bit/s of payload.
    Udp(u64),
    /// The same, to the first pod: it never uses the line.
    Local(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharer {
    pub weight: u64,
    /// Its own limit; 0 is none.
    pub limit_bps: u64,
    pub load: Load,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SharePlan {
    /// The figure that it is for: F1.
    pub figure: String,
    pub case: String,
    pub sharing: Sharing,
    pub direction: Direction,
    pub congestion: String,
    pub mtu: u32,
    pub line_bps: u64,
    pub pods: Vec<Sharer>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Share {
    pub plan: SharePlan,
    /// Bit/s of L2 frames of each pod in each second.
    pub seconds_bps: Vec<Vec<f64>>,
    pub sent: Sent,
    pub quiet: Probed,
    /// Of the pod with the most flows, the first of them.
    pub busy: Probed,
    /// What the first pod has each time that it comes back, from 100 to 200 ms after it began, of its
    /// part; a super-packet more or less is some percent of that.
    pub back: Vec<f64>,
}

struct Host {
    pod: Pod,
    netns: PathBuf,
}

impl Host {
    fn make(node: &Node, name: &str, number: u8, mtu: u32) -> Self {
        let pod = node.pod(name, number);
        pod.set_mtu(mtu);
        Self { netns: pod.netns(), pod }
    }

    fn end(&self) -> End<'_> {
        End { netns: &self.netns, address: IpAddr::V4(self.pod.address) }
    }
}

impl SharePlan {
    pub fn run(&self, node: &Node) -> Share {
        let remote = Host::make(node, "remote", REMOTE, self.mtu);
        let uplink = &remote.pod.host_ifname;
        ip(&format!("route add default via {} dev {uplink} onlink", remote.pod.address));
        let hosts: Vec<Host> = (0..=self.pods.len() as u8)
            .map(|number| Host::make(node, &format!("p{number}"), FIRST + number, self.mtu))
            .collect();
        let pods: Vec<Pod> = hosts.iter().map(|host| host.pod.clone()).collect();
        self.sharing.apply(node, self, &pods, uplink);
        let share = self.measure(&remote, &hosts);
        self.sharing.remove(node, &pods);
        for pod in pods.iter().chain([&remote.pod]) {
            ip(&format!("link del {}", pod.host_ifname));
            pod.delete();
        }
        share
    }

    fn measure(&self, remote: &Host, hosts: &[Host]) -> Share {
        let progress: Vec<Progress> = (0..).zip(&self.pods).map(|it| self.progress(it)).collect();
        let (probing, far) = (&Progress::new(0), remote.end());
        let [busy, quiet] = [self.busiest(), self.pods.len()].map(|number| hosts[number].end());
        thread::scope(|scope| {
            let servers = [(); 2].map(|()| Servers::start(scope, far, probing));
            let mut bulks = Vec::new();
            for ((host, sharer), progress) in hosts.iter().zip(&self.pods).zip(&progress) {
                let ends = self.direction.ends(host.end(), far);
                bulks.extend(match sharer.load {
                    Load::Tcp(_) | Load::Resting(_) => {
                        Some(Bulk::start(scope, ends, &self.congestion, progress))
                    }
                    Load::Udp(bps) => flood(scope, ends, bps, progress),
                    Load::Local(bps) => flood(scope, [host.end(), hosts[0].end()], bps, progress),
                });
            }
            sleep(WARM_UP);
            let probes = [(quiet, servers[0]), (busy, servers[1])]
                .map(|(end, servers)| in_netns(scope, end.netns, move || servers.ask(PROBES)));
            let first = &progress[0];
            let back = scope.spawn(move || coming_back(first));
            let seconds_bps = self.seconds(&progress);
            let [quiet, busy] = probes.map(|probes| probes.join().expect("the probes"));
            let back = back.join().expect("who looks at the first pod");
            progress.iter().chain([probing]).for_each(Progress::stop);
            let sent = bulks.into_iter().flat_map(Bulk::finish).collect::<Vec<_>>();
            let of = |part: fn(&Sent) -> u64| sent.iter().map(part).sum();
            let sent =
                Sent { segments: of(|s| s.segments), retransmissions: of(|s| s.retransmissions) };
            let part = self.parts()[0] * self.line_bps as f64;
            let back = back.into_iter().map(|bps| bps * self.frames(0) / part).collect();
            Share { plan: self.clone(), seconds_bps, sent, quiet, busy, back }
        })
    }

    fn progress(&self, (number, sharer): (u32, &Sharer)) -> Progress {
        match sharer.load {
            Load::Tcp(flows) => Progress::new(flows),
            // Not all at the same time.
            Load::Resting(ms) => Progress::resting(
                1,
                Duration::from_millis(ms),
                Duration::from_millis(ms) * 2 * number / self.pods.len() as u32,
            ),
            Load::Udp(_) | Load::Local(_) => Progress::new(1),
        }
    }

    fn seconds(&self, progress: &[Progress]) -> Vec<Vec<f64>> {
        let look = || -> Vec<u64> { progress.iter().map(received).collect() };
        let start = Instant::now();
        let mut last = (start, look());
        let mut seconds = Vec::new();
        for second in 1..=SECONDS as u32 {
            let end = start + Duration::from_secs(second.into());
            sleep(end.saturating_duration_since(Instant::now()));
            let now = (Instant::now(), look());
            let span = (now.0 - last.0).as_secs_f64();
            let rate = |(number, (now, last)): (usize, (&u64, &u64))| {
                let probes = if number == self.busiest() { PROBES_BPS } else { 0.0 };
                (now - last) as f64 * 8.0 * self.frames(number) / span + probes
            };
            seconds.push(now.1.iter().zip(&last.1).enumerate().map(rate).collect());
            last = now;
        }
        seconds
    }

    fn busiest(&self) -> usize {
        let flows = |number: &usize| match self.pods[*number].load {
            Load::Tcp(flows) => flows,
            _ => 0,
        };
        (0..self.pods.len()).rev().max_by_key(flows).unwrap_or(0)
    }

    /// How much longer a pod's frames are than their payload.
    pub fn frames(&self, number: usize) -> f64 {
        let mtu = f64::from(self.mtu);
        match self.pods[number].load {
            Load::Tcp(_) | Load::Resting(_) => (mtu + 14.0) / (mtu - 52.0),
            Load::Udp(_) | Load::Local(_) => (mtu - 58.0) / (mtu - 100.0),
        }
    }

    /// Each pod's part of the line, 1 in all, by weight and by what their own limits leave.
    pub fn parts(&self) -> Vec<f64> {
        let limit = |sharer: &Sharer| match (sharer.load, sharer.limit_bps) {
            (Load::Local(_), _) => 0.0,
            (_, 0) => 1.0,
            (_, bps) => (bps as f64 / self.line_bps as f64).min(1.0),
        };
        let mut parts = vec![0.0; self.pods.len()];
        let mut open: Vec<usize> = (0..self.pods.len()).collect();
        let mut left = 1.0;
        loop {
            let weight: u64 = open.iter().map(|number| self.pods[*number].weight).sum();
            let part = |number: usize| left * self.pods[number].weight as f64 / weight as f64;
            let (small, others): (Vec<usize>, Vec<usize>) =
                open.iter().partition(|number| limit(&self.pods[**number]) < part(**number));
            if small.is_empty() {
                open.iter().for_each(|number| parts[*number] = part(*number));
                return parts;
            }
            for number in small {
                parts[number] = limit(&self.pods[number]);
            }
            let taken = |number: &usize| if others.contains(number) { 0.0 } else { parts[*number] };
            left -= open.iter().map(taken).sum::<f64>();
            open = others;
        }
    }
}

fn flood<'scope>(
    scope: &'scope Scope<'scope, '_>,
    [from, to]: [End<'_>; 2],
    bps: u64,
    progress: &'scope Progress,
) -> Option<Bulk<'scope>> {
    let ((ready, bound), address) = (mpsc::channel(), to.address);
    in_netns(scope, to.netns, move || swallow_udp(address, &ready, progress));
    let target = bound.recv_timeout(Duration::from_secs(10)).expect("the sink is bound");
    in_netns(scope, from.netns, move || offer_udp(target, bps, progress));
    None
}

fn received(progress: &Progress) -> u64 {
    progress.received().iter().sum()
}

/// Payload in bit/s of a pod that has been back for 100 ms, in the next 100; each time in the measured seconds.
fn coming_back(progress: &Progress) -> Vec<f64> {
    let end = Instant::now() + Duration::from_secs(SECONDS as u64);
    let mut rates = Vec::new();
    while let Some((rest, _)) = progress.next_start() {
        if Instant::now() + rest + 2 * BACK > end {
            break;
        }
        sleep(rest + BACK);
        let (start, before) = (Instant::now(), received(progress));
        sleep(BACK);
        let span = start.elapsed().as_secs_f64();
        rates.push((received(progress) - before) as f64 * 8.0 / span);
    }
    rates
}

impl Share {
    /// Each pod's mean rate.
    pub fn rates(&self) -> Vec<f64> {
        let pods = 0..self.plan.pods.len();
        let sum = |pod: usize| self.seconds_bps.iter().map(|second| second[pod]).sum::<f64>();
        pods.map(|pod| sum(pod) / self.seconds_bps.len() as f64).collect()
    }

    /// Of the line, in percent.
    pub fn used_percent(&self) -> f64 {
        let uses = |number: &usize| !matches!(self.plan.pods[*number].load, Load::Local(_));
        let rates = self.rates();
        let sum: f64 = (0..rates.len()).filter(uses).map(|number| rates[number]).sum();
        sum * 100.0 / self.plan.line_bps as f64
    }

    /// Jain's index over what pods have for their weight.
    pub fn jain(&self) -> f64 {
        self.jain_of(&self.rates())
    }

    pub fn worst_jain(&self) -> f64 {
        self.seconds_bps.iter().map(|second| self.jain_of(second)).fold(1.0, f64::min)
    }

    fn jain_of(&self, rates: &[f64]) -> f64 {
        let shares: Vec<f64> =
            rates.iter().zip(&self.plan.pods).map(|(rate, pod)| rate / pod.weight as f64).collect();
        let (sum, squares) = shares.iter().fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        sum * sum / (squares * shares.len() as f64)
    }

    /// What each pod has of its part of the whole line; 1 where it has all of it.
    pub fn of_part(&self) -> Vec<f64> {
        let line = self.plan.line_bps as f64;
        self.rates().iter().zip(self.plan.parts()).map(|(rate, part)| rate / line / part).collect()
    }
}

impl fmt::Display for SharePlan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { case, direction, congestion, mtu, .. } = self;
        write!(f, "{case}, {}, {congestion}, MTU {mtu}", direction.name())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { plan, sent, quiet, busy, .. } = self;
        write!(
            f,
            "{} {:<17} {plan:<50} used {:>6.2} % ",
            plan.figure,
            plan.sharing.name(),
            self.used_percent()
        )?;
        write!(
            f,
            "Jain {:.4} worst {:.4} retr {} of {} ",
            self.jain(),
            self.worst_jain(),
            sent.retransmissions,
            sent.segments
        )?;
        for (name, Probed { echo, request }) in [("quiet", quiet), ("busy", busy)] {
            write!(
                f,
                "{name} {:.3}/{:.3} lost {} {:.3}/{:.3} ",
                echo.median_ms, echo.p99_ms, echo.lost, request.median_ms, request.p99_ms
            )?;
        }
        let of_part: Vec<String> = self.of_part().iter().map(|part| format!("{part:.3}")).collect();
        write!(f, "of part {} ", of_part.join(" "))?;
        let back: Vec<String> = self.back.iter().map(|part| format!("{part:.2}")).collect();
        write!(f, "back {}", back.join(" "))
    }
}
