// SPDX-License-Identifier: Apache-2.0

//! `[settings.sluice.cni]`: how the agent joins the node's CNI chain.
//!
//! Owns the section's keys, defaults and rules.
//! Never looks whether a directory is there.

use std::path::PathBuf;

use toml::de::DeValue;

use crate::problem::{Refusal, code, quote};
use crate::reader::{Table, wrong_type};

/// How the agent joins the CNI chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cni {
    /// `mode`; default chain.
    pub mode: CniMode,
    /// `conf-dir`: where CNI network lists are; absolute; default `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// `bin-dir`: where CNI plugins are; absolute; default `/opt/cni/bin`.
    pub bin_dir: PathBuf,
}

/// Whether the agent puts its plugin into the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CniMode {
    /// The plugin is appended to the network list that is there.
    #[default]
    Chain,
    /// The CNI configuration is left alone.
    Off,
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            mode: CniMode::default(),
            conf_dir: PathBuf::from("/etc/cni/net.d"),
            bin_dir: PathBuf::from("/opt/cni/bin"),
        }
    }
}

pub(crate) fn read(table: &mut Table<'_, '_>) -> Cni {
    let default = Cni::default();
    Cni {
        mode: table.read("mode", mode).unwrap_or(default.mode),
        conf_dir: table.read("conf-dir", conf_dir).unwrap_or(default.conf_dir),
        bin_dir: table.read("bin-dir", bin_dir).unwrap_or(default.bin_dir),
    }
}

fn mode(value: &DeValue<'_>) -> Result<CniMode, Refusal> {
    match value {
        DeValue::String(word) if word == "chain" => Ok(CniMode::Chain),
        DeValue::String(word) if word == "off" => Ok(CniMode::Off),
        DeValue::String(word) => Err(Refusal::new(
            code::NOT_ALLOWED,
            format!("{} is not allowed; use \"chain\" or \"off\"", quote(word)),
        )),
        other => Err(wrong_type(other, "\"chain\" or \"off\"")),
    }
}

fn conf_dir(value: &DeValue<'_>) -> Result<PathBuf, Refusal> {
    absolute_path(value, "/etc/cni/net.d")
}

fn bin_dir(value: &DeValue<'_>) -> Result<PathBuf, Refusal> {
    absolute_path(value, "/opt/cni/bin")
}

fn absolute_path(value: &DeValue<'_>, example: &str) -> Result<PathBuf, Refusal> {
    let allowed = format!("an absolute path, e.g. {example:?}");
    let Some(text) = value.as_str() else {
        return Err(wrong_type(value, &allowed));
    };
    let wrong = match text {
        "" => "is empty",
        text if text.contains('\0') => "contains a NUL character",
        text if !text.starts_with('/') => "is a relative path",
        good => return Ok(PathBuf::from(good)),
    };
    let message = format!("{} {wrong}; use {allowed}", quote(text));
    Err(Refusal::new(code::BAD_PATH, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn each_key_sets_its_own_field() {
        let text =
            "sluice.version = 1\n[sluice.cni]\nmode = 'off'\nconf-dir = '/a'\nbin-dir = '/b'\n";
        let expected = Cni { mode: CniMode::Off, conf_dir: "/a".into(), bin_dir: "/b".into() };
        assert_eq!(parse("t", text).expect("settings").cni, expected);
    }

    #[test]
    fn standalone_is_not_offered() {
        let text = "sluice.version = 1\nsluice.cni.mode = 'standalone'\n";
        assert_eq!(
            parse("t", text).expect_err("problem").to_string(),
            "t:2:19 sluice.cni.mode: \"standalone\" is not allowed; use \"chain\" or \"off\"\n"
        );
    }
}
