// SPDX-License-Identifier: Apache-2.0
//! A plugin of the test's in the chain of a node (tests/fixtures/containerd/gate):
//! what it was called for, and what it is to do.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::command::{json, run, wait_for};

const SCRIPT: &str = include_str!("../../fixtures/containerd/gate");
const PATIENCE: Duration = Duration::from_secs(20);

/// The test's hand on a plugin in the chain (tests/fixtures/containerd/gate).
pub struct Gate {
    pub(super) dir: PathBuf,
}

impl Gate {
    /// Puts the plugin there, and makes the directory where it looks.
    pub(super) fn install(&self, plugin: &Path) {
        fs::write(plugin, SCRIPT).expect("write a plugin");
        fs::set_permissions(plugin, fs::Permissions::from_mode(0o755)).expect("executable");
        fs::create_dir(&self.dir).expect("make a gate's directory");
    }

    /// Its calls of one pod so far: verb, and `netns` where it was given one.
    pub fn calls(&self, id: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.dir.join("calls")).unwrap_or_default();
        let own = calls.lines().filter(|line| line.contains(id));
        own.map(|line| line.replace(id, "").split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    /// The pod of the latest call.
    pub fn last_pod(&self) -> String {
        let calls = fs::read_to_string(self.dir.join("calls")).expect("calls");
        let id = calls.lines().last().and_then(|line| line.split_whitespace().nth(1));
        id.expect("a call").to_owned()
    }

    /// What it received at its last call of that kind for this pod.
    pub fn received(&self, verb: &str, id: &str) -> Value {
        let path = self.dir.join(format!("stdin-{verb}-{id}"));
        json(&fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// From now on it fails with this error; None: no more.
    pub fn fail(&self, verb: &str, error: Option<&str>) {
        let path = self.dir.join(format!("fail-{verb}"));
        match error {
            Some(error) => fs::write(path, error).expect("let a plugin fail"),
            None => fs::remove_file(path).expect("let a plugin work again"),
        }
    }

    /// From now on it waits.
    pub fn hold(&self, verb: &str) {
        let pipe = self.dir.join(format!("hold-{verb}"));
        run("mkfifo", &[pipe.to_str().expect("a path in UTF-8")]);
    }

    pub fn wait_until_held(&self) {
        let held = self.dir.join("holds");
        wait_for("the plugin to be called", PATIENCE, || held.exists().then_some(()));
    }

    /// Lets it go on, and those that come later.
    pub fn release(&self, verb: &str) {
        let pipe = self.dir.join(format!("hold-{verb}"));
        drop(File::options().write(true).open(&pipe).expect("open the pipe"));
        fs::remove_file(pipe).expect("remove the pipe");
        fs::remove_file(self.dir.join("holds")).expect("forget the call");
    }
}
