// SPDX-License-Identifier: Apache-2.0
//! A machine's volume: what it writes lies over an image, or over what another machine has left, which never change.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tools::{Tools, text};

/// What an instance has beyond the image, so that the data partition has something to grow into.
const SIZE: &str = "4G";

pub struct Disk {
    pub path: PathBuf,
    tools: Tools,
}

impl Disk {
    /// Format is `raw` for an image, `qcow2` for what was a `Disk`.
    pub fn over(tools: &Tools, base: &Path, format: &str, path: PathBuf) -> Result<Self> {
        let create = ["create", "-q", "-f", "qcow2", "-F", format, "-b", text(base), text(&path)];
        tools.run("qemu-img", &[&create[..], &[SIZE]].concat())?;
        Ok(Self { path, tools: tools.clone() })
    }

    /// One bit of the volume is another one from now on.
    pub fn flip_bit(&self, offset: u64) -> Result<()> {
        let io =
            |line: &str| self.tools.run("qemu-io", &["-f", "qcow2", "-c", line, text(&self.path)]);
        // As `00000000:  e2  .`
        let shown = io(&format!("read -v {offset} 1"))?;
        let byte = shown.split_whitespace().nth(1).context("a byte")?;
        let byte = u8::from_str_radix(byte, 16).with_context(|| format!("read {shown:?}"))?;
        io(&format!("write -P {} {offset} 1", byte ^ 1)).map(drop)
    }
}
