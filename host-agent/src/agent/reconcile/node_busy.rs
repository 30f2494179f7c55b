// SPDX-License-Identifier: Apache-2.0
//! Who takes most of the node's line while that is busy for long, or while EC2 lets
//! less through than comes. It looks once a second, only where pods share the node: no event says that a line is busy.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bpf::{Pins, Slot};

use crate::host::clock::now_ns;
use crate::pod::direction::Direction;
use crate::pod::record::Claim;
use crate::status::node_share::NodeLine;
use crate::status::text::short;
use crate::trouble::{Trouble, code};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const EARLY: Duration = Duration::from_millis(100);
/// Busy for so long it is reported, and not busy for so long it is over.
const LONG: Duration = Duration::from_secs(10);
/// What an ENA counted is reported beside what pods have used since a look no longer ago.
const FRESH: Duration = Duration::from_secs(3);
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// So much of the line is used while it is busy.
const FULL_PERCENT: u128 = 80;
/// How many pods are named, of those that took a hundredth and more.
const NAMED: usize = 5;

/// Each direction of the node.
#[derive(Default)]
pub struct NodeBusy {
    /// None while pods do not share the node.
    next: Option<Instant>,
    lines: [Busy; Direction::BOTH.len()],
}

#[derive(Default)]
struct Busy {
    /// When it began, or was last reported, and what each slot had used by then.
    since: Option<(Instant, BTreeMap<u16, u64>)>,
    /// What each slot had used at the last look.
    seen: Option<(Instant, BTreeMap<u16, u64>)>,
    /// When it was last seen to be busy.
    last: Option<Instant>,
    logged: Option<Instant>,
    trouble: Option<Trouble>,
}

/// What a pod took of the line in the time that is reported.
struct Taken {
    name: String,
    weight: u32,
    bytes: u64,
}

impl NodeBusy {
    /// It is looked at where the node's line is, a little early rather than one more time.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|due| due <= now + EARLY)
    }

    /// Whether pods share the node, from now on.
    pub fn follow(&mut self, is_shared: bool, now: Instant) {
        match is_shared {
            true => self.next = self.next.or(Some(now)),
            false => *self = Self::default(),
        }
    }

    /// What is wrong in each direction, after another look. `exceeded`: where an ENA has counted what was
    /// above the instance's allowance since the last one.
    pub fn look(
        &mut self,
        now: Instant,
        pins: &Pins,
        claims: &[&Claim],
        exceeded: [bool; 2],
    ) -> bpf::Result<[Option<Trouble>; Direction::BOTH.len()]> {
        self.next = Some(now + LOOK_EVERY);
        let ways = Direction::BOTH.into_iter().zip(&mut self.lines).zip(exceeded);
        for ((direction, busy), exceeded) in ways {
            let line = NodeLine::read(pins, direction, now_ns())?;
            let Some(line) = line.filter(|line| line.busy || exceeded) else {
                busy.rests(now);
                continue;
            };
            let used = used(pins, direction, claims)?;
            let reported = busy.reported(now, line.capacity_bps, exceeded, &used);
            let Some((since, before)) = reported else { continue };
            let taken = taken(pins, direction, claims, &before, &used)?;
            let elapsed = now.duration_since(since);
            busy.report(now, direction, text(line.capacity_bps, elapsed, exceeded, taken));
            busy.since = Some((now, used));
        }
        Ok(self.lines.each_ref().map(|busy| busy.trouble.clone()))
    }
}

impl Busy {
    fn rests(&mut self, now: Instant) {
        self.since = None;
        if self.last.is_none_or(|last| now.duration_since(last) >= LONG) {
            self.trouble = None;
        }
    }

    /// Since when, and from what on, it is to be reported, if it is.
    fn reported(
        &mut self,
        now: Instant,
        capacity_bps: u64,
        exceeded: bool,
        used: &BTreeMap<u16, u64>,
    ) -> Option<(Instant, BTreeMap<u16, u64>)> {
        let seen = self.seen.clone();
        let is_full = self.is_full(now, capacity_bps, used);
        if exceeded {
            self.last = Some(now);
            return seen.filter(|(at, _)| now.duration_since(*at) <= FRESH);
        }
        if !is_full {
            self.rests(now);
            return None;
        }
        self.lasts(now, used)
    }

