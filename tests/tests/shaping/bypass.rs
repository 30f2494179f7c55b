// SPDX-License-Identifier: Apache-2.0
//! What reaches a pod past its host end, and so past its shaper: handed on by
//! others' programs (bpf_redirect_peer), or past the classification of our qdisc.
//! The guard in the pod keeps the limit, and is silent for all else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::cni::Annotations;
use tests::command::{ip, json, output, tc, wait_for};
use tests::foreign;
use tests::kernel::has_tcx;
use tests::meter::{Protocol, Transfer, in_netns};
use tests::node::{Node, Pod, with_ready_node};
use tests::proof::proof_of;
use tests::raw;

const LIMIT: u64 = 20_000_000;
const INGRESS: Annotations = Annotations { egress: 0, ingress: LIMIT };

/// A pod with a limit on ingress, whose guard is in place.
fn guarded_pod(node: &Node) -> Pod {
    let pod = node.pod("a", 2);
    node.add(&pod, INGRESS);
    wait_for_guard(node, &pod);
    pod
}

fn wait_for_guard(node: &Node, pod: &Pod) {
    let state = if has_tcx() { "tcx" } else { "clsact" };
    wait_for("the guard in the pod", Duration::from_secs(30), || {
        (node.status(pod)["bypassed"]["guard"] == state).then_some(())
    });
}

fn transfer(from: &Pod, to: &Pod, protocol: Protocol, seconds: usize) -> Vec<u64> {
    let (inside, outside) = (from.netns(), to.netns());
    Transfer { from: &inside, to: &outside, address: to.address, protocol }.seconds(seconds)
}

fn count(status: &Value, what: &str) -> u64 {
    status["bypassed"][what].as_u64().unwrap_or_else(|| panic!("{what} of {status}"))
}

fn degraded(node: &Node) -> String {
    node.sluice_json(&["status", "--json", "--interval", "1"])["degraded"].to_string()
}

#[test]
fn packets_handed_to_a_pod_past_its_host_end_keep_its_limit_and_are_reported() {
    for mtu in [1500, 9001] {
        with_ready_node("", |node| {
            let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
            [&pod, &remote].iter().for_each(|pod| pod.set_mtu(mtu));
            node.add(&pod, INGRESS);
            wait_for_guard(node, &pod);
            assert!(!degraded(node).contains("\"ingress-bypassed\""));
            foreign::load();
            foreign::redirect_to_peer(&remote.host_ifname, &pod);
            let rates = transfer(&remote, &pod, Protocol::Udp(2 * LIMIT), 5);
            println!("udp, mtu {mtu}: {rates:?}");
            assert!(
                rates.iter().skip(1).all(|rate| rate.abs_diff(LIMIT) <= LIMIT / 50),
                "{rates:?}"
            );
            let status = node.status(&pod);
            assert!(count(&status, "dropped_packets") > 1000, "{status}");
            let reason = status["ingress"]["reason"].as_str().expect("a reason");
            assert!(
                reason.contains("packets reached the pod past its host end: policed"),
                "{reason}"
            );
            assert!(degraded(node).contains("\"ingress-bypassed\""));
            // And what can do that is named.
            let report = json(&String::from_utf8_lossy(&node.sluice(&["doctor", "--json"]).stdout));
            let findings = report["findings"].as_array().expect("findings").iter();
            let mut found = findings.filter(|finding| finding["code"] == "ingress-bypassed");
            let seen = found.next().expect("a finding")["seen"].to_string();
            assert!(seen.contains("calico) on eniremote"), "{seen}");
            let rates = transfer(&remote, &pod, Protocol::Tcp, 8);
            println!("tcp, mtu {mtu}: {rates:?}");
            let mean = rates.iter().skip(1).sum::<u64>() / 7;
            assert!((LIMIT * 9 / 10..=LIMIT * 105 / 100).contains(&mean), "{rates:?}");
        });
    }
}

#[test]
fn pod_that_is_reached_by_its_host_end_loses_nothing_to_the_guard_in_it() {
    with_ready_node("", |node| {
        let (pod, remote) = (guarded_pod(node), node.pod("remote", 9));
        transfer(&remote, &pod, Protocol::Tcp, 3);
        transfer(&remote, &pod, Protocol::Udp(2 * LIMIT), 3);
        let status = node.status(&pod);
        assert_eq!(
            (count(&status, "packets"), count(&status, "dropped_packets")),
            (0, 0),
            "{status}"
        );
        assert!(status["ingress"]["sent_packets"].as_u64() > Some(5000), "{status}");
    });
}

