// SPDX-License-Identifier: Apache-2.0
//! Beside network policy: an agent that owns clsact priority 1, handle 1 on
//! the host veth (aws-ebpf-sdk-go pkg/tc/tc.go) works as if Sluice were not
//! there, and the limit holds as if the agent were not there.

use std::net::UdpSocket;

use tests::cni::Annotations;
use tests::command::{json, tc};
use tests::meter::{Protocol, Transfer};
use tests::node::{Node, Pod, with_ready_node};
use tests::policy_agent::{PolicyAgent, Side, Verdict};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
const SIDES: [Side; 2] = [Side::Ingress, Side::Egress];

/// Who comes first to the veth.
#[derive(Clone, Copy)]
enum Order {
    PolicyFirst,
    SluiceFirst,
}

fn pod_with(node: &Node, agent: &PolicyAgent, order: Order, verdict: Verdict) -> Pod {
    let pod = node.pod("a", 2);
    let attach = || {
        for side in SIDES {
            agent.attach(&pod.host_ifname, side, verdict).expect("attach policy");
        }
    };
    match order {
        Order::PolicyFirst => {
            attach();
            node.add(&pod, BOTH);
        }
        Order::SluiceFirst => {
            node.add(&pod, BOTH);
            attach();
        }
    }
    pod
}

fn sent_packets(node: &Node, pod: &Pod, direction: &str) -> u64 {
    node.status(pod)[direction]["sent_packets"].as_u64().expect("a counter")
}

fn limit_holds_with_allow(order: Order) {
    with_ready_node("", |node| {
        let agent = PolicyAgent::start();
        let pod = pod_with(node, &agent, order, Verdict::Allow);
        let remote = node.pod("remote", 9);
        let (inside, outside) = (pod.netns(), remote.netns());
        for (from, to, address) in
            [(&inside, &outside, remote.address), (&outside, &inside, pod.address)]
        {
            let protocol = Protocol::Udp(2 * LIMIT);
            let rates = Transfer { from, to, address, protocol }.seconds(3);
            let exact = rates.iter().skip(1).all(|r| r.abs_diff(LIMIT) <= LIMIT / 50);
            assert!(exact, "limit {LIMIT}, seconds {rates:?}");
        }
    });
}

fn nothing_passes_with_deny(order: Order) {
    with_ready_node("", |node| {
        let agent = PolicyAgent::start();
        let pod = pod_with(node, &agent, order, Verdict::Deny);
        let before = sent_packets(node, &pod, "ingress");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        for _ in 0..5 {
            // The verdict comes before any device queue, so a refusal may be reported here.
            let _ = socket.send_to(b"x", (pod.address, 9));
        }
        let denied = policy_drops(&pod.host_ifname);
        assert!(denied >= 5, "the policy dropped only {denied} packets");
        // What policy denied did not cost the pod anything.
        assert_eq!(sent_packets(node, &pod, "ingress"), before);
    });
}

/// Packets that the policy's egress program dropped; clsact counts them.
fn policy_drops(device: &str) -> u64 {
    let qdiscs = json(&tc(&format!("-s -j qdisc show dev {device}")));
    let list = qdiscs.as_array().expect("a list of qdiscs");
    let clsact = list.iter().find(|q| q["kind"] == "clsact").expect("clsact");
    clsact["drops"].as_u64().expect("a counter")
}

#[test]
fn limit_holds_when_policy_allows_and_came_first() {
    limit_holds_with_allow(Order::PolicyFirst);
}

#[test]
fn limit_holds_when_policy_allows_and_came_last() {
    limit_holds_with_allow(Order::SluiceFirst);
}

#[test]
fn nothing_passes_and_nothing_is_charged_when_policy_denies_and_came_first() {
    nothing_passes_with_deny(Order::PolicyFirst);
}

#[test]
fn nothing_passes_and_nothing_is_charged_when_policy_denies_and_came_last() {
    nothing_passes_with_deny(Order::SluiceFirst);
}

#[test]
fn policy_agent_attaches_lists_and_detaches_as_if_alone() {
    with_ready_node("", |node| {
        let agent = PolicyAgent::start();
        let pod = pod_with(node, &agent, Order::SluiceFirst, Verdict::Allow);
        let device = pod.host_ifname.as_str();
        for side in SIDES {
            assert_eq!(agent.attached_program(device, side).as_deref(), Some("policy_allow"));
            // As after its restart: EEXIST, detach, attach.
            agent.attach(device, side, Verdict::Deny).expect("attach again");
            assert_eq!(agent.attached_program(device, side).as_deref(), Some("policy_deny"));
            agent.detach(device, side).expect("detach");
            assert_eq!(agent.attached_program(device, side), None);
            assert_eq!(agent.detach(device, side), Err("no active filter to detach".into()));
        }
        assert_own_filter_is_there(device);
    });
}

#[test]
fn policy_stays_attached_when_sluice_goes() {
    with_ready_node("", |node| {
        let agent = PolicyAgent::start();
        let pod = pod_with(node, &agent, Order::SluiceFirst, Verdict::Deny);
        node.del(&pod);
        for side in SIDES {
            let attached = agent.attached_program(&pod.host_ifname, side);
            assert_eq!(attached.as_deref(), Some("policy_deny"));
        }
        let root = tc(&format!("qdisc show dev {} root", pod.host_ifname));
        assert!(root.starts_with("qdisc noqueue"), "{root}");
    });
}

fn assert_own_filter_is_there(device: &str) {
    let filters = tc(&format!("filter show dev {device} parent 51ce:"));
    assert!(filters.contains("handle 0x51ce") && filters.contains("sluice_ingress"), "{filters}");
}
