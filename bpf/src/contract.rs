// SPDX-License-Identifier: Apache-2.0
//! The Rust face of contract.h. Layouts come from the object's own BTF (the
//! skeleton's generated types); this file turns them into safe values and
//! checks the numbers that BTF does not carry.

use crate::shaper::skel::types;

/// Names the pin directory; contract.h's `SLUICE_ABI`.
pub const ABI: u32 = 2;
/// Slots of the maps, slot 0 included; contract.h's `SLUICE_SLOTS`.
pub const SLOTS: u16 = 1024;
/// Size of one entry of the lines.
pub(crate) const LINE_BYTES: usize = 320;
/// Size of one entry's table of flows.
pub(crate) const FLOWS_BYTES: usize = 256 * 48;
/// Bounds of [`Delays`]; contract.h's `SLUICE_DELAY_BOUNDS_NS`.
pub const DELAY_BOUNDS_NS: [u64; 8] =
    [250_000, 1_000_000, 4_000_000, 8_000_000, 16_000_000, 32_000_000, 64_000_000, 256_000_000];
/// Fixed-point bits of [`Limit::ns_per_byte`]; contract.h's `SLUICE_NS_PER_BYTE_SHIFT`.
pub const NS_PER_BYTE_SHIFT: u32 = 22;

/// Which way traffic flows, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The pod sends; shaped on its own end.
    Egress = 0,
    /// The pod receives; shaped on the host's end.
    Ingress = 1,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    /// As keys, labels and screens have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// What happens to a packet that is too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is stamped, and an fq below holds it back.
    Paced = 0,
    /// It is dropped: there is no fq below.
    Policed = 1,
}

/// Number of one pod interface in every map, 1 to [`SLOTS`] - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// Behind all that pods can have: the node's own lines.
    pub(crate) const NODE: Self = Self(SLOTS);

    /// None for 0 (what an unset classid reads as) and beyond the maps.
    pub fn new(number: u16) -> Option<Self> {
        (1..SLOTS).contains(&number).then_some(Self(number))
    }

    /// All slots that a pod can have, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..SLOTS).map(Self)
    }

    pub fn number(self) -> u16 {
        self.0
    }

    pub(crate) fn index(self, direction: Direction) -> u32 {
        u32::from(self.0) * 2 + direction as u32
    }

    pub(crate) fn key(self, direction: Direction) -> [u8; 4] {
        self.index(direction).to_ne_bytes()
    }
}

/// The pod's own end of its veth pair, as the ingress guard finds its slot by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodEnd {
    /// Inode of its network namespace.
    pub netns: u32,
    /// Inside that.
    pub ifindex: u32,
}

impl PodEnd {
    pub(crate) fn key(self) -> [u8; 8] {
        let mut key = [0; 8];
        key[..4].copy_from_slice(&self.netns.to_ne_bytes());
        key[4..].copy_from_slice(&self.ifindex.to_ne_bytes());
        key
    }
}

/// One direction's limit as the programs read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Nanoseconds a byte takes, shifted left by [`NS_PER_BYTE_SHIFT`]; 0 means no limit.
    pub ns_per_byte: u64,
    /// Credit that an idle pod keeps, in nanoseconds of its rate.
    pub burst_ns: u64,
    /// Cost of what a flow may send at once, in nanoseconds of the rate.
    pub quantum_ns: u64,
    /// How far ahead a departure may lie before the packet is dropped.
    pub horizon_ns: u64,
    /// Sojourn that a flow's queue may keep; 0 turns the AQM off.
    pub target_ns: u64,
    pub mode: Mode,
    /// Whether the AQM marks what can be marked.
    pub ecn: bool,
    /// Of the pod's part of the node's line; 0: it takes no part.
    pub weight: u32,
    /// Not the pod's own limit, only the node's capacity: what stays on the node passes.
    pub node_only: bool,
    /// As `ns_per_byte`: what the pod has of the node's line at least; 0: no promise.
    pub floor_ns_per_byte: u64,
}

