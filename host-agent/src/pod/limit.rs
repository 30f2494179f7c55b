// SPDX-License-Identifier: Apache-2.0
//! From "how many bit/s, and where from" to the numbers that the BPF
//! programs, fq and the device need. Pure arithmetic; touches nothing.

use std::fmt;

use bpf::{Mode, NS_PER_BYTE_SHIFT};
use serde::{Deserialize, Serialize};
use settings_model::{Bandwidth, Burst, GuardPlace, LatencyTarget, Limit as Choice, Rate, Weight};

use crate::netlink::Fq;
use crate::pod::direction::Direction;

/// How far ahead of now a paced packet may be scheduled: the longest queue, in time.
const PACED_HORIZON_NS: u64 = 100_000_000;
/// Without fq nothing waits, so this much of the rate may pass at once. It is TCP's least
/// retransmission timeout: a flow that lost its whole window is silent for so long, and with less
/// credit that is lost too (measured on 6.18: 45 ms gave TCP a quarter of its rate, this 90 % and
/// more).
const POLICED_HORIZON_NS: u64 = 200_000_000;
/// fq drops, uncounted by us, what is stamped further ahead than its own horizon, 10 s by default. A
/// frame at 1 kbit/s takes 12. So much further than ours, it has nothing to say.
const FQ_HORIZON_MARGIN_NS: u64 = 10_000_000_000;
/// A super-packet is clamped to about this much of the rate.
const GSO_NS: u64 = 1_000_000;
/// Of what a node's line carries in that time a pod's super-packet is at most this part: with many pods each
/// has a small part, and what else the pod sends waits behind it.
const GSO_PARTS: u64 = 8;
/// A device's own size, unless it was made larger for IPv6 (BIG TCP).
const USUAL_GSO_MAX_SIZE: u32 = 65536;
/// The least that a device of a pod has.
const MTU: u32 = 1500;
/// Ethernet header.
const L2_BYTES: u64 = 14;
/// The smallest frame that carries anything over IP; it decides how many fit into the queue.
const MIN_FRAME_BYTES: u64 = 14 + 20 + 8;
/// What may be queued above the horizon, in quanta of each flow of a crowd, in time and in bytes:
/// pacing.h's SLUICE_STANDING, SLUICE_CROWD, SLUICE_STANDING_NS and SLUICE_STANDING_BYTES_LOG2. For a flow
/// that has nothing queued there is a part more, SLUICE_LAST_ROOM.
const STANDING: u64 = 6;
const CROWD: u64 = 64;
const STANDING_NS: u64 = 1_000_000_000;
const STANDING_BYTES: u64 = 1 << 24;
const LAST_ROOM: u64 = 4;
/// Above the queue there may be what left early, some put-off departures and a super-packet.
const FQ_MARGIN_NS: u64 = 100_000_000;

/// What set a limit, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    LiveOverride,
    PodAnnotation,
    Class,
    NodeDefault,
    /// Nothing limits it but what the node can do.
    NodeShare,
}

impl Origin {
    /// As records and labels have it.
    pub fn label(self) -> &'static str {
        match self {
            Self::LiveOverride => "live-override",
            Self::PodAnnotation => "pod-annotation",
            Self::Class => "class",
            Self::NodeDefault => "node-default",
            Self::NodeShare => "node-share",
        }
    }
}

impl Origin {
    /// One word, for a column.
    pub fn word(self) -> &'static str {
        match self {
            Self::LiveOverride => "override",
            Self::PodAnnotation => "annotation",
            Self::Class => "class",
            Self::NodeDefault => "default",
            Self::NodeShare => "share",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::LiveOverride => "override",
            Self::PodAnnotation => "pod annotation",
            Self::Class => "class",
            Self::NodeDefault => "node default",
            Self::NodeShare => "node share",
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
    /// What was asked for, where a maximum has lowered it.
    pub asked: Option<Choice>,
    /// The burst that was asked for, where a maximum has lowered it.
    pub asked_burst: Option<Burst>,
    /// Where its guard may be without tcx.
    pub guard: GuardPlace,
    /// Of the node's line, where pods share that.
    pub part: Option<Part>,
}

/// A pod's part of the node's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub weight: Weight,
    /// Of the node, in the limit's direction.
    pub capacity: Rate,
    /// What the pod has at least of that.
    pub floor: Option<Floor>,
}

/// What a pod is promised of the node's line, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    pub rate: Rate,
    pub origin: Origin,
}

impl Limit {
    /// The node's own line: what it can do, and what it owes nobody.
    pub fn of_node(capacity: Rate, bandwidth: &Bandwidth) -> Self {
        Self {
            rate: capacity,
            burst: bandwidth.burst,
            origin: Origin::NodeShare,
            latency_target: bandwidth.latency_target,
            ecn: bandwidth.ecn,
            asked: None,
            asked_burst: None,
            guard: bandwidth.guard,
            part: None,
        }
    }

