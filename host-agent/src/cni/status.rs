// SPDX-License-Identifier: Apache-2.0
//! STATUS: whether ADD would be served.

use std::fs;
use std::time::Duration;

use bpf::Pins;

use super::error::{CniCode, Error};
use crate::host::paths::Paths;
use crate::pod::record::Records;

/// From settings in force to pins: longer than any agent takes that comes at all.
const AGENT_STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Ready when ADD can find a slot, and the pins or no agent that could still make them: a node whose
/// agent never comes is to be Ready, too. The runtime says nothing here of a container, and neither
/// it nor we need a configuration.
pub fn status(paths: &Paths) -> Result<(), Error> {
    match Pins::open(&paths.pin_dir()) {
        Err(e) if is_starting(paths, &e) => Err(Error::with(CniCode::NotAvailable)(e)),
        _ => Records::new(paths).has_room().map_err(Error::with(CniCode::NotAvailable)),
    }
}

/// Whether the agent may be about to pin: settings have just been put in force.
pub fn is_starting(paths: &Paths, error: &bpf::Error) -> bool {
    let written = fs::metadata(paths.settings_in_force()).and_then(|found| found.modified());
    let age = written.ok().and_then(|written| written.elapsed().ok());
    error.is_not_pinned() && age.is_some_and(|age| age < AGENT_STARTS_WITHIN)
}
