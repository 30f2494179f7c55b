// SPDX-License-Identifier: Apache-2.0
//! What the node looks like, read once, plain data. The plan is made from this
//! and the settings alone.

use std::path::{Path, PathBuf};

use settings_model::Settings;

use super::kubelet::Kubelet;
use super::machine;
use crate::addresses::max_pods::Machine;
use crate::host::paths::Paths;
use crate::libcni::conflist::TextFile;
use crate::libcni::files::{active_conflist, with_entry};
use crate::settings::document::NodeConfig;
use crate::standalone;

/// Err is why something cannot be found out.
#[derive(Clone, Debug)]
pub struct Facts {
    pub paths: Paths,
    /// The plugin binary as shipped.
    pub plugin: PathBuf,
    /// None on a machine that is no EC2 instance.
    pub machine: Option<Machine>,
    pub kubelet: Result<Kubelet, String>,
    /// A conflist that standalone mode has made before the node started.
    pub earlier_network: Result<Option<PathBuf>, String>,
    /// The CNI configuration that new pods go through.
    pub conflist: Result<Option<TextFile>, String>,
    /// Every list that our entry is in.
    pub with_entry: Result<Vec<TextFile>, String>,
}

impl Facts {
    /// `node_configs` are those of the node's user data. Conflists come last: others write them meanwhile.
    pub fn probe(
        paths: &Paths,
        settings: &Settings,
        plugin: &Path,
        node_configs: &[NodeConfig],
    ) -> Self {
        let dir = paths.resolve(settings.cni.conf_dir.as_ref());
        Self {
            paths: paths.clone(),
            plugin: plugin.to_owned(),
            machine: machine::probe(paths),
            kubelet: Kubelet::probe(paths, node_configs).map_err(text),
            earlier_network: standalone::earlier_conflist(paths, &dir).map_err(text),
            conflist: active_conflist(&dir).map_err(text),
            with_entry: with_entry(&dir).map_err(text),
        }
    }
}

fn text(error: anyhow::Error) -> String {
    format!("{error:#}")
}
