// SPDX-License-Identifier: Apache-2.0
//! What `sluice boot` has put in force, as others read it: the settings
//! themselves, and why it is these (/run/sluice/boot.json).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use settings_model::{Bandwidth, Capacity, Settings};

use crate::host::file;
use crate::host::paths::Paths;
use crate::settings::kubelet_start::{Earlier, Started};
use crate::trouble::{Trouble, code};

/// The settings in force; `sluice boot` replaces the file whole.
pub fn in_force(paths: &Paths) -> Result<Settings> {
    let path = paths.settings_in_force();
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut settings = settings_model::parse(&path.display().to_string(), &text)?;
    with_found_capacity(paths, &mut settings.bandwidth);
    Ok(settings)
}

/// Puts what the agent has found in the place of "auto", where pods share the node.
pub fn with_found_capacity(paths: &Paths, bandwidth: &mut Bandwidth) {
    if !bandwidth.shares_by_auto() {
        return;
    }
    let found = fs::read_to_string(paths.capacity_found()).ok();
    let found = found.and_then(|text| text.trim().parse().ok());
    for capacity in [&mut bandwidth.node_egress, &mut bandwidth.node_ingress] {
        if !matches!(capacity, Capacity::Rate(_)) {
            *capacity = found.map_or(Capacity::Auto, Capacity::Found);
        }
    }
}

/// What applies on this node and why; `status` reads it from /run/sluice/boot.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// None where the layers below the user data hold, which are no generation.
    pub generation: Option<u64>,
    /// Names of the documents, lowest layer first.
    pub documents: Vec<String>,
    pub reason: Reason,
    /// Where the time went when it was put in force.
    #[serde(default)]
    pub took: Option<Took>,
    /// Why it is not what was asked for.
    pub problems: Vec<String>,
    /// That is because the user data could not be had, so no one knows what it asks for.
    #[serde(default)]
    pub unread: bool,
    /// What is in force, but may surprise the operator.
    pub warnings: Vec<String>,
    /// Parts that are not as asked for, although these settings are in force.
    #[serde(default)]
    pub unmet: Vec<Trouble>,
    /// None where nothing says how many pods the node takes: it is no EC2 instance, and the settings
    /// give no number.
    #[serde(default)]
    pub max_pods: Option<MaxPodsInForce>,
}

/// Where the time went, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// Until the user data was there, or given up: IMDS, mostly.
    pub user_data_ms: u64,
    /// Firmware, units and files of others, and what follows from them.
    pub plan_ms: u64,
    /// Writing what is ours.
    pub files_ms: u64,
}

impl Took {
    /// One line for people.
    pub fn to_text(self) -> String {
        let Self { user_data_ms, plan_ms, files_ms } = self;
        let all = user_data_ms + plan_ms + files_ms;
        format!("{all} ms: user data {user_data_ms}, firmware and plan {plan_ms}, files {files_ms}")
    }
}

/// How many pods the node takes, and what that rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxPodsInForce {
    /// What kubelet has: a foreign explicit value, or the computed one.
    pub pods: u16,
    /// Where kubelet got its number, or what had given it before, in words.
    #[serde(rename = "told")]
    pub summary: String,
    /// As firmware or IMDS name it; None where neither does.
    pub instance_type: Option<String>,
    /// Addresses for pods that the type's ENIs can ever carry in this mode; None where the type is
    /// unknown.
    pub capacity: Option<u64>,
    /// Whether the type can have prefixes; None where the type is unknown.
    pub delegates_prefixes: Option<bool>,
    /// nodeadm makes kubelet's configuration, once for each boot of the node.
    #[serde(default)]
    pub by_nodeadm: bool,
    /// What kubelet runs with as long as it has not read this number.
    #[serde(default)]
    pub earlier: Option<Earlier>,
}

impl InForce {
    /// None where nothing was ever put in force since the node started.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let attempt = || format!("read {}", path.display());
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(attempt),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(attempt),
        }
    }

    /// What the reader can do where it is not what was asked for.
    pub fn next_step(&self) -> &'static str {
        match self.unread {
            false => code::SETTINGS_NOT_AS_ASKED.next_step,
            true => {
                "have the source answer (IMDS: HttpEndpoint=enabled, and a route to it from the host), \
                 or write the settings to /var/lib/sluice/user-data.toml; then sluice reload"
            }
        }
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        file::replace(path, text.as_bytes(), 0o644)
    }

    /// One line for people.
    pub fn to_text(&self) -> String {
        let what = match (self.generation, self.documents.is_empty()) {
            (Some(number), false) => {
                format!("generation {number} ({})", self.documents.join(", "))
            }
            (Some(number), true) => format!("generation {number} (built-in defaults)"),
            (None, false) => self.documents.join(", "),
            (None, true) => "built-in defaults".into(),
        };
        match self.reason {
            Reason::AsAsked => format!("{what}, as asked for"),
            Reason::LastGood => {
                format!("{what}, the last good ones, instead of what was asked for")
            }
            Reason::Defaults => format!("{what}, instead of what was asked for"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    AsAsked,
    LastGood,
    Defaults,
}

impl MaxPodsInForce {
    /// The number that kubelet runs with; None where that is not known.
    pub fn in_kubelet(&self, started: &Started) -> Option<u16> {
        match self.earlier.as_ref().filter(|earlier| earlier.lasts(self.by_nodeadm, started)) {
            Some(earlier) => earlier.pods,
            None => Some(self.pods),
        }
    }
}
