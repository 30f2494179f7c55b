// SPDX-License-Identifier: Apache-2.0
//! Pin directories side by side, one for each ABI (`…/sluice/v1`, `v2`): what an
//! upgrade finds, and what takes a directory away. Two layouts never share a
//! map, so the programs of one know nothing of the other's pods.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore, MapHandle, MapType, OpenMapMut};

use crate::contract::ABI;
use crate::pins::pin_dir;
use crate::{Error, Result};

/// Directories of older layouts below a BPF file system, the oldest first; their limits are in force.
pub fn older_layouts(bpffs: &Path) -> Result<Vec<PathBuf>> {
    let mut others = others_of(&pin_dir(bpffs))?;
    others.retain(|(abi, _)| *abi < ABI);
    Ok(others.into_iter().map(|(_, dir)| dir).collect())
}

/// The directory of the newest layout, if that is not ours; [`crate::load_and_pin`] refuses then.
pub fn newer_layout(bpffs: &Path) -> Result<Option<PathBuf>> {
    newer_than(&pin_dir(bpffs))
}

/// Removes a directory with all its pins. Guards go with their links; a program or map that a filter
/// uses lives as long as the filter. A directory that is not there is no error.
pub fn remove_layout(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Unpin { path: dir.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Removes the directories of all layouts, newer ones too, and the directory they are in.
pub fn remove_all_layouts(bpffs: &Path) -> Result<()> {
    remove_layout(&bpffs.join("sluice"))
}

pub(crate) fn newer_than(dir: &Path) -> Result<Option<PathBuf>> {
    let newest = others_of(dir)?.pop();
    Ok(newest.filter(|(abi, _)| *abi > ABI).map(|(_, dir)| dir))
}

/// Other layouts beside this directory, the oldest first.
fn others_of(dir: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let Some(parent) = dir.parent() else { return Ok(Vec::new()) };
    let error = |source| Error::List { path: parent.to_owned(), source };
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(error(source)),
    };
    let mut others = Vec::new();
    for entry in entries {
        let path = entry.map_err(error)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let abi = name.and_then(|name| name.strip_prefix('v')?.parse().ok());
        others.extend(abi.filter(|abi| *abi != ABI).map(|abi| (abi, path)));
    }
    others.sort();
    Ok(others)
}

/// What must be the same for a pinned map to be used again.
#[derive(Debug, PartialEq, Eq)]
pub struct MapShape {
    kind: MapType,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

impl std::fmt::Display for MapShape {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { kind, key_bytes, value_bytes, entries, flags } = self;
        write!(f, "{kind:?}, {entries} entries of {key_bytes} + {value_bytes} bytes, flags {flags}")
    }
}

/// Fails where a map is pinned that these programs cannot use, which libbpf would only call invalid.
pub(crate) fn check_shape(map: &OpenMapMut, path: &Path) -> Result<()> {
    let error = |source| Error::OpenPin { path: path.to_owned(), source };
    let pinned = match MapHandle::from_pinned_path(path) {
        Ok(pinned) => pinned,
        Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(error(e)),
    };
    let found = MapShape {
        kind: pinned.map_type(),
        key_bytes: pinned.key_size(),
        value_bytes: pinned.value_size(),
        entries: pinned.max_entries(),
        flags: pinned.info().map_err(error)?.info.map_flags,
    };
    let needed = MapShape {
        kind: map.map_type(),
        key_bytes: map.key_size(),
        value_bytes: map.value_size(),
        entries: map.max_entries(),
        flags: map.map_flags(),
    };
    match found == needed {
        true => Ok(()),
        false => Err(Error::MapShape { path: path.to_owned(), found, needed }),
    }
}
