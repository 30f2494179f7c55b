// SPDX-License-Identifier: Apache-2.0
//! A private node with a real containerd and Sluice on it, as on a real one:
//! booted, its agent running, its entry in the chain.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;
use std::{panic, thread};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{executable, json, text, wait_for};
use crate::containerd::{BIN_DIR, Containerd, ContainerdNode, NodeLayout, Pod, PodSpec, signal};

mod gate;
mod leftovers;

pub use gate::Gate;

pub const EGRESS: &str = "kubernetes.io/egress-bandwidth";
pub const INGRESS: &str = "kubernetes.io/ingress-bandwidth";

/// Entries of a chain.
pub const SLUICE: &str = r#"{"type":"sluice","capabilities":{"bandwidth":true}}"#;
pub const PORTMAP: &str = r#"{"type":"portmap","capabilities":{"portMappings":true}}"#;
pub const TUNING: &str = r#"{"type":"tuning","sysctl":{"net.core.somaxconn":"512"}}"#;
/// Plugins of the test's, of which each has a [`Gate`]; for places before and after ours.
pub const BEFORE: &str = r#"{"type":"before"}"#;
pub const AFTER: &str = r#"{"type":"after"}"#;

const CONFLIST: &str = "10-node.conflist";
const USER_DATA: &str = "/run/node/user-data.toml";
const AGENT_LOG: &str = "/run/node/agent.log";
const PIN_DIR: &str = "/sys/fs/bpf/sluice/v2";
const PATIENCE: Duration = Duration::from_secs(20);

/// ptp with host-local addresses, then these entries. An empty version is left out.
pub fn conflist(cni_version: &str, name: &str, chained: &[&str]) -> String {
    let version = match cni_version {
        "" => String::new(),
        version => format!("\"cniVersion\": \"{version}\",\n  "),
    };
    let chained: String = chained.iter().map(|entry| format!(",\n    {entry}")).collect();
    format!(
        r#"{{
  {version}"name": "{name}",
  "plugins": [
    {{"type":"ptp","ipMasq":false,"ipam":{{"type":"host-local","ranges":[[{{"subnet":"10.99.0.0/24"}}]],
      "routes":[{{"dst":"0.0.0.0/0"}}]}}}}{chained}
  ]
}}
"#
    )
}

/// A node of each release of containerd, with this chain and these bandwidth settings.
pub fn node_of_each_release(conflist: &str, bandwidth: &str) -> [(Containerd, SluiceNode); 3] {
    start_each(|release| SluiceNode::start(release, conflist, bandwidth))
}

/// A test on a node of each release, all at once.
pub fn on_each_release(
    conflist: &str,
    bandwidth: &str,
    test: impl Fn(Containerd, &mut SluiceNode) + Sync,
) {
    on_each(&mut node_of_each_release(conflist, bandwidth), test);
}

/// The same on nodes whose main CNI plugin has not come yet.
pub fn on_each_release_without_network(test: impl Fn(Containerd, &mut SluiceNode) + Sync) {
    let start = |release| SluiceNode::start_with(release, BTreeMap::new(), "");
    on_each(&mut start_each(start), test);
}

fn start_each(start: impl Fn(Containerd) -> SluiceNode + Sync) -> [(Containerd, SluiceNode); 3] {
    at_once(Containerd::ALL, |release| (release, start(release)))
}

/// Does the same on all nodes at once, and ends when it is done on the last.
pub fn on_each<T: Send>(
    nodes: &mut [(Containerd, SluiceNode); 3],
    test: impl Fn(Containerd, &mut SluiceNode) -> T + Sync,
) -> [T; 3] {
    at_once(nodes.each_mut(), |(release, node)| test(*release, node))
}

fn at_once<I: Send, T: Send>(items: [I; 3], work: impl Fn(I) -> T + Sync) -> [T; 3] {
    thread::scope(|scope| {
        let runs = items.map(|item| scope.spawn(|| work(item)));
        runs.map(|run| run.join()).map(|it| it.unwrap_or_else(|e| panic::resume_unwind(e)))
    })
}

/// See the module's head. Its end, and that of all in it, is that of the node.
pub struct SluiceNode {
    pub runtime: ContainerdNode,
    agent: Option<Child>,
}

impl SluiceNode {
    /// With this chain, booted with these bandwidth settings (TOML lines), the agent running.
    pub fn start(release: Containerd, conflist: &str, bandwidth: &str) -> Self {
        let conflists = [(CONFLIST.to_owned(), conflist.to_owned())].into();
        let node = Self::start_with(release, conflists, bandwidth);
        node.wait_until_loaded();
        node
    }

