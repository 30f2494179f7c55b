// SPDX-License-Identifier: Apache-2.0
//! A private node: a real containerd from Debian, with ptp as main CNI plugin, driven over the CRI.
//!
//! Owns the node's namespaces, its containerd and the cgroups of its pods; dropping it, or the
//! death of the test process in any way, ends them all. /run, /var/lib, /etc/cni, /opt/cni and
//! /sys/fs/bpf are the node's own, under their usual names. It installs nothing, leaves no file on
//! the host but the cache of unpacked packages, and never touches the host's network.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

mod namespaces;
pub mod pause_image;

use crate::cri::{
    Cri, LinuxPodSandboxConfig, NetworkStatus, PodSandboxConfig, PodSandboxMetadata, Sandbox,
};
use namespaces::{BASE_PATH, Namespaces, wait_until};
pub use namespaces::{remove_stale_cgroups, signal};

const FETCH: &str = include_str!("../fixtures/containerd/fetch");
const CONFIG_V2: &str = include_str!("../fixtures/containerd/config-v2.toml");
const CONFIG_V3: &str = include_str!("../fixtures/containerd/config-v3.toml");
const RUNSC_BY_RUNCS_INTERFACE: &str = include_str!("../fixtures/containerd/runsc");
const NODE_CONFLIST: &str = include_str!("../fixtures/containerd/node.conflist");

/// Paths as a process inside the node sees them.
pub const CONF_DIR: &str = "/etc/cni/net.d";
pub const BIN_DIR: &str = "/opt/cni/bin";
const SOCKET: &str = "/run/containerd/containerd.sock";
const CONFIG: &str = "/run/node/containerd.toml";
const LOG: &str = "/run/node/containerd.log";
/// containerd's namespace of what comes over the CRI.
const PODS: &str = "k8s.io";
const PAUSE_IMAGE: &str = "/run/node/pause.tar";
/// As config-v2.toml and config-v3.toml name it.
const RUNSC: &str = "/run/node/runsc";

const PLUGINS: [&str; 6] = ["ptp", "host-local", "loopback", "portmap", "tuning", "bandwidth"];
const START_LIMIT: Duration = Duration::from_secs(20);
const LOG_LINES: usize = 40;

/// The containerd to run, by the Debian suite it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containerd {
    Bookworm16,
    Trixie17,
    Sid21,
}

impl Containerd {
    pub const ALL: [Self; 3] = [Self::Bookworm16, Self::Trixie17, Self::Sid21];

    fn suite(self) -> &'static str {
        match self {
            Self::Bookworm16 => "bookworm",
            Self::Trixie17 => "trixie",
            Self::Sid21 => "sid",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Bookworm16 | Self::Trixie17 => CONFIG_V2,
            Self::Sid21 => CONFIG_V3,
        }
    }
}

/// What the node holds before containerd starts.
#[derive(Debug, Clone)]
pub struct NodeLayout {
    /// File name to text, in the conflist directory.
    pub conflists: BTreeMap<String, String>,
    /// Executables copied into the plugin directory beside Debian's.
    pub plugins: Vec<PathBuf>,
    /// The release whose core plugins are used; containerd's own if not given.
    pub core_plugins: Option<Containerd>,
}

impl Default for NodeLayout {
    /// One conflist, `10-node.conflist`: ptp with host-local addresses 10.99.0.0/24, then portmap.
    fn default() -> Self {
        let conflist = ("10-node.conflist".to_owned(), NODE_CONFLIST.to_owned());
        Self { conflists: BTreeMap::from([conflist]), plugins: Vec::new(), core_plugins: None }
    }
}

/// A pod to run: only its sandbox, no container in it.
#[derive(Debug, Clone, Default)]
pub struct PodSpec {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    /// Raised by the kubelet with each retry.
    pub attempt: u32,
    pub annotations: BTreeMap<String, String>,
    /// Of containerd's configuration; empty for runc.
    pub handler: String,
}