impl Limit {
    /// No limit: the programs let everything pass.
    pub const NONE: Self = Self {
        ns_per_byte: 0,
        burst_ns: 0,
        quantum_ns: 0,
        horizon_ns: 0,
        target_ns: 0,
        mode: Mode::Paced,
        ecn: false,
        weight: 0,
        node_only: false,
        floor_ns_per_byte: 0,
    };

    pub(crate) fn to_words(self) -> [u64; 8] {
        let Self { ns_per_byte, burst_ns, quantum_ns, horizon_ns, target_ns, .. } = self;
        let halves = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let queue = halves(self.mode as u32, self.ecn.into());
        let share = halves(self.weight, self.node_only.into());
        [
            ns_per_byte,
            burst_ns,
            quantum_ns,
            horizon_ns,
            target_ns,
            queue,
            share,
            self.floor_ns_per_byte,
        ]
    }

    pub(crate) fn from_words(words: [u64; 8]) -> Self {
        let [
            ns_per_byte,
            burst_ns,
            quantum_ns,
            horizon_ns,
            target_ns,
            queue,
            share,
            floor_ns_per_byte,
        ] = words;
        let mode = if queue as u32 == 0 { Mode::Paced } else { Mode::Policed };
        let (ecn, node_only) = (queue >> 32 != 0, share >> 32 != 0);
        let weight = share as u32;
        Self {
            ns_per_byte,
            burst_ns,
            quantum_ns,
            horizon_ns,
            target_ns,
            mode,
            ecn,
            weight,
            node_only,
            floor_ns_per_byte,
        }
    }
}

/// What one direction of one pod has sent and lost since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub sent_packets: u64,
    /// L2 bytes of every segment, as the programs charge them.
    pub sent_bytes: u64,
    pub dropped_packets: u64,
    pub dropped_bytes: u64,
    /// Of the dropped ones: those that the AQM chose.
    pub aqm_packets: u64,
    /// Of the dropped ones: those that came before the table of flows was there.
    pub unready_packets: u64,
    /// Sent with the mark "congestion experienced".
    pub marked_packets: u64,
    /// Sum of what every sent packet was made to wait.
    pub sojourn_ns: u64,
    /// CLOCK_MONOTONIC of the last drop that the AQM chose.
    pub last_aqm_ns: Option<u64>,
    /// CLOCK_MONOTONIC of the last drop beyond the horizon.
    pub last_horizon_ns: Option<u64>,
    /// What was sent by the node's line, where pods share that, past the shaper too.
    pub node_bytes: u64,
}

impl Counters {
    /// Of the dropped ones: those whose departure would have been beyond the horizon.
    pub fn horizon_packets(&self) -> u64 {
        self.dropped_packets.saturating_sub(self.aqm_packets + self.unready_packets)
    }

    /// The sum over all CPUs' copies, and the latest of their times.
    pub(crate) fn sum(per_cpu: &[Vec<u8>]) -> Option<Self> {
        let mut sum = Self::default();
        for copy in per_cpu {
            sum.sent_packets += word(copy, 0)?;
            sum.sent_bytes += word(copy, 1)?;
            sum.dropped_packets += word(copy, 2)?;
            sum.dropped_bytes += word(copy, 3)?;
            sum.aqm_packets += word(copy, 4)?;
            sum.unready_packets += word(copy, 5)?;
            sum.marked_packets += word(copy, 6)?;
            sum.sojourn_ns += word(copy, 7)?;
            sum.last_aqm_ns = sum.last_aqm_ns.max(time(copy, 8)?);
            sum.last_horizon_ns = sum.last_horizon_ns.max(time(copy, 9)?);
            sum.node_bytes += word(copy, 10)?;
        }
        Some(sum)
    }
}

/// How long what one direction of one pod has sent was held back, since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Packets that waited longer than each of [`DELAY_BOUNDS_NS`].
    pub longer: [u64; DELAY_BOUNDS_NS.len()],
}

