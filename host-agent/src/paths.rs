// SPDX-License-Identifier: Apache-2.0
//! Every fixed path of the node, below one root that unit tests can replace.
//! Paths that the settings name (CNI directories) are not here.

use std::path::{Path, PathBuf};

/// Where Sluice keeps its state on this node.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::below("/")
    }
}

impl Paths {
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A path of the settings, seen below this root.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The settings in force, as the CNI plugin reads them.
    pub fn node_file(&self) -> PathBuf {
        self.root.join("run/sluice/node.json")
    }

    /// One record for each pod interface.
    pub fn pods_dir(&self) -> PathBuf {
        self.root.join("run/sluice/pods")
    }

    /// The BPF file system.
    pub fn bpffs(&self) -> PathBuf {
        self.root.join("sys/fs/bpf")
    }

    /// Programs and maps of this version's layout.
    pub fn pin_dir(&self) -> PathBuf {
        bpf::pin_dir(&self.bpffs())
    }

    /// The plugin binary as the image ships it.
    pub fn shipped_plugin(&self) -> PathBuf {
        self.root.join("usr/libexec/sluice/sluice-cni")
    }
}
