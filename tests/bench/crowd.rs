// SPDX-License-Identifier: Apache-2.0
//! P8: many flows at once. A flood of UDP, four times the limit by so many
//! sockets in turn, and meanwhile echoes, each a new flow; then, after a rest, the
//! first second of one flow. All that was charged has arrived or is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tests::command::{ip, json};
use tests::flows::{End, Progress, offer_udp, swallow_udp, udp_socket};
use tests::meter::in_netns;
use tests::node::Node;
use tests::probes::{RoundTrips, Servers};
use tests::wire;

use crate::figure::{Bound, Figure};
use crate::row::Direction;
use crate::setups::Setup;
use crate::site::Site;

const ECHOES: usize = 250;
/// The queue of one second and what that is worth after it.
const SETTLED: Duration = Duration::from_secs(3);
/// Long after the flood; a guest whose time is counted does not wait for it.
const REST: Duration = Duration::from_secs(60);
/// IPv4 and UDP.
const HEADERS: u32 = 20 + 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CrowdPlan {
    pub direction: Direction,
    pub mtu: u32,
    pub flows: usize,
    pub setup: Setup,
    pub rate_bps: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Crowd {
    pub plan: CrowdPlan,
    /// Of L2 frames, in each second of the flood but the first.
    pub goodput_mbps: f64,
    pub echo: RoundTrips,
    /// Packets that the limit charged, less those that arrived and those that fq says it dropped.
    pub missing_packets: i64,
    /// Of one flow after the rest, as a multiple of the limit.
    pub first_second: f64,
}

impl CrowdPlan {
    pub fn run(&self, node: &Node) -> Crowd {
        let site = Site::make(node, self.mtu);
        self.setup.apply(&site, self.direction.limit(self.rate_bps));
        let before = self.passed(&site);
        let (goodput_mbps, echo) = self.flood(&site);
        sleep(SETTLED);
        let missing_packets = self.passed(&site) - before;
        sleep(REST);
        let first_second = self.first_second(&site) / self.rate_bps as f64;
        self.setup.remove(&site);
        Crowd { plan: *self, goodput_mbps, echo, missing_packets, first_second }
    }

    fn ends<'a>(&self, site: &'a Site) -> [End<'a>; 2] {
        self.direction.ends(site.pod.v4(), site.remote.v4())
    }

    fn flood(&self, site: &Site) -> (f64, RoundTrips) {
        let [from, to] = self.ends(site);
        let progress = &Progress::new(0);
        thread::scope(|scope| {
            let servers = Servers::start_echo(scope, to, progress);
            let (ready, bound) = mpsc::channel();
            in_netns(scope, to.netns, move || swallow_udp(to.address, &ready, progress));
            let target = bound.recv_timeout(Duration::from_secs(10)).expect("the sink is bound");
            let meter = in_netns(scope, to.netns, || wire::rates(6));
            in_netns(scope, from.netns, move || self.send_in_turn(target, progress));
            sleep(Duration::from_millis(1500));
            let echo = in_netns(scope, from.netns, move || servers.ask_by_new_flows(ECHOES));
            let echo = echo.join().expect("the echo client");
            let rates = meter.join().expect("the meter");
            progress.stop();
            (rates[1..].iter().sum::<f64>() / (rates.len() - 1) as f64 / 1e6, echo)
        })
    }

    fn send_in_turn(&self, target: SocketAddr, progress: &Progress) {
        let sockets: Vec<_> = (0..self.flows).map(|_| udp_socket(target)).collect();
        let payload = vec![0; (self.mtu - HEADERS) as usize];
        let (start, bits) = (Instant::now(), u64::from(self.mtu + 14) * 8);
        let mut sent = 0;
        while !progress.is_over() {
            let due = start.elapsed().as_secs_f64() * 4.0 * self.rate_bps as f64 / bits as f64;
            while sent < due as usize {
                // A drop at the shaper is reported as ENOBUFS now and then; it is part of the offer.
                let _ = sockets[sent % self.flows].send(&payload);
                sent += 1;
            }
            sleep(Duration::from_millis(1));
        }
    }

    fn first_second(&self, site: &Site) -> f64 {
        let [from, to] = self.ends(site);
        let (progress, offer) = (&Progress::new(0), 2 * self.rate_bps);
        thread::scope(|scope| {
            let (ready, bound) = mpsc::channel();
            in_netns(scope, to.netns, move || swallow_udp(to.address, &ready, progress));
            let target = bound.recv_timeout(Duration::from_secs(10)).expect("the sink is bound");
            let meter = in_netns(scope, to.netns, || wire::rates(1));
            in_netns(scope, from.netns, move || offer_udp(target, offer, progress));
            let rates = meter.join().expect("the meter");
            progress.stop();
            rates[0]
        })
    }

    /// Packets charged, less those that came out at the other end of the veth or were dropped by fq. The
    /// two are read one after the other; a router's advertisement may fall in between.
    fn passed(&self, site: &Site) -> i64 {
        if self.setup != Setup::Sluice {
            return 0;
        }
        let pod = &site.pod.pod;
        let link = match self.direction {
            Direction::Ingress => ip(&format!("-n {} -s -j link show eth0", pod.name)),
            Direction::Egress => ip(&format!("-s -j link show {}", pod.host_ifname)),
        };
        let arrived = json(&link)[0]["stats64"]["rx"]["packets"].as_i64().expect("a number");
        let line = &site.node.status(pod)[self.direction.name()];
        let dropped = line["fq_dropped_packets"].as_i64().unwrap_or(0);
        line["sent_packets"].as_i64().expect("a number") - arrived - dropped
    }
}

