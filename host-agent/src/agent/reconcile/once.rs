// SPDX-License-Identifier: Apache-2.0
//! What is done once, from the command line: new limits for the pods that are
//! there, without an agent.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::agent::reconcile::Reconciler;
use crate::host::paths::Paths;
use crate::pod::record::Records;

/// How long all the node's pods may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gives every pod the limits that the settings in force ask for, without an agent. A pod that
/// cannot be changed is reported and keeps what it has; the others go on.
pub fn apply(paths: &Paths) -> Result<()> {
    if Records::new(paths).list()?.is_empty() {
        return Ok(());
    }
    let mut reconciler = Reconciler::open(paths)?;
    let end = Instant::now() + PATIENCE;
    while !reconciler.is_done() && Instant::now() < end {
        reconciler.work()?;
        let wait = reconciler.next().saturating_duration_since(Instant::now());
        thread::sleep(wait.min(Duration::from_millis(10)));
    }
    Ok(())
}
