// SPDX-License-Identifier: Apache-2.0
//! What uses the node's line, by what the programs charge to it: on a node with
//! two uplinks and a table of routes for each, as the VPC CNI makes them, IPv6,
//! ports of the node that lead to pods, and frames that say they are something else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tests::cni::{Annotations, Call};
use tests::command::{ip, run, text, wait_for};
use tests::ipv6::add_ipv6;
use tests::kernel::has_tcx;
use tests::meter::{Protocol, Transfer, in_netns};
use tests::node::{Node, PIN_DIR, Pod, mac_of, with_ready_node};
use tests::pinned_map::{Held, held, words};
use tests::policy_agent::PolicyAgent;
use tests::raw;

const SHARED: &str = "node-share = true\nnode-egress = '20Mbit'\nnode-ingress = '20Mbit'\n";
const NO_LIMIT: Annotations = Annotations { egress: 0, ingress: 0 };
/// The node's own address.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 9, 9);
const CAPACITY: u64 = 20_000_000;
const ROUNDS: usize = 5;
const PAYLOAD: usize = 1000;
/// Word of `struct sluice_line` (bpf/src/contract.h): `account.charged_bytes`.
const CREDIT: usize = 16;
const NOTHING: [u64; 2] = [0, 0];
const ALL: [u64; 2] = [(ROUNDS * (PAYLOAD + 42)) as u64; 2];
const ALL_IPV6: [u64; 2] = [(ROUNDS * (PAYLOAD + 62)) as u64; 2];

/// Two remote ends, each at an uplink of its own; `b` is routed by the second's table.
struct Line<'a> {
    node: &'a Node,
    remotes: [Pod; 2],
    a: Pod,
    b: Pod,
}

fn with_line(test: impl FnOnce(&Line) + Send) {
    with_ready_node(SHARED, |node| {
        ip(&format!("addr add {NODE}/32 dev lo"));
        let remotes = [("remote1", 11), ("remote2", 12)].map(|(name, n)| node.pod(name, n));
        let [a, b] = [("a", 2), ("b", 3)].map(|(name, number)| node.pod(name, number));
        default_route(&remotes[0], "main");
        default_route(&remotes[1], "2");
        policy(&[&a, &b]);
        ip(&format!("rule add from {} lookup 2 priority 1536", b.address));
        [&a, &b].into_iter().for_each(|pod| add(node, pod));
        wait_for_uplinks(2);
        test(&Line { node, remotes, a, b });
    });
}

/// What makes a device an uplink, and the address at its end none of the node's.
fn default_route(remote: &Pod, table: &str) {
    let Pod { address, host_ifname, .. } = remote;
    ip(&format!("route add default via {address} dev {host_ifname} onlink table {table}"));
}

/// Whatever goes to a pod is routed by the main table, as by the VPC CNI.
fn policy(pods: &[&Pod]) {
    for pod in pods {
        ip(&format!("rule add to {} lookup main priority 512", pod.address));
    }
}

fn add(node: &Node, pod: &Pod) {
    let output = Call::new("ADD", pod, NO_LIMIT).run(pod);
    assert!(output.status.success(), "{}", text(&output));
    wait_for("its part of the node", Duration::from_secs(20), || {
        node.status(pod)["egress"]["limit_bps"].as_u64()
    });
}

fn wait_for_uplinks(count: usize) {
    let uplinks = PathBuf::from(format!("{PIN_DIR}/uplinks"));
    wait_for("the uplinks", Duration::from_secs(20), || {
        (held(&uplinks, Held::AnyEntry).len() == count).then_some(())
    });
}

impl Line<'_> {
    /// Bytes that this pod has sent and received by the node's line.
    fn charged(&self, pod: &Pod) -> [u64; 2] {
        let status = self.node.status(pod);
        ["egress", "ingress"]
            .map(|it| status[it]["share"]["sent_bytes"].as_u64().expect("takes part"))
    }

    /// What the guard lets pass of what this pod sends.
    fn credit(&self, pod: &Pod) -> u64 {
        let slot = self.node.status(pod)["slot"].as_u64().expect("a slot") as usize;
        words(&PathBuf::from(format!("{PIN_DIR}/lines")), slot * 2, CREDIT + 1)[CREDIT]
    }

    /// What each of both pods is charged for that.
    fn charged_for(&self, work: impl FnOnce()) -> [[u64; 2]; 2] {
        let look = || [&self.a, &self.b].map(|pod| self.charged(pod));
        let before = look();
        work();
        let after = look();
        [0, 1].map(|pod| [0, 1].map(|way| after[pod][way] - before[pod][way]))
    }
}

