// SPDX-License-Identifier: Apache-2.0
//! A node of its own for each test: a thread in a fresh network and mount
//! namespace with its own /run and BPF file system, so that the executables
//! under test use their real paths. All of it goes when the thread ends.
//! Pods are routed veths with /32 addresses, as the VPC CNI makes them.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{executable, ip, output, run, text, wait_for};

/// Where the node keeps its CNI files.
pub const CONF_DIR: &str = "/run/node/net.d";
pub const BIN_DIR: &str = "/run/node/bin";
pub const CONFLIST: &str = "/run/node/net.d/10-main.conflist";
pub const USER_DATA: &str = "/run/node/user-data.toml";
pub const PIN_DIR: &str = "/sys/fs/bpf/sluice/v2";

const MAIN_CONFLIST: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "main",
  "plugins": [
    {"type": "ptp", "mtu": 1500}
  ]
}
"#;

/// The namespaces, and the agent if it runs. `!Send`: it belongs to its thread.
pub struct Node {
    agent: Option<Child>,
    _of_this_thread: std::marker::PhantomData<*const ()>,
}

/// Runs a test inside a new node.
pub fn with_node(test: impl FnOnce(&mut Node) + Send) {
    let in_namespaces = || {
        enter_namespaces();
        let mut node = Node { agent: None, _of_this_thread: std::marker::PhantomData };
        test(&mut node);
    };
    let result = thread::scope(|scope| scope.spawn(in_namespaces).join());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// The same, booted with these bandwidth settings (TOML lines) and with its agent running.
pub fn with_ready_node(bandwidth: &str, test: impl FnOnce(&mut Node) + Send) {
    with_node(|node| {
        node.boot_with(bandwidth);
        node.start_agent();
        test(node);
    });
}

fn enter_namespaces() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .expect("make namespaces (root tests need root)");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    // The last two are where the default settings lead to.
    for dir in ["/run", "/var/lib", "/etc/cni", "/opt/cni"] {
        fs::create_dir_all(dir).expect("make a directory to mount on");
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), none).expect("mount a tmpfs");
    }
    // As if the firmware said nothing: no test hangs on the machine that it runs on.
    let firmware = "/sys/class/dmi";
    if fs::exists(firmware).expect("look for the firmware") {
        mount(Some("tmpfs"), firmware, Some("tmpfs"), MsFlags::empty(), none).expect("hide it");
    }
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).expect("mount bpffs");
    for dir in [CONF_DIR, BIN_DIR] {
        fs::create_dir_all(dir).expect("make the node's directories");
    }
    fs::write(CONFLIST, MAIN_CONFLIST).expect("write the main conflist");
    ip("link set lo up");
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forward");
}

impl Node {
    /// The guest itself, whose agent something else looks after.
    pub fn of_guest() -> Self {
        Self { agent: None, _of_this_thread: std::marker::PhantomData }
    }

    /// `sluice boot` with user data that holds these bandwidth settings.
    pub fn boot_with(&self, bandwidth: &str) {
        let output = self.boot(&format!(
            "[settings.sluice]\nversion = 1\n[settings.sluice.cni]\nconf-dir = \"{CONF_DIR}\"\n\
             bin-dir = \"{BIN_DIR}\"\n[settings.sluice.bandwidth]\n{bandwidth}\n"
        ));
        assert!(output.status.success(), "{}", text(&output));
    }

    /// `sluice boot` with this user data.
    pub fn boot(&self, user_data: &str) -> Output {
        fs::write(USER_DATA, user_data).expect("write user data");
        let plugin = executable("sluice-cni");
        let plugin = plugin.to_str().expect("path is UTF-8");
        self.sluice(&["boot", "--user-data", USER_DATA, "--plugin", plugin])
    }

    /// The executable `sluice`, run to its end.
    pub fn sluice(&self, arguments: &[&str]) -> Output {
        output(executable("sluice").to_str().expect("path is UTF-8"), arguments)
    }

    /// Starts the agent and waits until everything is pinned.
    pub fn start_agent(&mut self) {
        self.start_agent_logging_to(Stdio::inherit());
    }