    /// What the programs read for this direction of a device with this MTU.
    pub fn for_bpf(&self, mode: Mode, direction: Direction, mtu: u32) -> bpf::Limit {
        bpf::Limit {
            ns_per_byte: ns_per_byte(self.pace()),
            burst_ns: self.burst.ns_at(self.pace()),
            quantum_ns: self.cost_ns(self.quantum_bytes(direction, mtu)),
            horizon_ns: self.horizon_ns(mode, mtu),
            target_ns: self.latency_target.ns(),
            mode,
            ecn: self.ecn,
            weight: self.part.map_or(0, |part| part.weight.value().into()),
            node_only: self.part.is_some() && self.origin == Origin::NodeShare,
            floor_ns_per_byte: self
                .part
                .and_then(|part| part.floor)
                .map_or(0, |floor| ns_per_byte(floor.rate)),
        }
    }

    /// Limits of the fq below: it must hold what the programs admit, else it drops packets that
    /// have been charged. 10000 is fq's own default, 500000 packets in a tenth of a second more than
    /// one veth can carry.
    pub fn for_fq(&self, direction: Direction, mtu: u32) -> Fq {
        let queue_ns = self.queue_ns(direction, mtu);
        let bytes = self.bytes_in(queue_ns + FQ_MARGIN_NS);
        let packets = (bytes / MIN_FRAME_BYTES).clamp(10_000, 500_000) as u32;
        let horizon_us = (queue_ns + FQ_HORIZON_MARGIN_NS).div_ceil(1_000);
        let horizon_us = u32::try_from(horizon_us).unwrap_or(u32::MAX);
        Fq { limit: packets, flow_limit: packets, horizon_us }
    }

    /// The longest queue that the programs keep, in time (pacing.h, sluice_queue_ns and sluice_room_ns).
    fn queue_ns(&self, direction: Direction, mtu: u32) -> u64 {
        let quanta_ns = STANDING * CROWD * self.cost_ns(self.quantum_bytes(direction, mtu));
        let standing_ns = quanta_ns.min(STANDING_NS).min(self.cost_ns(STANDING_BYTES));
        let queue_ns = self.horizon_ns(Mode::Paced, mtu).max(standing_ns);
        queue_ns.saturating_add(queue_ns / LAST_ROOM)
    }

    /// Clamp for super-packets: one of 64 KiB at 20 Mbit/s would block the line for 26 ms. A device
    /// that has less keeps that.
    pub fn gso_max_size(&self, mtu: u32) -> u32 {
        let bytes = self.bytes_in(GSO_NS);
        let of_line = |part: Part| bytes_in(part.capacity, GSO_NS) / GSO_PARTS;
        let bytes = self.part.map_or(bytes, |part| bytes.min(of_line(part)));
        (bytes.min(u32::MAX.into()) as u32).max(2 * mtu)
    }

    /// What one flow may send at once: what TCP puts into one packet of the pod; one frame of what
    /// comes from elsewhere, where super-packets depend on the sender and the NIC.
    fn quantum_bytes(&self, direction: Direction, mtu: u32) -> u64 {
        let super_packet = self.gso_max_size(mtu).min(USUAL_GSO_MAX_SIZE);
        let bytes = if direction == Direction::Egress { super_packet } else { mtu };
        u64::from(bytes) + L2_BYTES
    }

    fn cost_ns(&self, bytes: u64) -> u64 {
        ((u128::from(bytes) * u128::from(ns_per_byte(self.pace()))) >> NS_PER_BYTE_SHIFT) as u64
    }

    /// What is faster than the node is as fast as that: or its super-packets would be too large.
    fn pace(&self) -> Rate {
        self.part.map_or(self.rate, |part| part.capacity.min(self.rate))
    }

    /// At a very low rate one frame is longer than the usual horizon; two must fit.
    fn horizon_ns(&self, mode: Mode, mtu: u32) -> u64 {
        let frame = u64::from(mtu.max(MTU)) + L2_BYTES;
        match mode {
            Mode::Paced => PACED_HORIZON_NS.max(self.cost_ns(2 * frame)),
            Mode::Policed => POLICED_HORIZON_NS,
        }
    }

    fn bytes_in(&self, ns: u64) -> u64 {
        bytes_in(self.pace(), ns)
    }
}

fn bytes_in(rate: Rate, ns: u64) -> u64 {
    (u128::from(rate.bits_per_sec()) * u128::from(ns) / 8_000_000_000) as u64
}

