// SPDX-License-Identifier: Apache-2.0
//! What pods share of the node: the node's line in each direction, and what a
//! pod has of that. Only where `node-share` is on.

use bpf::{NS_PER_BYTE_SHIFT, Pins, Slot};
use serde::{Deserialize, Serialize};

use crate::pod::direction::Direction;

/// A line that something waited for within this time is busy.
const BUSY_NS: u64 = 1_000_000_000;

/// None in a direction that is not shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLines {
    pub egress: Option<NodeLine>,
    pub ingress: Option<NodeLine>,
}

/// One direction of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    pub capacity_bps: u64,
    /// Something had to wait for the line in the last second.
    pub busy: bool,
    /// That share the line now, as if they had all of it; 0 where it is not busy.
    pub weights: u64,
}

/// What one direction of a pod has of the node's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodShare {
    pub weight: u64,
    /// What it may have now; all of the line while that is not busy.
    pub now_bps: u64,
    /// What used the node's line.
    pub sent_bytes: u64,
    /// Of an interval; None in what was read once.
    pub measured_bps: Option<u64>,
    /// Sum of what packets waited longer than the pod's own limit asks for; a part of the line's.
    pub wait_ns: u64,
    /// Mean of the interval's packets.
    pub mean_wait_ns: Option<u64>,
}

impl NodeLines {
    pub fn read(pins: &Pins, now_ns: u64) -> bpf::Result<Self> {
        let read = |direction| NodeLine::read(pins, direction, now_ns);
        Ok(Self { egress: read(Direction::Egress)?, ingress: read(Direction::Ingress)? })
    }

    pub fn of(&self, direction: Direction) -> Option<&NodeLine> {
        match direction {
            Direction::Egress => self.egress.as_ref(),
            Direction::Ingress => self.ingress.as_ref(),
        }
    }

    /// Those that are shared.
    pub fn shared(&self) -> impl Iterator<Item = (&'static str, &NodeLine)> {
        let name = |direction: Direction| Some((direction.name(), self.of(direction)?));
        Direction::BOTH.into_iter().filter_map(name)
    }
}

impl NodeLine {
    /// None where it is not shared.
    pub fn read(pins: &Pins, direction: Direction, now_ns: u64) -> bpf::Result<Option<Self>> {
        let limit = pins.node_limit(direction)?;
        let line = pins.node_line(direction)?;
        Ok(capacity_bps(limit.ns_per_byte).map(|capacity_bps| {
            let busy = is_busy(line.last_ns, now_ns);
            let weights = if busy { line.weights.into() } else { 0 };
            Self { capacity_bps, busy, weights }
        }))
    }

    /// What a pod of this weight may have now.
    fn part_bps(&self, weight: u64) -> u64 {
        let part = u128::from(self.capacity_bps) * u128::from(weight);
        let part = part / u128::from(self.weights.max(weight).max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

impl PodShare {
    /// None where it takes no part.
    pub fn read(
        pins: &Pins,
        slot: Slot,
        direction: Direction,
        node: Option<&NodeLine>,
    ) -> bpf::Result<Option<Self>> {
        let Some(node) = node else { return Ok(None) };
        let weight = u64::from(pins.limit(slot, direction)?.weight);
        let share = pins.share(slot, direction)?;
        let sent_bytes = pins.counters(slot, direction)?.node_bytes;
        Ok((weight > 0).then(|| Self {
            weight,
            now_bps: if node.busy { node.part_bps(weight) } else { node.capacity_bps },
            sent_bytes,
            measured_bps: None,
            wait_ns: share.waited_ns,
            mean_wait_ns: None,
        }))
    }
}

fn is_busy(last_ns: u64, now_ns: u64) -> bool {
    last_ns.saturating_add(BUSY_NS) > now_ns
}

/// Five digits of it: the programs have what a byte takes.
fn capacity_bps(ns_per_byte: u64) -> Option<u64> {
    let bits = (8_000_000_000u128 << NS_PER_BYTE_SHIFT).checked_div(ns_per_byte.into())?;
    let bits = u64::try_from(bits).ok()?;
    let step = 10u64.pow(bits.checked_ilog10().unwrap_or(0).saturating_sub(4));
    Some((bits + step / 2) / step * step)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two thirds of a busy line are a pod's.
    pub fn share() -> PodShare {
        PodShare {
            weight: 200,
            now_bps: 13_333_333,
            sent_bytes: 0,
            measured_bps: Some(13_000_000),
            wait_ns: 2_500_000_000,
            mean_wait_ns: Some(2_500_000),
        }
    }

    pub fn lines() -> NodeLines {
        let line =
            |busy| NodeLine { capacity_bps: 20_000_000, busy, weights: if busy { 300 } else { 0 } };
        NodeLines { egress: Some(line(true)), ingress: Some(line(false)) }
    }

    #[test]
    fn line_is_busy_while_something_waited_within_a_second() {
        let now = 5 * BUSY_NS;
        assert!(is_busy(now + 1, now) && is_busy(now - BUSY_NS / 2, now));
        assert!(!is_busy(now - BUSY_NS, now) && !is_busy(0, now));
    }

    #[test]
    fn part_is_by_weight_and_never_more_than_the_line() {
        let lines = lines();
        let line = lines.egress.as_ref().unwrap();
        assert_eq!(
            [100, 300, 600].map(|weight| line.part_bps(weight)),
            [6_666_666, 20_000_000, 20_000_000]
        );
    }

    #[test]
    fn capacity_is_what_settings_say() {
        let kept = |bits: u128| {
            let scaled = 8_000_000_000u128 << NS_PER_BYTE_SHIFT;
            capacity_bps(((scaled + bits / 2) / bits) as u64)
        };
        for bits in [20_000_000, 10_000_000_000, 12_500_000_000, 100_000_000_000] {
            assert_eq!(kept(bits), Some(bits as u64));
        }
        assert_eq!(capacity_bps(0), None);
    }
}
