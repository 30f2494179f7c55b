// SPDX-License-Identifier: Apache-2.0
//! What the node looks like, read once, plain data. The plan is made from this
//! and the settings alone.

use std::path::{Path, PathBuf};

use anyhow::Result;
use settings_model::Settings;

use crate::host::paths::Paths;
use crate::libcni::conflist::TextFile;
use crate::libcni::entry::is_chained;
use crate::libcni::files::{active_conflist, with_entry};

#[derive(Clone, Debug)]
pub struct Facts {
    /// The CNI configuration that our entry belongs in, or is to be taken out of; None where there is
    /// none, and Err where it cannot be found out.
    pub conflist: Result<Option<TextFile>, String>,
    /// The plugin binary as shipped.
    pub plugin: PathBuf,
}

impl Facts {
    pub fn probe(paths: &Paths, settings: &Settings, plugin: &Path) -> Self {
        let dir = paths.resolve(settings.cni.conf_dir.as_ref());
        let conflist = if is_chained(settings) {
            active_conflist(&dir)
        } else {
            with_entry(&dir).map(|lists| lists.into_iter().next())
        };
        Self { conflist: conflist.map_err(|e| format!("{e:#}")), plugin: plugin.to_owned() }
    }
}
