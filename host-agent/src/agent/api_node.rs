// SPDX-License-Identifier: Apache-2.0
//! The API's node as it is: records, maps, settings, and what the agent's loop
//! reports by itself.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use crate::agent::overrides;
use crate::agent::reconcile::Reconciler;
use crate::api::{Node, Reloaded};
use crate::host::clock::seconds;
use crate::host::paths::Paths;
use crate::pod::asked::Override;
use crate::status::{Status, metrics};

/// Borrowed from the agent's loop for as long as it answers.
pub struct Local<'a> {
    pub paths: &'a Paths,
    pub reconciler: &'a mut Reconciler,
    /// Reads the settings again.
    pub reload: &'a dyn Fn() -> Reloaded,
    /// The last metrics, and when they were made.
    pub scraped: &'a mut Option<(Instant, String)>,
}

/// Metrics are made once in this time, however many ask: on a full node that takes a while.
const FRESH: Duration = Duration::from_secs(1);

impl Node for Local<'_> {
    fn status(&self) -> Result<Status> {
        let mut report = self.reconciler.report();
        let cache = self.paths.result_cache();
        report.capacity = report.capacity.map(|capacity| capacity.with_pods_of(&cache));
        Status::read(self.paths, Some(&report))
    }

    fn set_limit(&mut self, namespace: &str, pod: &str, limit: Override) -> Result<usize> {
        overrides::set(self.paths, self.reconciler, namespace, pod, Some(limit))
    }

    fn clear_limit(&mut self, namespace: &str, pod: &str) -> Result<usize> {
        overrides::set(self.paths, self.reconciler, namespace, pod, None)
    }

    fn reload(&mut self) -> Result<Reloaded> {
        let reloaded = (self.reload)();
        self.reconciler.settings_changed();
        self.reconciler.work()?;
        Ok(reloaded)
    }

    fn metrics(&mut self) -> Result<String> {
        if let Some((_, text)) = self.scraped.as_ref().filter(|(when, _)| when.elapsed() < FRESH) {
            return Ok(text.clone());
        }
        let text = metrics::text(&self.status()?, self.reconciler.since_start())?;
        *self.scraped = Some((Instant::now(), text.clone()));
        Ok(text)
    }

    fn now(&self) -> u64 {
        seconds(SystemTime::now())
    }
}