    fn start_with(
        release: Containerd,
        conflists: BTreeMap<String, String>,
        bandwidth: &str,
    ) -> Self {
        let layout = NodeLayout { conflists, ..NodeLayout::default() };
        let runtime = ContainerdNode::start(release, &layout).expect("start a node");
        let mut node = Self { runtime, agent: None };
        for name in ["before", "after"] {
            node.gate(name).install(&node.runtime.bin_dir().join(name));
        }
        node.boot(bandwidth);
        node.start_agent();
        node
    }

    /// `sluice boot` with these bandwidth settings.
    pub fn boot(&self, bandwidth: &str) {
        let user_data =
            format!("[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n{bandwidth}\n");
        fs::write(self.runtime.host_path(USER_DATA), user_data).expect("write user data");
        let output = self.with_plugin("boot").output().expect("run sluice boot");
        assert!(output.status.success(), "{}", text(&output));
    }

    fn with_plugin(&self, verb: &str) -> Command {
        let mut command = self.runtime.command(executable("sluice"));
        command.args([verb, "--user-data", USER_DATA, "--plugin"]).arg(executable("sluice-cni"));
        command
    }

    /// Starts the agent and waits until it has looked at every pod.
    pub fn start_agent(&mut self) {
        assert!(self.agent.is_none(), "the agent runs already");
        let log = File::create(self.runtime.host_path(AGENT_LOG)).expect("the agent's log");
        let child = self.with_plugin("agent").stderr(log).spawn().expect("start the agent");
        self.agent = Some(child);
        let is_ready = || self.agent_log().contains("ready: ").then_some(());
        wait_for(&format!("the agent: {}", self.agent_log()), PATIENCE, is_ready);
    }

    /// Ends the agent; pins, limits and records stay.
    pub fn end_agent(&mut self, by: Signal) {
        let mut agent = self.agent.take().expect("the agent runs");
        signal(&agent, by).expect("signal the agent");
        agent.wait().expect("wait for the agent");
    }

