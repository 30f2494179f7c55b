// SPDX-License-Identifier: Apache-2.0
//! A machine's volume: what it writes lies over the image, which never changes.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::tools::{Tools, text};

/// What an instance has beyond the image, so that the data partition has something to grow into.
const SIZE: &str = "4G";

pub struct Disk {
    pub path: PathBuf,
    tools: Tools,
}

impl Disk {
    pub fn new(tools: &Tools, image: &Path, path: PathBuf) -> Result<Self> {
        let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", text(image), text(&path)];
        tools.run("qemu-img", &[&create[..], &[SIZE]].concat())?;
        Ok(Self { path, tools: tools.clone() })
    }

    /// Writes other bytes at this place of the volume, as a fault of its would.
    pub fn corrupt(&self, offset: u64) -> Result<()> {
        let write = format!("write -P 0x5a {offset} 512");
        self.tools.run("qemu-io", &["-f", "qcow2", "-c", &write, text(&self.path)])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Gone already, or the directory goes with it.
        let _ = std::fs::remove_file(&self.path);
    }
}