/// As gVisor's network reads. The kernel gives such a socket its copy before any program on ingress, so
/// that part of a limit cannot be enforced in the pod.
#[test]
fn packet_socket_in_a_pod_gets_what_the_guard_drops_and_that_is_reported() {
    with_ready_node("", |node| {
        let (pod, remote) = (guarded_pod(node), node.pod("remote", 9));
        foreign::load();
        foreign::redirect_to_peer(&remote.host_ifname, &pod);
        let stop = &AtomicBool::new(false);
        thread::scope(|scope| {
            let (opened, is_open) = mpsc::channel();
            let reader = in_netns(scope, &pod.netns(), move || raw::count_all(&opened, stop));
            is_open.recv_timeout(Duration::from_secs(10)).expect("a packet socket");
            let rates = transfer(&remote, &pod, Protocol::Udp(2 * LIMIT), 3);
            let status = node.status(&pod);
            let report = json(&String::from_utf8_lossy(&node.sluice(&["doctor", "--json"]).stdout));
            let degraded = degraded(node);
            stop.store(true, Ordering::Relaxed);
            let read = reader.join().expect("the reader") * 8;
            println!("the pod's kernel: {rates:?}, the socket: {read} bits");
            // What was offered while that was measured, less the start.
            assert!(rates[2].abs_diff(LIMIT) <= LIMIT / 50 && read > 5 * LIMIT, "{rates:?} {read}");
            assert_eq!(status["ingress"]["broken"], true);
            let reason = status["ingress"]["reason"].as_str().expect("a reason");
            assert!(reason.starts_with("a packet socket in the pod (gVisor's"), "{reason}");
            assert!(degraded.contains("\"not-enforced\""), "{degraded}");
            let findings = report["findings"].as_array().expect("findings").iter();
            let mut found = findings.filter(|finding| finding["code"] == "ingress-bypassed");
            assert_eq!(found.next().expect("a finding")["severity"], "fault");
        });
        wait_for("a limit that is enforced again", Duration::from_secs(10), || {
            (node.status(&pod)["ingress"]["broken"] == false).then_some(())
        });
        assert!(degraded(node).contains("\"ingress-bypassed\""));
    });
}

/// What passed the shaper under an older agent is known to the programs of the next one.
#[test]
fn restart_of_the_agent_leaves_no_packet_without_its_proof() {
    with_ready_node("", |node| {
        let (pod, remote) = (guarded_pod(node), node.pod("remote", 9));
        let (from, to) = (remote.netns(), pod.netns());
        let protocol = Protocol::Udp(2 * LIMIT);
        let transfer = Transfer { from: &from, to: &to, address: pod.address, protocol };
        transfer.seconds_while(4, || {
            node.kill_agent(nix::sys::signal::Signal::SIGKILL);
            node.start_agent();
            wait_for("the new agent", Duration::from_secs(20), || {
                let status = node.sluice_json(&["status", "--json", "--interval", "1"]);
                (status["agent"]["report"]["ready"] == true).then_some(())
            });
        });
        let status = node.status(&pod);
        assert_eq!(count(&status, "packets"), 0, "{status}");
    });
}

/// A priority that names a class of the root qdisc goes there without the filter (sch_prio.c,
/// prio_classify; sch_htb.c, htb_classify).
#[test]
fn sender_that_names_our_class_by_its_priority_gains_nothing() {
    with_ready_node("", |node| {
        let pod = guarded_pod(node);
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("bind");
        let class = nix::sys::socket::sockopt::Priority;
        nix::sys::socket::setsockopt(&socket, class, &0x51ce_0001).expect("set the priority");
        for _ in 0..2000 {
            // The kernel may say that a queue is full.
            let _ = socket.send_to(&[0; 1400], (pod.address, 9));
        }
        let status = node.status(&pod);
        assert_eq!(count(&status, "packets"), 2000, "{status}");
        // 200 ms of the rate, and what it takes to send them.
        assert!(count(&status, "dropped_packets") > 1000, "{status}");
    });
}

/// A filter's class becomes tc_index where it gives OK (net/core/dev.c, tc_run), and a pod that may
/// change its own network may even know another one's proof.
#[test]
fn proof_that_a_pod_writes_itself_counts_for_nothing() {
    with_ready_node("", |node| {
        let (pod, sender) = (guarded_pod(node), node.pod("b", 3));
        tc(&format!("qdisc add dev {} clsact", sender.host_ifname));
        node.add(&sender, Annotations { egress: 10 * LIMIT, ingress: 0 });
        node.guard(&sender);
        foreign::load();
        foreign::redirect_to_peer(&sender.host_ifname, &pod);
        let proof = proof_of(1, 1);
        sender.run("tc qdisc add dev eth0 clsact");
        sender.run(&format!(
            "tc filter add dev eth0 egress prio 1 u32 match u32 0 0 classid 1:{proof:x}"
        ));
        let before = count(&node.status(&pod), "packets");
        let target = (pod.address, 9);
        let send = move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("bind");
            (0..100).for_each(|_| drop(socket.send_to(b"x", target)));
        };
        thread::scope(|scope| in_netns(scope, &sender.netns(), send).join().expect("a sender"));
        let after = count(&node.status(&pod), "packets");
        assert!(after - before >= 100, "{before} {after}");
    });
}

