// SPDX-License-Identifier: Apache-2.0
//! `sluice agent`: loads and pins the programs and maps, keeps every pod as it
//! should be, and waits: for signals, records, the runtime's result cache, the
//! conflist, and for what others do to links, qdiscs and filters. One thread,
//! one loop. Everything that shapes is in the kernel, pinned; this process may
//! end at any moment without any limit noticing.

pub mod aide;
mod api_node;
pub mod background;
pub mod chain_entry;
pub mod file_events;
pub mod k3s;
pub mod overrides;
pub mod reconcile;
pub mod service_manager;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use caps::{CapSet, Capability, CapsHashSet};
use log::{info, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use settings_model::{Listen, Problems};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::api::http::{Group, Server};
use crate::api::{self, Reloaded};
use crate::host::paths::Paths;
use crate::netlink::Events;
use crate::settings::in_force::{InForce, in_force};
use crate::trouble::{Trouble, code};
use api_node::Local;
use background::{Background, Order};
use file_events::{News, Watches};
use reconcile::Reconciler;
use service_manager::Notify;

/// To change a pod that is there: its maps and its devices.
const KEPT: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];
/// To get at its network namespace, and to see the socket's peers, where no unit leaves that to the
/// aide; raised for those calls alone (host/capability.rs).
const WITHIN_REACH: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE];

/// Under its unit only the command that starts the agent can make the directory of pins.
const BEGIN_AGAIN: &str = "the pins were removed and cannot be restored; ends to be started again";

/// What the agent waits for.
struct Wakers {
    reload: UnixStream,
    end: UnixStream,
    watches: Watches,
    events: Events,
    server: Server,
    background: Background,
}

/// `reload` reads the settings again; SIGHUP asks for it, or the API.
pub fn run(paths: &Paths, reload: impl Fn() -> Reloaded) -> Result<()> {
    let started = SystemTime::now();
    let (reload_waker, end) = (waker(&[SIGHUP])?, waker(&[SIGINT, SIGTERM])?);
    check_bpffs(&paths.bpffs())?;
    check_settings(paths)?;
    let _alone = lock(paths)?;
    // While all capabilities are there: the ingress guard reads the kernel's own types.
    bpf::load_and_pin(&paths.pin_dir())?;
    info!("programs and maps are pinned in {}", paths.pin_dir().display());
    let etc = |name: &str| paths.resolve(name.as_ref());
    let server =
        Server::open(&paths.socket(), Group::read(&etc("/etc/group"), &etc("/etc/passwd")))?;
    // The socket remembers that it may receive from other namespaces (net/netlink/af_netlink.c,
    // do_one_broadcast: file_ns_capable).
    let events = Events::open()?;
    drop_capabilities().context("drop capabilities")?;
    let watches = Watches::open(paths)?;
    let background = Background::start(paths)?;
    let mut wakers = Wakers { reload: reload_waker, end, watches, events, server, background };
    let mut reconciler = Reconciler::open(paths)?;
    reconciler.set_trouble("hearing", deaf(&wakers.events));
    let mut reported = Reported::new();
    let (mut asked, mut scraped) = (0, None);
    let mut k3s_wrote = false;
    loop {
        if wakers.watches.find(reconciler.settings()) {
            reconciler.lost();
            k3s_wrote = true;
        }
        let wrote = std::mem::take(&mut k3s_wrote);
        if wrote && k3s::asks_for_a_reload(paths, reconciler.settings()) {
            if k3s::is_beyond_the_unit(paths, started) {
                bail!(k3s::BEGIN_AGAIN);
            }
            reload();
            reconciler.settings_changed();
        }
        tell(reconciler.work());
        reported.turn(&reconciler);
        serve_metrics(&mut wakers.server, &mut reconciler);
        if std::mem::replace(&mut asked, reconciler.settings_reads()) != asked {
            wakers.background.look(order(paths, &reconciler));
        }
        wakers.wait(reported.next(wakers.next(&reconciler)))?;
        if drain(&mut wakers.end)? {
            reported.notify.stopping();
            info!("ends; limits stay in force");
            return Ok(());
        }
        if drain(&mut wakers.reload)? {
            reported.notify.reloading();
            reload();
            reconciler.settings_changed();
            reported.notify.ready();
        }
        for news in wakers.watches.read()? {
            // Boot wrote the settings first; only now is its account of them there.
            asked = if news == News::Boot { 0 } else { asked };
            k3s_wrote |= news == News::K3s;
            if news == News::Unpinned {
                reconciler.put_pins_back().context(BEGIN_AGAIN)?;
                wakers.watches.watch_pins().context(BEGIN_AGAIN)?;
            }
            tell(hear(&mut reconciler, news));
        }
        reconciler.changed(&wakers.events.read()?);
        if let Some(findings) = wakers.background.read() {
            reconciler.set_trouble("standalone", findings.standalone);
            reconciler.set_trouble("capacity", findings.capacity.trouble);
            reconciler.set_capacity(findings.capacity.capacity);
        }
        let mut node =
            Local { paths, reconciler: &mut reconciler, reload: &reload, scraped: &mut scraped };
        wakers.server.handle(&mut |request| api::answer(&mut node, request));
    }
}

