// SPDX-License-Identifier: Apache-2.0
//! The namespaces of a test node and the cgroups of its pods.
//!
//! Owns the node's pid 1, which lives until the pipe to its stdin closes: unlike a parent death
//! signal this is so for whatever thread started it, and for any death of the test process. It
//! knows nothing of containerd, and writes nothing on the host but, through runc, cgroups.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{panic, thread};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const NODE_INIT: &str = include_str!("../../fixtures/containerd/node-init");
const CGROUP_PREFIX: &str = "sluice-node-";
const CGROUP_MOUNT: &str = "/sys/fs/cgroup";
pub const BASE_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(20);

pub struct Namespaces {
    unshare: Child,
    /// The node's pid 1, as the host counts.
    init: u32,
    cgroup: String,
}

impl Namespaces {
    pub fn start() -> Result<Self> {
        // No one depends on it: what is still in use now goes at a later start.
        drop(remove_stale_cgroups());
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", NODE_INIT])
            .env_clear()
            .env("PATH", BASE_PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // The terminal's Ctrl-C is for the test process; its end is the node's.
            .process_group(0)
            .spawn()
            .context("run unshare")?;
        match wait_for_init(&mut unshare) {
            Ok(init) => Ok(Self { unshare, init, cgroup: new_cgroup_name() }),
            Err(e) => {
                end(&mut unshare).context("end a node that did not start")?;
                Err(e)
            }
        }
    }

    /// The parent of the pods' cgroups, the same in each hierarchy.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Where a process outside finds a path of the node.
    pub fn host_path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        // An absolute link such as Debian's /var/run would lead back to the host.
        let inside = inside.strip_prefix("/var/run").map_or_else(
            |_| inside.strip_prefix("/").unwrap_or(inside).to_owned(),
            |below| Path::new("run").join(below),
        );
        Path::new("/proc").join(self.init.to_string()).join("root").join(inside)
    }

    /// Processes in the mount namespace that run this executable, as the host counts.
    pub fn processes(&self, program: &Path) -> Vec<Pid> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let own = namespace(&self.init.to_string());
        let runs_it = |pid: &String| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
                && namespace(pid) == own
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let pids = names.filter(runs_it).filter_map(|name| name.parse().ok());
        pids.map(Pid::from_raw).collect()
    }

    /// A command in the mount, network and pid namespaces.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.enter();
        command.arg("--net").args(MORTAL).arg(program);
        command
    }

    /// The same, but in the network namespace at that path inside.
    pub fn command_in_netns(&self, netns: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.enter();
        // A second nsenter, as the path has its meaning inside only.
        command.args(["--", "nsenter", &format!("--net={}", netns.display())]);
        command.args(MORTAL).arg(program);
        command
    }

    /// Runs something of the test's own in the network namespace, on a thread of its own, with a /run and a
    /// BPF file system that go with it: bpftool has no /proc of its own in the node's.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let net = File::open(format!("/proc/{}/ns/net", self.init)).expect("a namespace");
                setns(&net, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
                unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
                let (none, flags) = (None::<&str>, MsFlags::empty());
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
                    .expect("private");
                for (kind, dir) in [("tmpfs", "/run"), ("bpf", "/sys/fs/bpf")] {
                    mount(Some(kind), dir, Some(kind), flags, none).expect("mount");
                }
                work()
            });
            inside.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid"]);
        command
    }
}

/// nsenter forks to enter a pid namespace: its end, by `Child::kill`, must be the program's too.
const MORTAL: [&str; 5] = ["--", "setpriv", "--pdeathsig", "KILL", "--"];

impl Drop for Namespaces {
    fn drop(&mut self) {
        if let Err(e) =
            end(&mut self.unshare).and_then(|()| remove_cgroups(|name| name == self.cgroup))
        {
            eprintln!("take the test node down: {e:#}");
        }
    }
}

fn wait_for_init(unshare: &mut Child) -> Result<u32> {
    wait_until("the node's namespaces", START_LIMIT, || {
        if let Some(status) = unshare.try_wait()? {
            let mut said = String::new();
            if let Some(mut stderr) = unshare.stderr.take() {
                stderr.read_to_string(&mut said)?;
            }
            bail!("make the node's namespaces: {status}: {}", said.trim());
        }
        let ready = |init: &u32| Path::new(&format!("/proc/{init}/root/run/node/ready")).exists();
        Ok(child_of(unshare.id())?.filter(ready))
    })
}

/// Closes pid 1's stdin and waits until every process of the node is gone.
fn end(unshare: &mut Child) -> Result<()> {
    drop(unshare.stdin.take());
    let ended = wait_until("the end of the node", STOP_LIMIT, || Ok(unshare.try_wait()?));
    if ended.is_err() {
        unshare.kill().context("kill the node")?;
        unshare.wait().context("wait for the node's end")?;
    }
    ended.map(|_status| ())
}

/// Sends a signal to the program behind a `Child` of a node's command.
pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    let inner = child_of(child.id())?.context("send a signal: the program has ended")?;
    let pid = Pid::from_raw(i32::try_from(inner)?);
    kill(pid, signal).with_context(|| format!("send {signal} to process {inner}"))
}

/// The first child of a process with one thread.
fn child_of(pid: u32) -> Result<Option<u32>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(children.split_whitespace().next().and_then(|first| first.parse().ok()))
}

/// Polls until there is a value, or an error, or the limit is reached.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = poll()? {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "wait for {what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The name holds our pid, so that a later run can tell what was left behind.
fn new_cgroup_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{CGROUP_PREFIX}{}-{count}", std::process::id())
}

/// Removes what killed test processes left behind, as soon as the last of their pods has ended;
/// that of a live one is not ours.
pub fn remove_stale_cgroups() -> Result<()> {
    let is_stale = |name: &str| name.strip_prefix(CGROUP_PREFIX).is_some_and(is_of_dead_process);
    remove_cgroups(is_stale)
}

fn is_of_dead_process(pid_and_count: &str) -> bool {
    let pid = pid_and_count.split_once('-').map(|(pid, _)| pid);
    pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}

fn remove_cgroups(is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    wait_until("removal of the pods' cgroups", STOP_LIMIT, || {
        let left = cgroups(&is_wanted);
        let busy = left.iter().filter(|group| remove_tree(group).is_err()).count();
        Ok((busy == 0).then_some(()))
    })
}

/// The cgroups at the top of every hierarchy, old (v1, hybrid) and unified, that have such a name.
fn cgroups(is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut tops = vec![PathBuf::from(CGROUP_MOUNT)];
    tops.extend(directories(Path::new(CGROUP_MOUNT)));
    let groups = tops.iter().flat_map(|top| directories(top));
    groups
        .filter(|group| group.file_name().and_then(OsStr::to_str).is_some_and(&is_wanted))
        .collect()
}

/// Control groups hold files that cannot be removed, so only the directories are.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    for inner in directories(group) {
        remove_tree(&inner)?;
    }
    fs::remove_dir(group)
}

/// The directories right below, links left out; none if it has just vanished.
fn directories(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}
