// SPDX-License-Identifier: Apache-2.0
//! From what a look saw, and for how long it has been so, to what it means. No
//! clock, no I/O: time comes in as what has passed. A pool that breathes, as
//! aws-node's does, must not make the answer flap.

use std::time::Duration;

use super::promise::{Pool, Promise};
use super::state::CapacityFinding;

/// aws-node takes a minute or two to start on a fresh node; a subnet without a free /28 costs it cooldowns
/// of 120 s (ipamd.go, InsufficientCidrBlocks), and IMDS may be a minute behind EC2.
pub const COMES_WITHIN: Duration = Duration::from_secs(300);
/// For so long a good answer is not taken back, and trouble is not over: longer than one cooldown.
pub const SETTLES_WITHIN: Duration = Duration::from_secs(180);
/// A pool that fills for so long does not fill.
pub const FILLS_WITHIN: Duration = Duration::from_secs(600);

/// What may be wrong, and since when it has, or has not, been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Prefixes should be there and are not.
    missing: Held,
    /// There are prefixes that the settings did not count on.
    wasted: Held,
    /// No address is free for the next pod, and max-pods allows one.
    empty: Held,
    /// Fewer addresses than aws-node should have.
    short: Held,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    holds: bool,
    lasted: Duration,
}

impl Held {
    fn after(self, holds: bool, passed: Duration) -> Self {
        let lasted = if holds == self.holds { self.lasted + passed } else { Duration::ZERO };
        Self { holds, lasted }
    }

    fn for_at_least(self, time: Duration) -> bool {
        self.holds && self.lasted >= time
    }
}

impl Signs {
    /// The same, after one look more; so much time has passed since the last one.
    pub fn after(self, promise: &Promise, pool: &Pool, used: u64, passed: Duration) -> Self {
        let missing = promise.misses_prefixes(pool);
        let full_house = used >= pool.addresses && used < promise.demand();
        // With nothing at all, what is missing is the prefixes.
        let empty = full_house && !(missing && pool.addresses == 0);
        let short = missing || pool.addresses < promise.target(used, pool);
        Self {
            missing: self.missing.after(missing, passed),
            wasted: self.wasted.after(promise.wastes_prefixes(pool), passed),
            empty: self.empty.after(empty, passed),
            short: self.short.after(short, passed),
        }
    }

    /// Whether aws-node has wanted more addresses, and got none, for too long.
    pub fn fills_for_long(&self) -> bool {
        self.short.for_at_least(FILLS_WITHIN)
    }

    pub fn misses_prefixes(&self) -> bool {
        self.missing.holds
    }
}

/// What it means. `before` is what it meant until now.
pub fn judge(
    before: CapacityFinding,
    promise: &Promise,
    pool: &Pool,
    signs: &Signs,
) -> CapacityFinding {
    if is_exhausted(before, promise, pool, signs.empty) {
        CapacityFinding::Exhausted
    } else if promise.cannot_delegate() {
        CapacityFinding::CannotDelegate
    } else if promise.overpromises(pool) {
        CapacityFinding::Overpromised
    } else if signs.missing.for_at_least(COMES_WITHIN) {
        CapacityFinding::NoPrefixes
    } else if signs.wasted.for_at_least(COMES_WITHIN) {
        CapacityFinding::UnexpectedPrefixes
    } else if signs.short.holds
        && (before != CapacityFinding::Fits || signs.short.for_at_least(SETTLES_WITHIN))
    {
        CapacityFinding::Filling
    } else {
        CapacityFinding::Fits
    }
}

