// SPDX-License-Identifier: Apache-2.0
//! `sluice agent`: loads and pins the programs and maps, and waits: for signals,
//! for new pods, which need a guard, and, where the guard is a guest on clsact,
//! for what others do there.
//! Everything that shapes is in the kernel, pinned; this process may end at any
//! moment without any limit noticing.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bpf::Pins;
use caps::{CapSet, Capability};
use log::{info, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::live::{self, Touched};
use crate::netlink::{Changed, TcEvents};
use crate::paths::Paths;

/// To change a pod that is there: its maps, its devices, and a socket of its network namespace.
const KEPT: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN];

/// What the agent waits for.
struct Wakers {
    reload: UnixStream,
    end: UnixStream,
    records: Inotify,
    /// None with tcx: then nobody can get in front of the guard by accident.
    events: Option<TcEvents>,
}

/// `reload` reads the settings anew; SIGHUP asks for it.
pub fn run(paths: &Paths, reload: impl Fn()) -> Result<()> {
    let (reload_waker, end) = (waker(&[SIGHUP])?, waker(&[SIGINT, SIGTERM])?);
    check_bpffs(&paths.bpffs())?;
    bpf::load_and_pin(&paths.pin_dir())?;
    info!("programs and maps are pinned in {}", paths.pin_dir().display());
    drop_capabilities().context("drop capabilities")?;
    let pins = Pins::open(&paths.pin_dir())?;
    let has_tcx = pins.has_tcx();
    let events = (!has_tcx).then(TcEvents::open).transpose()?;
    let records = watch(&paths.pods_dir())?;
    info!("the guard is {}", if has_tcx { "a tcx link" } else { "a filter: no tcx here" });
    // What was asked for while no agent ran.
    tell(live::apply(paths));
    tell(live::attach_guards(paths, &Touched::Any));
    tell(live::keep_guards_in_front(paths, &Changed::Any));
    let mut wakers = Wakers { reload: reload_waker, end, records, events };
    loop {
        wakers.wait()?;
        if drain(&mut wakers.end)? {
            info!("ends; limits stay in force");
            return Ok(());
        }
        if drain(&mut wakers.reload)? {
            reload();
            tell(live::apply(paths));
        }
        if let Some(touched) = touched(&wakers.records)? {
            tell(live::attach_guards(paths, &touched));
        }
        if let Some(events) = &wakers.events {
            tell(
                events
                    .read()
                    .map_err(Into::into)
                    .and_then(|changed| live::keep_guards_in_front(paths, &changed)),
            );
        }
    }
}

impl Wakers {
    fn wait(&self) -> Result<()> {
        let mut sources: Vec<BorrowedFd> =
            vec![self.reload.as_fd(), self.end.as_fd(), self.records.as_fd()];
        sources.extend(self.events.as_ref().map(AsFd::as_fd));
        let mut sources: Vec<PollFd> =
            sources.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut sources, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(e).context("wait for signals"),
        }
    }
}

/// Hears of records that are written: they are renamed into the directory.
fn watch(dir: &Path) -> Result<Inotify> {
    let watch = || -> io::Result<Inotify> {
        fs::create_dir_all(dir)?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(dir, AddWatchFlags::IN_MOVED_TO)?;
        Ok(inotify)
    };
    watch().with_context(|| format!("watch {}", dir.display()))
}

/// None if nothing was written. An event without a name says that some were lost.
fn touched(records: &Inotify) -> Result<Option<Touched>> {
    let events = match records.read_events() {
        Ok(events) => events,
        Err(Errno::EAGAIN) => return Ok(None),
        Err(e) => return Err(e).context("watch the records"),
    };
    let names: Option<Vec<_>> = events.into_iter().map(|event| event.name).collect();
    Ok(Some(names.map_or(Touched::Any, Touched::Files)))
}

/// Can be read when one of these signals has come.
fn waker(signals: &[i32]) -> Result<UnixStream> {
    let register = || -> io::Result<UnixStream> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        for signal in signals {
            pipe::register(*signal, writer.try_clone()?)?;
        }
        Ok(reader)
    };
    register().context("wait for signals")
}

/// Whether there was something; any number of the same signal is one.
fn drain(waker: &mut UnixStream) -> Result<bool> {
    let mut bytes = [0; 64];
    match waker.read(&mut bytes) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e).context("wait for signals"),
    }
}

/// The agent goes on: the next reload or event tries again.
fn tell(result: Result<()>) {
    if let Err(e) = result {
        warn!("{e:#}");
    }
}

fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let kept = KEPT.into_iter().filter(|capability| held.contains(capability)).collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// Mounting one over another would hide the pins of others, so that is left to the image.
fn check_bpffs(path: &Path) -> Result<()> {
    let found = statfs(path).with_context(|| format!("look at {}", path.display()))?;
    if found.filesystem_type() != BPF_FS_MAGIC {
        bail!("{} is no BPF file system: mount one there (mount -t bpf bpf)", path.display());
    }
    Ok(())
}
