// SPDX-License-Identifier: Apache-2.0
//! What Sluice, the runtime and the CNI chain have written down.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use settings_model::Settings;

use crate::host::paths::Paths;
use crate::libcni::conflist::TextFile;
use crate::libcni::files::conflists;
use crate::libcni::results::{self, PodResult};
use crate::settings::in_force::InForce;

#[derive(Debug, Default)]
pub struct SluiceState {
    pub in_force: Option<InForce>,
    pub in_force_error: Option<String>,
    pub settings: Option<Result<Settings, String>>,
    pub socket: PathBuf,
    pub agent_answers: bool,
    /// Containers that the runtime has a result for, and whose namespace is there.
    pub results: Vec<PodResult>,
}

#[derive(Debug, Default)]
pub struct CniFiles {
    pub conf_dir: PathBuf,
    /// The lists that a runtime considers, in its order: it takes the first.
    pub files: Vec<Result<TextFile, String>>,
    pub temporary: Vec<PathBuf>,
    /// What Cilium has renamed, so that no runtime reads it.
    pub set_aside: Vec<String>,
    pub plugin: PathBuf,
    /// Whether it can be run.
    pub plugin_runs: bool,
    /// Whether it is the shipped one; None where that is not there to compare.
    pub plugin_is_shipped: Option<bool>,
    pub shipped: PathBuf,
}

impl SluiceState {
    pub fn read(paths: &Paths, settings: Option<Result<Settings, String>>) -> Self {
        let socket = paths.resolve(Path::new("/run/sluice/sluice.sock"));
        let in_force = InForce::read(&paths.boot_file());
        Self {
            in_force_error: in_force.as_ref().err().map(|e| format!("{e:#}")),
            in_force: in_force.ok().flatten(),
            settings,
            agent_answers: UnixStream::connect(&socket).is_ok(),
            socket,
            results: living(&paths.result_cache()),
        }
    }

    /// None where settings are missing or cannot be read.
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()?.as_ref().ok()
    }
}

/// What is left of a pod that has gone without a DEL is of no interest here.
fn living(cache: &Path) -> Vec<PodResult> {
    let files = results::read_all(cache).unwrap_or_default();
    let pods = files.into_iter().filter_map(|file| file.pod.ok());
    pods.filter(|pod| !pod.namespace.is_empty() && !pod.pod.is_empty()).collect()
}

impl CniFiles {
    pub fn read(paths: &Paths, settings: Option<&Settings>) -> Self {
        let defaults = Settings::default();
        let cni = &settings.unwrap_or(&defaults).cni;
        let conf_dir = paths.resolve(cni.conf_dir.as_ref());
        let plugin = paths.resolve(cni.bin_dir.as_ref()).join("sluice");
        let shipped = paths.shipped_plugin();
        Self {
            files: conflists(&conf_dir).unwrap_or_else(|e| vec![Err(format!("{e:#}"))]),
            temporary: [conf_dir.clone(), paths.resolve(cni.bin_dir.as_ref())]
                .iter()
                .flat_map(|dir| temporary(dir))
                .collect(),
            set_aside: names_in(&conf_dir)
                .into_iter()
                .filter(|name| name.ends_with(".cilium_bak"))
                .collect(),
            plugin_runs: fs::metadata(&plugin)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0),
            plugin_is_shipped: same(&plugin, &shipped),
            conf_dir,
            plugin,
            shipped,
        }
    }
}

/// Names that `file::replace` gives.
fn temporary(dir: &Path) -> Vec<PathBuf> {
    let names = names_in(dir).into_iter();
    let ours = names.filter(|name| name.starts_with('.') && name.ends_with(".tmp"));
    ours.map(|name| dir.join(name)).collect()
}

/// None where one of the two is not there.
fn same(a: &Path, b: &Path) -> Option<bool> {
    let (size_a, size_b) = (fs::metadata(a).ok()?.size(), fs::metadata(b).ok()?.size());
    Some(size_a == size_b && fs::read(a).ok()? == fs::read(b).ok()?)
}

pub fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
