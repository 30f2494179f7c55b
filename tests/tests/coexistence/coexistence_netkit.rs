// SPDX-License-Identifier: Apache-2.0
//! Pods on netkit devices, an option of Cilium and Calico: limits apply as on veth
//! pairs, and what differs is as docs/coexistence.md says. The kernel runs netkit's
//! programs when a device transmits (drivers/net/netkit.c, netkit_xmit), behind its
//! qdisc; on a veth, policy is on tcx or clsact, in front of it.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use tests::cni::Annotations;
use tests::command::{ip, json, wait_for};
use tests::flood::{Direction, Flood};
use tests::foreign;
use tests::kernel::{has_tcx, skip, skip_for_tcx};
use tests::link::index;
use tests::meter::in_netns;
use tests::node::{Node, Pod, with_ready_node};
use tests::policy_agent::PolicyAgent;
use tests::tcx::{append_peer, append_primary};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
const SOON: Duration = Duration::from_secs(20);
const POLICY: &str = "/sys/fs/bpf/globals/aws/programs/policy_deny";
const DATAGRAMS: u64 = 50;

/// A pair by the kernel's defaults, which are Cilium's: layer 3, everything passes.
fn pair(host: &str, netns: &str, ifname: &str) {
    ip(&format!("link add {host} type netkit"));
    let peer = json(&ip(&format!("-j link show {host}")))[0]["link"].clone();
    let peer = peer.as_str().expect("the other end").to_owned();
    ip(&format!("link set {peer} netns {netns}"));
    ip(&format!("-n {netns} link set {peer} name {ifname} up"));
    ip(&format!("link set {host} up"));
}

fn has_netkit() -> bool {
    let words = ["link", "add", "probe", "type", "netkit"];
    let has = tests::command::output("ip", &words).status.success();
    if has {
        ip("link del probe");
    }
    has
}

fn pod() -> Pod {
    let pod = Pod { name: "a".into(), host_ifname: "lxca".into(), address: [10, 1, 0, 2].into() };
    ip("netns add a");
    pair("lxca", "a", "eth0");
    ip(&format!("-n a addr add {}/32 dev eth0", pod.address));
    ip("-n a route add default dev eth0");
    ip(&format!("route add {} dev lxca scope link", pod.address));
    pod
}

fn send(to: Ipv4Addr) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    (0..DATAGRAMS).for_each(|_| drop(socket.send_to(b"x", (to, 9))));
}

/// Datagrams from the host to the pod; gives what the shaper has charged, and what has arrived.
fn send_to(node: &Node, pod: &Pod) -> [u64; 2] {
    let counts = || {
        let links = json(&ip("-n a -j -s link show eth0"));
        let charged = node.status(pod)["ingress"]["sent_packets"].as_u64().expect("a count");
        [charged, links[0]["stats64"]["rx"]["packets"].as_u64().expect("a count")]
    };
    let before = counts();
    send(pod.address);
    let after = counts();
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn netkit_pods_keep_limit_and_policy_and_are_charged_for_what_policy_denies() {
    let name = "netkit_pods_keep_limit_and_policy_and_are_charged_for_what_policy_denies";
    if !has_tcx() {
        // netkit is younger (6.7).
        return skip_for_tcx(name);
    }
    with_ready_node("", |node| {
        if !has_netkit() {
            return skip(name, "the kernel has no netkit");
        }
        let (pod, remote) = (pod(), node.pod("remote", 9));
        pair("lxca1", "a", "eth1");
        node.add(&pod, BOTH);
        assert_eq!(node.guard(&pod)["state"], "tcx");
        wait_for("the guard in the pod", SOON, || {
            (node.status(&pod)["bypassed"]["guard"] == "tcx").then_some(())
        });
        let flood = Flood { pod: &pod, remote: &remote, limit_bps: LIMIT };
        flood.assert_limit_holds();
        let status = node.status(&pod);
        for direction in ["egress", "ingress"] {
            assert_eq!(status[direction]["mode"], "paced", "{status}");
        }
        assert_eq!(status["bypassed"]["packets"], 0, "{status}");
        assert_eq!(status["guard"]["dropped_packets"], 0, "{status}");

        let report = json(&String::from_utf8_lossy(&node.sluice(&["doctor", "--json"]).stdout));
        let findings = report["findings"].as_array().expect("findings");
        let netkit = findings.iter().find(|finding| finding["code"] == "netkit").expect("netkit");
        assert_eq!(
            (&netkit["severity"], netkit["subject"].as_str()),
            (&"note".into(), Some("lxca (pod default/a)"))
        );
        assert!(findings.iter().all(|finding| finding["severity"] != "fault"), "{findings:?}");
        // Further interfaces of the pod share its limit.
        let pods = node.sluice_json(&["pods", "--json"]).to_string();
        assert!(pods.contains("\"eth1\""), "{pods}");

        let _agent = PolicyAgent::start();
        let device = index(&pod.host_ifname);
        assert_eq!(send_to(node, &pod), [DATAGRAMS; 2]);
        {
            let _policy = append_primary(POLICY, device);
            assert_eq!(send_to(node, &pod), [DATAGRAMS, 0]);
        }
        {
            let _policy = append_peer(POLICY, device);
            let before = node.status(&pod)["guard"]["passed_bytes"].clone();
            let send = || send(remote.address);
            thread::scope(|scope| in_netns(scope, &pod.netns(), send).join()).expect("send");
            assert_eq!(
                node.status(&pod)["guard"]["passed_bytes"],
                before,
                "denied packets left the pod"
            );
        }

        foreign::load();
        foreign::redirect_to_peer(&remote.host_ifname, &pod);
        let rates = flood.seconds_while(Direction::Ingress, 3, || ());
        assert!(rates[1..].iter().all(|rate| flood.is_limit(*rate)), "{rates:?}");
        assert!(!node.troubles("ingress-bypassed").is_empty());
    });
}
