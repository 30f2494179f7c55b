// SPDX-License-Identifier: Apache-2.0
//! P3: what TCP throughput from a pod loses to a limit that it cannot reach, on
//! this machine. Many short rounds take turns, so that what else the machine
//! does meets all set-ups alike; medians of all rounds are compared.

use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use tests::cni::Annotations;
use tests::flows::{Bulk, Progress};
use tests::kernel::has_fq;
use tests::node::{Node, with_node};

use crate::figure::{Bound, Figure};
use crate::packets::UNREACHABLE_BPS;
use crate::setups::Setup;
use crate::site::Site;

const ROUNDS: usize = 25;
const WARM_UP: Duration = Duration::from_millis(150);
const WINDOW: Duration = Duration::from_millis(400);
const SETUPS: [Setup; 3] = [Setup::None, Setup::Sluice, Setup::Upstream];

pub fn measure() -> Figure {
    let mut rounds = Vec::new();
    let mut mode = "";
    with_node(|node| {
        mode = if has_fq() { "paced" } else { "policed" };
        node.boot_with("");
        node.start_agent();
        for number in 0..ROUNDS {
            let mut gbps = [0.0; SETUPS.len()];
            for turn in 0..SETUPS.len() {
                let which = (number + turn) % SETUPS.len();
                gbps[which] = gigabits_per_sec(SETUPS[which], node);
            }
            rounds.push(gbps);
        }
    });
    println!("P3: Gbit/s of {} in each round: {rounds:.1?}", SETUPS.map(Setup::name).join(", "));
    let middle = |which: usize| median(rounds.iter().map(|round| round[which]));
    let loss = |which: usize| (1.0 - middle(which) / middle(0)) * 100.0;
    let figure = Figure::new("P3", "TCP throughput lost to an unreachable limit", "%");
    let figure = figure.judge(loss(1), Bound::AtMost, [6.0, 3.0]).detail(mode);
    let figure = figure.peer("upstream, % lost", loss(2));
    SETUPS.iter().enumerate().fold(figure, |figure, (which, setup)| {
        figure.peer(format!("{}, Gbit/s", setup.name()), middle(which))
    })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn gigabits_per_sec(setup: Setup, node: &Node) -> f64 {
    let site = Site::make(node);
    setup.apply(&site, Annotations { egress: UNREACHABLE_BPS, ingress: UNREACHABLE_BPS });
    let progress = &Progress::new(1);
    let rate = thread::scope(|scope| {
        let bulk = Bulk::start(scope, [site.pod.v4(), site.remote.v4()], "cubic", progress);
        sleep(WARM_UP);
        let (start, before) = (Instant::now(), progress.received()[0]);
        sleep(WINDOW);
        let bits = (progress.received()[0] - before) as f64 * 8.0;
        let rate = bits / start.elapsed().as_nanos() as f64;
        progress.stop();
        bulk.finish();
        rate
    });
    setup.remove(&site);
    rate
}
