// SPDX-License-Identifier: Apache-2.0
//! Pods through the image's own containerd and its CNI chain, and traffic between them and a machine beyond the node.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use tests::command::{ip, json, tc, wait_for};
use tests::cri::{Cri, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata};
use tests::meter::{Protocol, Transfer, in_netns};

use crate::facts::run;
use crate::tell;

const CONFLIST: &str = "/etc/cni/net.d/10-node.conflist";
const CHAIN: &str = r#"{"cniVersion":"1.0.0","name":"node","plugins":[
  {"type":"ptp","ipam":{"type":"host-local","dataDir":"/run/probe-ipam",
   "ranges":[[{"subnet":"10.99.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
"#;
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);
const REMOTE_NETNS: &str = "/run/netns/remote";
/// Mbit/s; kubelet writes them as annotations of the pod.
const ANNOTATED: [u64; 2] = [8, 12];
const SECONDS: usize = 6;

struct Pod {
    netns: PathBuf,
    address: Ipv4Addr,
    /// The veth's end on the host.
    device: String,
}

#[derive(Serialize)]
struct Measured {
    direction: &'static str,
    limit: u64,
    seconds: Vec<u64>,
}

pub fn shape() -> Result<()> {
    fs::write(CONFLIST, CHAIN).context("write the conflist")?;
    let ours = || fs::read_to_string(CONFLIST).ok().filter(|text| text.contains("\"sluice\""));
    let conflist = wait_for("the agent's entry in the conflist", Duration::from_secs(30), ours);
    tell("conflist", &json(&conflist))?;
    import_pause_image()?;
    let cri = Cri::new(Path::new("/run/containerd/containerd.sock"))?;
    wait_for("containerd's network", Duration::from_secs(30), || {
        cri.status().ok().filter(|s| s.ready)
    });
    make_remote();
    let pod = run_pod(&cri, "annotated", &ANNOTATED.map(|rate| format!("{rate}M")))?;
    tell("qdiscs", &qdiscs(&pod)?)?;
    tell("measured", &measure(&pod, "before policy"))?;
    let policy = Policy::attach(&pod.device)?;
    tell("measured", &measure(&pod, "beside policy"))?;
    policy.deny()?;
    let target = SocketAddr::from((REMOTE, 9));
    let denied = connect(&pod.netns, target);
    tell("denied", &denied)?;
    tell("pods", &json(&run("/usr/bin/sluice", &["pods", "--json"])?))
}

fn import_pause_image() -> Result<()> {
    let ctr = |words: &[&str]| run("ctr", &[&["--namespace", "k8s.io", "images"], words].concat());
    ctr(&["import", "/run/probe/pause.tar"])?;
    let names = ctr(&["list", "--quiet"])?;
    let name = names.lines().find(|name| name.contains("pause")).context("the pause image")?;
    ctr(&["tag", name, "localhost/kubernetes/pause:latest"]).map(drop)
}

/// A machine beyond the node, as behind an ENI.
fn make_remote() {
    for line in [
        "netns add remote",
        "link add up0 type veth peer name eth0 netns remote",
        "addr add 10.200.0.1/24 dev up0",
        "link set up0 up",
        "-n remote addr add 10.200.0.2/24 dev eth0",
        "-n remote link set eth0 up",
        "-n remote route add default via 10.200.0.1",
    ] {
        ip(line);
    }
}

fn run_pod(cri: &Cri, name: &str, [egress, ingress]: &[String; 2]) -> Result<Pod> {
    let annotations = HashMap::from([
        ("kubernetes.io/egress-bandwidth".to_owned(), egress.clone()),
        ("kubernetes.io/ingress-bandwidth".to_owned(), ingress.clone()),
    ]);
    let label = |key: &str, value: &str| (format!("io.kubernetes.pod.{key}"), value.to_owned());
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: "/run/probe-pods".into(),
        labels: [label("name", name), label("namespace", "default"), label("uid", name)].into(),
        annotations,
        linux: Some(LinuxPodSandboxConfig { cgroup_parent: "probe.slice".into() }),
    };
    let id = cri.run_pod_sandbox(config, "")?;
    let status = cri.pod_sandbox_status(&id)?;
    let namespaces = status.info["runtimeSpec"]["linux"]["namespaces"].as_array();
    let netns = namespaces.into_iter().flatten().find(|one| one["type"] == "network");
    let netns = netns.and_then(|one| one["path"].as_str()).context("the pod's namespace")?;
    let address: Ipv4Addr = status.ip.parse().context("the pod's address")?;
    let route = json(&ip(&format!("-json route get {address}")));
    let device = route[0]["dev"].as_str().context("the pod's device")?.to_owned();
    Ok(Pod { netns: netns.into(), address, device })
}

/// Kinds of the qdiscs on both ends.
fn qdiscs(pod: &Pod) -> Result<Value> {
    let host = json(&tc(&format!("-json qdisc show dev {}", pod.device)));
    let inside = std::thread::scope(|scope| {
        in_netns(scope, &pod.netns, || json(&tc("-json qdisc show dev eth0"))).join().ok()
    });
    Ok(
        serde_json::json!({"host": kinds(&host), "pod": kinds(&inside.context("the pod's qdiscs")?)}),
    )
}

fn kinds(qdiscs: &Value) -> Vec<String> {
    let kinds = qdiscs.as_array().into_iter().flatten().filter_map(|one| one["kind"].as_str());
    kinds.map(str::to_owned).collect()
}

fn measure(pod: &Pod, when: &str) -> Value {
    let remote = Path::new(REMOTE_NETNS);
    let out = Transfer { from: &pod.netns, to: remote, address: REMOTE, protocol: Protocol::Tcp };
    let back =
        Transfer { from: remote, to: &pod.netns, address: pod.address, protocol: Protocol::Tcp };
    let egress = Measured {
        direction: "egress",
        limit: ANNOTATED[0] * 1_000_000,
        seconds: out.seconds(SECONDS),
    };
    let ingress = Measured {
        direction: "ingress",
        limit: ANNOTATED[1] * 1_000_000,
        seconds: back.seconds(SECONDS),
    };
    serde_json::json!({"when": when, "directions": [egress, ingress]})
}

fn connect(netns: &Path, target: SocketAddr) -> String {
    std::thread::scope(|scope| {
        let attempt = in_netns(scope, netns, move || {
            TcpStream::connect_timeout(&target, Duration::from_secs(2))
        });
        match attempt.join() {
            Ok(Ok(_)) => "connected".into(),
            Ok(Err(error)) => error.kind().to_string(),
            Err(_) => "a panic".into(),
        }
    })
}

/// A filter where a network policy agent has its own: priority 49152, handle 1 on clsact of the host's end.
struct Policy<'a>(&'a str);

impl<'a> Policy<'a> {
    fn attach(device: &'a str) -> Result<Self> {
        if !tc(&format!("qdisc show dev {device}")).contains("clsact") {
            tc(&format!("qdisc add dev {device} clsact"));
        }
        let policy = Self(device);
        policy.set("add", "policy_allow");
        let filters = tc(&format!("filter show dev {device} ingress"));
        ensure!(filters.contains("pref 49152"), "{filters}");
        Ok(policy)
    }

    fn deny(&self) -> Result<()> {
        self.set("replace", "policy_deny");
        Ok(())
    }

    fn set(&self, verb: &str, program: &str) {
        tc(&format!(
            "filter {verb} dev {} ingress prio 49152 handle 1 protocol all bpf direct-action \
             object-file /run/probe/policy.bpf.o program {program}",
            self.0
        ));
    }
}
