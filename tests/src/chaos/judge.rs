// SPDX-License-Identifier: Apache-2.0
//! Judges what arrived in a second by what was in place then.
//!
//! No more than limit × (time + 5 %) + credit may arrive, where credit is what
//! the piece in place lets pass at once:
//!
//! | in place                   | credit, as time at the limit                            |
//! | -------------------------- | ------------------------------------------------------- |
//! | filter and fq (paced)      | burst, and 10 ms that sparse flows may be early         |
//! | filter, its fq is gone     | the same, and pacing's horizon: nothing waits          |
//! | filter (policed)           | burst and 200 ms: the modes of docs/reference.md        |
//! | the guard alone            | burst; without fq 200 ms more, as the shaper            |
//!
//! A second has the least credit of the pieces that were there all the time. Clocks
//! run on while a piece is gone, so its credit is there once more when it comes
//! back: where pieces only took turns, each of a turn's credits counts. The clock
//! bounds what passes in any window by limit × window + credit, whatever was before
//! it, so a second after a repair needs no more than that. Where a limit was being
//! changed, the highest that may have been in force counts.

use std::fmt;
use std::time::{Duration, Instant};

use super::ledger::{DIRECTIONS, Direction, Ledger, Piece, seconds};
use super::measured::Measured;
use super::run::Run;
use super::traffic::Second;

const MARGIN: f64 = 0.05;
/// What the settings' default gives.
const BURST: f64 = 0.005;
const EARLY: f64 = 0.010;
const PACED_HORIZON: f64 = 0.100;
const POLICED_HORIZON: f64 = 0.200;
/// Two super-packets: one that the window cuts, and one that was let go when nothing was left.
const PACKETS_BITS: f64 = 2.0 * 8.0 * 3100.0;
/// What passed unshaped arrives so much later, at most.
const LINGER: Duration = Duration::from_millis(50);

/// What was in place, by the pieces that held a second.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hold {
    /// None, for a part of it at least.
    Nothing,
    /// Credit in seconds.
    Shaper(f64),
    GuardAlone(f64),
    Turns(f64),
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing in place"),
            Self::Shaper(credit) => write!(f, "shaper, credit {:.0} ms", credit * 1e3),
            Self::GuardAlone(credit) => write!(f, "guard alone, credit {:.0} ms", credit * 1e3),
            Self::Turns(credit) => write!(f, "in turns, credit {:.0} ms", credit * 1e3),
        }
    }
}

/// All that was judged, and what came closest to its bound.
#[derive(Default)]
pub struct Tally {
    judged: u32,
    by_guard_alone: u32,
    in_turns: u32,
    unheld: u32,
    unlimited: u32,
    worst: Option<Worst>,
    /// The highest share of its limit in a second that was not judged.
    worst_unheld: f64,
}

struct Worst {
    of_bound: f64,
    text: String,
}

/// Judges those seconds of a pod that are old enough for all to be known of them.
pub fn judge(run: &Run, pod: &Measured, before: Instant) {
    for direction in DIRECTIONS {
        let mut seconds = pod.seconds[direction as usize].lock().expect("the seconds");
        let ready = seconds.partition_point(|second| second.to <= before);
        let ready: Vec<_> = seconds.drain(..ready).collect();
        drop(seconds);
        ready.iter().for_each(|second| judge_one(run, pod, direction, second));
    }
}

fn judge_one(run: &Run, pod: &Measured, direction: Direction, second: &Second) {
    let ledger = pod.ledger.lock().expect("the ledger");
    let mut tally = pod.tally[direction as usize].lock().expect("the tally");
    let Some(limit) = highest(&ledger, direction, second) else {
        tally.unlimited += 1;
        return;
    };
    let time = seconds(second.to, second.from);
    let hold = hold(&ledger, direction, second, run.pace.paced);
    let credit = match hold {
        Hold::Nothing => {
            tally.unheld += 1;
            let share = second.bits as f64 / (limit as f64 * time);
            tally.worst_unheld = tally.worst_unheld.max(share);
            return;
        }
        Hold::Shaper(credit) => credit,
        Hold::GuardAlone(credit) => {
            tally.by_guard_alone += 1;
            credit
        }
        Hold::Turns(credit) => {
            tally.in_turns += 1;
            credit
        }
    };
    tally.judged += 1;
    let bound = limit as f64 * (time * (1.0 + MARGIN) + credit) + PACKETS_BITS;
    let of_bound = second.bits as f64 / bound;
    let rate = second.bits as f64 / time;
    let text = format!(
        "{:.2} Mbit/s at {:.2}, bound {:.2} ({hold})",
        rate / 1e6,
        limit as f64 / 1e6,
        bound / time / 1e6
    );
    if of_bound > 1.0 {
        let events = ledger.events(second.from - 3 * LINGER * 20, second.to).join("\n    ");
        run.fail(format!("{} {}: {text}\n    {events}", pod.name(), direction.name()));
    }
    if tally.worst.as_ref().is_none_or(|worst| worst.of_bound < of_bound) {
        tally.worst = Some(Worst { of_bound, text });
    }
}

