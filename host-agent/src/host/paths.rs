// SPDX-License-Identifier: Apache-2.0
//! Every fixed path of the node, below one root that unit tests can replace.
//! Paths that the settings name (CNI directories) are not here.

use std::path::{Path, PathBuf};

use crate::host::lock::Lock;

/// Where Sluice keeps its state on this node.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Only root can open what is in there.
    pub fn locks_dir(&self) -> PathBuf {
        self.root.join("run/sluice/locks")
    }

    /// Held by whatever changes what is in force.
    pub fn boot_lock(&self) -> Lock {
        Lock::new(&self.locks_dir(), "boot")
    }

    /// Held by whatever writes files that the agent and a boot both write, since all use the same temporary
    /// names.
    pub fn files_lock(&self) -> Lock {
        Lock::new(&self.locks_dir(), "files")
    }

    /// Shared by verbs of the plugin, and held by whatever changes running pods.
    pub fn pods_lock(&self) -> Lock {
        Lock::new(&self.locks_dir(), "pods")
    }

    /// A place in it is held by whatever works on that container's devices.
    pub fn containers_lock(&self) -> Lock {
        Lock::new(&self.locks_dir(), "containers")
    }

    /// Held for a listing of records and one small file.
    pub fn records_lock(&self) -> Lock {
        Lock::new(&self.locks_dir(), "records")
    }

    /// A path of the settings, seen below this root.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The settings in force, canonical, as the CNI plugin reads them.
    pub fn settings_in_force(&self) -> PathBuf {
        self.root.join("run/sluice/settings.toml")
    }

    /// What `sluice boot` left in force, and why.
    pub fn boot_file(&self) -> PathBuf {
        self.root.join("run/sluice/boot.json")
    }

    /// What "auto" is of the node's capacity, as the agent has found it.
    pub fn capacity_found(&self) -> PathBuf {
        self.root.join("run/sluice/capacity-found")
    }

    /// Every set of settings that was put in force lately.
    pub fn generations_dir(&self) -> PathBuf {
        self.root.join("var/lib/sluice/generations")
    }

    /// The same, as long as the disk cannot be written.
    pub fn generations_in_memory(&self) -> PathBuf {
        self.root.join("run/sluice/generations")
    }

    /// Where a boot is rehearsed: in memory, so that nothing waits for a disk.
    pub fn rehearsal_dir(&self) -> PathBuf {
        self.root.join("run/sluice/rehearsal")
    }

    /// The image's own defaults, the lowest layer of settings.
    pub fn defaults_file(&self) -> PathBuf {
        self.root.join("usr/share/sluice/defaults.toml")
    }

    /// The machine's settings, above the image's.
    pub fn settings_file(&self) -> PathBuf {
        self.root.join("etc/sluice/settings.toml")
    }

    /// More of them, `*.toml` by name.
    pub fn settings_dir(&self) -> PathBuf {
        self.root.join("etc/sluice/settings.d")
    }

    /// What standalone mode has made of the node's network since it started.
    pub fn network_file(&self) -> PathBuf {
        self.root.join("run/sluice/network.json")
    }

    /// Where the agent answers.
    pub fn socket(&self) -> PathBuf {
        self.root.join("run/sluice/sluice.sock")
    }

    /// One record for each pod interface.
    pub fn pods_dir(&self) -> PathBuf {
        self.root.join("run/sluice/pods")
    }

    /// Where libcni keeps what each pod interface was made with; no runtime lets that be set.
    pub fn result_cache(&self) -> PathBuf {
        self.root.join("var/lib/cni/results")
    }

    /// Held as long as an agent runs.
    pub fn agent_lock(&self) -> Lock {
        Lock::new(&self.locks_dir(), "agent")
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
