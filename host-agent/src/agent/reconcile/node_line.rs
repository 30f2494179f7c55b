// SPDX-License-Identifier: Apache-2.0
//! What of the node's line is the pods' now: less than all while the node itself
//! sends and receives, which no qdisc of ours holds back, and while EC2 lets less through.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use bpf::{Ethtool, Mode, Pins, Slot};
use settings_model::{Bandwidth, Rate};

use super::allowance::Allowance;
use super::ena::Enas;
use crate::addresses::instance::InstanceBandwidth;
use crate::netlink::{Netlink, Traffic};
use crate::pod::direction::Direction;
use crate::pod::limit::{Limit, ns_per_byte};
use crate::trouble::{Trouble, code};

/// Of jumbo frames, so that one fits into what a pod may send at once.
const MTU: u32 = 9001;
const SELDOM: Duration = Duration::from_secs(1);
/// While the line is busy and the node itself uses it.
const OFTEN: Duration = Duration::from_millis(100);
const BUSY: f64 = 0.75;
const WORTH_A_LOOK: f64 = 0.01;
/// Whatever the node itself uses. With nothing left pods would stand still, kubelet's probes of them fail,
/// and what restarts them pulls the more.
const LEAST_FOR_PODS: f64 = 0.1;
/// Floors that the line has been too little for, for so long, are reported.
const LONG: Duration = Duration::from_secs(10);
/// A change of less is not written.
const WORTH_A_WRITE: f64 = 0.01;
/// What was charged to pods may wait so long in their queues.
const QUEUED_S: f64 = 0.25;
/// TCP sends by bursts, and a tenth of a second may have one or none.
const SMOOTH_S: f64 = 0.3;

/// Of each direction one, in the order of [`Direction::BOTH`].
#[derive(Default)]
pub struct NodeLine {
    lines: [Option<Line>; 2],
    /// What floors add up to.
    promised: [Option<Rate>; 2],
    uplinks: BTreeSet<u32>,
    enas: Enas,
    /// Whether these have counted anything since that was asked.
    exceeded: [bool; 2],
    devices: BTreeMap<u32, [u64; 2]>,
    pods: BTreeMap<Slot, [u64; 2]>,
    looked: Option<Instant>,
    /// When the second began that the allowance is asked about.
    second: Option<Instant>,
    due: Option<Instant>,
}

/// In bit/s and bits.
struct Line {
    capacity: f64,
    allowance: Option<Allowance>,
    own: Own,
    promised: Option<Rate>,
    /// Since when that is more than pods have.
    too_little: Option<Instant>,
    /// What the map has.
    written: f64,
    /// What the uplinks have carried since the allowance was asked.
    carried: f64,
}

/// What the node itself uses.
#[derive(Debug, Default)]
struct Own {
    rate: f64,
    /// What pods use.
    beside: f64,
    /// Charged to pods, and not yet seen on an uplink.
    ahead: f64,
}

impl NodeLine {
    /// What is shared from now on. What is known of a line that stays is kept.
    pub fn bring(
        &mut self,
        pins: &Pins,
        bandwidth: &Bandwidth,
        shared: [Option<(Rate, Option<InstanceBandwidth>)>; 2],
        uplinks: &BTreeSet<u32>,
    ) -> Result<()> {
        self.uplinks.clone_from(uplinks);
        for (index, direction) in Direction::BOTH.into_iter().enumerate() {
            let line = &mut self.lines[index];
            let Some((capacity, of_type)) = shared[index] else {
                *line = None;
                if pins.node_limit(direction)? != bpf::Limit::NONE {
                    pins.set_node_limit(direction, bpf::Limit::NONE)?;
                }
                continue;
            };
            let capacity = capacity.bits_per_sec() as f64;
            let stays = |old: &Line| {
                old.capacity == capacity && old.allowance.is_some() == of_type.is_some()
            };
            let line = match line.take().filter(stays) {
                Some(old) => line.insert(old),
                None => line.insert(Line::new(capacity, of_type)),
            };
            line.promised = self.promised[index];
            line.write(pins, bandwidth, direction, line.for_pods())?;
        }
        self.due = self.lines.iter().any(Option::is_some).then(|| {
            let now = Instant::now();
            self.due.map_or(now, |due| due.min(now + SELDOM))
        });
        if self.due.is_none() {
            *self = Self::default();
        }
        Ok(())
    }

