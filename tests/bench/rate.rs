// SPDX-License-Identifier: Apache-2.0
//! How exactly a limit is kept: one transfer, measured on the wire at the
//! receiver in each second, the first one included.

use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tests::cni::Annotations;
use tests::flows::{Bulk, End, Progress, offer_udp, swallow_udp};
use tests::meter::in_netns;
use tests::node::Node;
use tests::wire;

use crate::row::Direction;
use crate::setups::Setup;
use crate::site::Site;

/// The first, in which TCP starts and a burst shows, and ten that count.
pub const SECONDS: u32 = 11;
/// Of Ethernet.
const HEADER: u32 = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    PodToRemote,
    RemoteToPod,
    /// From a pod with twice the rate to one with the rate.
    PodToPod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    /// Offered at twice the rate.
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatePlan {
    pub setup: Setup,
    pub path: Path,
    pub protocol: Protocol,
    pub ipv6: bool,
    pub rate_bps: u64,
    pub mtu: u32,
    pub senders: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rate {
    pub plan: RatePlan,
    /// Bit/s of L2 frames in each second.
    pub seconds_bps: Vec<f64>,
}

impl RatePlan {
    pub fn run(&self, node: &Node) -> Rate {
        let site = Site::make(node, self.mtu);
        self.limit(&site);
        let seconds_bps = self.measure(&site);
        self.setup.remove(&site);
        if self.path == Path::PodToPod {
            node.del(&site.remote.pod);
        }
        Rate { plan: *self, seconds_bps }
    }

    fn limit(&self, site: &Site) {
        match self.path {
            Path::PodToRemote => self.setup.apply(site, Direction::Egress.limit(self.rate_bps)),
            Path::RemoteToPod => self.setup.apply(site, Direction::Ingress.limit(self.rate_bps)),
            Path::PodToPod => {
                self.setup.apply(site, Direction::Egress.limit(2 * self.rate_bps));
                let receiver = Annotations { egress: 0, ingress: self.rate_bps };
                site.node.add(&site.remote.pod, receiver);
            }
        }
    }

    fn measure(&self, site: &Site) -> Vec<f64> {
        let [pod, remote] = [&site.pod, &site.remote].map(|host| match self.ipv6 {
            true => host.v6(),
            false => host.v4(),
        });
        let direction = match self.path {
            Path::RemoteToPod => Direction::Ingress,
            _ => Direction::Egress,
        };
        let ends = direction.ends(pod, remote);
        match self.protocol {
            Protocol::Tcp => self.measure_tcp(ends),
            Protocol::Udp => self.measure_udp(ends),
        }
    }

    fn measure_tcp(&self, ends: [End<'_>; 2]) -> Vec<f64> {
        let progress = &Progress::new(self.senders);
        thread::scope(|scope| {
            let meter = in_netns(scope, ends[1].netns, || wire::rates(SECONDS));
            let bulk = Bulk::start(scope, ends, "cubic", progress);
            let rates = meter.join().expect("the meter");
            progress.stop();
            bulk.finish();
            rates
        })
    }

    fn measure_udp(&self, [from, to]: [End<'_>; 2]) -> Vec<f64> {
        let progress = &Progress::new(0);
        let offer = 2 * self.rate_bps / self.senders as u64;
        thread::scope(|scope| {
            let (ready, bound) = mpsc::channel();
            in_netns(scope, to.netns, move || swallow_udp(to.address, &ready, progress));
            let target = bound.recv_timeout(Duration::from_secs(10)).expect("the sink is bound");
            let meter = in_netns(scope, to.netns, || wire::rates(SECONDS));
            for _ in 0..self.senders {
                in_netns(scope, from.netns, move || offer_udp(target, offer, progress));
            }
            let rates = meter.join().expect("the meter");
            progress.stop();
            rates
        })
    }
}

impl Rate {
    /// How far the mean of all seconds but the first is off, in percent.
    pub fn error_percent(&self) -> f64 {
        let steady = &self.seconds_bps[1..];
        self.percent(steady.iter().sum::<f64>() / steady.len() as f64)
    }

    /// How far the median second is off, in percent: no matter that a guest whose time is this
    /// machine's is left without a processor in one or another.
    pub fn median_error_percent(&self) -> f64 {
        let mut seconds = self.seconds_bps[1..].to_vec();
        seconds.sort_by(f64::total_cmp);
        self.percent(seconds[seconds.len() / 2])
    }

    /// How far that second is off which is off most, of all but the first.
    pub fn worst_second_percent(&self) -> f64 {
        let frame = self.frame() * 100.0;
        let errors = self.seconds_bps[1..].iter().map(|rate| self.percent(*rate).abs() - frame);
        errors.fold(0.0, f64::max)
    }

    /// The first second, as a multiple of the limit, less one frame where it is above.
    pub fn first_second(&self) -> f64 {
        let first = self.seconds_bps[0] / self.plan.rate_bps as f64;
        if first > 1.0 { (first - self.frame()).max(1.0) } else { first }
    }

    /// A frame that falls to one or the other side of a second's edge is no error: this share of
    /// the limit, 1.2 % at 1 Mbit/s, and 7.2 % with MTU 9001.
    fn frame(&self) -> f64 {
        f64::from((self.plan.mtu + HEADER) * 8) / self.plan.rate_bps as f64
    }

    fn percent(&self, rate: f64) -> f64 {
        (rate / self.plan.rate_bps as f64 - 1.0) * 100.0
    }
}

impl fmt::Display for RatePlan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let path = match self.path {
            Path::PodToRemote => "pod to remote",
            Path::RemoteToPod => "remote to pod",
            Path::PodToPod => "pod to pod",
        };
        let version = if self.ipv6 { 6 } else { 4 };
        let mbit = self.rate_bps / 1_000_000;
        write!(f, "{protocol} over IPv{version} {path}, MTU {}, {mbit} Mbit/s", self.mtu)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (setup, plan) = (self.plan.setup.name(), self.plan.to_string());
        write!(f, "{setup:<13} {plan:<52} error {:>6.3} %, ", self.error_percent())?;
        write!(f, "worst second {:>6.3} %, ", self.worst_second_percent())?;
        write!(f, "first second {:.3} x the limit", self.first_second())
    }
}
