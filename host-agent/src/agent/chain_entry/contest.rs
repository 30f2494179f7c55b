// SPDX-License-Identifier: Apache-2.0
//! Whether a writer takes our entry out because it is there. A writer that replaces
//! the conflist for reasons of its own (aws-node, istio, linkerd) does so
//! whether our entry is in it or not, however often; a writer against the entry
//! writes only when it is there. So after many short-lived entries in a row we
//! hold ours back for longer than any of them lasted. If someone writes in that
//! time, our entry is not the reason, and we begin to count again. If no one
//! does, several times in a row, it is a contest: we stand back, longer each time.
//! A writer that is known to answer each change of the directory (Cilium) is found
//! out after a few entries.

use std::time::{Duration, Instant};

/// When the writer of a file is suspected.
#[derive(Clone, Copy, Debug)]
pub struct Suspicion {
    /// No one is against an entry that stays so long.
    peace: Duration,
    /// So many entries in a row that did not last are suspicious.
    entries: u32,
}

/// Of a random writer's rewrites less than one in a hundred is then delayed.
pub const ANY_WRITER: Suspicion = Suspicion { peace: Duration::from_secs(60), entries: 128 };
/// Cilium with cni.exclusive answers within milliseconds; without, it writes at its start only, which
/// a loop of restarts takes ten seconds for (daemon/cmd/cni/config.go, 1.18).
pub const CILIUM: Suspicion = Suspicion { peace: Duration::from_secs(2), entries: 4 };
/// So often in a row no one writes while our entry is delayed: then it is a contest.
const SILENCES: u32 = 3;
/// How much longer than the longest of them an entry is delayed: three times covers gaps of any
/// random writer but one in a million.
const LONGER: u32 = 3;
const SHORTEST_HOLD: Duration = Duration::from_millis(50);
const FIRST_QUIET: Duration = Duration::from_secs(60);
const LONGEST_QUIET: Duration = Duration::from_secs(960);

/// Inode and time of the last change: another stamp, another write.
pub type Stamp = (u64, i64, i64);

#[derive(Debug, PartialEq, Eq)]
pub enum Advice {
    PutBack,
    /// Not before this time, unless another writer writes.
    Hold(Instant),
    /// It is a contest: not before this time, whoever writes.
    StandBack(Instant),
}

#[derive(Debug, Default)]
pub struct Contest {
    put_back: Option<Instant>,
    /// Entries in a row that did not last, and what the longest of them did.
    short: u32,
    longest: Duration,
    silences: u32,
    held: Option<(Instant, Stamp)>,
    quiet_until: Option<Instant>,
    quiets: u32,
}

impl Contest {
    /// Our entry was put where it was not.
    pub fn put_back(&mut self, now: Instant) {
        self.put_back = Some(now);
    }

    /// Our entry is not in the file of this stamp.
    pub fn gone(&mut self, stamp: Stamp, by: Suspicion, now: Instant) -> Advice {
        if let Some(quiet) = self.quiet_until.filter(|quiet| *quiet > now) {
            return Advice::StandBack(quiet);
        }
        if self.quiet_until.take().is_some() {
            return Advice::PutBack;
        }
        if let Some((until, held)) = self.held {
            return self.held_back(until, held == stamp, now);
        }
        let lasted = self.put_back.map(|when| now.saturating_duration_since(when));
        let Some(lasted) = lasted.filter(|lasted| *lasted < by.peace) else {
            *self = Self::default();
            return Advice::PutBack;
        };
        self.short += 1;
        self.longest = self.longest.max(lasted);
        if self.short < by.entries {
            Advice::PutBack
        } else if self.silences < SILENCES {
            let until = now + (LONGER * self.longest).max(SHORTEST_HOLD);
            self.held = Some((until, stamp));
            Advice::Hold(until)
        } else {
            self.stand_back(now)
        }
    }

    fn held_back(&mut self, until: Instant, untouched: bool, now: Instant) -> Advice {
        if !untouched {
            *self = Self::default();
        } else if now < until {
            return Advice::Hold(until);
        }
        self.held = None;
        self.silences += u32::from(untouched);
        Advice::PutBack
    }

