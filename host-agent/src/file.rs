// SPDX-License-Identifier: Apache-2.0
//! Files replaced whole: a temporary file beside the target, synced, renamed.
//! The temporary name ends in `.tmp`, which no CNI runtime loads, and lies in
//! the same directory, because containerd overlooks a rename into it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};

const TEMPORARY: &str = ".tmp";

/// Whether a file of this name is one that was not finished.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// Replaces `path` by `content`; on failure the old file is as it was and nothing is left over.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // One name for all attempts, so that what a killed one left is overwritten by the next.
    let temporary = path.with_file_name(format!(".{name}{TEMPORARY}"));
    write_synced(&temporary, content, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_directory(path))
        .inspect_err(|_| {
            // May never have been made, or be renamed already; the first error is the one to tell.
            let _ = fs::remove_file(&temporary);
        })
        .with_context(|| format!("write {}", path.display()))
}

fn write_synced(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // The mode above is subject to the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