/// The highest limit that may have been in force; None where there may have been none.
fn highest(ledger: &Ledger, direction: Direction, second: &Second) -> Option<u64> {
    let budgets = ledger.budgets[direction as usize].iter();
    let valid =
        budgets.filter(|b| b.from <= second.to && b.to.is_none_or(|to| to >= second.from - LINGER));
    valid.map(|budget| budget.limit).try_fold(0, |highest, limit| Some(limit?.max(highest)))
}

fn hold(ledger: &Ledger, direction: Direction, second: &Second, paced: bool) -> Hold {
    let (filter, fq) = match direction {
        Direction::Egress => (Piece::PodFilter, Piece::PodFq),
        Direction::Ingress => (Piece::HostFilter, Piece::HostFq),
    };
    let [filter, fq, guard] = [filter, fq, Piece::Guard].map(|p| Presence::of(ledger, p, second));
    let shaper = match (paced, fq.is_whole()) {
        (false, _) => BURST + POLICED_HORIZON,
        (true, true) => BURST + EARLY,
        (true, false) => BURST + EARLY + PACED_HORIZON,
    };
    if filter.is_whole() {
        return Hold::Shaper(shaper);
    }
    if direction == Direction::Ingress {
        return Hold::Nothing;
    }
    let alone = if paced { BURST } else { BURST + POLICED_HORIZON };
    if guard.is_whole() {
        return Hold::GuardAlone(alone);
    }
    match filter.gaps.iter().any(|gap| guard.gaps.iter().any(|other| gap.overlaps(other))) {
        true => Hold::Nothing,
        false => Hold::Turns(filter.turns() * shaper + guard.turns() * alone),
    }
}

/// When a piece was not there.
struct Gap {
    from: Instant,
    to: Option<Instant>,
}

impl Gap {
    fn overlaps(&self, other: &Self) -> bool {
        self.to.is_none_or(|to| to >= other.from) && other.to.is_none_or(|to| to >= self.from)
    }
}

struct Presence {
    gaps: Vec<Gap>,
}

impl Presence {
    fn of(ledger: &Ledger, piece: Piece, second: &Second) -> Self {
        let own = ledger.absences.iter().filter(|absence| absence.piece == piece);
        let gaps = own.map(|a| Gap { from: a.from, to: a.to.map(|to| to + LINGER) });
        let span = Gap { from: second.from, to: Some(second.to) };
        Self { gaps: gaps.filter(|gap| gap.overlaps(&span)).collect() }
    }

    fn is_whole(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Between and around its gaps, at most.
    fn turns(&self) -> f64 {
        self.gaps.len() as f64 + 1.0
    }
}

/// What was measured, a line for each direction of each pod.
pub fn print(run: &Run, pods: &[Measured]) {
    println!("seconds: judged (guard alone, in turns), not held by anything, unlimited; worst:");
    for (pod, direction) in pods.iter().flat_map(|pod| DIRECTIONS.map(|direction| (pod, direction)))
    {
        let tally = pod.tally[direction as usize].lock().expect("the tally");
        let worst = tally.worst.as_ref();
        println!(
            "  {} {:7} {:?}: {:>4} ({}, {}), {} (up to {:.1} x limit), {}; {}",
            pod.name(),
            direction.name(),
            pod.floods[direction as usize],
            tally.judged,
            tally.by_guard_alone,
            tally.in_turns,
            tally.unheld,
            tally.worst_unheld,
            tally.unlimited,
            worst.map_or("-".into(), |w| format!(
                "{:.1} % of bound: {}",
                w.of_bound * 100.0,
                w.text
            ))
        );
        if run.is_sound() && run.pace.time > Duration::from_secs(60) && tally.judged == 0 {
            run.fail(format!("{} {}: no second could be judged", pod.name(), direction.name()));
        }
    }
}