    /// Whether most of it was used since the look before.
    fn is_full(&mut self, now: Instant, capacity_bps: u64, used: &BTreeMap<u16, u64>) -> bool {
        let Some((at, before)) = self.seen.replace((now, used.clone())) else { return false };
        let of_slot = |(slot, bytes): (&u16, &u64)| {
            bytes.saturating_sub(before.get(slot).copied().unwrap_or(0))
        };
        let bytes: u64 = used.iter().map(of_slot).sum();
        let able = u128::from(capacity_bps) * now.duration_since(at).as_millis();
        u128::from(bytes) * 8 * 1000 * 100 >= able * FULL_PERCENT
    }

    /// Since when, and from what on, once that is long.
    fn lasts(
        &mut self,
        now: Instant,
        used: &BTreeMap<u16, u64>,
    ) -> Option<(Instant, BTreeMap<u16, u64>)> {
        self.last = Some(now);
        match &self.since {
            None => self.since = Some((now, used.clone())),
            Some((since, _)) if now.duration_since(*since) >= LONG => return self.since.take(),
            Some(_) => {}
        }
        None
    }

    /// One entry of the journal each time it begins, and no more than one in a minute.
    fn report(&mut self, now: Instant, direction: Direction, what: String) {
        let trouble = Trouble::new(code::NODE_BUSY, format!("node {}", direction.name()), what);
        let is_recent = |logged: Instant| now.duration_since(logged) < LOGGED_EVERY;
        if self.trouble.is_none() && !self.logged.is_some_and(is_recent) {
            log::info!(CODE = trouble.code(); "{}: {}", trouble.subject, trouble.what);
            self.logged = Some(now);
        }
        self.trouble = Some(trouble);
    }
}

/// Interfaces of one pod may share a slot.
fn slots(claims: &[&Claim]) -> BTreeMap<u16, Slot> {
    claims.iter().map(|claim| (claim.slot.number(), claim.slot)).collect()
}

fn used(pins: &Pins, direction: Direction, claims: &[&Claim]) -> bpf::Result<BTreeMap<u16, u64>> {
    let of_slot = |(number, slot)| Ok((number, pins.counters(slot, direction)?.node_bytes));
    slots(claims).into_iter().map(of_slot).collect()
}

fn taken(
    pins: &Pins,
    direction: Direction,
    claims: &[&Claim],
    before: &BTreeMap<u16, u64>,
    after: &BTreeMap<u16, u64>,
) -> bpf::Result<Vec<Taken>> {
    let mut all = Vec::new();
    for (number, slot) in slots(claims) {
        let then = before.get(&number).copied().unwrap_or(0);
        let bytes = after.get(&number).copied().unwrap_or(0);
        // A slot that another pod has got since begins at zero.
        let bytes = bytes.checked_sub(then).unwrap_or(bytes);
        if bytes > 0 {
            all.push((bytes, slot));
        }
    }
    let least = all.iter().map(|(bytes, _)| bytes).sum::<u64>() / 100;
    all.retain(|(bytes, _)| *bytes >= least);
    all.sort_by_key(|(bytes, _)| Reverse(*bytes));
    all.truncate(NAMED);
    let named = |(bytes, slot): (u64, Slot)| {
        let claim = claims.iter().find(|claim| claim.slot == slot);
        let record = claim.and_then(|claim| claim.read().ok());
        let name = record.map(|record| format!("{}/{}", record.namespace, record.pod));
        let name = name.unwrap_or_else(|| format!("slot {}", slot.number()));
        Ok(Taken { name, weight: pins.limit(slot, direction)?.weight, bytes })
    };
    all.into_iter().map(named).collect()
}

