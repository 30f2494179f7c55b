// SPDX-License-Identifier: Apache-2.0
//! The main CNI plugin's conflist, as tests read it and as the plugin's owner
//! writes it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;

use crate::node::{CONF_DIR, CONFLIST};

pub fn conflist() -> String {
    fs::read_to_string(CONFLIST).expect("the conflist")
}

pub fn list(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text:?}"))
}

pub fn kinds(text: &str) -> Vec<String> {
    let list = list(text);
    let plugins = list["plugins"].as_array().expect("a list of plugins").iter();
    plugins.map(|plugin| plugin["type"].as_str().expect("a type").to_owned()).collect()
}

pub fn has_entry(text: &str) -> bool {
    kinds(text).iter().any(|kind| kind == "sluice")
}

/// As aws-node does it at its start: a temporary file beside it, a rename, and then the mode.
pub fn write_as_aws_node(text: &str) {
    let temporary = format!("{CONFLIST}.tmp");
    fs::write(&temporary, text).expect("write");
    fs::rename(&temporary, CONFLIST).expect("rename");
    // Whoever has put another file there gets that mode, as from aws-node.
    fs::set_permissions(CONFLIST, fs::Permissions::from_mode(0o644)).expect("set the mode");
}

/// A list of the main plugin's that carries a number.
pub fn numbered(number: u64) -> String {
    format!(
        "{{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"main\",\n  \"number\": {number},\n  \
         \"plugins\": [\n    {{\"type\": \"ptp\", \"mtu\": 1500}}\n  ]\n}}\n"
    )
}

pub fn number(list: &Value) -> u64 {
    list["number"].as_u64().unwrap_or(0)
}

/// Ends the threads that wait for it, also when a test fails.
pub struct Over<'o>(pub &'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What happens in the directory of conflists, as containerd's watcher sees it: kinds and names.
pub struct Watched(Inotify);

impl Watched {
    pub fn begin() -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).expect("watch");
        inotify.add_watch(CONF_DIR, AddWatchFlags::IN_ALL_EVENTS).expect("watch the directory");
        Self(inotify)
    }

    pub fn events(&self) -> Vec<(AddWatchFlags, String)> {
        let mut all = Vec::new();
        loop {
            match self.0.read_events() {
                Ok(events) => all.extend(events.into_iter().filter_map(|event| {
                    Some((event.mask, event.name?.to_string_lossy().into_owned()))
                })),
                Err(Errno::EAGAIN) => return all,
                Err(e) => panic!("watch: {e}"),
            }
        }
    }
}
