// SPDX-License-Identifier: Apache-2.0
//! How this mode's files and rules leave the node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::known::Known;
use super::{network, nft};
use crate::host::paths::Paths;
use crate::libcni::files::OF_STANDALONE_MODE;

/// Removes conflist and table from the node, where this mode has made them since the node started. The
/// store stays: pods that are there keep their addresses, and no one else is to have them.
pub fn take_off(paths: &Paths) -> Result<()> {
    let Some(known) = Known::read(paths)? else { return Ok(()) };
    remove(&known.conflist)?;
    nft::run(network::NO_TABLE)?;
    remove(&paths.network_file())
}

/// A conflist of before the node started names prefixes that it may not have any more (an image may
/// even be made of another node), so no runtime is to see it. None where there is none.
pub fn earlier_conflist(paths: &Paths, dir: &Path) -> Result<Option<PathBuf>> {
    let conflist = dir.join(OF_STANDALONE_MODE);
    let is_there = fs::symlink_metadata(&conflist).is_ok();
    Ok((Known::read(paths)?.is_none() && is_there).then_some(conflist))
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
