// SPDX-License-Identifier: Apache-2.0
//! A node in a VPC without aws-node: a real containerd, an ENI with a double of
//! IMDS, a namespace that is the rest of the VPC and the internet. The agent has
//! the capabilities that its unit gives it, and no others.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Output};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::command::{executable, json, text, wait_for};
use crate::containerd::{CONF_DIR, Containerd, ContainerdNode, NodeLayout, Pod, PodSpec, signal};
use crate::imds::{Address, Imds};
use crate::meter::in_netns;

pub const MAC: &str = "02:00:00:00:00:01";
/// Of the ENI; pods have it too.
pub const MTU: u32 = 1460;
/// The node's own.
pub const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10));
/// Somewhere else in the VPC, and outside of it.
pub const IN_VPC: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 200, 9));
pub const INTERNET: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
/// Two prefixes that can be delegated.
pub const FIRST: &str = "10.0.1.16/28";
pub const SECOND: &str = "10.0.2.32/28";
pub const PREFIX_V6: &str = "2001:db8:1:2:3::/80";
pub const CONFLIST: &str = "/etc/cni/net.d/10-sluice.conflist";
/// Where host-local keeps which pod has which address.
pub const STORE: &str = "/run/sluice/ipam/sluice";
const USER_DATA: &str = "/run/node/user-data.toml";
const PATIENCE: Duration = Duration::from_secs(20);

/// What sluice.service and sluice-aide.service allow (CapabilityBoundingSet=, NoNewPrivileges=): there is no aide here.
const AS_THE_UNIT: [&str; 3] = [
    "--no-new-privs",
    "--bounding-set",
    "-all,+net_admin,+bpf,+sys_admin,+sys_ptrace,+net_broadcast",
];

pub struct Node {
    pub containerd: ContainerdNode,
    pub imds: Option<Imds>,
    agent: Option<Child>,
}

