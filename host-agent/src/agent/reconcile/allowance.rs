// SPDX-License-Identifier: Apache-2.0
//! What an EC2 instance may send or receive now. EC2 lets it go at its peak as
//! long as it has credit, which it earns below its baseline, and drops what is
//! above the baseline when the credit is used up. It does not tell the credit; what it
//! tells is that it has dropped something. Pure arithmetic, a look each second.

use std::time::Duration;

/// The credit that an instance can have is used up at its peak after 5 to 60 minutes.
const MOST_CREDIT_S: f64 = 3600.0;
/// Credit for so long is waited for, and used up to the last second: the line does not flicker.
const WORTH_A_BURST_S: f64 = 5.0;
const LAST_S: f64 = 1.0;
/// The table may be wrong by a quarter: bandwidth weighting moves it by that.
const LEAST: f64 = 0.75;
/// Drops of a line that is less full come from bursts of milliseconds, which no line of ours changes.
const FULL: f64 = 0.9;
/// Down at once, and up again as slowly as one drop in ten seconds or more allows.
const DOWN: f64 = 0.95;
const UP_PER_S: f64 = 0.005;

/// Of one direction; in bit/s, bits and seconds.
#[derive(Clone, Debug)]
pub struct Allowance {
    baseline: f64,
    peak: f64,
    /// What it can do without credit, as far as drops have told.
    sustained: f64,
    /// As counted since it was last used up; None before the first time.
    credit: Option<f64>,
    bursts: bool,
}

impl Allowance {
    pub fn new(baseline: f64, peak: f64) -> Self {
        Self { baseline, peak, sustained: baseline, credit: None, bursts: peak > baseline }
    }

    /// What may be sent now, by pods and node together.
    pub fn line(&self) -> f64 {
        if self.bursts { self.peak } else { self.sustained }
    }

