// SPDX-License-Identifier: Apache-2.0
//! DEL: succeeds whatever is left to do, because libcni stops the chain at the
//! first plugin whose DEL fails.

use super::error::Error;
use super::interface::{complain, forget};
use super::request::Environment;
use crate::host::paths::Paths;
use crate::pod::record::{Records, VERBS_WAIT};

/// Needs the environment only, so no configuration is too broken to clear up after.
pub fn delete(paths: &Paths, environment: &Environment) -> Result<(), Error> {
    let key = environment.key()?;
    let records = Records::new(paths);
    // After the node has started again nothing is attached, and there is nothing to make for that.
    if !records.is_there() {
        return Ok(());
    }
    // Without it there is no record either, or none that can be removed; or its holder hangs, and a record that
    // is written again behind us is collected by the agent.
    let _shared = records.share().inspect_err(|e| complain(format!("{e:#}")));
    let _held =
        records.hold(&key.container_id, VERBS_WAIT).inspect_err(|e| complain(format!("{e:#}")));
    forget(paths, None, &records, &key)?;
    // A file too many is no reason to keep a pod from going.
    if let Err(e) = records.tidy(&key) {
        complain(format!("{e:#}"));
    }
    Ok(())
}
