// SPDX-License-Identifier: Apache-2.0
//! The parts of a boot that can fail while limits are in force: each with its
//! code, what was seen and the remedy. boot.json has them, so that status and
//! metrics report what the journal and the console said.

use crate::trouble::{CONFLIST, Trouble};

const MAX_PODS: &str = "max-pods";
const NOT_STORED: &str = "settings-not-stored";

/// The settings' number of pods cannot be kubelet's.
pub fn max_pods(what: String) -> Trouble {
    let next_step = "correct the number (`sluice check FILE` finds what one document contradicts), \
                     then sluice reload; limits are in force all the same";
    trouble(MAX_PODS, "max-pods", what, next_step)
}

/// What kubelet reads cannot be read, or not be written.
pub fn kubelet(what: String) -> Trouble {
    let next_step = "allow it: ReadWritePaths=DIRECTORY in a drop-in of sluice-boot.service and \
                     sluice.service, on a file system that can be written; then restart \
                     sluice-boot; until then kubelet takes as many pods as it would without Sluice";
    trouble("kubelet-not-configured", "kubelet", what, next_step)
}

pub fn conflist(what: String) -> Trouble {
    let next_step = "new pods are limited by the agent, shortly after they start; repair the \
                     conflist, then sluice reload";
    trouble(CONFLIST, "cni.conf-dir", what, next_step)
}

pub fn plugin(what: String) -> Trouble {
    let next_step = "install it again, or set cni.bin-dir to a directory that can be written; then \
                     sluice reload";
    trouble("plugin-not-installed", "cni.bin-dir", what, next_step)
}

/// They are in force, but only until the node restarts.
pub fn not_stored(what: String) -> Trouble {
    let next_step = "the settings are in force from memory (/run/sluice) and will be read again at \
                     the next boot; free space on /var or make it writable, then sluice reload";
    trouble(NOT_STORED, "settings", what, next_step)
}

/// One line for the journal and the console.
pub fn line(trouble: &Trouble) -> String {
    format!("{}; next: {}", trouble.what, trouble.next_step)
}

/// What `boot` exits with: 78 for what only other settings can correct, 1 for what could not be done.
pub fn exit_status(unmet: &[Trouble]) -> u8 {
    let status = |trouble: &Trouble| match trouble.code.as_str() {
        MAX_PODS => 78,
        NOT_STORED => 0,
        _ => 1,
    };
    unmet.iter().map(status).max().unwrap_or_default()
}

fn trouble(code: &str, subject: &str, what: String, next_step: &str) -> Trouble {
    Trouble { code: code.into(), subject: subject.into(), what, next_step: next_step.into() }
}
