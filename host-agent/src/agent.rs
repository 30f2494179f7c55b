// SPDX-License-Identifier: Apache-2.0
//! `sluice agent`: loads and pins the programs and maps, gives up the
//! capabilities that took, and waits. Everything that shapes is in the kernel,
//! pinned; this process may end at any moment without any limit noticing.

use std::path::Path;

use anyhow::{Context, Result, bail};
use log::info;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::paths::Paths;

/// `reload` reads the settings anew; SIGHUP asks for it.
pub fn run(paths: &Paths, reload: impl Fn()) -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("wait for signals")?;
    check_bpffs(&paths.bpffs())?;
    bpf::load_and_pin(&paths.pin_dir())?;
    info!("programs and maps are pinned in {}", paths.pin_dir().display());
    caps::clear(None, caps::CapSet::Effective).context("drop capabilities")?;
    caps::clear(None, caps::CapSet::Permitted).context("drop capabilities")?;
    for signal in signals.forever() {
        if signal != SIGHUP {
            info!("signal {signal}: ends; limits stay in force");
            break;
        }
        reload();
    }
    Ok(())
}

/// Mounting one over another would hide the pins of others, so that is left to the image.
fn check_bpffs(path: &Path) -> Result<()> {
    let found = statfs(path).with_context(|| format!("look at {}", path.display()))?;
    if found.filesystem_type() != BPF_FS_MAGIC {
        bail!("{} is no BPF file system: mount one there (mount -t bpf bpf)", path.display());
    }
    Ok(())
}