/// Sluice's worst cases against the peers' same ones.
pub fn figures(crowds: &[Crowd]) -> Vec<Figure> {
    let own = || crowds.iter().filter(|crowd| crowd.plan.setup == Setup::Sluice);
    let same = |of: &Crowd| -> BTreeMap<Setup, Crowd> {
        let is_same = |c: &&Crowd| CrowdPlan { setup: of.plan.setup, ..c.plan } == of.plan;
        crowds.iter().filter(is_same).map(|c| (c.plan.setup, c.clone())).collect()
    };
    // CAKE lets hundreds of Mbit/s pass for a while when it drops a lot: that is no measure.
    let kept = |c: &Crowd| c.goodput_mbps.min(c.plan.rate_bps as f64 / 1e6);
    let best = |of: &Crowd| same(of).values().map(kept).fold(0.0, f64::max);
    let cake = |of: &Crowd| same(of).remove(&Setup::Cake).map(|c| c.echo).unwrap_or_default();
    let worst = |id, name: &str, unit, value: &dyn Fn(&Crowd) -> f64, bound, bounds| {
        let order = |crowd: &&Crowd| match bound {
            Bound::AtMost => value(crowd),
            Bound::AtLeast => -value(crowd),
        };
        let worst = own().max_by(|a, b| order(a).total_cmp(&order(b))).expect("a row of Sluice");
        Figure::new(id, name, unit)
            .judge(value(worst), bound, bounds)
            .detail(worst.plan.to_string())
    };
    let goodput = |c: &Crowd| c.goodput_mbps * 100.0 / best(c);
    let above = |c: &Crowd| c.echo.median_ms - cake(c).median_ms;
    let above_p99 = |c: &Crowd| c.echo.p99_ms - cake(c).p99_ms;
    let off = |c: &Crowd| (c.first_second - 1.0).abs() * 100.0;
    let missing = |c: &Crowd| c.missing_packets.unsigned_abs() as f64;
    let (most, least) = (Bound::AtMost, Bound::AtLeast);
    vec![
        worst(
            "P8-goodput",
            "many flows: goodput against the best peer's",
            "%",
            &goodput,
            least,
            [97.0, 99.0],
        ),
        worst(
            "P8-median",
            "many flows: echo of a new flow, median above CAKE's",
            "ms",
            &above,
            most,
            [0.05, 0.0],
        ),
        worst(
            "P8-p99",
            "many flows: echo of a new flow, p99 above CAKE's",
            "ms",
            &above_p99,
            most,
            [0.0, 0.0],
        ),
        worst(
            "P8-missing",
            "many flows: packets charged, not arrived, not counted",
            "",
            &missing,
            most,
            [2.0, 0.0],
        ),
        worst(
            "P8-second",
            "first second of one flow a minute later, off",
            "%",
            &off,
            most,
            [5.0, 2.0],
        ),
    ]
}

impl fmt::Display for CrowdPlan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { direction, mtu, flows, rate_bps, .. } = self;
        let (direction, mbit) = (direction.name(), rate_bps / 1_000_000);
        write!(f, "{direction}, {flows} flows, MTU {mtu}, {mbit} Mbit/s")
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { plan, goodput_mbps, echo, missing_packets, first_second } = self;
        write!(f, "{:<13} {plan:<44} goodput {goodput_mbps:>7.3} ", plan.setup.name())?;
        write!(f, "echo {:>8.3} p99 {:>8.3} lost {}", echo.median_ms, echo.p99_ms, echo.lost)?;
        write!(f, ", {missing_packets} missing, first second {first_second:.3} x the limit")
    }
}
