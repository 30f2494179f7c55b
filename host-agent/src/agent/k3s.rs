// SPDX-License-Identifier: Apache-2.0
//! A k3s that starts for the first time writes where it has CNI long after the node's boot: the settings are
//! read again then. Its directories may be newer than the unit, which cannot write into them before it is
//! started again.

use std::fs;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use settings_model::Settings;

use crate::host::paths::Paths;
use crate::settings::k3s::Dirs;

/// Why the agent ends by itself.
pub const BEGIN_AGAIN: &str = "k3s has made its CNI directories since the agent started; ends to be started again, to write there";

/// Whether k3s has CNI elsewhere than these settings say, or our plugin is not there.
pub fn asks_for_a_reload(paths: &Paths, settings: &Settings) -> bool {
    let plugin = paths.resolve(settings.cni.bin_dir.as_ref()).join("sluice");
    Dirs::find(paths).is_some_and(|dirs| !dirs.are_of(&settings.cni) || !plugin.exists())
}

/// Whether its directory of conflists is younger than this process, and read-only for it. An older one that
/// is read-only would be so again.
pub fn is_beyond_the_unit(paths: &Paths, started: SystemTime) -> bool {
    let Some(dirs) = Dirs::find(paths) else { return false };
    let dir = paths.resolve(dirs.conf_dir());
    let made = fs::metadata(&dir).and_then(|meta| meta.created());
    made.is_ok_and(|made| made > started) && access(&dir, AccessFlags::W_OK) == Err(Errno::EROFS)
}