    /// What floors add up to from now on: where the line is less, the programs lower them alike.
    pub fn promise(
        &mut self,
        pins: &Pins,
        bandwidth: &Bandwidth,
        promised: [Option<Rate>; 2],
    ) -> Result<()> {
        self.promised = promised;
        for (index, direction) in Direction::BOTH.into_iter().enumerate() {
            let Some(line) = &mut self.lines[index] else { continue };
            line.promised = promised[index];
            line.write(pins, bandwidth, direction, line.written)?;
        }
        Ok(())
    }

    /// Of each direction whose floors have been lowered for long: what is promised, and what pods have.
    pub fn lowered(&self, now: Instant) -> Option<Trouble> {
        let ways = Direction::BOTH.into_iter().zip(&self.lines);
        let texts = ways.filter_map(|(direction, line)| {
            let line = line.as_ref().filter(|line| line.is_too_little(now))?;
            let pods = Rate::from_bits_per_sec(line.written as u64)?;
            Some(format!("{}: {} of {pods}", direction.name(), line.promised?))
        });
        let texts: Vec<_> = texts.collect();
        (!texts.is_empty()).then(|| {
            let what = "floors add up to more than pods have of the line now, so they are lowered";
            Trouble::new(code::FLOORS_LOWERED, "node", format!("{what} ({})", texts.join(", ")))
        })
    }

    /// Finds the interfaces that tell when an allowance was exceeded; false where none does.
    pub fn find_enas(&mut self, ethtool: &Ethtool, devices: &[String]) -> bool {
        self.enas.find(ethtool, devices)
    }

    /// Whether EC2 let less through than came, out and in, since this was last asked.
    pub fn take_exceeded(&mut self) -> [bool; 2] {
        std::mem::take(&mut self.exceeded)
    }

    /// None while nothing is shared.
    pub fn next(&self) -> Option<Instant> {
        self.due
    }

    pub fn look(
        &mut self,
        pins: &Pins,
        netlink: &mut Netlink,
        ethtool: Option<&Ethtool>,
        slots: &BTreeSet<Slot>,
        bandwidth: &Bandwidth,
    ) -> Result<()> {
        let now = Instant::now();
        self.due = Some(now + SELDOM);
        let pods = self.pods_since(pins, slots)?;
        let uplinks = self.uplinks_since(netlink);
        let Some(span) = self.looked.replace(now).map(|looked| now - looked) else {
            self.second = Some(now);
            return Ok(());
        };
        let second = now - *self.second.get_or_insert(now);
        let exceeded = (second >= SELDOM).then(|| {
            self.second = Some(now);
            ethtool.map_or([false; 2], |ethtool| self.enas.exceeded(ethtool))
        });
        for (index, direction) in Direction::BOTH.into_iter().enumerate() {
            let Some(line) = &mut self.lines[index] else { continue };
            line.own.look(span, uplinks[index], pods[index], line.now());
            line.carried += uplinks[index];
            if let Some(exceeded) = exceeded {
                let carried = std::mem::take(&mut line.carried);
                self.exceeded[index] |= exceeded[index];
                if let Some(allowance) = &mut line.allowance {
                    allowance.look(second, carried, exceeded[index]);
                }
            }
            let for_pods = line.for_pods();
            if (for_pods - line.written).abs() > WORTH_A_WRITE * line.written {
                line.write(pins, bandwidth, direction, for_pods)?;
            }
            line.compare_floors(now);
            if line.is_contended() {
                self.due = Some(now + OFTEN);
            }
        }
        Ok(())
    }

