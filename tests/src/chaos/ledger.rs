// SPDX-License-Identifier: Apache-2.0
//! What is known of one measured pod over time: which of our pieces were not in
//! place and why, and which limits could have been in force. Doubt is always on
//! the side of "gone for longer" and "the higher limit for longer".

use std::time::{Duration, Instant};

/// What is there to hold a pod to its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    PodFilter,
    PodFq,
    Guard,
    HostFilter,
    HostFq,
}

pub const PIECES: [Piece; 5] =
    [Piece::PodFilter, Piece::PodFq, Piece::Guard, Piece::HostFilter, Piece::HostFq];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Egress = 0,
    Ingress = 1,
}

pub const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// What an old, higher limit has admitted is still on its way for so long (the horizon of pacing).
const ON_ITS_WAY: Duration = Duration::from_millis(100);

impl Piece {
    pub fn direction(self) -> Direction {
        match self {
            Self::PodFilter | Self::PodFq | Self::Guard => Direction::Egress,
            Self::HostFilter | Self::HostFq => Direction::Ingress,
        }
    }
}

impl Direction {
    pub fn name(self) -> &'static str {
        ["egress", "ingress"][self as usize]
    }
}

/// Why a piece is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// By us; None as long as that is under way.
    Taken { done: Option<Instant> },
    /// There was, or may have been, no limit in this direction.
    Unlimited,
    /// No one's doing but the agent's.
    Unexplained,
}

#[derive(Clone, Copy, Debug)]
pub struct Absence {
    pub piece: Piece,
    pub from: Instant,
    pub to: Option<Instant>,
    pub cause: Cause,
    /// Calm time since which nothing keeps it from being restored.
    due: Option<Duration>,
}

/// A limit that may have been in force; None: unlimited.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub limit: Option<u64>,
    pub from: Instant,
    pub to: Option<Instant>,
}

/// What was found attached between two moments, and the limits in the map.
pub struct Seen {
    pub from: Instant,
    pub to: Instant,
    pub there: [bool; PIECES.len()],
    /// Egress, ingress, guard.
    pub ns_per_byte: [u64; 2],
}

pub struct Ledger {
    pub absences: Vec<Absence>,
    pub budgets: [Vec<Budget>; 2],
    events: Vec<(Instant, String)>,
    last_seen: [Instant; PIECES.len()],
    /// Complained of already.
    pub overdue_told: bool,
}

/// As the programs have it: nanoseconds with 22 bits of fraction, rounded to the nearest.
fn ns_per_byte(limit: Option<u64>) -> u64 {
    let Some(bits) = limit else { return 0 };
    let scaled = 8_000_000_000u128 << 22;
    ((scaled + u128::from(bits) / 2) / u128::from(bits)) as u64
}

impl Ledger {
    pub fn new(limits: [Option<u64>; 2], now: Instant) -> Self {
        let budget = |limit| vec![Budget { limit, from: now, to: None }];
        Self {
            absences: Vec::new(),
            budgets: limits.map(budget),
            events: Vec::new(),
            last_seen: [now; PIECES.len()],
            overdue_told: false,
        }
    }

    pub fn note(&mut self, what: String) {
        self.events.push((Instant::now(), what));
    }

    /// What was done around this time.
    pub fn events(&self, from: Instant, to: Instant) -> Vec<String> {
        let near = self.events.iter().filter(|(at, _)| *at >= from && *at <= to);
        near.map(|(at, what)| format!("{:+.3} s {what}", seconds(*at, from))).collect()
    }

    /// These are about to be removed.
    pub fn take(&mut self, pieces: &[Piece]) {
        let (from, cause) = (Instant::now(), Cause::Taken { done: None });
        let absence = |piece: &Piece| Absence { piece: *piece, from, to: None, cause, due: None };
        self.absences.extend(pieces.iter().map(absence));
    }

    /// They have been.
    pub fn taken(&mut self) {
        let now = Instant::now();
        for absence in self.absences.iter_mut().filter(|absence| absence.to.is_none()) {
            if let Cause::Taken { done: done @ None } = &mut absence.cause {
                *done = Some(now);
            }
        }
    }

    /// This limit is asked for from now on; the old one applies until the new one is seen.
    pub fn ask(&mut self, direction: Direction, limit: Option<u64>) {
        let budgets = &mut self.budgets[direction as usize];
        if budgets.last().map(|budget| budget.limit) != Some(limit) {
            budgets.push(Budget { limit, from: Instant::now(), to: None });
        }
    }

    /// Whether what was asked for last is all there is.
    pub fn limits_are_in_force(&self) -> bool {
        let open = |direction: &Vec<Budget>| direction.iter().filter(|b| b.to.is_none()).count();
        self.budgets.iter().all(|direction| open(direction) == 1)
    }

