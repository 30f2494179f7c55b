// SPDX-License-Identifier: Apache-2.0
//! What is done once, from the command line or beside the loop: new limits for
//! the pods that are there, and the link of one guard.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bpf::Pins;
use settings_model::Settings;

use crate::attach::End;
use crate::guard;
use crate::paths::Paths;
use crate::reconcile::Reconciler;
use crate::record::{Claim, Guard, Records};

/// How long all the node's pods may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The settings in force; `sluice boot` replaces the file whole.
pub fn in_force(paths: &Paths) -> Result<Settings> {
    let path = paths.settings_in_force();
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(settings_model::parse(&path.display().to_string(), &text)?)
}

/// Gives every pod the limits that the settings in force ask for, without an agent. A pod that
/// cannot be changed is told of and keeps what it has; the others go on.
pub fn apply(paths: &Paths) -> Result<()> {
    if Records::new(paths.pods_dir()).list()?.is_empty() {
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

/// Attaches the guard where ADD has left that to us. Verbs go on meanwhile, so a pod may have gone
/// before its guard is there; then that is taken off again.
pub fn attach_guard(records: &Records, pins: &Pins, claim: &Claim) -> Result<()> {
    let _shared = records.share()?;
    let Ok(mut record) = claim.read() else { return Ok(()) };
    let Some(host) = record.host.clone().filter(|_| record.guard == Some(Guard::Pending)) else {
        return Ok(());
    };
    let Some(mut end) = End::on_host(host.ifindex, &host.ifname)? else { return Ok(()) };
    if !end.may_be_of(&record.netns) {
        return Ok(());
    }
    let guard = guard::attach(pins, claim.slot, &mut end)?;
    record.guard = Some(guard.clone());
    if !records.rewrite(claim, &record)? {
        let errors = guard::detach(pins, claim.slot, &mut end, &guard);
        errors.iter().for_each(|e| log::warn!("{e:#}"));
    }
    Ok(())
}
