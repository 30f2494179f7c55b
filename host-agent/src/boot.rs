// SPDX-License-Identifier: Apache-2.0
//! `sluice boot`: user data → settings → plan → files, before the runtime starts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apply::apply;
use crate::facts::Facts;
use crate::paths::Paths;
use crate::plan::Plan;

/// Puts the settings of `user_data` in force; gives the files that changed.
pub fn boot(paths: &Paths, user_data: &Path, plugin: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(user_data)
        .with_context(|| format!("read the user data {}", user_data.display()))?;
    let settings = settings_model::parse(&user_data.display().to_string(), &text)?;
    let facts = Facts::probe(paths, &settings, plugin)?;
    apply(&Plan::make(paths, &settings, &facts)?)
}
