// SPDX-License-Identifier: Apache-2.0
//! The node file: the settings in force, as `sluice boot` hands them to the
//! CNI plugin. Quantities are written as in the settings. It is replaced by
//! rename, so a reader sees the old one or the new one.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use settings_model::{Bandwidth, Burst, Limit, Rate};

/// Layout of the file; a plugin of another version refuses it.
const VERSION: u32 = 1;

/// Bandwidth settings as the plugin needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// False: pods are left alone, whatever their annotations say.
    pub enabled: bool,
    /// For a pod without annotation; None means unlimited.
    pub default_egress: Option<Rate>,
    pub default_ingress: Option<Rate>,
    pub burst: Burst,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct NodeFile {
    version: u32,
    enabled: bool,
    default_egress: String,
    default_ingress: String,
    burst: String,
}

impl Node {
    pub fn from_settings(bandwidth: &Bandwidth) -> Self {
        Self {
            enabled: bandwidth.enabled,
            default_egress: rate(bandwidth.default_egress),
            default_ingress: rate(bandwidth.default_ingress),
            burst: bandwidth.burst,
        }
    }

    pub fn read(path: &Path) -> Result<Self> {
        let attempt = || format!("read {}", path.display());
        let text = std::fs::read(path).with_context(attempt)?;
        serde_json::from_slice::<NodeFile>(&text)
            .map_err(anyhow::Error::from)
            .and_then(Self::from_file)
            .with_context(attempt)
    }

    pub fn to_json(&self) -> Result<String> {
        let limit = |rate: Option<Rate>| rate.map_or(Limit::Unlimited, Limit::Rate).to_string();
        let file = NodeFile {
            version: VERSION,
            enabled: self.enabled,
            default_egress: limit(self.default_egress),
            default_ingress: limit(self.default_ingress),
            burst: self.burst.to_string(),
        };
        Ok(serde_json::to_string_pretty(&file)? + "\n")
    }

    fn from_file(file: NodeFile) -> Result<Self> {
        ensure!(
            file.version == VERSION,
            "its version is {}, this program understands {VERSION}",
            file.version
        );
        Ok(Self {
            enabled: file.enabled,
            default_egress: rate(quantity("default-egress", &file.default_egress)?),
            default_ingress: rate(quantity("default-ingress", &file.default_ingress)?),
            burst: quantity("burst", &file.burst)?,
        })
    }
}

fn quantity<T: FromStr<Err: Display>>(key: &str, text: &str) -> Result<T> {
    text.parse().map_err(|e| anyhow!("{key}: {e}"))
}

fn rate(limit: Limit) -> Option<Rate> {
    match limit {
        Limit::Unlimited => None,
        Limit::Rate(rate) => Some(rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_gives_back_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        let node = Node {
            enabled: true,
            default_egress: Some("1500kbit".parse().unwrap()),
            default_ingress: None,
            burst: "64KB".parse().unwrap(),
        };
        std::fs::write(&path, node.to_json().unwrap()).unwrap();
        assert_eq!(Node::read(&path).unwrap(), node);
    }

    #[test]
    fn file_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        let text = Node::from_settings(&Bandwidth::default()).to_json().unwrap();
        std::fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        let error = format!("{:#}", Node::read(&path).unwrap_err());
        assert!(error.ends_with("its version is 2, this program understands 1"), "{error}");
    }
}