/// At once where nothing more can come, else when nothing has come for a while.
fn is_exhausted(before: CapacityFinding, promise: &Promise, pool: &Pool, empty: Held) -> bool {
    let cannot_grow = pool.addresses > 0 && promise.full(pool) == Some(pool.addresses);
    if before == CapacityFinding::Exhausted {
        empty.holds || empty.lasted < SETTLES_WITHIN
    } else {
        empty.for_at_least(COMES_WITHIN) || (empty.holds && cannot_grow)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::promise::tests::{PREFIXES, SECONDARY, promise};
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn pool(addresses: u64, prefixes: u64) -> Pool {
        Pool { addresses, prefixes, ..Pool::default() }
    }

    /// What is found in a look a minute at pools with so many pods; each change, with its minute.
    fn changes(promise: &Promise, looks: &[(Pool, u64)]) -> Vec<(usize, CapacityFinding)> {
        let (mut signs, mut found) = (Signs::default(), CapacityFinding::Unseen);
        let mut changes = Vec::new();
        for (minute, (pool, used)) in looks.iter().enumerate() {
            let passed = if minute == 0 { Duration::ZERO } else { MINUTE };
            signs = signs.after(promise, pool, *used, passed);
            let now = judge(found, promise, pool, &signs);
            if std::mem::replace(&mut found, now) != now {
                changes.push((minute, now));
            }
        }
        changes
    }

    fn looks(spells: &[(usize, Pool, u64)]) -> Vec<(Pool, u64)> {
        spells.iter().flat_map(|(minutes, pool, used)| vec![(*pool, *used); *minutes]).collect()
    }

    #[test]
    fn prefixes_that_come_late_are_no_mismatch() {
        let looks = looks(&[
            (4, pool(0, 0), 0),
            (1, pool(16, 1), 4),
            (1, pool(32, 2), 4),
            (9, pool(32, 2), 16),
        ]);
        let expected = [(0, CapacityFinding::Filling), (5, CapacityFinding::Fits)];
        assert_eq!(changes(&promise(&PREFIXES), &looks), expected);
    }

    #[test]
    fn prefixes_that_do_not_come_are_one_after_five_minutes_until_they_do() {
        let looks = looks(&[(9, pool(5, 0), 2), (2, pool(16, 1), 2), (3, pool(32, 2), 2)]);
        let expected = [
            (0, CapacityFinding::Filling),
            (5, CapacityFinding::NoPrefixes),
            (9, CapacityFinding::Filling),
            (11, CapacityFinding::Fits),
        ];
        assert_eq!(changes(&promise(&PREFIXES), &looks), expected);
    }

    #[test]
    fn prefixes_that_vanish_are_told_in_two_steps() {
        let looks = looks(&[(3, pool(32, 2), 5), (9, pool(0, 0), 0)]);
        let expected = [
            (0, CapacityFinding::Fits),
            (6, CapacityFinding::Filling),
            (8, CapacityFinding::NoPrefixes),
        ];
        assert_eq!(changes(&promise(&PREFIXES), &looks), expected);
    }

    #[test]
    fn type_without_prefixes_is_told_at_once() {
        let mut promise = promise(&PREFIXES);
        promise.in_force.delegates_prefixes = Some(false);
        assert_eq!(changes(&promise, &[(pool(5, 0), 2)]), [(0, CapacityFinding::CannotDelegate)]);
    }

    #[test]
    fn prefixes_against_the_settings_matter_where_max_pods_leaves_them_unused() {
        let looks = looks(&[(9, pool(32, 2), 4), (1, pool(5, 0), 4), (9, pool(32, 2), 4)]);
        let expected = [
            (0, CapacityFinding::Fits),
            (5, CapacityFinding::UnexpectedPrefixes),
            (9, CapacityFinding::Fits),
            (15, CapacityFinding::UnexpectedPrefixes),
        ];
        assert_eq!(changes(&promise(&SECONDARY), &looks), expected);
        let mut large = promise(&SECONDARY);
        large.in_force.pods = 58;
        large.in_force.capacity = Some(56);
        assert_eq!(changes(&large, &looks), [(0, CapacityFinding::Fits)]);
    }

    #[test]
    fn full_enis_are_exhausted_at_once_and_until_an_address_stays_free() {
        // Another component has given kubelet 20 where fifteen addresses are all there will be.
        let mut promise = promise(&SECONDARY);
        promise.in_force.pods = 20;
        let full = |used| (pool(15, 0), used);
        let looks =
            [full(14), full(15), full(14), full(15), full(14), full(13), full(13), full(13)];
        let expected = [
            (0, CapacityFinding::Overpromised),
            (1, CapacityFinding::Exhausted),
            (7, CapacityFinding::Overpromised),
        ];
        assert_eq!(changes(&promise, &looks), expected);
    }

    #[test]
    fn node_that_is_full_of_pods_as_promised_is_well() {
        assert_eq!(
            changes(&promise(&SECONDARY), &[(pool(15, 0), 15)]),
            [(0, CapacityFinding::Fits)]
        );
        assert_eq!(
            changes(&promise(&PREFIXES), &[(pool(112, 7), 108)]),
            [(0, CapacityFinding::Fits)]
        );
    }

    #[test]
    fn pool_that_gets_nothing_is_exhausted_after_five_minutes() {
        let looks = looks(&[(2, pool(32, 2), 5), (9, pool(32, 2), 32)]);
        let expected = [
            (0, CapacityFinding::Fits),
            (5, CapacityFinding::Filling),
            (7, CapacityFinding::Exhausted),
        ];
        assert_eq!(changes(&promise(&PREFIXES), &looks), expected);
    }

    #[test]
    fn filling_is_no_trouble_before_ten_minutes() {
        let promise = promise(&PREFIXES);
        let mut signs = Signs::default();
        let filling_for_long = (0..12).map(|minute| {
            let passed = if minute == 0 { Duration::ZERO } else { MINUTE };
            signs = signs.after(&promise, &pool(16, 1), 5, passed);
            signs.fills_for_long()
        });
        assert_eq!(
            filling_for_long.collect::<Vec<_>>(),
            [[false; 10].as_slice(), &[true; 2]].concat()
        );
    }

    /// A pool of up to fifteen prefixes, and pods.
    fn any_looks() -> impl Strategy<Value = Vec<(Pool, u64)>> {
        let look = (0..16u64, 0..120u64).prop_map(|(n, used)| (pool(16 * n, n), used));
        proptest::collection::vec(look, 1..60)
    }

    proptest! {
        /// One more prefix is always on its way here, and one goes as soon as it is not needed.
        #[test]
        fn pool_that_breathes_does_not_flap(pods in proptest::collection::vec(0..100u64, 60)) {
            let promise = promise(&PREFIXES);
            let mut has = 2;
            let looks: Vec<_> = pods.into_iter().map(|used| {
                let look = (pool(16 * has, has), used.min(16 * has - 1));
                let wants = (look.1 + 16).div_ceil(16);
                has = if wants > has { has + 1 } else { wants };
                look
            }).collect();
            let mut short = 0;
            let longest = looks.iter().map(|(pool, used)| {
                short = if pool.addresses < promise.target(*used, pool) { short + 1 } else { 0 };
                short
            }).max();
            let changes = changes(&promise, &looks);
            prop_assume!(longest <= Some(3));
            let first = [(0, changes[0].1)];
            let rest: Vec<_> = changes.iter().filter(|(_, found)| *found != CapacityFinding::Fits).collect();
            prop_assert!(changes[..1] == first && rest.len() <= 1 && changes.len() <= 2, "{changes:?}");
        }

        #[test]
        fn nobody_is_told_of_exhaustion_while_addresses_are_free(looks in any_looks()) {
            let promise = promise(&PREFIXES);
            for (minute, found) in changes(&promise, &looks) {
                let (pool, used) = looks[minute];
                let is_empty = used >= pool.addresses && used < promise.demand();
                prop_assert!(found != CapacityFinding::Exhausted || is_empty);
            }
        }

        #[test]
        fn five_minutes_without_a_free_address_are_always_told(looks in any_looks()) {
            let promise = promise(&PREFIXES);
            let empty = looks.iter().rev().take_while(|(pool, used)| {
                pool.addresses > 0 && *used >= pool.addresses && *used < promise.demand()
            });
            let lasts = empty.count() > 5;
            let last = changes(&promise, &looks).last().map(|(_, found)| *found);
            prop_assert!(!lasts || last == Some(CapacityFinding::Exhausted), "{last:?}");
        }

        #[test]
        fn a_good_answer_is_not_taken_back_for_three_minutes(looks in any_looks()) {
            let changes = changes(&promise(&PREFIXES), &looks);
            for pair in changes.windows(2) {
                let [(from, good), (to, then)] = pair else { continue };
                let taken_back = *good == CapacityFinding::Fits && *then == CapacityFinding::Filling;
                prop_assert!(!taken_back || to - from >= 3, "{changes:?}");
            }
        }
    }
}