/// Rounded to the nearest; at least 1, for 0 would mean no limit.
pub fn ns_per_byte(rate: Rate) -> u64 {
    let bits = u128::from(rate.bits_per_sec());
    let scaled = (8 * 1_000_000_000u128) << NS_PER_BYTE_SHIFT;
    u64::try_from((scaled + bits / 2) / bits).unwrap_or(u64::MAX).max(1)
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
            asked: None,
            asked_burst: None,
            guard: GuardPlace::default(),
            part: None,
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
        let ns_per_byte = ns_per_byte("1kbit".parse().unwrap());
        assert!(ns_per_byte.checked_mul(512 * 1024).is_some());
    }

    #[test]
    fn fastest_rate_is_still_a_limit() {
        assert!(ns_per_byte("1000000Gbit".parse().unwrap()) > 0);
    }

    #[test]
    fn fq_holds_the_longest_queue_of_the_smallest_frames() {
        let fq = |rate: &str, direction| limit(rate).for_fq(direction, 1500);
        let packets = Fq { limit: 66_964, flow_limit: 66_964, horizon_us: 10_125_000 };
        assert_eq!(fq("100Mbit", Direction::Ingress), packets);
        let packets = Fq { limit: 172_779, flow_limit: 172_779, horizon_us: 10_480_538 };
        assert_eq!(fq("100Mbit", Direction::Egress), packets);
        assert_eq!(fq("1Mbit", Direction::Ingress).flow_limit, 10_000);
        assert_eq!(fq("100Gbit", Direction::Ingress).flow_limit, 500_000);
    }

    #[test]
    fn fq_has_room_for_the_longest_queue_of_all_that_a_veth_can_carry() {
        const MOST_PER_SEC: u64 = 4_000_000;
        for rate in ["64kbit", "1Mbit", "20Mbit", "100Mbit", "1Gbit", "10Gbit", "100Gbit"] {
            for (direction, mtu) in [(Direction::Egress, 1500), (Direction::Ingress, 9001)] {
                let limit = limit(rate);
                let (fq, queue_ns) = (limit.for_fq(direction, mtu), limit.queue_ns(direction, mtu));
                let packets = limit.bytes_in(queue_ns) / MIN_FRAME_BYTES;
                let room = u64::from(fq.limit.min(fq.flow_limit));
                let per_sec = limit.bytes_in(1_000_000_000) / MIN_FRAME_BYTES;
                assert!(
                    room >= packets || per_sec > MOST_PER_SEC,
                    "{rate} {direction:?}: {packets}"
                );
                assert!(u64::from(fq.horizon_us) * 1_000 >= queue_ns + FQ_HORIZON_MARGIN_NS);
            }
        }
    }

    #[test]
    fn standing_queue_is_that_of_pacing_h() {
        let header = include_str!("../../../bpf/src/pacing.h");
        assert!(header.contains(&format!("#define SLUICE_STANDING_NS {STANDING_NS}ULL\n")));
        let log2 = STANDING_BYTES.ilog2();
        assert!(header.contains(&format!("#define SLUICE_STANDING_BYTES_LOG2 {log2}\n")));
        assert!(header.contains(&format!("#define SLUICE_STANDING {STANDING}\n")));
        assert!(header.contains(&format!("#define SLUICE_CROWD {CROWD}\n")));
        assert!(header.contains(&format!("#define SLUICE_LAST_ROOM {LAST_ROOM}\n")));
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
        for (direction, mtu) in [(Direction::Egress, 1500), (Direction::Ingress, 9001)] {
            let ours_us = slow.queue_ns(direction, mtu).max(ours_us * 1000) / 1000;
            assert!(u64::from(slow.for_fq(direction, mtu).horizon_us) > ours_us);
        }
    }

    #[test]
    fn programs_are_told_the_latency_target_and_ecn() {
        for mode in [Mode::Paced, Mode::Policed] {
            let written = limit("20Mbit").for_bpf(mode, Direction::Egress, 1500);
            assert_eq!((written.target_ns, written.ecn), (3_000_000, true));
        }
        let without = Limit { ecn: false, ..limit("20Mbit") };
        assert!(!paced(&without).ecn);
    }

    #[test]
    fn two_frames_fit_into_the_horizon_of_a_slow_pod() {
        assert_eq!(paced(&limit("64kbit")).horizon_ns, 378_500_000);
        assert_eq!(paced(&limit("20Mbit")).horizon_ns, 100_000_000);
        let jumbo = limit("1Mbit").for_bpf(Mode::Paced, Direction::Ingress, 9001);
        assert_eq!(jumbo.horizon_ns, 144_240_000);
    }

    #[test]
    fn quantum_is_a_packet_of_the_pod_or_a_frame_for_it() {
        let quantum_ns =
            |direction, mtu| limit("20Mbit").for_bpf(Mode::Paced, direction, mtu).quantum_ns;
        assert_eq!(quantum_ns(Direction::Egress, 1500), 3014 * 400);
        assert_eq!(quantum_ns(Direction::Ingress, 1500), 1514 * 400);
        assert_eq!(quantum_ns(Direction::Ingress, 9001), 9015 * 400);
    }
}
