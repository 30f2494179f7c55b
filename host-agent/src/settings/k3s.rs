// SPDX-License-Identifier: Apache-2.0
//! Where k3s has CNI. At each start it writes its containerd's configuration, by its version and flags; the
//! directories that this names are a document of settings, below all others. RKE2, made of k3s, and a k3s
//! without flannel leave them out: containerd's own apply, which are the defaults of ours too.

use std::fs;
use std::path::{Path, PathBuf};

use settings_model::{AbsolutePath, Cni};
use toml::Table;

use crate::host::paths::Paths;
use crate::settings::document::Document;

/// Where k3s writes it (k3s, read in 2026, pkg/agent/config/config.go: Containerd.Config).
const CONFIG: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
/// The plugin of containerd that runs CNI, in versions 3 and 2 of its configuration.
const PLUGINS: [&str; 2] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];

/// CNI's directories, as k3s has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    conf_dir: AbsolutePath,
    bin_dir: AbsolutePath,
}

impl Dirs {
    /// None where there is no k3s, or it leaves CNI to others.
    pub fn find(paths: &Paths) -> Option<Self> {
        Self::of(&fs::read_to_string(config(paths)).ok()?)
    }

    fn of(config: &str) -> Option<Self> {
        let config: Table = config.parse().ok()?;
        let plugins = config.get("plugins")?;
        let cni = PLUGINS.iter().find_map(|plugin| plugins.get(plugin)?.get("cni"))?;
        // containerd 2 has several, and looks for a plugin in the first one first.
        let bin_dir = cni.get("bin_dirs").and_then(|dirs| dirs.get(0)).or(cni.get("bin_dir"));
        let dir = |value: Option<&toml::Value>| AbsolutePath::new(value?.as_str()?);
        Some(Self { conf_dir: dir(cni.get("conf_dir"))?, bin_dir: dir(bin_dir)? })
    }

    pub fn conf_dir(&self) -> &Path {
        &self.conf_dir
    }

    /// Whether these are the ones that settings name.
    pub fn are_of(&self, cni: &Cni) -> bool {
        self.conf_dir == cni.conf_dir && self.bin_dir == cni.bin_dir
    }

    pub fn document(&self) -> Document {
        let dir = |path: &AbsolutePath| toml::Value::from(path.as_str());
        let text = format!(
            "sluice.version = 1\nsluice.cni.conf-dir = {}\nsluice.cni.bin-dir = {}\n",
            dir(&self.conf_dir),
            dir(&self.bin_dir)
        );
        Document { name: format!("k3s ({CONFIG})"), text }
    }
}

/// The file that says so.
pub fn config(paths: &Paths) -> PathBuf {
    paths.resolve(Path::new(CONFIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What present k3s writes for containerd 2, as far as CNI; before 1.32 the second.
    const OF_CONTAINERD_2: &str = "version = 3\nroot = \"/var/lib/rancher/k3s/agent/containerd\"\n\
        [plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = [\"/var/lib/rancher/k3s/data/cni\"]\n  \
        conf_dir = \"/var/lib/rancher/k3s/agent/etc/cni/net.d\"\n";
    const OF_CONTAINERD_1: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  \
        bin_dir = \"/var/lib/rancher/k3s/data/0a1b/bin\"\n  \
        conf_dir = \"/var/lib/rancher/k3s/agent/etc/cni/net.d\"\n";

    fn found(config: &str) -> Option<(String, String)> {
        let dirs = Dirs::of(config)?;
        Some((dirs.conf_dir.as_str().to_owned(), dirs.bin_dir.as_str().to_owned()))
    }

    #[test]
    fn the_directories_are_those_of_containerds_configuration() {
        let conf = || "/var/lib/rancher/k3s/agent/etc/cni/net.d".to_owned();
        let current = Some((conf(), "/var/lib/rancher/k3s/data/cni".to_owned()));
        assert_eq!(found(OF_CONTAINERD_2), current);
        let old = Some((conf(), "/var/lib/rancher/k3s/data/0a1b/bin".to_owned()));
        assert_eq!(found(OF_CONTAINERD_1), old);
    }

    #[test]
    fn where_it_is_not_certain_nothing_is_found() {
        for config in [
            "",
            "not TOML",
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_selinux = false\n",
            "[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/b']\n",
            "[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = []\nconf_dir = '/c'\n",
            "[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['b']\nconf_dir = '/c'\n",
            "[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/b']\nconf_dir = 5\n",
            "plugins = 5\n",
        ] {
            assert_eq!(found(config), None, "{config}");
        }
    }

    #[test]
    fn the_document_says_what_was_found() {
        let dirs = Dirs::of(OF_CONTAINERD_2).expect("directories");
        let Document { name, text } = dirs.document();
        let settings = settings_model::parse(&name, &text).expect("settings");
        assert!(dirs.are_of(&settings.cni), "{text}");
        assert!(!dirs.are_of(&Cni::default()));
    }
}
