// SPDX-License-Identifier: Apache-2.0

//! `[settings.sluice.cni]`: how the agent joins the node's CNI chain.
//!
//! Owns the section's keys, defaults and rules.
//! Never looks whether a directory is there.

use serde_json::Value;
use toml::de::DeValue;

use crate::text::problem::Refusal;
use crate::text::reader::Table;
use crate::values::path::{AbsolutePath, absolute_path};
use crate::values::words::{word, words};

const CONF_DIR: &str = "/etc/cni/net.d";
const BIN_DIR: &str = "/opt/cni/bin";

/// How the agent joins the CNI chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cni {
    /// `mode`; default chain.
    pub mode: CniMode,
    /// `conf-dir`: where CNI network lists are; absolute; default `/etc/cni/net.d`.
    pub conf_dir: AbsolutePath,
    /// `bin-dir`: where CNI plugins are; absolute; default `/opt/cni/bin`.
    pub bin_dir: AbsolutePath,
    /// `upstream-bandwidth`; default replace.
    pub upstream_bandwidth: UpstreamBandwidth,
}

/// Whether the agent puts its plugin into the chain, or makes the pods' network itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CniMode {
    /// The plugin is appended to the network list that is there.
    #[default]
    Chain,
    /// There is no main plugin: the network list is ours, with addresses of delegated prefixes.
    Standalone,
    /// The CNI configuration is left alone.
    Off,
}

words!(CniMode: "chain" = Chain, "standalone" = Standalone, "off" = Off);

/// What to do about an entry of the upstream `bandwidth` plugin in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamBandwidth {
    /// Our entry takes its place.
    #[default]
    Replace,
    /// It stays, and we stand aside.
    Keep,
}

words!(UpstreamBandwidth: "replace" = Replace, "keep" = Keep);

impl Default for Cni {
    fn default() -> Self {
        Self {
            mode: CniMode::default(),
            conf_dir: AbsolutePath::constant(CONF_DIR),
            bin_dir: AbsolutePath::constant(BIN_DIR),
            upstream_bandwidth: UpstreamBandwidth::default(),
        }
    }
}

impl Cni {
    pub(crate) fn rows(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("mode", self.mode.to_string().into()),
            ("conf-dir", self.conf_dir.as_str().into()),
            ("bin-dir", self.bin_dir.as_str().into()),
            ("upstream-bandwidth", self.upstream_bandwidth.to_string().into()),
        ]
    }
}

pub(crate) fn read(table: &mut Table<'_, '_>, cni: &mut Cni) {
    table.set("mode", word, &mut cni.mode);
    table.set("conf-dir", conf_dir, &mut cni.conf_dir);
    table.set("bin-dir", bin_dir, &mut cni.bin_dir);
    table.set("upstream-bandwidth", word, &mut cni.upstream_bandwidth);
}

fn conf_dir(value: &DeValue<'_>) -> Result<AbsolutePath, Refusal> {
    absolute_path(value, CONF_DIR)
}

fn bin_dir(value: &DeValue<'_>) -> Result<AbsolutePath, Refusal> {
    absolute_path(value, BIN_DIR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn each_key_sets_its_own_field() {
        let text = "sluice.version = 1\n[sluice.cni]\nmode = 'off'\nconf-dir = '/a'\n\
                    bin-dir = '/b'\nupstream-bandwidth = 'keep'\n";
        let expected = Cni {
            mode: CniMode::Off,
            conf_dir: AbsolutePath::constant("/a"),
            bin_dir: AbsolutePath::constant("/b"),
            upstream_bandwidth: UpstreamBandwidth::Keep,
        };
        assert_eq!(parse("t", text).expect("settings").cni, expected);
    }
}