impl PodSpec {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            uid: format!("uid-{namespace}-{name}"),
            attempt: 0,
            annotations: BTreeMap::new(),
            handler: String::new(),
        }
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// In a sandbox of gVisor's; see [`ContainerdNode::install_gvisor`].
    pub fn in_gvisor(mut self) -> Self {
        self.handler = "runsc".to_owned();
        self
    }
}

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct Pod {
    pub id: String,
    /// As seen inside the node.
    pub netns: PathBuf,
    pub ip: IpAddr,
    /// Of its pause process, as seen inside the node.
    pub pid: u32,
}

/// The node; see the module's head. Usable from several threads at once.
pub struct ContainerdNode {
    // Dropped in this order: the namespaces' end is containerd's.
    namespaces: Namespaces,
    daemon: Option<Daemon>,
    cri: Cri,
    /// PATH of containerd, hence of its plugins.
    path: String,
}

impl ContainerdNode {
    /// Fetches the packages unless cached, builds the node and waits until containerd answers.
    pub fn start(release: Containerd, layout: &NodeLayout) -> Result<Self> {
        let own = fetch(release.suite())?;
        let runc = fetch("bookworm")?;
        let namespaces = Namespaces::start()?;
        let cri = Cri::new(&namespaces.host_path(SOCKET))?;
        let path = format!("{}/usr/bin:{}/usr/sbin:{BASE_PATH}", own.display(), runc.display());
        let mut node = Self { namespaces, daemon: None, cri, path };
        let core_plugins = layout.core_plugins.map_or(Ok(own), |of| fetch(of.suite()))?;
        node.furnish(release, &core_plugins, layout)?;
        node.start_containerd()?;
        node.import_image(PODS, None)?;
        Ok(node)
    }

    fn furnish(&self, release: Containerd, core: &Path, layout: &NodeLayout) -> Result<()> {
        let debian = PLUGINS.iter().map(|name| core.join("usr/lib/cni").join(name));
        for plugin in debian.chain(layout.plugins.iter().cloned()) {
            let name = plugin.file_name().context("a plugin's path ends in no name")?;
            fs::copy(&plugin, self.bin_dir().join(name))
                .with_context(|| format!("copy plugin {}", plugin.display()))?;
        }
        for (name, text) in &layout.conflists {
            fs::write(self.conf_dir().join(name), text)?;
        }
        fs::write(self.host_path(CONFIG), release.config())?;
        Ok(())
    }

