// SPDX-License-Identifier: Apache-2.0
//! How often a pod had to be repaired of late. Whoever removes the same thing again
//! and again means it: then we stand back, longer each time, and say so.

use std::time::{Duration, Instant};

/// So many repairs within this time are a contest.
const REPAIRS: usize = 10;
const WITHIN: Duration = Duration::from_secs(60);
const FIRST_QUIET: Duration = Duration::from_secs(60);
const LONGEST_QUIET: Duration = Duration::from_secs(960);

#[derive(Debug, Default)]
pub struct Health {
    repairs: Vec<Instant>,
    /// Times that we stood back without a peaceful time after it.
    contests: u32,
    quiet_until: Option<Instant>,
}

impl Health {
    /// Until when nothing of this pod is to be repaired.
    pub fn quiet_until(&self) -> Option<Instant> {
        self.quiet_until
    }

    /// Something had to be restored; gives until when to stand back, if that was once too often.
    pub fn mended(&mut self, now: Instant) -> Option<Instant> {
        let peaceful = |last: &Instant| now.duration_since(*last) > 2 * LONGEST_QUIET;
        if self.repairs.last().is_none_or(peaceful) {
            self.contests = 0;
        }
        self.repairs.retain(|repair| now.duration_since(*repair) < WITHIN);
        self.repairs.push(now);
        if self.repairs.len() < REPAIRS {
            return None;
        }
        let quiet = FIRST_QUIET * 2u32.pow(self.contests.min(4));
        self.repairs = vec![now];
        self.contests += 1;
        self.quiet_until = Some(now + quiet.min(LONGEST_QUIET));
        self.quiet_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contest(health: &mut Health, now: Instant) -> Option<Instant> {
        (0..REPAIRS as u32 * 2).find_map(|n| health.mended(now + Duration::from_millis(n.into())))
    }

    #[test]
    fn few_repairs_are_no_contest() {
        let (mut health, now) = (Health::default(), Instant::now());
        for n in 0..50 {
            assert_eq!(health.mended(now + n * Duration::from_secs(8)), None, "{n}");
        }
        assert_eq!(health.quiet_until(), None);
    }

    #[test]
    fn each_contest_means_twice_the_quiet_up_to_a_bound() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        let mut quiets = Vec::new();
        for _ in 0..6 {
            let until = contest(&mut health, now).expect("a contest");
            quiets.push(until.duration_since(now).as_secs());
            now = until;
        }
        assert_eq!(quiets, [60, 120, 240, 480, 960, 960]);
    }

    #[test]
    fn long_peace_is_a_new_start() {
        let (mut health, now) = (Health::default(), Instant::now());
        contest(&mut health, now);
        let later = now + 3 * LONGEST_QUIET;
        let until = contest(&mut health, later).expect("a contest");
        assert_eq!(until.duration_since(later).as_secs(), 60);
    }
}