    /// Bits of the line that all pods have used. What is dropped on its way to a pod has come in before.
    fn pods_since(&mut self, pins: &Pins, slots: &BTreeSet<Slot>) -> Result<[f64; 2]> {
        let mut sum = [0.0; 2];
        self.pods.retain(|slot, _| slots.contains(slot));
        for slot in slots {
            let sent = pins.counters(*slot, Direction::Egress)?;
            let received = pins.counters(*slot, Direction::Ingress)?;
            let now = [sent.node_bytes, received.node_bytes + received.dropped_bytes];
            // A pod that came since the last look began with nothing.
            let before = self.pods.insert(*slot, now).or(self.looked.map(|_| [0; 2]));
            add(&mut sum, before, &now);
        }
        Ok(sum)
    }

    /// A device that has gone carries nothing.
    fn uplinks_since(&mut self, netlink: &mut Netlink) -> [f64; 2] {
        let mut sum = [0.0; 2];
        self.devices.retain(|index, _| self.uplinks.contains(index));
        for index in &self.uplinks {
            let Ok(Traffic { sent_bytes, received_bytes, .. }) = netlink.traffic(*index) else {
                continue;
            };
            let before = self.devices.insert(*index, [sent_bytes, received_bytes]);
            add(&mut sum, before, &[sent_bytes, received_bytes]);
        }
        sum
    }
}

/// What was counted since; a counter that is lower than before began again.
fn add(sum: &mut [f64; 2], before: Option<[u64; 2]>, now: &[u64; 2]) {
    for way in [0, 1] {
        let before = before.map_or(now[way], |before| before[way]);
        sum[way] += 8.0 * now[way].checked_sub(before).unwrap_or(now[way]) as f64;
    }
}

impl Line {
    fn new(capacity: f64, of_type: Option<InstanceBandwidth>) -> Self {
        let bits = |mbit: u32| f64::from(mbit) * 1e6;
        let allowance = of_type.map(|it| Allowance::new(bits(it.baseline), bits(it.peak)));
        Self {
            capacity,
            allowance,
            own: Own::default(),
            promised: None,
            too_little: None,
            written: 0.0,
            carried: 0.0,
        }
    }

    /// Of pods and node together.
    fn now(&self) -> f64 {
        self.allowance.as_ref().map_or(self.capacity, Allowance::line)
    }

    fn for_pods(&self) -> f64 {
        let line = self.now();
        (line - self.own.rate).max(LEAST_FOR_PODS * line)
    }

    fn compare_floors(&mut self, now: Instant) {
        let promised = self.promised.map_or(0, Rate::bits_per_sec) as f64;
        let is_less = self.written < (1.0 - WORTH_A_WRITE) * promised;
        self.too_little = is_less.then(|| self.too_little.unwrap_or(now));
    }

    fn is_too_little(&self, now: Instant) -> bool {
        self.too_little.is_some_and(|since| now.duration_since(since) >= LONG)
    }

    fn is_contended(&self) -> bool {
        let line = self.now();
        self.own.rate > WORTH_A_LOOK * line && self.own.beside + self.own.rate > BUSY * line
    }

    /// The clock of the line goes on.
    fn write(
        &mut self,
        pins: &Pins,
        bandwidth: &Bandwidth,
        direction: Direction,
        for_pods: f64,
    ) -> Result<()> {
        let limit = Rate::from_bits_per_sec(for_pods as u64).map_or(bpf::Limit::NONE, |rate| {
            // Pods send by super-packets in either direction.
            let limit = Limit::of_node(rate, bandwidth);
            let limit = limit.for_bpf(Mode::Paced, Direction::Egress, MTU);
            bpf::Limit { floor_ns_per_byte: self.promised.map_or(0, ns_per_byte), ..limit }
        });
        if pins.node_limit(direction)? != limit {
            pins.set_node_limit(direction, limit)?;
        }
        self.written = for_pods;
        Ok(())
    }
}