/// Most first.
fn text(capacity_bps: u64, elapsed: Duration, exceeded: bool, taken: Vec<Taken>) -> String {
    let pods = taken.into_iter().map(|Taken { name, weight, bytes }| {
        let bits = u128::from(bytes) * 8 * 1000;
        let rate = u64::try_from(bits / elapsed.as_millis().max(1)).unwrap_or(u64::MAX);
        let percent = u128::from(rate) * 100 / u128::from(capacity_bps.max(1));
        format!("{name} {} ({percent} %, weight {weight})", short(rate))
    });
    let pods = pods.collect::<Vec<_>>().join(", ");
    let (capacity, seconds) = (short(capacity_bps), elapsed.as_secs_f64());
    let why = if exceeded {
        format!("EC2 held or dropped what was above the instance's allowance in {seconds:.0} s")
    } else {
        format!("{capacity} busy for {seconds:.0} s on end")
    };
    format!("{why}; most was taken by {pods}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    fn used(bytes: u64) -> BTreeMap<u16, u64> {
        BTreeMap::from([(1, bytes)])
    }

    #[test]
    fn line_is_full_when_most_of_it_was_used_since_the_look_before() {
        let (begin, mut busy) = (Instant::now(), Busy::default());
        assert!(!busy.is_full(begin, 20_000_000, &used(5_000_000)), "no look before");
        assert!(busy.is_full(at(begin, 1), 20_000_000, &used(7_000_000)));
        assert!(!busy.is_full(at(begin, 2), 20_000_000, &used(8_900_000)));
    }

    #[test]
    fn line_is_reported_once_it_is_busy_for_ten_seconds_on_end() {
        let (begin, mut busy) = (Instant::now(), Busy::default());
        for second in 0..10 {
            assert!(busy.lasts(at(begin, second), &used(second)).is_none(), "{second}");
        }
        let (since, before) = busy.lasts(at(begin, 10), &used(10)).unwrap();
        assert_eq!((since, before[&1]), (begin, 0));
        busy.rests(at(begin, 11));
        assert!(busy.lasts(at(begin, 12), &used(12)).is_none(), "begins again");
    }

    #[test]
    fn what_an_ena_counted_is_reported_with_what_was_used_since_the_look_before() {
        let (begin, mut busy) = (Instant::now(), Busy::default());
        let look = |busy: &mut Busy, second, exceeded| {
            busy.reported(at(begin, second), 20_000_000, exceeded, &used(second))
        };
        assert!(look(&mut busy, 0, true).is_none(), "nothing is known of before");
        let (since, before) = look(&mut busy, 1, true).unwrap();
        assert_eq!((since, before[&1]), (begin, 0));
        assert!(look(&mut busy, 2, false).is_none(), "neither full nor exceeded");
        assert!(look(&mut busy, 60, true).is_none(), "of a look too long ago");
    }

    #[test]
    fn it_is_over_when_the_line_was_not_busy_for_ten_seconds() {
        let (begin, mut busy) = (Instant::now(), Busy::default());
        busy.lasts(begin, &used(0));
        busy.report(begin, Direction::Egress, text(20_000_000, LONG, false, Vec::new()));
        busy.rests(at(begin, 9));
        assert!(busy.trouble.is_some());
        busy.rests(at(begin, 10));
        assert!(busy.trouble.is_none());
    }

    #[test]
    fn pods_are_named_with_rate_part_and_weight() {
        let taken = |name: &str, weight, bytes| Taken { name: name.into(), weight, bytes };
        let all = vec![taken("shop/web", 200, 16_000_000), taken("batch/job", 25, 8_000_000)];
        assert_eq!(
            text(20_000_000, LONG, false, all),
            "20Mbit busy for 10 s on end; most was taken by shop/web 12800kbit (64 %, weight 200), \
             batch/job 6400kbit (32 %, weight 25)"
        );
        assert_eq!(
            text(20_000_000, LOOK_EVERY, true, vec![taken("shop/web", 200, 2_500_000)]),
            "EC2 held or dropped what was above the instance's allowance in 1 s; most was taken by \
             shop/web 20Mbit (100 %, weight 200)"
        );
    }
}