impl Delays {
    /// Packets that waited no longer than each of the bounds, of this many that were sent; read those
    /// after the delays, or some are missing here.
    pub fn within(&self, sent_packets: u64) -> [u64; DELAY_BOUNDS_NS.len()] {
        self.longer.map(|longer| sent_packets.saturating_sub(longer))
    }

    pub(crate) fn from_words(above: [u64; DELAY_BOUNDS_NS.len()]) -> Self {
        let mut delays = Self { longer: above };
        for index in (0..above.len() - 1).rev() {
            delays.longer[index] += delays.longer[index + 1];
        }
        delays
    }
}

/// A pod's use of the node's line in one direction, where pods share that. Of the node's own line only
/// `last_ns`, `idle_ns` and `weights` are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// CLOCK_MONOTONIC of the latest departure that had to wait for its turn.
    pub last_ns: u64,
    /// CLOCK_MONOTONIC; when nothing was last found to wait for the line.
    pub idle_ns: u64,
    /// Of the node's line: the weights that share it, as if they had all of it.
    pub weights: u32,
    /// Sum of what packets waited longer than the pod's own limit asks for.
    pub waited_ns: u64,
}

fn word(bytes: &[u8], index: usize) -> Option<u64> {
    let chunk = bytes.get(index * 8..index * 8 + 8)?;
    Some(u64::from_ne_bytes(chunk.try_into().ok()?))
}