impl Own {
    /// What the uplinks have carried and pods were not charged. A packet of a pod is charged when it is
    /// let into the queue, and leaves later.
    fn look(&mut self, span: Duration, uplinks: f64, pods: f64, line: f64) {
        let span = span.as_secs_f64().max(1e-3);
        let of_pods = uplinks.min(self.ahead + pods);
        self.ahead = (self.ahead + pods - of_pods).min(line * QUEUED_S);
        let news = 1.0 - (-span / SMOOTH_S).exp();
        self.rate += ((uplinks - of_pods) / span - self.rate) * news;
        self.beside += (of_pods / span - self.beside) * news;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    #[test]
    fn what_pods_were_not_charged_is_the_nodes_and_queues_are_not() {
        let mut own = Own::default();
        // 3 of 10 Mbit/s are the node's.
        (0..30).for_each(|_| own.look(TENTH, 1e6, 0.7e6, 10e6));
        assert!((own.rate - 3e6).abs() < 1e3, "{own:?}");
        // A queue fills and drains: what was charged passes later.
        let mut own = Own::default();
        own.look(TENTH, 0.5e6, 1.5e6, 10e6);
        own.look(TENTH, 1e6, 0.0, 10e6);
        assert_eq!(own.rate, 0.0);
        // What never came to an uplink is forgotten but for a queue's length.
        (0..100).for_each(|_| own.look(TENTH, 0.0, 1e6, 10e6));
        (0..20).for_each(|_| own.look(TENTH, 1e6, 0.0, 10e6));
        assert!(own.rate > 9e6, "{own:?}");
    }

    #[test]
    fn pods_have_the_rest_of_the_line_and_a_tenth_at_least() {
        let mut line = Line::new(10e6, None);
        assert_eq!(line.for_pods(), 10e6);
        line.own.rate = 4e6;
        assert_eq!(line.for_pods(), 6e6);
        assert!(!line.is_contended());
        line.own.beside = 5e6;
        assert!(line.is_contended());
        line.own.rate = 12e6;
        assert_eq!(line.for_pods(), 1e6);
        let mut line = Line::new(10e9, Some(InstanceBandwidth { baseline: 750, peak: 10_000 }));
        assert_eq!(line.for_pods(), 10e9);
        line.allowance.as_mut().unwrap().look(SELDOM, 10e9, true);
        assert_eq!(line.for_pods(), 0.75e9);
    }

    #[test]
    fn floors_that_the_line_is_too_little_for_are_reported_once_that_lasts() {
        let mut line = Line::new(10e6, None);
        let began = Instant::now();
        line.promised = Rate::from_bits_per_sec(8_000_000);
        line.written = 7.95e6;
        line.compare_floors(began);
        assert!(!line.is_too_little(began + LONG), "within what is not written");
        line.written = 6e6;
        line.compare_floors(began);
        line.compare_floors(began + LONG / 2);
        assert!(!line.is_too_little(began + LONG / 2) && line.is_too_little(began + LONG));
        let (lowered, rests) = (Some(line), None);
        let node = NodeLine { lines: [lowered, rests], ..NodeLine::default() };
        assert_eq!(node.lowered(began + LONG / 2), None);
        let lowered = node.lowered(began + LONG).expect("it has lasted");
        assert!(lowered.is(code::FLOORS_LOWERED), "{lowered:?}");
        assert!(lowered.what.ends_with("(egress: 8Mbit of 6Mbit)"), "{lowered:?}");
        let mut line = node.lines.into_iter().flatten().next().unwrap();
        line.written = 8e6;
        line.compare_floors(began + 2 * LONG);
        assert!(!line.is_too_little(began + 9 * LONG));
    }

    #[test]
    fn counters_that_begin_again_count_from_there_and_the_first_look_counts_nothing() {
        let mut sum = [0.0; 2];
        add(&mut sum, None, &[5, 6]);
        assert_eq!(sum, [0.0; 2]);
        add(&mut sum, Some([5, 6]), &[7, 2]);
        assert_eq!(sum, [16.0, 16.0]);
    }
}