/// Runs a test inside the network namespace of a new node; no prefix is delegated to it yet, and
/// neither boot nor agent has run.
pub fn with_node(release: Containerd, test: impl FnOnce(&mut Node) + Send) {
    let layout = NodeLayout { conflists: [].into(), ..NodeLayout::default() };
    let containerd = ContainerdNode::start(release, &layout).expect("start the node");
    let netns = containerd.host_path("/proc/1/ns/net");
    let within = move || {
        let imds = furnish(&containerd);
        test(&mut Node { containerd, imds: Some(imds), agent: None });
    };
    let result = thread::scope(|scope| in_netns(scope, &netns, within).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// The same with this prefix, booted, with its agent, and ready for pods.
pub fn with_ready_node(release: Containerd, prefix: &str, test: impl FnOnce(&mut Node) + Send) {
    with_node(release, |node| {
        node.delegate(&[prefix]);
        node.boot("standalone", "");
        node.start_agent();
        node.wait_until_ready_with(first_address(prefix));
        test(node);
    });
}

fn first_address(prefix: &str) -> &str {
    prefix.split('/').next().expect("a prefix")
}

/// The ENI, what is behind it, and what IMDS tells of it.
fn furnish(containerd: &ContainerdNode) -> Imds {
    let inside = |line: &str| {
        let output = containerd.command("ip").args(line.split_whitespace()).output();
        let output = output.expect("run ip");
        assert!(output.status.success(), "ip {line}\n{}", text(&output));
    };
    inside("netns add outside");
    inside(&format!(
        "link add eth0 address {MAC} mtu {MTU} type veth peer name vpc0 mtu {MTU} netns outside"
    ));
    for line in [
        "addr add 10.0.0.10/20 dev eth0",
        "addr add 2001:db8:1:2::10/64 dev eth0 nodad",
        "link set eth0 up",
        "route add default via 10.0.0.1",
        "route add default via 2001:db8:1:2::1",
        "-n outside link set lo up",
        "-n outside link set vpc0 up",
        "-n outside addr add 10.0.0.1/20 dev vpc0",
        "-n outside addr add 2001:db8:1:2::1/64 dev vpc0 nodad",
        &format!("-n outside addr add {IN_VPC}/32 dev lo"),
        &format!("-n outside addr add {INTERNET}/32 dev lo"),
        "-n outside addr add 2001:db8:ffff::9/128 dev lo nodad",
        // What a VPC does with delegated prefixes.
        &format!("-n outside route add {FIRST} via {NODE}"),
        &format!("-n outside route add {SECOND} via {NODE}"),
        &format!("-n outside route add {PREFIX_V6} via 2001:db8:1:2::10"),
    ] {
        inside(line);
    }
    // As strict as distributions have it; and forwarding is for the mode to see to.
    for (name, value) in [("conf/all/rp_filter", "1"), ("ip_forward", "0")] {
        fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect("set a sysctl");
    }
    let imds = Imds::start(Address::V4, None, &[]);
    imds.set("mac", MAC);
    imds.set(&of_interface("local-ipv4s"), "10.0.0.10");
    imds.set(&of_interface("subnet-ipv4-cidr-block"), "10.0.0.0/20");
    imds.set(&of_interface("vpc-ipv4-cidr-blocks"), "10.0.0.0/16\n100.64.0.0/16");
    imds
}

fn of_interface(key: &str) -> String {
    format!("network/interfaces/macs/{MAC}/{key}")
}

impl Node {
    /// From now on IMDS shows these prefixes, of IPv4 or IPv6.
    pub fn delegate(&self, prefixes: &[&str]) {
        let imds = self.imds.as_ref().expect("IMDS is there");
        for (key, is_v6) in [("ipv4-prefix", false), ("ipv6-prefix", true)] {
            let of_kind: Vec<_> =
                prefixes.iter().filter(|p| p.contains(':') == is_v6).copied().collect();
            match of_kind.is_empty() {
                true => imds.unset(&of_interface(key)),
                false => imds.set(&of_interface(key), &of_kind.join("\n")),
            }
        }
    }

    /// `sluice boot` with this `cni.mode` and these bandwidth settings.
    pub fn boot(&self, mode: &str, bandwidth: &str) {
        let output = self.try_boot(mode, bandwidth);
        assert!(output.status.success(), "{}", text(&output));
    }

    pub fn try_boot(&self, mode: &str, bandwidth: &str) -> Output {
        let settings = format!(
            "[settings.sluice]\nversion = 1\n[settings.sluice.cni]\nmode = \"{mode}\"\n\
             [settings.sluice.bandwidth]\n{bandwidth}\n"
        );
        fs::write(self.path(USER_DATA), settings).expect("write user data");
        let mut boot = self.containerd.command(executable("sluice"));
        boot.args(["boot", "--user-data", USER_DATA, "--plugin"]).arg(executable("sluice-cni"));
        boot.output().expect("run sluice boot")
    }

    pub fn start_agent(&mut self) {
        let mut agent = self.containerd.command("setpriv");
        agent.args(AS_THE_UNIT).arg(executable("sluice"));
        agent.args(["agent", "--user-data", USER_DATA, "--plugin"]).arg(executable("sluice-cni"));
        self.agent = Some(agent.spawn().expect("start the agent"));
        let socket = self.path("/run/sluice/sluice.sock");
        wait_for("the agent's socket", PATIENCE, || socket.exists().then_some(()));
    }

    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("the agent runs");
        signal(&agent, Signal::SIGKILL).expect("kill the agent");
        agent.wait().expect("wait for the agent");
        // Of no use to the next one's waiters.
        fs::remove_file(self.path("/run/sluice/sluice.sock")).expect("remove the socket");
    }

    /// Has the agent look at everything now.
    pub fn reload(&self) {
        signal(self.agent.as_ref().expect("the agent runs"), Signal::SIGHUP).expect("signal");
    }

    pub fn sluice(&self, arguments: &[&str]) -> Output {
        let mut command = self.containerd.command(executable("sluice"));
        command.args(arguments).output().expect("run sluice")
    }

    /// The codes of what is degraded, with what was seen and what to do.
    pub fn degraded(&self) -> Vec<[String; 3]> {
        let output = self.sluice(&["status", "--json", "--interval", "1"]);
        let status = json(&String::from_utf8_lossy(&output.stdout));
        let all = status["degraded"].as_array().expect("what is degraded").clone();
        let text = |trouble: &serde_json::Value, key: &str| {
            trouble[key].as_str().expect("a text").to_owned()
        };
        all.iter().map(|t| ["code", "what", "next_step"].map(|key| text(t, key))).collect()
    }

    /// Waits until this is wrong; gives what was seen and what to do.
    pub fn wait_for_trouble(&self, code: &str) -> [String; 2] {
        wait_for(&format!("trouble {code}"), PATIENCE, || {
            let found = self.degraded().into_iter().find(|trouble| trouble[0] == code);
            found.map(|[_, what, next_step]| [what, next_step])
        })
    }

    pub fn wait_for_no_trouble(&self, code: &str) {
        wait_for(&format!("no trouble {code}"), PATIENCE, || {
            self.degraded().iter().all(|trouble| trouble[0] != code).then_some(())
        });
    }

    pub fn conflist(&self) -> String {
        fs::read_to_string(self.path(CONFLIST)).unwrap_or_default()
    }

    /// Waits until the runtime has a conflist that holds this text.
    pub fn wait_until_ready_with(&self, text: &str) {
        wait_for(&format!("{text} in the conflist"), PATIENCE, || {
            self.conflist().contains(text).then_some(())
        });
        self.containerd
            .wait_for_status(|status| status.ready && status.cni_config.contains(text))
            .expect("the runtime is ready");
    }

    /// Waits until the runtime has a conflist without this text.
    pub fn wait_until_ready_without(&self, text: &str) {
        wait_for(&format!("no {text} in the conflist"), PATIENCE, || {
            let conflist = self.conflist();
            (!conflist.is_empty() && !conflist.contains(text)).then_some(())
        });
        self.containerd
            .wait_for_status(|status| status.ready && !status.cni_config.contains(text))
            .expect("the runtime is ready");
    }

    pub fn pod(&self, name: &str) -> Pod {
        self.containerd.run_pod(&PodSpec::new("default", name)).expect("run a pod")
    }

    /// What the runtime says of a pod that cannot be had.
    pub fn no_pod(&self, name: &str) -> String {
        let error = self.containerd.run_pod(&PodSpec::new("default", name));
        error.expect_err("no pod").root_cause().to_string()
    }

    pub fn end(&self, pod: &Pod) {
        self.containerd.stop_pod(&pod.id).expect("stop a pod");
        self.containerd.remove_pod(&pod.id).expect("remove a pod");
    }

    pub fn netns(&self, pod: &Pod) -> PathBuf {
        self.path(&pod.netns)
    }

    pub fn own_netns(&self) -> PathBuf {
        self.path("/proc/1/ns/net")
    }

    pub fn outside(&self) -> PathBuf {
        self.path("/run/netns/outside")
    }

    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.containerd.host_path(inside)
    }

    /// The addresses that host-local has given away, in order.
    pub fn taken(&self) -> Vec<IpAddr> {
        let files = fs::read_dir(self.path(STORE)).into_iter().flatten();
        let names = files.map(|file| file.expect("list the store").file_name());
        let mut taken: Vec<_> =
            names.filter_map(|name| name.to_str().and_then(|name| name.parse().ok())).collect();
        taken.sort();
        taken
    }

    /// Our table as nft lists it; empty where it is not there.
    pub fn table(&self) -> String {
        let output =
            self.containerd.command("nft").args(["list", "table", "ip", "sluice"]).output();
        String::from_utf8_lossy(&output.expect("run nft").stdout).into_owned()
    }

    /// Files that runtimes load, by name.
    pub fn conflists(&self) -> Vec<String> {
        let files = fs::read_dir(self.path(CONF_DIR)).expect("list conflists");
        let name = |file: std::io::Result<fs::DirEntry>| {
            file.expect("a file").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<_> = files.map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            // Both do nothing if it has ended.
            if let Err(e) = agent.kill().and_then(|()| agent.wait()) {
                eprintln!("end the agent: {e}");
            }
        }
    }
}

/// Whom a server at this address takes its client for; both are in namespaces of their own.
pub fn client_seen(server: &Path, address: IpAddr, client: &Path) -> IpAddr {
    thread::scope(|scope| {
        let listen = move || TcpListener::bind((address, 0)).expect("listen");
        let listener = in_netns(scope, server, listen).join().expect("the server");
        let target = SocketAddr::new(address, listener.local_addr().expect("a port").port());
        let ask = in_netns(scope, client, move || {
            let stream = TcpStream::connect_timeout(&target, Duration::from_secs(5));
            let mut stream = stream.unwrap_or_else(|e| panic!("connect to {target}: {e}"));
            let mut seen = String::new();
            stream.read_to_string(&mut seen).expect("read the answer");
            seen.parse().expect("an address")
        });
        listener.set_nonblocking(true).expect("accept without blocking");
        let answer = scope.spawn(move || {
            let (mut stream, peer) =
                wait_for("a client", Duration::from_secs(6), || listener.accept().ok());
            write!(stream, "{}", peer.ip()).expect("answer");
        });
        let seen = ask.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        answer.join().expect("the server");
        seen
    })
}
