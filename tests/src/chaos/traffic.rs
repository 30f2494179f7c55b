// SPDX-License-Identifier: Apache-2.0
//! What measured pods and their peers send each other without a break, and what
//! arrives, second by second.

use std::net::IpAddr;
use std::sync::mpsc;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::ledger::{WAYS, Way};
use super::measured::{Flood, Measured};
use super::run::Run;
use crate::flows::{Bulk, End, offer_udp, swallow_udp};
use crate::meter::{in_netns, received_wire_bytes};

const SECOND: Duration = Duration::from_secs(1);
/// A reading that took no longer is good enough.
const QUICK: Duration = Duration::from_millis(1);

/// What the receiving namespace got between two readings of its counters. The time is from before the
/// first to after the second, so that a reader who was held up never makes a rate look higher.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    pub from: Instant,
    pub to: Instant,
    pub bits: u64,
}

struct Reading {
    before: Instant,
    after: Instant,
    bytes: u64,
}

/// Ends all traffic when it goes, however that comes.
pub struct Ends<'a>(pub &'a Run, pub &'a [Measured]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
        self.1.iter().flat_map(|pod| &pod.progress).for_each(|progress| progress.stop());
    }
}

/// Both ways of this pod.
pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, run: &'scope Run, pod: &'scope Measured) {
    for way in WAYS {
        let (progress, seconds) = (&pod.progress[way as usize], &pod.seconds[way as usize]);
        let (from, to) = match way {
            Way::Egress => (&pod.pod, &pod.peer),
            Way::Ingress => (&pod.peer, &pod.pod),
        };
        let (source, sink) = (from.netns(), to.netns());
        let address = IpAddr::V4(to.address);
        in_netns(scope, &sink, move || {
            let mut last = Reading::now();
            while !progress.is_over() {
                thread::sleep((last.after + SECOND).saturating_duration_since(Instant::now()));
                let now = Reading::now();
                seconds.lock().expect("the seconds").push(now.since(&last));
                last = now;
            }
        });
        match pod.floods[way as usize] {
            Flood::Tcp => {
                let from = End { netns: &source, address: IpAddr::V4(from.address) };
                Bulk::start(scope, [from, End { netns: &sink, address }], "cubic", progress);
            }
            Flood::Udp => {
                let (ready, bound) = mpsc::channel();
                in_netns(scope, &sink, move || swallow_udp(address, &ready, progress));
                let target = bound.recv_timeout(10 * SECOND).expect("the sink listens");
                in_netns(scope, &source, move || offer_udp(target, run.pace.offer, progress));
            }
        }
    }
}

impl Reading {
    /// The quickest of a few.
    fn now() -> Self {
        let read = || {
            let (before, bytes) = (Instant::now(), received_wire_bytes());
            Self { before, after: Instant::now(), bytes }
        };
        let mut best = read();
        for _ in 0..4 {
            if best.after.duration_since(best.before) <= QUICK {
                break;
            }
            let next = read();
            if next.after.duration_since(next.before) < best.after.duration_since(best.before) {
                best = next;
            }
        }
        best
    }

    fn since(&self, last: &Self) -> Second {
        Second { from: last.before, to: self.after, bits: (self.bytes - last.bytes) * 8 }
    }
}
