// SPDX-License-Identifier: Apache-2.0
//! A BPF file system of this thread alone; it goes when the thread ends.

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

pub const BPFFS: &str = "/sys/fs/bpf";

/// Mounts it and loads the programs into it; gives the directory of the pins.
pub fn load() -> PathBuf {
    mount_private();
    let dir = bpf::pin_dir(Path::new(BPFFS));
    bpf::load_and_pin(&dir).expect("load");
    dir
}

fn mount_private() {
    unshare(CloneFlags::CLONE_NEWNS).expect("make a mount namespace (needs root)");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), none).expect("bpffs");
}