    /// Whether nothing that should be there is missing.
    pub fn is_whole(&self) -> bool {
        let open = |absence: &&Absence| absence.to.is_none();
        let limited = |absence: &&Absence| !self.may_be_unlimited(absence.piece.direction());
        !self.absences.iter().filter(open).any(|absence| limited(&absence))
    }

    /// Whether the last thing that was asked for is a limit.
    pub fn is_limited(&self, direction: Direction) -> bool {
        self.budgets[direction as usize].last().is_some_and(|budget| budget.limit.is_some())
    }

    /// How long something was gone for no other reason than that it was taken.
    pub fn was_taken_for(&self, absence: &Absence) -> Option<Duration> {
        let (Cause::Taken { .. }, Some(to)) = (absence.cause, absence.to) else { return None };
        let budgets = self.budgets[absence.piece.direction() as usize].iter();
        let mut meanwhile =
            budgets.filter(|b| b.from <= to && b.to.is_none_or(|end| end >= absence.from));
        let limited = meanwhile.all(|budget| budget.limit.is_some());
        limited.then(|| to.duration_since(absence.from))
    }

    /// What should be back, when it went, and the calm time from which on it could be restored.
    pub fn due_back(&mut self, calm: Duration) -> Vec<(Piece, Instant, Duration)> {
        let unlimited = DIRECTIONS.map(|direction| self.may_be_unlimited(direction));
        let open = self.absences.iter_mut().filter(|absence| absence.to.is_none());
        let due = open.filter_map(|absence| {
            let under_way = absence.cause == Cause::Taken { done: None };
            let due = !under_way && !unlimited[absence.piece.direction() as usize];
            absence.due = due.then(|| absence.due.unwrap_or(calm));
            Some((absence.piece, absence.from, absence.due?))
        });
        due.collect()
    }

    fn may_be_unlimited(&self, direction: Direction) -> bool {
        let open = self.budgets[direction as usize].iter().filter(|budget| budget.to.is_none());
        open.into_iter().any(|budget| budget.limit.is_none())
    }

    /// Enters a look. Gives what is gone though no one took it, and what has come back.
    pub fn enter(&mut self, seen: &Seen) -> (Vec<Piece>, Vec<Absence>) {
        DIRECTIONS.iter().for_each(|direction| self.enter_limits(*direction, seen));
        let (mut gone, mut back) = (Vec::new(), Vec::new());
        for (n, piece) in PIECES.into_iter().enumerate() {
            if seen.there[n] {
                back.extend(self.close(piece, seen));
                self.last_seen[n] = seen.from;
            } else if !self.absences.iter().any(|a| a.piece == piece && a.to.is_none()) {
                let cause = self.cause(piece);
                let from = self.last_seen[n];
                self.absences.push(Absence { piece, from, to: None, cause, due: None });
                gone.extend((cause == Cause::Unexplained).then_some(piece));
            }
        }
        (gone, back)
    }

    /// What else the agent removes while it repairs a pod, or finds in its way, is that taking's doing.
    fn cause(&self, piece: Piece) -> Cause {
        let taken = |a: &&Absence| matches!(a.cause, Cause::Taken { .. }) && a.to.is_none();
        match self.absences.iter().find(taken) {
            _ if self.may_be_unlimited(piece.direction()) => Cause::Unlimited,
            Some(taken) => taken.cause,
            None => Cause::Unexplained,
        }
    }

    fn close(&mut self, piece: Piece, seen: &Seen) -> Vec<Absence> {
        let over = |absence: &&mut Absence| {
            let before = match absence.cause {
                Cause::Taken { done } => done.is_some_and(|done| done < seen.from),
                Cause::Unlimited | Cause::Unexplained => true,
            };
            absence.piece == piece && absence.to.is_none() && before
        };
        let closed = self.absences.iter_mut().filter(over);
        closed
            .map(|absence| {
                absence.to = Some(seen.to);
                *absence
            })
            .collect()
    }

    fn enter_limits(&mut self, direction: Direction, seen: &Seen) {
        let budgets = &mut self.budgets[direction as usize];
        let Some((asked, older)) = budgets.split_last_mut() else { return };
        // A pod without a limit has the node's capacity where pods share that.
        let wanted = [asked.limit, asked.limit.or(Some(NODE_BPS))].map(ns_per_byte);
        let in_force = match direction {
            Direction::Egress => wanted.contains(&seen.ns_per_byte[0]),
            Direction::Ingress => wanted.contains(&seen.ns_per_byte[1]),
        };
        if in_force && asked.from < seen.from {
            let open = older.iter_mut().filter(|budget| budget.to.is_none());
            open.for_each(|budget| budget.to = Some(seen.to + ON_ITS_WAY));
        }
    }
}

/// What the node can do where pods share it: more than pods can send here.
pub const NODE_BPS: u64 = 100_000_000_000;

/// From one moment to another, which may be the earlier one.
pub fn seconds(at: Instant, from: Instant) -> f64 {
    let later = at.saturating_duration_since(from).as_secs_f64();
    later - from.saturating_duration_since(at).as_secs_f64()
}