/// A socket in that namespace, or in the node's.
fn socket(netns: Option<&Path>, address: IpAddr, port: u16) -> UdpSocket {
    let bind = move || UdpSocket::bind((address, port)).expect("bind");
    let socket = thread::scope(|scope| match netns {
        Some(netns) => in_netns(scope, netns, bind).join().expect("a socket"),
        None => bind(),
    });
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a deadline");
    socket
}

/// Asks that address, and is answered by that socket, some times.
fn exchange(asker: &UdpSocket, server: &UdpSocket, to: SocketAddr) {
    let mut bytes = [0; PAYLOAD];
    for _ in 0..ROUNDS {
        asker.send_to(&[7; PAYLOAD], to).expect("ask");
        let (_, from) = server.recv_from(&mut bytes).expect("a question");
        server.send_to(&bytes, from).expect("answer");
        asker.recv_from(&mut bytes).expect("an answer");
    }
}

/// From the first to the second, by its own address.
fn talk(from: &Pod, to: &Pod) {
    let asker = socket(Some(&from.netns()), from.address.into(), 0);
    let server = socket(Some(&to.netns()), to.address.into(), 0);
    exchange(&asker, &server, server.local_addr().expect("its port"));
}

fn ask_port(from: &Pod, port: u16, server: &UdpSocket) {
    let asker = socket(Some(&from.netns()), from.address.into(), 0);
    exchange(&asker, server, (NODE, port).into());
}

#[test]
fn every_uplink_is_the_line_and_pods_and_node_are_not() {
    with_line(|line| {
        let Line { node, remotes: [first, second], a, b } = line;
        assert_eq!(line.charged_for(|| talk(a, first)), [ALL, NOTHING], "by the main table");
        assert_eq!(line.charged_for(|| talk(second, b)), [NOTHING, ALL], "by a table of its own");
        assert_eq!(line.charged_for(|| talk(a, b)), [NOTHING; 2], "pod to pod");
        // Or a pod could have the guard take it for what leaves the node.
        let credit = line.credit(a);
        talk(a, b);
        assert_eq!(line.credit(a), credit, "what costs nothing is no credit");
        let host = socket(None, NODE.into(), 7777);
        assert_eq!(line.charged_for(|| ask_port(b, 7777, &host)), [NOTHING; 2], "to the node");
        // An ENI that is attached while pods run.
        let third = node.pod("remote3", 13);
        assert_eq!(line.charged_for(|| talk(&third, a)), [NOTHING; 2], "no uplink yet");
        default_route(&third, "3");
        wait_for_uplinks(3);
        assert_eq!(line.charged_for(|| talk(&third, a)), [ALL, NOTHING], "a later uplink");
    });
}

#[test]
fn ipv6_uses_the_line_by_its_own_routes() {
    with_line(|line| {
        let Line { remotes: [first, _], a, b, .. } = line;
        let [remote, of_a, of_b] = [first, a, b].map(add_ipv6);
        let talk = |(from, source): (&Pod, Ipv6Addr), (to, address): (&Pod, Ipv6Addr)| {
            let asker = socket(Some(&from.netns()), source.into(), 0);
            let server = socket(Some(&to.netns()), address.into(), 0);
            exchange(&asker, &server, server.local_addr().expect("its port"));
        };
        ip(&format!("-6 route add default via {remote} dev {} onlink", first.host_ifname));
        wait_for("routes of the pods", Duration::from_secs(20), || {
            let charged = line.charged_for(|| talk((a, of_a), (b, of_b)));
            (charged == [NOTHING; 2]).then_some(())
        });
        let charged = line.charged_for(|| talk((b, of_b), (first, remote)));
        assert_eq!(charged, [NOTHING, ALL_IPV6]);
        // To what the programs call a pod's IPv4 address; the host routes it by its IPv6 routes.
        let plan = &raw_plan(a, first);
        let length = (plan.mtu as u16).to_be_bytes();
        let mapped = b.address.to_ipv6_mapped().octets();
        let header =
            [&[0x86, 0xdd, 0x60, 0, 0, 0], &length[..], &[4, 64], &of_a.octets(), &mapped].concat();
        let [charged, _] = line.charged_for(|| {
            let send = || raw::send_as(0x86dd, &header, plan, ROUNDS);
            thread::scope(|scope| in_netns(scope, &a.netns(), send).join().expect("send"));
        });
        assert_eq!(charged, [(ROUNDS * (12 + header.len() + plan.mtu as usize)) as u64, 0]);
    });
}

/// As the plugin portmap does it for a hostPort, and kube-proxy for a Service of type NodePort.
fn translate_ports(line: &Line) {
    let (to_pod, to_remote) = (line.a.address, line.remotes[1].address);
    let table = format!(
        "table ip ports {{ chain in {{ type nat hook prerouting priority dstnat; ip daddr {NODE} \
         udp dport {{ 8080, 30090 }} dnat to {to_pod}:7777; ip daddr {NODE} udp dport 30080 dnat \
         to {to_remote}:7777\n }}\n }}"
    );
    run("nft", &[&table]);
}

