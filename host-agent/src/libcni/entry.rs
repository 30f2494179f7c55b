// SPDX-License-Identifier: Apache-2.0
//! Our entry in the chain: whether the settings want it, what becomes of the
//! upstream plugin's beside it, and whether there is a plugin to run for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use settings_model::{CniMode, Settings, UpstreamBandwidth};

use super::conflist::{self, StaticRates, TextFile};
use crate::host::paths::Paths;

/// Whether these settings want our entry in the conflist.
pub fn is_chained(settings: &Settings) -> bool {
    settings.bandwidth.enabled && settings.cni.mode == CniMode::Chain
}

/// What becomes of the upstream plugin's entry in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// It is taken out; ours has its place.
    Replaced,
    /// It stays, and we stand aside.
    Kept,
    /// So does one that limits every pod at rates that the settings have no default for: they would be
    /// lost without it.
    HasRates(StaticRates),
}

impl Upstream {
    /// Whether we stand aside.
    pub fn stays(self) -> bool {
        self != Self::Replaced
    }
}

/// None where there is no such entry, or none of ours is wanted beside it.
pub fn upstream(settings: &Settings, found: &TextFile) -> Option<Upstream> {
    let is_there = is_chained(settings) && conflist::has_upstream(&found.text).unwrap_or(false);
    is_there.then(|| match settings.cni.upstream_bandwidth {
        UpstreamBandwidth::Keep => Upstream::Kept,
        UpstreamBandwidth::Replace => {
            lost_rates(settings, &found.text).map_or(Upstream::Replaced, Upstream::HasRates)
        }
    })
}

/// What the upstream plugin's entry in this list limits every pod to, and our place in it would not.
pub fn lost_rates(settings: &Settings, list: &str) -> Option<StaticRates> {
    conflist::upstream_rates(list).ok()?.without_defaults_of(&settings.bandwidth)
}

/// The conflist with our entry in it, or without where the settings do not want it. None where
/// there is no conflist: one of ours would make the node ready before its network is, so the agent
/// waits for the main plugin's.
pub fn edited(settings: &Settings, found: &Option<TextFile>) -> Result<Option<TextFile>> {
    let Some(found) = found else { return Ok(None) };
    let edited = if !conflist::is_list(&found.path) {
        Err(conflist::Invalid { line: 1, column: 1, problem: conflist::ListProblem::OnePlugin })
    } else if is_chained(settings) && !upstream(settings, found).is_some_and(Upstream::stays) {
        conflist::add(&found.text)
    } else {
        conflist::remove(&found.text)
    };
    let text = edited.with_context(|| format!("edit {}", found.path.display()))?;
    Ok(Some(TextFile { path: found.path.clone(), text }))
}

/// Why we stand aside for an entry with rates.
pub fn rates_kept(rates: &StaticRates) -> String {
    format!(
        "the upstream \"bandwidth\" plugin's entry limits every pod; it is kept and ours is left out, \
         since the settings do not have its {rates}"
    )
}

/// The list without our entry.
pub fn without(list: &TextFile) -> Result<TextFile> {
    let path = list.path.clone();
    let text = conflist::remove(&list.text);
    let text = text.with_context(|| format!("take the entry out of {}", path.display()))?;
    Ok(TextFile { path, text })
}

/// Whether there is something that a runtime can run for our entry.
pub fn has_plugin(plugin: &Path) -> bool {
    let found = fs::metadata(plugin);
    found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Where runtimes look for it.
pub fn plugin(paths: &Paths, settings: &Settings) -> PathBuf {
    paths.resolve(settings.cni.bin_dir.as_ref()).join("sluice")
}