/// A time that the programs write, 0 as long as they have not.
fn time(bytes: &[u8], index: usize) -> Option<Option<u64>> {
    word(bytes, index).map(|time_ns| Some(time_ns).filter(|time_ns| *time_ns != 0))
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(types::sluice_limit, ns_per_byte) == 0);
    assert!(offset_of!(types::sluice_limit, burst_ns) == 8);
    assert!(offset_of!(types::sluice_limit, quantum_ns) == 16);
    assert!(offset_of!(types::sluice_limit, horizon_ns) == 24);
    assert!(offset_of!(types::sluice_limit, target_ns) == 32);
    assert!(offset_of!(types::sluice_limit, mode) == 40);
    assert!(offset_of!(types::sluice_limit, ecn) == 44);
    assert!(offset_of!(types::sluice_limit, weight) == 48);
    assert!(offset_of!(types::sluice_limit, node_only) == 52);
    assert!(offset_of!(types::sluice_limit, floor_ns_per_byte) == 56);
    assert!(size_of::<types::sluice_limit>() == 64);
    assert!(offset_of!(types::sluice_counters, sent_packets) == 0);
    assert!(offset_of!(types::sluice_counters, sent_bytes) == 8);
    assert!(offset_of!(types::sluice_counters, dropped_packets) == 16);
    assert!(offset_of!(types::sluice_counters, dropped_bytes) == 24);
    assert!(offset_of!(types::sluice_counters, aqm_packets) == 32);
    assert!(offset_of!(types::sluice_counters, unready_packets) == 40);
    assert!(offset_of!(types::sluice_counters, marked_packets) == 48);
    assert!(offset_of!(types::sluice_counters, sojourn_ns) == 56);
    assert!(offset_of!(types::sluice_counters, last_aqm_ns) == 64);
    assert!(offset_of!(types::sluice_counters, last_horizon_ns) == 72);
    assert!(offset_of!(types::sluice_counters, node_bytes) == 80);
    assert!(size_of::<types::sluice_counters>() == 88);
    assert!(size_of::<types::sluice_delays>() == 8 * DELAY_BOUNDS_NS.len());
    assert!(FLOWS_BYTES == size_of::<types::sluice_flows>());
    assert!(size_of::<types::sluice_clock>() == 64);
    assert!(offset_of!(types::sluice_line, clock) == 64);
    assert!(offset_of!(types::sluice_line, account) == 128);
    assert!(offset_of!(types::sluice_account, passed_bytes) == 8);
    assert!(offset_of!(types::sluice_account, end) == 32);
    assert!(offset_of!(types::sluice_line, delays) == 192);
    assert!(offset_of!(types::sluice_line, share) == 256);
    assert!(offset_of!(types::sluice_clock, last_ns) == 32);
    assert!(offset_of!(types::sluice_clock, idle_ns) == 40);
    assert!(offset_of!(types::sluice_clock, active) == 52);
    assert!(offset_of!(types::sluice_share, waited_ns) == 48);
    assert!(offset_of!(types::sluice_share, paths) == 56);
    assert!(size_of::<types::sluice_line>() == LINE_BYTES);
    assert!(offset_of!(types::sluice_prefix, address) == 4);
    assert!(size_of::<types::sluice_prefix>() == 20);
    assert!(offset_of!(types::sluice_pod_end, netns) == 0);
    assert!(offset_of!(types::sluice_pod_end, ifindex) == 4);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_contract_h() {
        let header = include_str!("contract.h");
        assert!(header.contains(&format!("#define SLUICE_ABI {ABI}\n")));
        assert!(header.contains(&format!("#define SLUICE_SLOTS {SLOTS}\n")));
        assert!(
            header.contains(&format!("#define SLUICE_NS_PER_BYTE_SHIFT {NS_PER_BYTE_SHIFT}\n"))
        );
    }

    #[test]
    fn bounds_of_delays_are_those_of_contract_h() {
        let header = include_str!("contract.h");
        let (_, bounds) = header.split_once("#define SLUICE_DELAY_BOUNDS_NS \\\n").expect("bounds");
        let (bounds, _) = bounds.split_once("\n\n").expect("an end");
        assert_eq!(bounds.trim(), DELAY_BOUNDS_NS.map(|bound| bound.to_string()).join(", "));
    }

    #[test]
    fn counters_of_all_cpus_are_added_and_their_last_times_are_the_latest() {
        let copy = |words: [u64; 11]| words.into_iter().flat_map(u64::to_ne_bytes).collect();
        let copies: [Vec<u8>; 2] = [
            copy([1, 2, 30, 4, 5, 6, 7, 8, 9, 0, 1]),
            copy([10, 20, 30, 40, 5, 6, 70, 80, 3, 0, 4]),
        ];
        let sum = Counters::sum(&copies).expect("eleven words each");
        let expected = Counters {
            sent_packets: 11,
            sent_bytes: 22,
            dropped_packets: 60,
            dropped_bytes: 44,
            aqm_packets: 10,
            unready_packets: 12,
            marked_packets: 77,
            sojourn_ns: 88,
            last_aqm_ns: Some(9),
            last_horizon_ns: None,
            node_bytes: 5,
        };
        assert_eq!(sum, expected);
        assert_eq!(sum.horizon_packets(), 38);
    }

    #[test]
    fn delays_add_up_from_the_longest() {
        let delays = Delays::from_words([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(delays.longer, [36, 35, 33, 30, 26, 21, 15, 8]);
        assert_eq!(delays.within(100), [64, 65, 67, 70, 74, 79, 85, 92]);
    }

    #[test]
    fn slot_zero_and_slots_beyond_the_maps_do_not_exist() {
        assert_eq!(Slot::new(0), None);
        assert_eq!(Slot::new(SLOTS), None);
        assert_eq!(Slot::all().count(), usize::from(SLOTS) - 1);
    }

    #[test]
    fn limit_survives_the_trip_through_the_map_format() {
        let limit = Limit {
            ns_per_byte: 1,
            burst_ns: 2,
            quantum_ns: 3,
            horizon_ns: 4,
            target_ns: 5,
            mode: Mode::Policed,
            ecn: true,
            weight: 6,
            node_only: true,
            floor_ns_per_byte: 7,
        };
        assert_eq!(Limit::from_words(limit.to_words()), limit);
    }
}
