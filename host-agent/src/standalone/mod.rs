// SPDX-License-Identifier: Apache-2.0
//! Standalone mode: no aws-node; pods have addresses of the prefixes that are
//! delegated to the node, by a conflist of ours, and leave the VPC with the
//! node's address. The agent's second thread asks, writes and reports
//! (agent/background.rs), so that neither IMDS nor nft keeps the loop waiting (docs/decisions/0009-standalone.md).

mod keeper;
mod known;
mod network;
mod nft;
mod store;

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use settings_model::Settings;

use crate::host::paths::Paths;
use known::Known;

pub use keeper::Keeper;

/// By its name, whatever it holds.
const CONFLIST: &str = "10-sluice.conflist";

/// Whether this conflist is the one that standalone mode writes, in which no one else has an entry.
pub fn owns(conflist: &Path) -> bool {
    conflist.file_name().is_some_and(|name| name == CONFLIST)
}

/// Takes conflist and table off the node, where this mode has made them since the node started. The
/// store stays: pods that are there keep their addresses, and no one else is to have them.
pub fn take_off(paths: &Paths) -> Result<()> {
    let Some(known) = Known::read(paths)? else { return Ok(()) };
    remove(&known.conflist)?;
    nft::run(network::NO_TABLE)?;
    remove(&paths.network_file())
}

/// A conflist of before the node started names prefixes that it may not have any more (an image may
/// even be made of another node), so no runtime is to see it.
pub fn forget_earlier(paths: &Paths, settings: &Settings) -> Result<()> {
    match Known::read(paths)? {
        Some(_) => Ok(()),
        None => remove(&paths.resolve(settings.cni.conf_dir.as_ref()).join(CONFLIST)),
    }
}

fn remove(path: &Path) -> Result<()> {
    // On a read-only file system the removal of what is not there fails as well.
    if fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    match fs::remove_file(path) {
        Ok(()) => log::info!("removed {}", path.display()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("remove {}", path.display())),
    }
    Ok(())
}