    fn stand_back(&mut self, now: Instant) -> Advice {
        let quiet = now + (FIRST_QUIET * 2u32.pow(self.quiets.min(4))).min(LONGEST_QUIET);
        self.quiets += 1;
        self.quiet_until = Some(quiet);
        // One more silence is then enough, unless an entry lasts before.
        self.silences = SILENCES - 1;
        Advice::StandBack(quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a writer that writes at times given by `answer`: after an entry was restored at that time,
    /// or (None) while it was out, when it would write next. Gives each time that we stood back.
    struct Play {
        contest: Contest,
        by: Suspicion,
        now: Instant,
        stamp: Stamp,
        longest_gap: Duration,
        held: u32,
    }

    impl Play {
        fn new() -> Self {
            let (now, stamp) = (Instant::now(), (1, 0, 0));
            let contest = Contest::default();
            Self { contest, by: ANY_WRITER, now, stamp, longest_gap: Duration::ZERO, held: 0 }
        }

        /// The writer writes; then on until our entry is back, or we stand back. While it is delayed,
        /// it writes again after `again`, if that is given.
        fn write(&mut self, again: impl Fn() -> Option<Duration>) -> Option<Instant> {
            let written = self.now;
            self.stamp.0 += 1;
            loop {
                match self.contest.gone(self.stamp, self.by, self.now) {
                    Advice::PutBack => {
                        self.contest.put_back(self.now);
                        self.longest_gap = self.longest_gap.max(self.now - written);
                        return None;
                    }
                    Advice::StandBack(until) => return Some(until),
                    Advice::Hold(until) => {
                        self.held += 1;
                        let next = again().map(|after| self.now + after);
                        match next.filter(|next| *next < until) {
                            Some(next) => {
                                self.now = next;
                                self.stamp.0 += 1;
                            }
                            None => self.now = until,
                        }
                    }
                }
            }
        }
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn who_writes_at_random_is_never_taken_for_an_opponent() {
        let mut random = 7u64;
        // Exponentially distributed gaps, the hardest case: short ones are the most frequent.
        let mut gap = |mean: f64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let unit = ((random >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
            Duration::from_secs_f64(-unit.ln() * mean)
        };
        for mean in [0.002, 0.02, 0.06, 0.5, 5.0] {
            let mut play = Play::new();
            for n in 0..5000 {
                play.now += gap(mean);
                let next = gap(mean);
                assert_eq!(play.write(|| Some(next)), None, "mean {mean}, write {n}");
            }
            assert!(mean == 5.0 || play.held > 20, "mean {mean}: never suspicious");
        }
    }

    #[test]
    fn who_answers_each_entry_is_found_out_at_once_or_slowly() {
        for answer in [millis(1), millis(30), millis(1000), millis(20_000)] {
            let mut play = Play::new();
            let stood_back = (0..2 * ANY_WRITER.entries).find_map(|n| {
                play.now += answer;
                play.write(|| None).map(|until| (n, until))
            });
            let (writes, until) = stood_back.expect("a contest");
            assert_eq!(writes, ANY_WRITER.entries + SILENCES, "{answer:?}");
            assert_eq!(until, play.now + FIRST_QUIET);
        }
    }

    #[test]
    fn cilium_that_answers_at_once_is_found_out_after_a_few_entries_and_its_restarts_are_not() {
        let mut play = Play { by: CILIUM, ..Play::new() };
        let answers = (1..20).find(|_| {
            play.now += millis(3);
            play.write(|| None).is_some()
        });
        assert_eq!(answers, Some(CILIUM.entries + SILENCES + 1));
        let mut play = Play { by: CILIUM, ..Play::new() };
        for _ in 0..100 {
            play.now += Duration::from_secs(10);
            assert_eq!(play.write(|| None), None);
        }
        assert_eq!((play.held, play.longest_gap), (0, Duration::ZERO));
    }

    #[test]
    fn each_contest_means_twice_the_quiet_up_to_a_bound() {
        let mut play = Play::new();
        let mut quiets = Vec::new();
        while quiets.len() < 6 {
            play.now += millis(2);
            if let Some(until) = play.write(|| None) {
                quiets.push((until - play.now).as_secs());
                play.now = until;
                // Still out: it is restored, and the next answer shows which it was.
                assert_eq!(play.write(|| None), None);
            }
        }
        assert_eq!(quiets, [60, 120, 240, 480, 960, 960]);
    }

    #[test]
    fn entry_that_lasts_ends_all_suspicion() {
        let mut play = Play::new();
        for _ in 0..ANY_WRITER.entries - 1 {
            play.now += millis(2);
            assert_eq!(play.write(|| None), None);
        }
        play.now += ANY_WRITER.peace;
        assert_eq!(play.write(|| None), None);
        for _ in 0..ANY_WRITER.entries - 1 {
            play.now += millis(2);
            assert_eq!(play.write(|| None), None);
        }
        assert_eq!(play.held, 0);
    }

    /// The last write of a burst may be the one that is delayed; then it is late, but not lost.
    #[test]
    fn burst_that_ends_while_the_entry_is_held_back_costs_a_moment() {
        let mut play = Play::new();
        for _ in 0..=ANY_WRITER.entries {
            play.now += millis(20);
            assert_eq!(play.write(|| None), None);
        }
        assert_eq!((play.held, play.longest_gap), (1, millis(60)));
    }
}