    /// The image of pods' sandboxes, into a namespace of containerd's; with another program beside the
    /// one that only waits, if one is given.
    pub fn import_image(&self, namespace: &str, program: Option<(&str, &[u8])>) -> Result<()> {
        fs::write(self.host_path(PAUSE_IMAGE), pause_image::docker_archive(program)?)?;
        let output = self.ctr(namespace).args(["images", "import", PAUSE_IMAGE]).output();
        let output = output.context("run ctr")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "import the pause image: {said}\n{}", self.log_tail());
        Ok(())
    }

    /// containerd's own client, in a namespace of containerd's.
    pub fn ctr(&self, namespace: &str) -> Command {
        let mut ctr = self.command("ctr");
        ctr.env("PATH", &self.path).args(["-n", namespace]).stdin(Stdio::null());
        ctr
    }

    /// A program of the image, run in a pod's sandbox; for each sandbox a name of its own.
    pub fn command_in_sandbox(&self, pod: &Pod, name: &str, words: &[&str]) -> Command {
        let mut ctr = self.ctr(PODS);
        ctr.args(["tasks", "exec", "--exec-id", name, &pod.id]).args(words);
        ctr
    }

    /// gVisor for pods that ask for it; gives its version.
    pub fn install_gvisor(&self) -> Result<String> {
        let runsc = fetch("runsc")?.join("usr/bin/runsc");
        let path = self.host_path(RUNSC);
        let real = format!("REAL={}", runsc.display());
        fs::write(
            &path,
            RUNSC_BY_RUNCS_INTERFACE.replace("export REAL", &format!("export {real}")),
        )?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        let output = self.command(RUNSC).arg("--version").output().context("run runsc")?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    }

    /// Starts containerd again, after `kill_containerd`, and waits until it answers.
    pub fn start_containerd(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "containerd runs already");
        let log = File::options().create(true).append(true).open(self.host_path(LOG))?;
        let mut command = self.command("containerd");
        // Its whole environment reaches the plugins.
        command.env_clear().env("PATH", &self.path).args(["-c", CONFIG, "-l", "debug"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut daemon = Daemon(command.spawn().context("start containerd")?);
        wait_until("containerd answers", START_LIMIT, || {
            if let Some(status) = daemon.0.try_wait()? {
                bail!("containerd ended with {status}");
            }
            Ok(self.cri.status().ok())
        })
        .with_context(|| self.log_tail())?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// SIGKILL, as the kernel's OOM killer would; pods live on. Returns when it is gone.
    pub fn kill_containerd(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("containerd does not run")?;
        signal(&daemon.0, Signal::SIGKILL)?;
        daemon.0.wait().context("wait for containerd's end")?;
        Ok(())
    }

    /// What a restart of the machine takes: every process, /run, what is pinned and, with the pods'
    /// namespaces, their devices. /var/lib stays; containerd is not started again.
    pub fn restart_machine(&mut self) -> Result<()> {
        // Pid 1 is spared, and so is the shell itself.
        const TAKE: &str = "kill -9 -1
            for mount in $(awk '$2 ~ /^\\/run\\// { print $2 }' /proc/mounts | tac); do umount -n $mount; done
            rm -rf /run/containerd /run/netns /run/runc /run/sluice /sys/fs/bpf/sluice";
        let output = self.command("sh").args(["-euc", TAKE]).output().context("run sh")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "restart the machine: {}: {said}", output.status);
        // It has just been killed; this is for the zombie.
        self.daemon = None;
        Ok(())
    }

    /// SIGKILL of containerd while it makes a pod, as soon as `reached` returns; gives what became of the call.
    pub fn kill_containerd_during(
        &mut self,
        pod: &PodSpec,
        reached: impl FnOnce(&Self),
    ) -> Result<Result<Pod>> {
        let mut daemon = self.daemon.take().context("containerd does not run")?;
        let node = &*self;
        std::thread::scope(|scope| {
            let call = scope.spawn(|| node.run_pod(pod));
            reached(node);
            signal(&daemon.0, Signal::SIGKILL)?;
            daemon.0.wait().context("wait for containerd's end")?;
            Ok(call.join().expect("the call"))
        })
    }

    /// Runs a pod's sandbox; the error's root cause is what containerd answered.
    pub fn run_pod(&self, pod: &PodSpec) -> Result<Pod> {
        let what = || format!("run pod {}/{}\n{}", pod.namespace, pod.name, self.log_tail());
        let config = sandbox_config(pod, self.namespaces.cgroup());
        let id = self.cri.run_pod_sandbox(config, &pod.handler).with_context(what)?;
        self.inspect(id).with_context(what)
    }

    fn inspect(&self, id: String) -> Result<Pod> {
        let status = self.cri.pod_sandbox_status(&id)?;
        let ip = status.ip.parse().with_context(|| format!("read pod address {:?}", status.ip))?;
        let pid = status.info["pid"].as_u64().context("read pod status: no pid")?;
        let namespaces = status.info["runtimeSpec"]["linux"]["namespaces"].as_array();
        let netns = namespaces
            .into_iter()
            .flatten()
            .find(|namespace| namespace["type"] == "network")
            .and_then(|namespace| namespace["path"].as_str())
            .context("read pod status: no network namespace")?;
        Ok(Pod { id, netns: netns.into(), ip, pid: u32::try_from(pid)? })
    }

    /// Ends the pod's processes and takes its network down (CNI DEL).
    pub fn stop_pod(&self, id: &str) -> Result<()> {
        let what = || format!("stop pod {id}\n{}", self.log_tail());
        self.cri.stop_pod_sandbox(id).with_context(what)
    }

    /// Forgets a pod, stopping it first if it still runs.
    pub fn remove_pod(&self, id: &str) -> Result<()> {
        let what = || format!("remove pod {id}\n{}", self.log_tail());
        self.cri.remove_pod_sandbox(id).with_context(what)
    }

    /// All pods that the runtime knows of, those that have ended or never ran included.
    pub fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        self.cri.list_pod_sandboxes().with_context(|| format!("list the pods\n{}", self.log_tail()))
    }

    pub fn status(&self) -> Result<NetworkStatus> {
        self.cri.status().with_context(|| format!("ask for the status\n{}", self.log_tail()))
    }

    /// Waits until the status pleases, for example that a changed conflist has been loaded.
    pub fn wait_for_status(
        &self,
        pleases: impl Fn(&NetworkStatus) -> bool,
    ) -> Result<NetworkStatus> {
        wait_until("the awaited network status", START_LIMIT, || {
            Ok(Some(self.status()?).filter(&pleases))
        })
        .with_context(|| format!("last status: {:?}", self.status()))
    }

    /// The version containerd reports of itself.
    pub fn version(&self) -> Result<String> {
        self.cri.version()
    }

    /// A command in the node's mount, network and pid namespaces; its working directory is `/`.
    ///
    /// The `Child` stands for `nsenter`: killing it kills the program too, but use [`signal`] for
    /// anything gentler. Programs below /run, /var/lib, /opt/cni and /etc/cni of the host are out
    /// of sight.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.namespaces.command(program)
    }

    /// Something of the test's own in the node's network namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespaces.inside(work)
    }

    /// The same as [`Self::command`], but in the pod's network namespace.
    pub fn command_in_pod(&self, pod: &Pod, program: impl AsRef<OsStr>) -> Command {
        self.namespaces.command_in_netns(&pod.netns, program)
    }

    /// The node's processes that run this executable, as the host counts; `program` is its path inside.
    pub fn processes(&self, program: &Path) -> Vec<Pid> {
        self.namespaces.processes(program)
    }

    /// Where the test process finds a path of the node.
    pub fn host_path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.namespaces.host_path(inside)
    }

    /// The conflist directory, as the test process finds it; [`CONF_DIR`] is its name inside.
    pub fn conf_dir(&self) -> PathBuf {
        self.host_path(CONF_DIR)
    }

    /// The plugin directory, as the test process finds it; [`BIN_DIR`] is its name inside.
    pub fn bin_dir(&self) -> PathBuf {
        self.host_path(BIN_DIR)
    }

    /// All that containerd logged so far, at level debug.
    pub fn log(&self) -> String {
        fs::read(self.host_path(LOG))
            .map_or_else(|e| e.to_string(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(LOG_LINES);
        let tail: Vec<_> = log.lines().skip(skipped).collect();
        format!("containerd's log ends with:\n{}", tail.join("\n"))
    }
}

/// containerd, by the `nsenter` it runs behind.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both do nothing if it has ended, as it usually has; this is for the zombie.
        if let Err(e) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("end containerd: {e}");
        }
    }
}

fn sandbox_config(pod: &PodSpec, cgroup: &str) -> PodSandboxConfig {
    let label = |key: &str, value: &str| (format!("io.kubernetes.pod.{key}"), value.to_owned());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            attempt: pod.attempt,
        }),
        hostname: pod.name.clone(),
        log_directory: format!("/run/node/pods/{}", pod.uid),
        labels: [
            label("name", &pod.name),
            label("namespace", &pod.namespace),
            label("uid", &pod.uid),
        ]
        .into(),
        annotations: pod.annotations.clone().into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig { cgroup_parent: format!("/{cgroup}") }),
    }
}

/// The directory of that suite's unpacked packages, made first if it is not cached.
fn fetch(suite: &str) -> Result<PathBuf> {
    let output = Command::new("sh")
        .args(["-c", FETCH, "fetch", suite])
        .stdin(Stdio::null())
        .output()
        .context("run fetch")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "fetch containerd of {suite}: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?.trim_end().into())
}