    /// A restart of the machine, up to where containerd answers again; `sluice boot` has not run.
    pub fn restart_machine(&mut self) {
        self.runtime.restart_machine().expect("restart the machine");
        drop(self.agent.take().map(|mut agent| agent.wait()));
        self.runtime.start_containerd().expect("start containerd");
    }

    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.runtime.host_path(AGENT_LOG)).unwrap_or_default()
    }

    /// Replaces the conflist as an installer does, and waits until containerd has loaded it.
    pub fn write_conflist(&self, text: &str) {
        self.rename_into_place(text);
        self.runtime.wait_for_status(|s| s.has_loaded(text)).expect("the new conflist");
    }

    /// The same without waiting.
    pub fn rename_into_place(&self, text: &str) {
        let dir = self.runtime.conf_dir();
        let temporary = dir.join("10-node.tmp");
        fs::write(&temporary, text).expect("write a conflist");
        fs::rename(&temporary, dir.join(CONFLIST)).expect("rename a conflist");
    }

    /// Waits until containerd has loaded the conflist as it is, and is ready.
    pub fn wait_until_loaded(&self) {
        let loaded = self.runtime.wait_for_status(|s| s.ready && s.has_loaded(&self.conflist()));
        loaded.expect("the conflist as it is");
    }

    pub fn conflist(&self) -> String {
        fs::read_to_string(self.runtime.conf_dir().join(CONFLIST)).expect("the conflist")
    }

    /// Runs a pod that must come.
    pub fn run(&self, pod: &PodSpec) -> Pod {
        self.runtime.run_pod(pod).unwrap_or_else(|e| panic!("{e:#}\n{}", self.agent_log()))
    }

    /// Runs a pod that must not come; gives what containerd says.
    pub fn refused(&self, pod: &PodSpec) -> String {
        match self.runtime.run_pod(pod) {
            Ok(ran) => panic!("{} runs: {ran:?}", pod.name),
            Err(e) => e.root_cause().to_string(),
        }
    }

    pub fn stop(&self, id: &str) {
        self.runtime.stop_pod(id).unwrap_or_else(|e| panic!("{e:#}"));
    }

    pub fn remove(&self, id: &str) {
        self.runtime.remove_pod(id).unwrap_or_else(|e| panic!("{e:#}"));
    }

    /// Stops and removes whatever containerd knows of.
    pub fn remove_all(&self) {
        for sandbox in self.runtime.sandboxes().expect("the list of pods") {
            self.stop(&sandbox.id);
            self.remove(&sandbox.id);
        }
    }

    /// The executable `sluice`, run to its end inside the node.
    pub fn sluice(&self, arguments: &[&str]) -> Output {
        self.runtime.command(executable("sluice")).args(arguments).output().expect("run sluice")
    }

    /// Our plugins at work, as the host counts.
    pub fn plugins(&self) -> Vec<Pid> {
        self.runtime.processes(&Path::new(BIN_DIR).join("sluice"))
    }

    /// Held by the caller until it is dropped: no ADD or DEL of ours comes further than its start.
    pub fn hold_verbs(&self) -> File {
        let lock = self.runtime.host_path("/run/sluice/locks/pods");
        let lock = File::create(lock).expect("the lock of the pods");
        lock.lock().expect("lock the pods");
        lock
    }

    /// Codes of what `sluice status` says is degraded.
    pub fn troubles(&self) -> Vec<String> {
        let output = self.sluice(&["status", "--json", "--interval", "1"]);
        let status = json(&String::from_utf8_lossy(&output.stdout));
        let troubles = status["degraded"].as_array().expect("a list of troubles").iter();
        troubles.map(|trouble| trouble["code"].as_str().expect("a code").to_owned()).collect()
    }

    /// All that `sluice pods --json` lists.
    pub fn pods(&self) -> Vec<Value> {
        let output = self.sluice(&["pods", "--json", "--interval", "1"]);
        assert!(output.status.success(), "{}", text(&output));
        let status = json(&String::from_utf8_lossy(&output.stdout));
        status["pods"].as_array().expect("a list of pods").clone()
    }

    /// What it says of the pod with this name.
    pub fn pod(&self, name: &str) -> Value {
        let pods = self.pods();
        let found = pods.iter().find(|pod| pod["pod"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {pods:?}")).clone()
    }

    /// Its limits, egress and ingress, as far as it has any.
    pub fn limits(&self, name: &str) -> [Option<u64>; 2] {
        let pod = self.pod(name);
        ["egress", "ingress"].map(|direction| pod[direction]["limit_bps"].as_u64())
    }

    /// The pod's guard, once the agent has found a place for it.
    pub fn guard(&self, name: &str) -> Value {
        wait_for("both guards", PATIENCE, || {
            let pod = self.pod(name);
            let pending = [&pod["guard"]["state"], &pod["bypassed"]["guard"]];
            (!pending.contains(&&Value::from("pending"))).then(|| pod["guard"].clone())
        })
    }

    /// The record of a pod's interface, and none that is still being written.
    pub fn record(&self, id: &str) -> Option<Value> {
        let of_it = |name: &String| name.contains(id) && !name.starts_with('.');
        let name = self.names_in("/run/sluice/pods").into_iter().find(of_it)?;
        let path = self.runtime.host_path("/run/sluice/pods").join(name);
        Some(json(&fs::read_to_string(path).ok()?))
    }

    /// The result of the whole chain, as libcni keeps it for this pod.
    pub fn cached_result(&self, network: &str, id: &str) -> Value {
        let path = format!("/var/lib/cni/results/{network}-{id}-eth0");
        let text = fs::read_to_string(self.runtime.host_path(&path));
        let cached = json(&text.unwrap_or_else(|e| panic!("read {path}: {e}")));
        cached["result"].clone()
    }

    /// One of the test's own plugins: `before` or `after`.
    pub fn gate(&self, name: &str) -> Gate {
        Gate { dir: self.runtime.host_path("/run/node").join(name) }
    }

    /// A pod's namespace, for a test process outside.
    pub fn netns(&self, pod: &Pod) -> PathBuf {
        self.runtime.host_path(&pod.netns)
    }

    /// A machine beyond the node: a namespace behind a veth, as behind an ENI; gives its namespace
    /// and address.
    pub fn make_remote(&self) -> (PathBuf, Ipv4Addr) {
        for line in [
            "netns add remote",
            "link add up0 type veth peer name eth0 netns remote",
            "addr add 10.200.0.1/24 dev up0",
            "link set up0 up",
            "-n remote addr add 10.200.0.2/24 dev eth0",
            "-n remote link set eth0 up",
            "-n remote route add default via 10.200.0.1",
        ] {
            self.run_on_host(&format!("ip {line}"));
        }
        let netns = self.runtime.host_path("/run/netns/remote");
        (netns, Ipv4Addr::new(10, 200, 0, 2))
    }

    /// A program inside a pod; gives its standard output.
    pub fn run_in(&self, pod: &Pod, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.runtime.command_in_pod(pod, words.next().expect("a program"));
        let output = command.args(words).output().expect("run a program in a pod");
        assert!(output.status.success(), "{line}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn run_on_host(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.runtime.command(words.next().expect("a program"));
        let output = command.args(words).output().expect("run a program on the node");
        assert!(output.status.success(), "{line}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Of a directory that may not be there.
    fn names_in(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.runtime.host_path(dir)) else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }
}
