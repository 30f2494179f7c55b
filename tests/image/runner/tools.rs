// SPDX-License-Identifier: Apache-2.0
//! Programs of the tree of tools, run on this host with the tree's own libraries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where `packaging/tools` has put them.
#[derive(Clone, Debug)]
pub struct Tools(PathBuf);

impl Tools {
    /// Makes the tree, should it be missing.
    pub fn find() -> Result<Self> {
        let output = Command::new("packaging/tools").output().context("run packaging/tools")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Self(String::from_utf8(output.stdout)?.trim_end().into()))
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.0.join(inside)
    }

    /// A program below usr/bin of the tree.
    pub fn command(&self, program: &str) -> Command {
        let lib = self.path("usr/lib");
        let mut command = Command::new(self.path("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path");
        command.arg(format!("{}/x86_64-linux-gnu:{}", lib.display(), lib.display()));
        command.arg(self.path("usr/bin").join(program));
        command
    }

    /// Runs it to its end, and gives what it prints; what it said is in the error.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).output().context("start it")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What a program prints that runs in the tree itself, in this directory, which is /mnt there.
pub fn in_tools(directory: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new("packaging/in-tools").arg(directory).args(words).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", words.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// Paths of ours are UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
