// SPDX-License-Identifier: Apache-2.0
//! How this mode's files and rules leave the node.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use settings_model::Settings;

use super::known::Known;
use super::{network, nft};
use crate::host::paths::Paths;
use crate::libcni::files::OF_STANDALONE_MODE;

/// Takes conflist and table off the node, where this mode has made them since the node started. The
/// store stays: pods that are there keep their addresses, and nobody else is to have them.
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
        None => remove(&paths.resolve(settings.cni.conf_dir.as_ref()).join(OF_STANDALONE_MODE)),
    }
}

pub(super) fn remove(path: &Path) -> Result<()> {
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
