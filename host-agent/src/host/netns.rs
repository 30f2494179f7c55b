// SPDX-License-Identifier: Apache-2.0
//! A pod's network namespace, as a file: whether it is there.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use nix::unistd::Pid;

/// Whether this is a file of a process that is there. Under the agent's unit such files cannot be
/// seen (ProtectProc=).
pub fn process_lives(netns: &Path) -> bool {
    let pid = netns.strip_prefix("/proc").ok().and_then(|path| path.iter().next()?.to_str());
    let pid = pid.and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw);
    pid.is_some_and(|pid| kill(pid, None) != Err(Errno::ESRCH))
}

/// A namespace's file that was unmounted but not removed is an ordinary empty file.
pub fn is_netns(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}
