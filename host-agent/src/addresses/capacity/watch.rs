// SPDX-License-Identifier: Apache-2.0
//! One look after the other: asks IMDS, counts pods, and reports when what that
//! means has changed, once. What was known stays known when IMDS is silent.

use std::time::Duration;

use anyhow::Result;

use super::explain::{numbers, trouble};
use super::judge::{Signs, judge};
use super::pods;
use super::promise::{Pool, Promise};
use super::state::{AddressCount, Capacity, CapacityFinding};
use crate::host::clock::now_ns;
use crate::host::paths::Paths;
use crate::imds::eni::Eni;
use crate::imds::interface::InterfaceError;
use crate::imds::{ImdsError, Outside, jittered};
use crate::trouble::Trouble;

/// From one look to the next, on average.
const PAUSE: Duration = Duration::from_secs(60);
/// For all that is asked of IMDS in one look.
const BUDGET: Duration = Duration::from_secs(10);
/// What a silence between two good answers counts at most: no one knows what was in between.
const MOST_BETWEEN: Duration = Duration::from_secs(120);

/// What a look has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapacityLook {
    /// None where nothing is promised.
    pub capacity: Option<Capacity>,
    /// What degrades the node.
    pub trouble: Option<Trouble>,
    /// Until the next look; None: nothing is to be asked before an order.
    pub pause: Option<Duration>,
}

pub struct Watch {
    paths: Paths,
    memory: Option<Memory>,
}

/// Of looks with one promise.
struct Memory {
    promise: Promise,
    pool: Pool,
    seen: Option<AddressCount>,
    /// When IMDS last answered.
    answered: Option<Duration>,
    signs: Signs,
    finding: CapacityFinding,
    /// What the journal had last: this, and the trouble's code.
    logged: (CapacityFinding, Option<String>),
    silent: bool,
}

impl Watch {
    pub fn new(paths: &Paths) -> Self {
        Self { paths: paths.clone(), memory: None }
    }

    /// Asks and judges. Another promise is judged from the start.
    pub fn look(&mut self, promise: Option<Promise>, outside: &mut impl Outside) -> CapacityLook {
        let Some(promise) = promise else {
            self.memory = None;
            return CapacityLook::default();
        };
        let known = self.memory.take().filter(|memory| memory.promise == promise);
        let memory = self.memory.insert(known.unwrap_or_else(|| Memory::of(promise)));
        let mut goes_on = true;
        match see(&self.paths, outside) {
            Ok((enis, used)) => memory.learn(&enis, used, outside.now()),
            Err(e) => {
                goes_on = !is_off(&e);
                memory.hear_silence(&e, goes_on);
            }
        }
        let capacity = memory.capacity();
        let trouble = trouble(&capacity, &memory.promise, &memory.pool, &memory.signs);
        memory.tell(&capacity, trouble.as_ref());
        let pause = goes_on.then(|| jittered(PAUSE, outside));
        CapacityLook { capacity: Some(capacity), trouble, pause }
    }
}

fn see(paths: &Paths, outside: &mut impl Outside) -> Result<(Vec<Eni>, u64)> {
    let enis = Eni::read_all(BUDGET, outside)?;
    Ok((enis, pods::count(&paths.result_cache())?))
}

/// An operator who has switched IMDS off is not asked again and again.
fn is_off(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<InterfaceError>();
    matches!(error, Some(InterfaceError::Imds(ImdsError::Off { .. })))
}

impl Memory {
    fn of(promise: Promise) -> Self {
        Self {
            promise,
            pool: Pool::default(),
            seen: None,
            answered: None,
            signs: Signs::default(),
            finding: CapacityFinding::default(),
            logged: (CapacityFinding::default(), None),
            silent: false,
        }
    }

    fn learn(&mut self, enis: &[Eni], used: u64, now: Duration) {
        let passed = self.answered.map_or(Duration::ZERO, |before| now.saturating_sub(before));
        self.answered = Some(now);
        self.silent = false;
        self.pool = self.promise.pool(enis);
        let Pool { addresses, prefixes, .. } = self.pool;
        self.seen = Some(AddressCount { at_ns: now_ns(), addresses, prefixes, used });
        let passed = passed.min(MOST_BETWEEN);
        self.signs = self.signs.after(&self.promise, &self.pool, used, passed);
        self.finding = judge(self.finding, &self.promise, &self.pool, &self.signs);
    }

    /// A host that is no EC2 instance is silent for ever, so that is said once.
    fn hear_silence(&mut self, error: &anyhow::Error, goes_on: bool) {
        let next = match goes_on {
            true => "asked again every minute",
            false => "not asked again before the next reload",
        };
        if !std::mem::replace(&mut self.silent, true) {
            log::info!("look for the addresses that max-pods promises: {error:#}; {next}");
        }
    }

    fn capacity(&self) -> Capacity {
        Capacity {
            state: self.finding.state(),
            finding: self.finding,
            max_pods: self.promise.in_force.pods,
            full: self.promise.full(&self.pool),
            seen: self.seen.clone(),
        }
    }

    fn tell(&mut self, capacity: &Capacity, trouble: Option<&Trouble>) {
        let now = (self.finding, trouble.map(|trouble| trouble.code().to_owned()));
        if self.logged == now {
            return;
        }
        match trouble {
            Some(trouble @ Trouble { what, next_step, .. }) => {
                log::warn!(CODE = trouble.code(); "{what}; {next_step}");
            }
            None => {
                let state = capacity.state.name();
                log::info!(CODE = format!("ip-{state}").as_str(); "{state}: {}", numbers(capacity));
            }
        }
        self.logged = now;
    }
}

#[cfg(test)]
mod tests;
