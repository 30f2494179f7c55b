// SPDX-License-Identifier: Apache-2.0
//! One row of the comparison under load: bulk TCP flows against a pod's limit
//! in one direction, and meanwhile round trips from the same pod.

use std::fmt;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tests::cni::Annotations;
use tests::flows::{Bulk, End, Progress, Sent};
use tests::meter::in_netns;
use tests::node::Node;
use tests::probes::{Probed, Servers};

use crate::setups::Setup;
use crate::site::Site;

/// Until TCP has found its rate.
const WARM_UP: Duration = Duration::from_secs(3);
const PROBES_PER_SEC: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    Egress,
    Ingress,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }

    /// This rate in this direction, none in the other.
    pub fn limit(self, rate: u64) -> Annotations {
        match self {
            Self::Egress => Annotations { egress: rate, ingress: 0 },
            Self::Ingress => Annotations { egress: 0, ingress: rate },
        }
    }

    /// From and to.
    pub fn ends<'a>(self, pod: End<'a>, remote: End<'a>) -> [End<'a>; 2] {
        match self {
            Self::Egress => [pod, remote],
            Self::Ingress => [remote, pod],
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RowPlan {
    pub setup: Setup,
    pub direction: Direction,
    pub flows: usize,
    pub congestion: String,
    pub rate_bps: u64,
    pub mtu: u32,
    /// Of measurement, after the warm-up.
    pub seconds: usize,
}

/// Flows' rates are payload in the measured seconds; segments are those of the whole transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub plan: RowPlan,
    pub flows_mbps: Vec<f64>,
    pub sent: Sent,
    pub probed: Probed,
}

impl RowPlan {
    /// As tables list rows.
    pub fn order(&self) -> (u32, Direction, bool, usize, Setup) {
        (self.mtu, self.direction, self.congestion == "bbr", self.flows, self.setup)
    }

    pub fn run(&self, node: &Node) -> Row {
        let site = Site::make(node, self.mtu);
        self.setup.apply(&site, self.direction.limit(self.rate_bps));
        let row = self.measure(&site);
        self.setup.remove(&site);
        row
    }

    fn measure(&self, site: &Site) -> Row {
        let progress = &Progress::new(self.flows);
        let (pod, remote) = (site.pod.v4(), site.remote.v4());
        thread::scope(|scope| {
            let servers = Servers::start(scope, remote, progress);
            let bulk =
                Bulk::start(scope, self.direction.ends(pod, remote), &self.congestion, progress);
            sleep(WARM_UP);
            let count = self.seconds * PROBES_PER_SEC;
            let probes = in_netns(scope, pod.netns, move || servers.ask(count));
            let flows_mbps = rates_over(progress, self.seconds);
            let probed = probes.join().expect("the probes");
            progress.stop();
            let sent = sum(&bulk.finish());
            Row { plan: self.clone(), flows_mbps, sent, probed }
        })
    }
}

/// Each flow's Mbit/s of payload in the next seconds.
fn rates_over(progress: &Progress, seconds: usize) -> Vec<f64> {
    let (start, before) = (Instant::now(), progress.received());
    sleep(Duration::from_secs(seconds as u64));
    let (micros, after) = (start.elapsed().as_secs_f64() * 1e6, progress.received());
    before.iter().zip(after).map(|(before, after)| (after - before) as f64 * 8.0 / micros).collect()
}

fn sum(sent: &[Sent]) -> Sent {
    let of = |part: fn(&Sent) -> u64| sent.iter().map(part).sum();
    Sent { segments: of(|s| s.segments), retransmissions: of(|s| s.retransmissions) }
}

impl fmt::Display for RowPlan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (direction, rate) = (self.direction.name(), self.rate_bps / 1_000_000);
        write!(f, "{direction}, {} flows of {}, MTU {}, ", self.flows, self.congestion, self.mtu)?;
        write!(f, "{rate} Mbit/s")
    }
}

impl Row {
    pub fn goodput_mbps(&self) -> f64 {
        self.flows_mbps.iter().fold(0.0, |sum, rate| sum + rate)
    }

    pub fn slowest_and_fastest(&self) -> [f64; 2] {
        let rates = || self.flows_mbps.iter().copied();
        [rates().reduce(f64::min), rates().reduce(f64::max)].map(Option::unwrap_or_default)
    }

    /// Jain's index of fairness: 1 when all flows get the same.
    pub fn jain(&self) -> f64 {
        if self.flows_mbps.is_empty() {
            return 1.0;
        }
        let squares: f64 = self.flows_mbps.iter().map(|rate| rate * rate).sum();
        let sum = self.goodput_mbps();
        sum * sum / (squares * self.flows_mbps.len() as f64)
    }

    pub fn head() -> String {
        format!(
            "{:<13} {:<9} {:>2} {:<5} {:>7} {:>6} {:>6} {:>7} {:>7} {:>6}  {:>23}  {:>16}",
            "set-up",
            "direction",
            "n",
            "cc",
            "goodput",
            "retr",
            "segs",
            "slowest",
            "fastest",
            "Jain",
            "echo median/p99 ms lost",
            "rr median/p99 ms",
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { plan, sent, probed: Probed { echo, request }, .. } = self;
        let (setup, direction, cc) = (plan.setup.name(), plan.direction.name(), &plan.congestion);
        let [slowest, fastest] = self.slowest_and_fastest();
        write!(f, "{setup:<13} {direction:<9} {:>2} {cc:<5} ", plan.flows)?;
        write!(f, "{:>7.3} {:>6} ", self.goodput_mbps(), sent.retransmissions)?;
        write!(f, "{:>6} {slowest:>7.3} {fastest:>7.3} {:>6.4}  ", sent.segments, self.jain())?;
        write!(f, "{:>8.3} {:>9.3} {:>4}  ", echo.median_ms, echo.p99_ms, echo.lost)?;
        write!(f, "{:>7.3} {:>8.3}", request.median_ms, request.p99_ms)?;
        if request.asked < echo.asked || request.lost > 0 {
            write!(f, " ({} asked, {} unanswered)", request.asked, request.lost)?;
        }
        Ok(())
    }
}