/// What is in force now, for the work in the background.
fn order(paths: &Paths, reconciler: &Reconciler) -> Order {
    let in_force = InForce::read(&paths.boot_file()).unwrap_or_else(|e| {
        warn!("{e:#}; max-pods is not looked at");
        None
    });
    let max_pods = in_force.and_then(|in_force| in_force.max_pods);
    Order { settings: reconciler.settings().clone(), max_pods }
}

/// What the service manager has received. It learns that we live after each turn of the loop.
struct Reported {
    notify: Notify,
    alive: Instant,
    status: String,
    ready: bool,
}

impl Reported {
    fn new() -> Self {
        let notify = Notify::from_environment();
        Self { notify, alive: Instant::now(), status: String::new(), ready: false }
    }

    fn turn(&mut self, reconciler: &Reconciler) {
        let report = reconciler.report();
        if report.ready && !self.ready {
            info!("ready: {} pod interfaces", reconciler.pods());
            self.notify.ready();
            self.ready = true;
        }
        let status = report.to_line(reconciler.pods());
        if self.ready && status != self.status {
            self.notify.status(&status);
            self.status = status;
        }
        if self.next(Instant::now()) <= Instant::now() {
            self.notify.alive();
            self.alive = Instant::now();
        }
    }

    /// `until`, or when the watchdog must be fed.
    fn next(&self, until: Instant) -> Instant {
        self.notify.watchdog_interval().map_or(until, |interval| until.min(self.alive + interval))
    }
}

/// Serves metrics where the settings in force say. An address that cannot be had is no reason to end.
fn serve_metrics(server: &mut Server, reconciler: &mut Reconciler) {
    let address = match reconciler.settings().agent.metrics_listen {
        Listen::At(address) => Some(address.address()),
        Listen::Off => None,
    };
    if server.metrics_asked() == address {
        return;
    }
    let no_metrics = |e| Trouble::new(code::NO_METRICS, "agent.metrics-listen", format!("{e:#}"));
    reconciler.set_trouble("metrics", server.serve_metrics(address).err().map(no_metrics));
}

fn hear(reconciler: &mut Reconciler, news: News) -> Result<()> {
    match news {
        News::RecordWritten(claim) => reconciler.record_written(claim),
        News::RecordRemoved(claim) => reconciler.record_removed(&claim),
        News::Settings => reconciler.settings_changed(),
        News::Boot => reconciler.booted(),
        News::Cached(path) => reconciler.cached(&path)?,
        News::Conflist => reconciler.conflist_changed(),
        News::K3s => {}
        News::Unpinned | News::Lost => reconciler.lost(),
    }
    Ok(())
}

impl Wakers {
    fn next(&self, reconciler: &Reconciler) -> Instant {
        let others = [self.watches.next(), self.server.deadline(), self.events.next()];
        others.into_iter().flatten().fold(reconciler.next(), Instant::min)
    }

    fn wait(&self, until: Instant) -> Result<()> {
        let sources: [BorrowedFd; 4] =
            [self.reload.as_fd(), self.end.as_fd(), self.watches.as_fd(), self.background.as_fd()];
        let sources = sources.into_iter().chain(self.events.poll_fds());
        let mut sources: Vec<PollFd> =
            sources.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        sources.extend(self.server.poll_fds());
        match poll(&mut sources, timeout(until)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(e).context("wait for events"),
        }
    }
}

/// Rounded up, or the last millisecond would be spent asking again and again.
fn timeout(until: Instant) -> PollTimeout {
    let left = until.saturating_duration_since(Instant::now());
    let millis = left.as_nanos().div_ceil(Duration::from_millis(1).as_nanos());
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// Held until the process ends: each of two agents would undo what the other does.
pub fn lock(paths: &Paths) -> Result<File> {
    paths.agent_lock().take(Duration::ZERO).context("an agent runs already")
}

fn deaf(events: &Events) -> Option<Trouble> {
    let what = "without CAP_NET_BROADCAST it does not hear what happens inside pods";
    (!events.hears_pods()).then(|| Trouble::new(code::DEAF, "agent", what))
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
    let mut kept: CapsHashSet = KEPT.into_iter().filter(|one| held.contains(one)).collect();
    caps::set(None, CapSet::Effective, &kept)?;
    kept.extend(WITHIN_REACH.into_iter().filter(|one| held.contains(one)));
    caps::set(None, CapSet::Permitted, &kept)
}

/// Settings that another version has put in force, and that we cannot read, stay so however often we
/// try. Where there are none, `sluice boot` may still come.
fn check_settings(paths: &Paths) -> Result<()> {
    in_force(paths).map(|_| ()).or_else(|e| if e.is::<Problems>() { Err(e) } else { Ok(()) })
}

/// The image mounts it: a mount of ours over a foreign one would hide the pins in that.
fn check_bpffs(path: &std::path::Path) -> Result<()> {
    let found = statfs(path).with_context(|| format!("look at {}", path.display()))?;
    if found.filesystem_type() != BPF_FS_MAGIC {
        bail!("{} is no BPF file system: mount one there (mount -t bpf bpf)", path.display());
    }
    Ok(())
}
