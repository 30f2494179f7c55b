// SPDX-License-Identifier: Apache-2.0
//! From "how many bit/s, and who said so" to the numbers that the BPF
//! programs, fq and the device need. Pure arithmetic; touches nothing.

use std::fmt;

use bpf::{Direction, Mode, NS_PER_BYTE_SHIFT};
use serde::{Deserialize, Serialize};
use settings_model::{Burst, LatencyTarget, Rate};

use crate::netlink::Fq;

/// How far ahead of now a paced packet may be scheduled: the longest queue, in time.
const PACED_HORIZON_NS: u64 = 100_000_000;
/// Without fq nothing is held back, so this much of the rate may pass at once. It is TCP's least
/// retransmission timeout: a flow that lost its whole window is silent for so long, and with less
/// credit that is lost too (measured on 6.18: 45 ms gave TCP a quarter of its rate, this 90 % and
/// more).
const POLICED_HORIZON_NS: u64 = 200_000_000;
/// So much more credit the guard gives than a pod's own shaper.
const GUARD_MARGIN_NS: u64 = 50_000_000;
/// fq drops, uncounted by us, what is stamped further ahead than its own horizon, 10 s if not told. A
/// frame at 1 kbit/s takes 12. So much further than ours, it has nothing to say.
const FQ_HORIZON_MARGIN_NS: u64 = 10_000_000_000;
/// A super-packet is clamped to about this much of the rate.
const GSO_NS: u64 = 1_000_000;
/// A device's own size, unless it was made larger for IPv6 (BIG TCP).
const USUAL_GSO_MAX_SIZE: u32 = 65536;
/// Ethernet header.
const L2_BYTES: u64 = 14;
/// The smallest Ethernet frame that a pod can send; it decides how many fit into the horizon.
const MIN_FRAME_BYTES: u64 = 64;

/// Who set a limit, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    LiveOverride,
    PodAnnotation,
    Class,
    NodeDefault,
}

impl Origin {
    /// As records and labels have it.
    pub fn label(self) -> &'static str {
        match self {
            Self::LiveOverride => "live-override",
            Self::PodAnnotation => "pod-annotation",
            Self::Class => "class",
            Self::NodeDefault => "node-default",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::LiveOverride => "set by hand",
            Self::PodAnnotation => "pod annotation",
            Self::Class => "class",
            Self::NodeDefault => "node default",
        })
    }
}

/// One direction of one pod: the rate, where that came from, and the node's way of queueing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub rate: Rate,
    pub burst: Burst,
    pub origin: Origin,
    pub latency_target: LatencyTarget,
    pub ecn: bool,
}

impl Limit {
    /// What the programs read for this direction of a device with this MTU.
    pub fn for_bpf(&self, mode: Mode, way: Direction, mtu: u32) -> bpf::Limit {
        bpf::Limit {
            ns_per_byte: self.ns_per_byte(),
            burst_ns: self.burst.ns_at(self.rate),
            quantum_ns: self.cost_ns(self.quantum_bytes(way, mtu)),
            horizon_ns: self.horizon_ns(mode),
            target_ns: self.latency_target.ns(),
            mode,
            ecn: self.ecn,
        }
    }

    /// What the guard reads: the same rate, and more credit than the pod's own shaper ever gives,
    /// whether that paces or polices. So it has something to say only where that was got round.
    pub fn for_guard(&self) -> bpf::Limit {
        let burst_ns = self.burst.ns_at(self.rate);
        let shaper_ns = self.horizon_ns(Mode::Paced).max(POLICED_HORIZON_NS) + GUARD_MARGIN_NS;
        bpf::Limit {
            ns_per_byte: self.ns_per_byte(),
            burst_ns,
            quantum_ns: 0,
            horizon_ns: shaper_ns.saturating_add(burst_ns),
            target_ns: 0,
            mode: Mode::Policed,
            ecn: false,
        }
    }

    /// Limits of the fq below: it must hold what the programs admit, else it drops packets that
    /// have been charged. A flow may be a horizon behind the line, and that a horizon long. 10000
    /// is fq's own default, 100000 packets in 200 ms what one veth can carry.
    pub fn for_fq(&self) -> Fq {
        let horizon_ns = self.horizon_ns(Mode::Paced);
        let bytes = self.bytes_in(2 * horizon_ns);
        let packets = (bytes / MIN_FRAME_BYTES).clamp(10_000, 100_000) as u32;
        let horizon_us = (horizon_ns + FQ_HORIZON_MARGIN_NS).div_ceil(1_000) as u32;
        Fq { limit: packets, flow_limit: packets, horizon_us }
    }

    /// Clamp for super-packets: one of 64 KiB at 20 Mbit/s would block the line for 26 ms. A device
    /// that has less keeps that.
    pub fn gso_max_size(&self, mtu: u32) -> u32 {
        let bytes = self.bytes_in(GSO_NS).min(u32::MAX.into()) as u32;
        bytes.max(2 * mtu)
    }

    /// What one flow may send at once: what TCP puts into one packet of the pod; one frame of what
    /// comes from elsewhere, where super-packets depend on the sender and the NIC.
    fn quantum_bytes(&self, way: Direction, mtu: u32) -> u64 {
        let super_packet = self.gso_max_size(mtu).min(USUAL_GSO_MAX_SIZE);
        let bytes = if way == Direction::Egress { super_packet } else { mtu };
        u64::from(bytes) + L2_BYTES
    }

