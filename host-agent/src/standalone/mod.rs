// SPDX-License-Identifier: Apache-2.0
//! Standalone mode: no aws-node; pods have addresses of the prefixes that are
//! delegated to the node, by a conflist of ours, and leave the VPC with the
//! node's address. One thread of the agent asks, writes and tells, so that
//! neither IMDS nor nft keeps the loop waiting (docs/decisions/0009-standalone.md).

mod keeper;
mod known;
mod network;
mod nft;
mod store;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context, Result};
use settings_model::Settings;

use crate::paths::Paths;
use crate::report::Trouble;
use keeper::Keeper;
use known::Known;

/// By its name, whatever it holds.
const CONFLIST: &str = "10-sluice.conflist";

/// Whether this conflist is the one that standalone mode writes, in which nobody else has an entry.
pub fn owns(conflist: &Path) -> bool {
    conflist.file_name().is_some_and(|name| name == CONFLIST)
}

/// The agent's end of the thread.
pub struct Standalone {
    orders: Sender<Settings>,
    troubles: Receiver<Option<Trouble>>,
    /// Can be read when there are troubles to receive.
    waker: UnixStream,
    /// Keeps the above from being at its end if the thread is.
    _alive: UnixStream,
}

impl Standalone {
    /// Does nothing before the first settings.
    pub fn start(paths: &Paths) -> Result<Self> {
        let start = || -> io::Result<Self> {
            let (waker, mut teller) = UnixStream::pair()?;
            waker.set_nonblocking(true)?;
            let alive = teller.try_clone()?;
            let (orders, settings) = channel();
            let (tell, troubles) = channel();
            let mut keeper = Keeper::new(paths);
            let work = move || {
                keeper.run(&settings, |trouble| {
                    // The loop that listened is at its end, and so are we.
                    let _ = tell.send(trouble).map(|()| teller.write(&[0]));
                });
            };
            thread::Builder::new().name("standalone".into()).spawn(work)?;
            Ok(Self { orders, troubles, waker, _alive: alive })
        };
        start().context("start the thread of standalone mode")
    }

    /// Looks at everything at once, with these settings.
    pub fn look(&self, settings: &Settings) {
        // Its thread ends with the process.
        let _ = self.orders.send(settings.clone());
    }

    /// What is wrong now, or None, if that has been looked at since the last call.
    pub fn read(&mut self) -> Option<Option<Trouble>> {
        // Nothing there is as good as something: what counts is in the channel.
        let _ = self.waker.read(&mut [0; 64]);
        self.troubles.try_iter().last()
    }
}

impl AsFd for Standalone {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}

/// Takes conflist and table off the node, where this mode has made them since the node started. The
/// store stays: pods that are there keep their addresses, and nobody else is to have them.
pub fn take_off(paths: &Paths) -> Result<()> {
    let Some(known) = Known::read(paths)? else { return Ok(()) };
    remove(&known.conflist)?;
    nft::run(network::NO_TABLE)?;
    remove(&paths.network_file())
}

/// A conflist of before the node started names prefixes that it may not have any more (an image may
/// even be made of another node), so no runtime is to see it.
pub fn forget_earlier(paths: &Paths, settings: &Settings) -> Result<()> {
    match Known::read(paths)? {
        Some(_) => Ok(()),
        None => remove(&paths.resolve(settings.cni.conf_dir.as_ref()).join(CONFLIST)),
    }
}

fn remove(path: &Path) -> Result<()> {
    // On a read-only file system the removal of what is not there fails as well.
    if fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    match fs::remove_file(path) {
        Ok(()) => log::info!("removed {}", path.display()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("remove {}", path.display())),
    }
    Ok(())
}