/// A port of the node is seen before it is translated. Where it may lead to a pod of another node
/// it uses the line of whoever sends to it; what comes back, or in, is known by its device.
#[test]
fn hostport_stays_on_the_node_and_nodeport_may_leave_it() {
    with_line(|line| {
        let Line { remotes: [first, second], a, b, .. } = line;
        translate_ports(line);
        let server = socket(Some(&a.netns()), a.address.into(), 7777);
        let charged = line.charged_for(|| ask_port(first, 8080, &server));
        assert_eq!(charged, [ALL, NOTHING], "hostPort from outside");
        let charged = line.charged_for(|| ask_port(b, 8080, &server));
        assert_eq!(charged, [NOTHING; 2], "hostPort from a pod of the node");
        let charged = line.charged_for(|| ask_port(b, 30090, &server));
        assert_eq!(charged, [NOTHING, [ALL[0], 0]], "NodePort to a pod of the node");
        let remote = socket(Some(&second.netns()), second.address.into(), 7777);
        let charged = line.charged_for(|| ask_port(a, 30080, &remote));
        assert_eq!(charged, [ALL, NOTHING], "NodePort to a pod elsewhere");
    });
}

/// `AF_PACKET` lets its user say which protocol a frame is of, and the host removes a tag of VLAN 0.
#[test]
fn frame_that_says_it_is_something_else_uses_the_line_all_the_same() {
    const ARP: u16 = 0x0806;
    const IPV6: u16 = 0x86dd;
    const VLAN: u16 = 0x8100;
    with_line(|line| {
        let Line { remotes: [first, _], a, .. } = line;
        let plan = &raw_plan(a, first);
        let sink = socket(Some(&first.netns()), first.address.into(), 9);
        let frames = [(ARP, "0800"), (IPV6, "0800"), (VLAN, "8100 0000 0800")];
        for (protocol, before_ip) in frames {
            let before_ip: Vec<u8> = before_ip
                .split_whitespace()
                .flat_map(|word| u16::from_str_radix(word, 16).expect("a word").to_be_bytes())
                .collect();
            let [charged, _] = line.charged_for(|| {
                let send = || raw::send_as(protocol, &before_ip, plan, ROUNDS);
                thread::scope(|scope| in_netns(scope, &a.netns(), send).join().expect("send"));
                (0..ROUNDS).for_each(|_| {
                    sink.recv(&mut [0; PAYLOAD]).expect("it arrives");
                });
            });
            let frame = 12 + before_ip.len() + plan.mtu as usize;
            assert_eq!(charged, [(ROUNDS * frame) as u64, 0], "protocol {protocol:#x}");
        }
    });
}

fn raw_plan(from: &Pod, to: &Pod) -> raw::Flood {
    let mac = mac_of("", &from.host_ifname);
    let bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte"));
    let gateway = bytes.collect::<Vec<u8>>().try_into().expect("six bytes");
    raw::Flood { from: from.address, to: to.address, gateway, mtu: 1400, offer_bps: 3 * CAPACITY }
}

/// No qdisc of the pod sees it; the guard holds it to its part, not to the node's capacity.
#[test]
fn pod_that_bypasses_its_qdisc_has_its_part_and_no_more() {
    with_line(|line| {
        let Line { node, remotes: [first, _], a, b } = line;
        if !has_tcx() {
            let policy = PolicyAgent::start();
            [a, b].iter().for_each(|pod| policy.allow(&pod.host_ifname));
        }
        [a, b].iter().for_each(|pod| assert_ne!(node.guard(pod)["state"], "off"));
        let (plan, stop) = (&raw_plan(a, first), &AtomicBool::new(false));
        let (from, to, address) = (&b.netns(), &first.netns(), first.address);
        let before = line.charged(a);
        let rates = thread::scope(|scope| {
            in_netns(scope, &a.netns(), move || raw::flood(plan, stop));
            let protocol = Protocol::Udp(2 * CAPACITY);
            let rates = Transfer { from, to, address, protocol }.seconds(3);
            stop.store(true, Ordering::Relaxed);
            rates
        });
        let honest = rates.iter().sum::<u64>() / rates.len() as u64;
        let past = (line.charged(a)[0] - before[0]) * 8 / rates.len() as u64;
        println!("honest {rates:?}, past the qdisc {past}");
        for rate in [honest, past] {
            assert!(rate.abs_diff(CAPACITY / 2) <= CAPACITY / 16, "{rates:?}, {past}");
        }
    });
}