    fn cost_ns(&self, bytes: u64) -> u64 {
        (bytes * self.ns_per_byte()) >> NS_PER_BYTE_SHIFT
    }

    /// Rounded to the nearest; at least 1, for 0 would mean no limit.
    fn ns_per_byte(&self) -> u64 {
        let bits = u128::from(self.rate.bits_per_sec());
        let scaled = (8 * 1_000_000_000u128) << NS_PER_BYTE_SHIFT;
        u64::try_from((scaled + bits / 2) / bits).unwrap_or(u64::MAX).max(1)
    }

    /// At a very low rate one frame is longer than the usual horizon; two must fit.
    fn horizon_ns(&self, mode: Mode) -> u64 {
        let two_frames = self.cost_ns(2 * 1514);
        match mode {
            Mode::Paced => PACED_HORIZON_NS.max(two_frames),
            Mode::Policed => POLICED_HORIZON_NS,
        }
    }

    fn bytes_in(&self, ns: u64) -> u64 {
        (u128::from(self.rate.bits_per_sec()) * u128::from(ns) / 8_000_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(rate: &str) -> Limit {
        let burst = settings_model::Settings::default().bandwidth.burst;
        Limit {
            rate: rate.parse().unwrap(),
            burst,
            origin: Origin::NodeDefault,
            latency_target: "3ms".parse().unwrap(),
            ecn: true,
        }
    }

    fn paced(limit: &Limit) -> bpf::Limit {
        limit.for_bpf(Mode::Paced, Direction::Egress, 1500)
    }

    fn cost_ns(rate: &str, bytes: u64) -> u64 {
        limit(rate).cost_ns(bytes)
    }

    #[test]
    fn cost_is_exact_from_one_kbit_to_400_gbit() {
        assert_eq!(cost_ns("1kbit", 1500), 12_000_000_000);
        assert_eq!(cost_ns("20Mbit", 1500), 600_000);
        assert_eq!(cost_ns("1Gbit", 1500), 12_000);
        // 20000 but for the fixed point's 1e-6.
        assert_eq!(cost_ns("400Gbit", 1_000_000), 19_999);
    }

    #[test]
    fn slowest_rate_and_largest_super_packet_stay_in_64_bits() {
        let ns_per_byte = limit("1kbit").ns_per_byte();
        assert!(ns_per_byte.checked_mul(512 * 1024).is_some());
    }

    #[test]
    fn fastest_rate_is_still_a_limit() {
        assert!(limit("1000000Gbit").ns_per_byte() > 0);
    }

    #[test]
    fn fq_holds_a_horizon_of_the_smallest_frames() {
        let packets = Fq { limit: 39062, flow_limit: 39062, horizon_us: 10_100_000 };
        assert_eq!(limit("100Mbit").for_fq(), packets);
        assert_eq!(limit("1Mbit").for_fq().flow_limit, 10_000);
        assert_eq!(limit("100Gbit").for_fq().flow_limit, 100_000);
    }

    #[test]
    fn super_packets_take_a_millisecond_and_at_least_two_frames() {
        assert_eq!(limit("20Mbit").gso_max_size(1500), 3000);
        assert_eq!(limit("20Mbit").gso_max_size(9001), 18002);
        assert_eq!(limit("100Mbit").gso_max_size(1500), 12500);
        assert_eq!(limit("1Gbit").gso_max_size(1500), 125_000);
    }

    #[test]
    fn fq_has_a_longer_horizon_than_the_slowest_pod() {
        let slow = limit("1kbit");
        let ours_us = paced(&slow).horizon_ns / 1_000;
        assert!(u64::from(slow.for_fq().horizon_us) > ours_us);
    }

    #[test]
    fn programs_are_told_the_latency_target_and_ecn() {
        for mode in [Mode::Paced, Mode::Policed] {
            let told = limit("20Mbit").for_bpf(mode, Direction::Egress, 1500);
            assert_eq!((told.target_ns, told.ecn), (3_000_000, true));
        }
        let without = Limit { ecn: false, ..limit("20Mbit") };
        assert!(!paced(&without).ecn);
    }

    #[test]
    fn guard_gives_more_credit_than_either_way_of_shaping() {
        for rate in ["1kbit", "64kbit", "20Mbit", "10Gbit"] {
            let guard = limit(rate).for_guard();
            for mode in [Mode::Paced, Mode::Policed] {
                let shaper = limit(rate).for_bpf(mode, Direction::Egress, 1500);
                assert_eq!(guard.ns_per_byte, shaper.ns_per_byte);
                assert!(guard.horizon_ns > shaper.horizon_ns + shaper.burst_ns, "{rate}");
            }
        }
        assert_eq!(limit("20Mbit").for_guard().horizon_ns, 255_000_000);
    }

    #[test]
    fn two_frames_fit_into_the_horizon_of_a_slow_pod() {
        assert_eq!(paced(&limit("64kbit")).horizon_ns, 378_500_000);
        assert_eq!(paced(&limit("20Mbit")).horizon_ns, 100_000_000);
    }

    #[test]
    fn quantum_is_a_packet_of_the_pod_or_a_frame_for_it() {
        let quantum_ns = |way, mtu| limit("20Mbit").for_bpf(Mode::Paced, way, mtu).quantum_ns;
        assert_eq!(quantum_ns(Direction::Egress, 1500), 3014 * 400);
        assert_eq!(quantum_ns(Direction::Ingress, 1500), 1514 * 400);
        assert_eq!(quantum_ns(Direction::Ingress, 9001), 9015 * 400);
    }
}
