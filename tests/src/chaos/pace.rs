// SPDX-License-Identifier: Apache-2.0
//! How long, how fast, and by which dice.

use std::env;
use std::time::{Duration, SystemTime};

use crate::kernel::{has_fq, has_tcx};

/// With set-up and clearing up, three minutes in all.
const DEFAULT_SECONDS: u64 = 165;
const MBIT: u64 = 1_000_000;

/// CHAOS_SECONDS, CHAOS_SEED, and CHAOS_PACE: `slow` where the processor is emulated.
#[derive(Clone, Debug)]
pub struct Pace {
    pub time: Duration,
    pub seed: u64,
    /// Callers of the plugin that work at once, and how long each waits between two pods, at most.
    pub runtimes: usize,
    pub breather: Duration,
    /// How long the operator waits at most between two deeds; and now and then, for what a restart
    /// would find events must tell.
    pub pause: Duration,
    pub peace: Duration,
    /// Pods that each of them keeps.
    pub crowd: usize,
    pub measured: usize,
    /// How often it is looked what is attached.
    pub look_every: Duration,
    /// Limits that are given to pods, in bit/s; and what UDP offers against them.
    pub rates: [u64; 4],
    pub offer: u64,
    /// What must be done soon may take so long, an agent's start included.
    pub patience: Duration,
    /// A repair may take so long while the agent is up.
    pub repair: Duration,
    /// What this kernel has.
    pub paced: bool,
    pub tcx: bool,
}

impl Pace {
    pub fn from_environment() -> Self {
        let number = |name: &str| {
            let text = env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
        };
        let time = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(DEFAULT_SECONDS));
        let seed = number("CHAOS_SEED").unwrap_or_else(any_seed);
        match env::var("CHAOS_PACE").as_deref() {
            Ok("slow") => Self::slow(time, seed),
            _ => Self::native(time, seed),
        }
    }

    fn native(time: Duration, seed: u64) -> Self {
        Self {
            time,
            seed,
            runtimes: 4,
            breather: Duration::from_millis(110),
            pause: Duration::from_millis(1200),
            peace: Duration::from_secs(20),
            crowd: 16,
            measured: 4,
            look_every: Duration::from_millis(10),
            rates: [4, 6, 8, 12].map(|rate| rate * MBIT),
            offer: 24 * MBIT,
            patience: Duration::from_secs(20),
            repair: Duration::from_secs(6),
            paced: has_fq(),
            tcx: has_tcx(),
        }
    }

    fn slow(time: Duration, seed: u64) -> Self {
        Self {
            runtimes: 1,
            breather: Duration::from_millis(800),
            pause: Duration::from_secs(2),
            peace: Duration::from_secs(5),
            crowd: 4,
            measured: 2,
            look_every: Duration::from_millis(50),
            rates: [2, 3, 4, 5].map(|rate| rate * MBIT),
            offer: 10 * MBIT,
            patience: Duration::from_secs(60),
            repair: Duration::from_secs(20),
            ..Self::native(time, seed)
        }
    }

    pub fn to_line(&self) -> String {
        let Self { seed, paced, tcx, .. } = self;
        let mode = if *paced { "paced" } else { "policed" };
        let guard = if *tcx { "tcx" } else { "clsact" };
        format!(
            "chaos: CHAOS_SEED={seed} CHAOS_SECONDS={}, {mode}, guard on {guard}",
            self.time.as_secs()
        )
    }
}

fn any_seed() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("the time");
    // Short enough to be typed.
    now.as_nanos() as u64 % 1_000_000_007
}
