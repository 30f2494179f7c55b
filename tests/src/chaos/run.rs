// SPDX-License-Identifier: Apache-2.0
//! What all actors share: the end, the account of what was done, how long things
//! took, and what was wrong. The first thing wrong ends the run.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::pace::Pace;

/// Only so many; the rest follows from the first ones.
const FAILURES: usize = 10;

pub struct Run {
    pub pace: Pace,
    pub began: Instant,
    over: AtomicBool,
    actions: Mutex<BTreeMap<String, u64>>,
    longest: Mutex<BTreeMap<String, Duration>>,
    failures: Mutex<Vec<String>>,
    calm: Mutex<Calm>,
    /// The look-out ticks.
    pub watched: AtomicBool,
    /// By calm time.
    agent_since: Mutex<Option<Duration>>,
}

/// Time without that in which the whole machine stood still: a reader that looks at the kernel every few
/// milliseconds knows. Whatever has a deadline is judged by it.
#[derive(Default)]
struct Calm {
    time: Duration,
    last: Option<Instant>,
}

/// A longer time between two looks is a standstill beyond that.
const STEP: Duration = Duration::from_millis(200);
/// For each second of patience; longer no standstill lasts.
const STANDSTILL: Duration = Duration::from_secs(10);

impl Run {
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            began: Instant::now(),
            over: AtomicBool::new(false),
            actions: Mutex::default(),
            longest: Mutex::default(),
            failures: Mutex::default(),
            calm: Mutex::default(),
            watched: AtomicBool::new(false),
            agent_since: Mutex::default(),
        }
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.began.elapsed() >= self.pace.time
    }

    /// The actors have done; only traffic and the look-out may still run.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// A pause that the end cuts short.
    pub fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.is_over() {
            let left = end.saturating_duration_since(Instant::now());
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    pub fn count(&self, action: &str) {
        let mut actions = self.actions.lock().expect("the account");
        *actions.entry(action.into()).or_default() += 1;
    }

    /// How long something took; the longest is kept.
    pub fn took(&self, what: &str, time: Duration) {
        let mut longest = self.longest.lock().expect("the account");
        let known = longest.entry(what.into()).or_default();
        *known = time.max(*known);
    }

    /// A pod has come round.
    pub fn tick(&self) {
        let mut calm = self.calm.lock().expect("the calm time");
        let now = Instant::now();
        let step = calm.last.map_or(Duration::ZERO, |last| now.duration_since(last));
        calm.time += step.min(STEP);
        calm.last = Some(now);
    }

    pub fn calm_time(&self) -> Duration {
        self.calm.lock().expect("the calm time").time
    }

    /// Whether the agent answers, from now on.
    pub fn agent_is_up(&self, up: bool) {
        let since = up.then(|| self.calm_time());
        *self.agent_since.lock().expect("the agent's start") = since;
    }

    /// How long the agent has had to put right what was done at this moment of calm time.
    pub fn agent_had(&self, since: Duration) -> Duration {
        let up = *self.agent_since.lock().expect("the agent's start");
        up.map_or(Duration::ZERO, |up| self.calm_time().saturating_sub(up.max(since)))
    }

    pub fn fail(&self, what: impl Into<String>) {
        let what = what.into();
        let at = self.began.elapsed();
        eprintln!("chaos: after {at:.3?}: {what}");
        self.failures.lock().expect("the failures").push(format!("after {at:.3?}: {what}"));
        self.end();
    }

    pub fn is_sound(&self) -> bool {
        self.failures.lock().expect("the failures").is_empty()
    }

    /// Waits for a condition; what does not come in time is a failure.
    pub fn wait_for(&self, what: &str, mut ask: impl FnMut() -> bool) -> bool {
        let (began, start) = (self.calm_time(), Instant::now());
        let patience = self.pace.patience;
        while !ask() {
            if !self.watched.load(Ordering::Relaxed) {
                self.tick();
            }
            let calm = self.calm_time().saturating_sub(began);
            if calm > patience || start.elapsed() > STANDSTILL * patience.as_secs() as u32 {
                self.fail(format!("waited {patience:?} for {what}"));
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// The account; then what was wrong, as a panic.
    pub fn finish(&self, agent_log: &str) {
        println!("actions:");
        for (action, count) in self.actions.lock().expect("the account").iter() {
            println!("  {count:>6} {action}");
        }
        println!("longest:");
        for (what, time) in self.longest.lock().expect("the account").iter() {
            println!("  {:>8.3} s {what}", time.as_secs_f64());
        }
        let failures = self.failures.lock().expect("the failures");
        if failures.is_empty() {
            return;
        }
        let shown: Vec<_> = failures.iter().take(FAILURES).map(String::as_str).collect();
        panic!(
            "{} wrong:\n{}\nthe agent's last words:\n{agent_log}\nagain: {}",
            failures.len(),
            shown.join("\n"),
            self.pace.to_line()
        );
    }
}
