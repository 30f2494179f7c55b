// SPDX-License-Identifier: Apache-2.0
//! What standalone mode knows of the node's network since the node started, so
//! that an agent that starts again while IMDS is silent takes nothing away.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::host::file;
use crate::host::paths::Paths;
use crate::imds::interface::Interface;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// As IMDS last showed.
    pub interface: Interface,
    /// Every prefix since the node started: of one that is delegated no more there may be pods still.
    pub prefixes: Vec<Ipv4Net>,
    /// Where our conflist is.
    pub conflist: PathBuf,
}

impl Known {
    /// None before the first prefix.
    pub fn read(paths: &Paths) -> Result<Option<Self>> {
        let path = paths.network_file();
        let attempt = || format!("read {}", path.display());
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(attempt),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(attempt),
        }
    }

    pub fn write(&self, paths: &Paths) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        file::replace(&paths.network_file(), text.as_bytes(), 0o644)
    }

    /// The same with what IMDS shows now.
    pub fn after(before: Option<&Self>, interface: Interface, conflist: PathBuf) -> Self {
        let mut prefixes = interface.prefixes.clone();
        prefixes.extend(before.iter().flat_map(|known| known.prefixes.iter().copied()));
        prefixes.sort();
        prefixes.dedup();
        Self { interface, prefixes, conflist }
    }
}
