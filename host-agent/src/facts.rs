// SPDX-License-Identifier: Apache-2.0
//! What the node looks like, read once, plain data. The plan is made from this
//! and the settings alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use settings_model::Settings;

use crate::paths::Paths;

/// A file's path and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    pub path: PathBuf,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Facts {
    /// The CNI configuration that containerd takes; None where there is none.
    pub conflist: Option<TextFile>,
    /// The plugin binary as shipped.
    pub plugin: Vec<u8>,
}

impl Facts {
    pub fn probe(paths: &Paths, settings: &Settings, plugin: &Path) -> Result<Self> {
        let plugin = fs::read(plugin)
            .with_context(|| format!("read the CNI plugin's binary {}", plugin.display()))?;
        let conflist = active_conflist(&paths.resolve(settings.cni.conf_dir.as_ref()))?;
        Ok(Self { conflist, plugin })
    }
}

/// As go-cni does it: of all .conf, .conflist and .json files the first by name.
pub fn active_conflist(dir: &Path) -> Result<Option<TextFile>> {
    let attempt = || format!("list the CNI configurations in {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(attempt),
    };
    let mut candidates = Vec::new();
    for entry in entries {
        let path = entry.with_context(attempt)?.path();
        let extension = path.extension().and_then(|e| e.to_str());
        if matches!(extension, Some("conf" | "conflist" | "json")) {
            candidates.push(path);
        }
    }
    let Some(path) = candidates.into_iter().min() else {
        return Ok(None);
    };
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(TextFile { path, text }))
}