    /// The same; what it says goes there.
    pub fn start_agent_logging_to(&mut self, log: impl Into<Stdio>) {
        let mut command = Command::new(executable("sluice"));
        command.args(["agent", "--user-data", USER_DATA, "--plugin"]).arg(executable("sluice-cni"));
        die_with_parent(&mut command);
        command.stderr(log);
        self.agent = Some(command.spawn().expect("start the agent"));
        wait_for("the agent's pins", Duration::from_secs(20), || {
            fs::exists(format!("{PIN_DIR}/shape_ingress")).unwrap_or(false).then_some(())
        });
    }

    pub fn kill_agent(&mut self, signal: Signal) {
        let mut agent = self.agent.take().expect("the agent runs");
        kill(Pid::from_raw(agent.id() as i32), signal).expect("signal the agent");
        agent.wait().expect("wait for the agent");
    }

    /// For an agent that ends by itself.
    pub fn wait_for_agent(&mut self, deadline: Duration) -> ExitStatus {
        let mut agent = self.agent.take().expect("the agent runs");
        wait_for("the agent's end", deadline, || agent.try_wait().expect("look at the agent"))
    }

    pub fn signal_agent(&self, signal: Signal) {
        let agent = self.agent.as_ref().expect("the agent runs");
        kill(Pid::from_raw(agent.id() as i32), signal).expect("signal the agent");
    }

    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().expect("the agent runs").id()
    }

    /// A pod's namespace and veth pair, as the main plugin leaves them.
    pub fn pod(&self, name: &str, number: u8) -> Pod {
        self.pod_at(name, number, &format!("eni{name}"))
    }

    /// The same, where the end on the host has another name than usual.
    pub fn pod_at(&self, name: &str, number: u8, host_ifname: &str) -> Pod {
        Pod::make(name, number, host_ifname)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.agent.is_some() {
            self.kill_agent(Signal::SIGKILL);
        }
    }
}

/// A network namespace reached by a routed veth: as a rule `eni<name>` on the host, `eth0` inside.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub host_ifname: String,
    pub address: Ipv4Addr,
}

impl Pod {
    fn make(name: &str, number: u8, host_ifname: &str) -> Self {
        let address = Ipv4Addr::new(10, 1, 0, number);
        ip(&format!("netns add {name}"));
        ip(&format!("link add {host_ifname} type veth peer name eth0 netns {name}"));
        ip(&format!("link set {host_ifname} up"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} addr add {address}/32 dev eth0"));
        ip(&format!("-n {name} route add 169.254.1.1 dev eth0 scope link"));
        ip(&format!("-n {name} route add default via 169.254.1.1 dev eth0"));
        let neighbour = |from: &str, address: &str, device: &str, mac: &str| {
            ip(&format!("{from} neigh add {address} lladdr {mac} dev {device} nud permanent"));
        };
        let inside = format!("-n {name}");
        neighbour(&inside, "169.254.1.1", "eth0", &mac_of("", host_ifname));
        neighbour("", &address.to_string(), host_ifname, &mac_of(&inside, "eth0"));
        ip(&format!("route add {address} dev {host_ifname} scope link"));
        Self { name: name.into(), host_ifname: host_ifname.into(), address }
    }

    pub fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.name))
    }

    /// A program inside the pod.
    pub fn run(&self, line: &str) -> String {
        let mut words = vec!["netns", "exec", self.name.as_str()];
        words.extend(line.split_whitespace());
        run("ip", &words)
    }

    /// Both ends of its veth. EKS has 9001.
    pub fn set_mtu(&self, mtu: u32) {
        ip(&format!("link set {} mtu {mtu}", self.host_ifname));
        ip(&format!("-n {} link set eth0 mtu {mtu}", self.name));
    }

    pub fn delete(&self) {
        ip(&format!("netns del {}", self.name));
    }
}

/// MAC address of a device; `namespace` is an option of `ip`, or empty.
pub fn mac_of(namespace: &str, ifname: &str) -> String {
    let links = crate::command::json(&ip(&format!("{namespace} -j link show {ifname}")));
    links[0]["address"].as_str().expect("a MAC address").to_owned()
}

/// The child gets SIGKILL when the thread that started it ends, however that comes.
pub fn die_with_parent(command: &mut Command) {
    let arm = || nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from);
    // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
    unsafe { command.pre_exec(arm) };
}
