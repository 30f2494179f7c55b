// SPDX-License-Identifier: Apache-2.0
//! The parts of a boot that can fail while limits are in force: each with its
//! code, what was seen and the remedy. boot.json has them, so that status and
//! metrics report what the journal and the console said.

use crate::trouble::{Trouble, code};

/// The settings' number of pods cannot be kubelet's.
pub fn max_pods(what: String) -> Trouble {
    Trouble::new(code::MAX_PODS, "max-pods", what)
}

/// What kubelet reads cannot be read, or not be written.
pub fn kubelet(what: String) -> Trouble {
    Trouble::new(code::KUBELET_NOT_CONFIGURED, "kubelet", what)
}

/// What is there cannot be chained to.
pub fn conflist(what: String) -> Trouble {
    Trouble::new(code::CONFLIST_UNREADABLE, "cni.conf-dir", what)
}

pub fn conflist_not_written(what: String) -> Trouble {
    Trouble::new(code::CONFLIST_NOT_WRITTEN, "cni.conf-dir", what)
}

pub fn plugin(what: String) -> Trouble {
    Trouble::new(code::PLUGIN_NOT_INSTALLED, "cni.bin-dir", what)
}

/// They are in force, but only until the node restarts.
pub fn not_stored(what: String) -> Trouble {
    Trouble::new(code::SETTINGS_NOT_STORED, "settings", what)
}

/// One line for the journal and the console.
pub fn line(trouble: &Trouble) -> String {
    format!("{}; next: {}", trouble.what, trouble.next_step)
}

/// What `boot` exits with: 78 for what only other settings can correct, 1 for what could not be done.
pub fn exit_status(unmet: &[Trouble]) -> u8 {
    let status = |trouble: &Trouble| match trouble {
        it if it.is(code::MAX_PODS) => 78,
        it if it.is(code::SETTINGS_NOT_STORED) => 0,
        _ => 1,
    };
    unmet.iter().map(status).max().unwrap_or_default()
}
