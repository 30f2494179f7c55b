// SPDX-License-Identifier: Apache-2.0
//! Whether a pod's limit applies, by traffic: UDP at twice the limit from the pod
//! or to it, measured where it arrives.

use std::time::Duration;

use crate::meter::{Protocol, Transfer};
use crate::node::Pod;

/// A pod that has the same limit in both directions, and a peer to talk to.
#[derive(Clone, Copy)]
pub struct Flood<'a> {
    pub pod: &'a Pod,
    pub remote: &'a Pod,
    pub limit_bps: u64,
}

/// As the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Egress,
    Ingress,
}

pub const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

impl Flood<'_> {
    /// What arrives in each second, in bit/s on the wire, while something is done.
    pub fn seconds_while(
        &self,
        direction: Direction,
        seconds: usize,
        meanwhile: impl FnOnce(),
    ) -> Vec<u64> {
        let (from, to) = match direction {
            Direction::Egress => (self.pod, self.remote),
            Direction::Ingress => (self.remote, self.pod),
        };
        let (inside, outside) = (from.netns(), to.netns());
        let protocol = Protocol::Udp(2 * self.limit_bps);
        let transfer = Transfer { from: &inside, to: &outside, address: to.address, protocol };
        let rates = transfer.seconds_while(seconds, meanwhile);
        println!("{direction:?}, limit {}: {rates:?}", self.limit_bps);
        rates
    }

    /// Both directions, but for the credit of the first second: never 2 % more on the whole, and not much
    /// less, which on a busy machine is the sender's. Single seconds are judged in the guests.
    pub fn assert_limit_holds(&self) {
        for direction in DIRECTIONS {
            let rates = self.seconds_while(direction, 3, || ());
            let mean = rates[1..].iter().sum::<u64>() / (rates.len() as u64 - 1);
            let range = self.limit_bps * 85 / 100..=self.limit_bps * 102 / 100;
            assert!(range.contains(&mean), "{direction:?}: {rates:?}");
        }
    }

    pub fn is_limit(&self, rate: u64) -> bool {
        rate.abs_diff(self.limit_bps) <= self.limit_bps / 20
    }

    /// For how long nothing at all can have limited this: twice the limit was offered, so what is
    /// above it took its time. A policer's credit of 200 ms counts in it.
    pub fn time_without_limit(&self, rates: &[u64]) -> Duration {
        let excess: u64 = rates.iter().map(|rate| rate.saturating_sub(self.limit_bps)).sum();
        Duration::from_secs_f64(excess as f64 / self.limit_bps as f64)
    }
}