#[test]
fn guard_in_the_pod_comes_back_and_goes_with_the_limit() {
    with_ready_node("", |node| {
        let pod = guarded_pod(node);
        let links = || {
            let dir = std::fs::read_dir("/sys/fs/bpf/sluice/v2/pod_links");
            dir.map_or(0, |dir| dir.count())
        };
        if has_tcx() {
            let pin = std::fs::read_dir("/sys/fs/bpf/sluice/v2/pod_links").expect("the links");
            let pin = pin.last().expect("a link").expect("a link").path();
            std::fs::remove_file(&pin).expect("remove the pin");
            ip(&format!("link set {} alias x", pod.host_ifname));
            wait_for("the link", Duration::from_secs(10), || pin.exists().then_some(()));
        } else {
            pod.run("tc filter del dev eth0 ingress");
            wait_for("the filter", Duration::from_secs(10), || {
                let list = pod.run("tc filter show dev eth0 ingress");
                list.contains("sluice_ingress_guard").then_some(())
            });
        }
        node.del(&pod);
        assert_eq!(links(), 0);
        assert!(!pod.run("tc filter show dev eth0 ingress").contains("sluice"));
        assert!(!pod.run("tc qdisc show dev eth0").contains("51ce"));
    });
}

/// As Kata and tc-redirect-tap put it there, right after our ADD.
#[test]
fn ingress_qdisc_can_be_added_to_a_pod_with_limits_and_its_filters_see_what_the_pod_receives() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        node.add(&pod, Annotations { egress: LIMIT, ingress: LIMIT });
        let words = "netns exec a tc qdisc add dev eth0 ingress";
        let added = output("ip", &words.split_whitespace().collect::<Vec<_>>());
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        pod.run("tc filter add dev eth0 ingress prio 1 u32 match u32 0 0 flowid 1:1");
        wait_for("the guard's state", Duration::from_secs(30), || {
            let state = node.status(&pod)["bypassed"]["guard"].clone();
            (state == if has_tcx() { "tcx" } else { "off" }).then_some(())
        });
        for (from, to) in [(&pod, &remote), (&remote, &pod)] {
            let rates = transfer(from, to, Protocol::Udp(2 * LIMIT), 3);
            assert!(
                rates.iter().skip(1).all(|rate| rate.abs_diff(LIMIT) <= LIMIT / 50),
                "{rates:?}"
            );
        }
        let filters = pod.run("tc -s filter show dev eth0 ingress");
        assert!(filters.contains("u32") && !filters.contains("sluice"), "{filters}");
        assert_eq!(degraded(node).contains("ingress-guard-off"), !has_tcx());
    });
}

#[test]
fn ingress_qdisc_that_was_there_before_add_carries_nothing_of_ours() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        pod.run("tc qdisc add dev eth0 ingress");
        node.add(&pod, Annotations { egress: LIMIT, ingress: 0 });
        let rates = transfer(&pod, &remote, Protocol::Udp(2 * LIMIT), 3);
        assert!(rates.iter().skip(1).all(|rate| rate.abs_diff(LIMIT) <= LIMIT / 50), "{rates:?}");
        let received = transfer(&remote, &pod, Protocol::Udp(2 * LIMIT), 2);
        assert!(received[1] > LIMIT * 3 / 2, "{received:?}");
        assert_eq!(pod.run("tc filter show dev eth0 ingress").trim(), "");
        node.del(&pod);
        assert!(pod.run("tc qdisc show dev eth0").contains("qdisc ingress"));
    });
}

/// On 6.1 the guard of the host's end shares policy's clsact, and nothing else.
#[test]
fn ingress_qdisc_of_others_on_the_host_end_keeps_its_priorities() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        let host = &pod.host_ifname;
        tc(&format!("qdisc add dev {host} ingress"));
        node.add(&pod, Annotations { egress: LIMIT, ingress: 0 });
        let state = node.guard(&pod)["state"].clone();
        assert_eq!(state, if has_tcx() { "tcx" } else { "off" });
        tc(&format!("filter add dev {host} ingress prio 1 u32 match u32 0 0 flowid 1:1"));
    });
}