    /// So many bits were sent in this span, and `exceeded` says whether something was dropped.
    pub fn look(&mut self, span: Duration, bits: f64, exceeded: bool) {
        let span = span.as_secs_f64();
        let used = bits / span.max(1e-3);
        let earns_below = self.sustained.min(self.baseline);
        if exceeded && used >= FULL * earns_below {
            if !self.bursts {
                let halfway = self.baseline + (self.sustained - self.baseline) / 2.0;
                let lower = (self.sustained * DOWN).min(halfway);
                self.sustained = lower.max(LEAST * self.baseline);
            }
            self.credit = Some(0.0);
            self.bursts = false;
            return;
        }
        if !self.bursts && used >= FULL * self.sustained {
            self.sustained = (self.sustained * (1.0 + UP_PER_S * span)).min(self.peak);
        }
        let burst = self.peak - self.baseline;
        if let Some(credit) = &mut self.credit {
            *credit = (*credit + (earns_below - used) * span).clamp(0.0, burst * MOST_CREDIT_S);
            let enough = burst * if self.bursts { LAST_S } else { WORTH_A_BURST_S };
            self.bursts = burst > 0.0 && *credit >= enough;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: f64 = 0.1;
    const STEPS_PER_LOOK: usize = 10;

    /// As EC2 documents it: all of the credit at the start, earned below the baseline, spent above.
    struct Bucket {
        baseline: f64,
        peak: f64,
        most: f64,
        credit: f64,
    }

    impl Bucket {
        fn new(baseline: f64, peak: f64, minutes: f64) -> Self {
            let most = (peak - baseline) * minutes * 60.0;
            Self { baseline, peak, most, credit: most }
        }

        /// What passes of what is offered in a step.
        fn pass(&mut self, offered: f64) -> f64 {
            let limit = if self.credit > 0.0 { self.peak } else { self.baseline };
            let passed = offered.min(limit * STEP);
            self.credit = (self.credit + self.baseline * STEP - passed).clamp(0.0, self.most);
            passed
        }
    }

    /// What senders want, in bits that become due in a step.
    #[derive(Clone, Copy, Debug)]
    enum Demand {
        Greedy,
        /// A part of the baseline, for ever.
        Part(f64),
        /// So many seconds at the peak, each so many seconds.
        Bursts(f64, f64),
    }

    impl Demand {
        fn due(self, at: f64, bucket: &Bucket) -> f64 {
            match self {
                Self::Greedy => bucket.peak * STEP,
                Self::Part(part) => part * bucket.baseline * STEP,
                Self::Bursts(on, every) if at % every < on => bucket.peak * STEP,
                Self::Bursts(..) => 0.0,
            }
        }
    }

    /// Dropped and passed bits. What was dropped is sent again, as by TCP.
    fn run(mut bucket: Bucket, demand: Demand, allowance: Option<Allowance>) -> [f64; 2] {
        const SECONDS: usize = 2 * 3600;
        let mut allowance = allowance;
        let (mut dropped, mut passed, mut waits) = (0.0, 0.0, 0.0);
        for second in 0..SECONDS {
            let line = allowance.as_ref().map_or(bucket.peak, Allowance::line);
            let (mut sent, mut exceeded) = (0.0, false);
            for step in 0..STEPS_PER_LOOK {
                waits += demand.due(second as f64 + step as f64 * STEP, &bucket);
                let offered = f64::min(waits, line * STEP);
                let through = bucket.pass(offered);
                waits -= through;
                sent += offered;
                passed += through;
                dropped += offered - through;
                exceeded |= offered - through > 1.0;
            }
            if let Some(allowance) = &mut allowance {
                allowance.look(Duration::from_secs(1), sent, exceeded);
            }
        }
        [dropped, passed]
    }

    /// Drops as a part of those of a line fixed at the peak, and what passes as a part of what it lets pass.
    fn against_the_peak(bucket: impl Fn() -> Bucket, demand: Demand, table: f64) -> [f64; 2] {
        let Bucket { baseline, peak, .. } = bucket();
        let fixed = run(bucket(), demand, None);
        let ours = run(bucket(), demand, Some(Allowance::new(baseline * table, peak)));
        let few = if ours[0] == 0.0 { 0.0 } else { ours[0] / fixed[0] };
        [few, ours[1] / fixed[1]]
    }

    const DEMANDS: [Demand; 6] = [
        Demand::Greedy,
        Demand::Part(0.5),
        Demand::Part(1.2),
        Demand::Bursts(60.0, 600.0),
        Demand::Bursts(120.0, 300.0),
        Demand::Bursts(1.0, 10.0),
    ];

    #[test]
    fn instances_lose_a_tenth_of_what_a_fixed_peak_loses_and_send_as_much() {
        for (baseline, peak) in
            [(0.75e9, 10e9), (0.39e9, 12.5e9), (1.25e9, 10e9), (5e9, 10e9), (12.5e9, 25e9)]
        {
            for minutes in [5.0, 60.0] {
                for demand in DEMANDS {
                    let [few, used] =
                        against_the_peak(|| Bucket::new(baseline, peak, minutes), demand, 1.0);
                    println!("{baseline}/{peak} {minutes} min {demand:?}: {few:.4} {used:.4}");
                    assert!(few <= 0.1 && used >= 0.95, "{baseline}/{peak} {minutes} {demand:?}");
                }
            }
        }
    }

    #[test]
    fn line_starts_at_the_peak_and_is_at_the_baseline_a_second_after_the_credit_has_gone() {
        let second = Duration::from_secs(1);
        let mut allowance = Allowance::new(1e9, 10e9);
        assert_eq!(allowance.line(), 10e9);
        allowance.look(second, 10e9, true);
        assert_eq!(allowance.line(), 1e9);
        // 45 Gbit are worth a burst: 5 s above the baseline.
        (0..44).for_each(|_| allowance.look(second, 0.0, false));
        assert_eq!(allowance.line(), 1e9);
        allowance.look(second, 0.0, false);
        assert_eq!(allowance.line(), 10e9);
        (0..4).for_each(|_| allowance.look(second, 10e9, false));
        assert_eq!(allowance.line(), 10e9);
        allowance.look(second, 10e9, false);
        assert_eq!(allowance.line(), 1e9);
    }

    #[test]
    fn drops_of_a_line_that_is_not_full_say_nothing() {
        let mut allowance = Allowance::new(1e9, 10e9);
        (0..60).for_each(|_| allowance.look(Duration::from_secs(1), 0.5e9, true));
        assert_eq!(allowance.line(), 10e9);
        let mut steady = Allowance::new(25e9, 25e9);
        assert_eq!(steady.line(), 25e9);
        (0..60).for_each(|_| steady.look(Duration::from_secs(1), 25e9, true));
        assert_eq!(steady.line(), LEAST * 25e9);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_bucket_near_the_table_is_used_without_losing_much(
            baseline in 0.3e9..25e9, above in 1.3..20.0, minutes in 5.0..60.0,
            table in 0.8..1.25, demand in prop::sample::select(DEMANDS.to_vec()),
        ) {
            let bucket = || Bucket::new(baseline, baseline * above, minutes);
            let [few, used] = against_the_peak(bucket, demand, f64::min(table, above));
            prop_assert!(few <= 0.1, "drops {few}");
            prop_assert!(used >= 0.95, "used {used}");
        }

        #[test]
        fn line_is_never_beyond_its_bounds(
            looks in prop::collection::vec((0.0..20e9, any::<bool>(), 1u64..5000), 0..200),
        ) {
            let mut allowance = Allowance::new(1e9, 10e9);
            for (bits, exceeded, millis) in looks {
                allowance.look(Duration::from_millis(millis), bits, exceeded);
                prop_assert!((LEAST * 1e9..=10e9).contains(&allowance.line()));
            }
        }
    }
}
