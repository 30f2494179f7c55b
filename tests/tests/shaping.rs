// SPDX-License-Identifier: Apache-2.0
//! The limit holds: measured at the receiver, second by second.

use std::time::Duration;

use tests::cni::Annotations;
use tests::command::wait_for;
use tests::kernel::{has_fq, has_tcx, skip};
use tests::meter::{Protocol, Transfer};
use tests::node::{Node, Pod, with_ready_node};

/// Low enough that a guest without KVM can offer twice of it.
const LIMIT: u64 = 20_000_000;
const SECONDS: usize = 6;
/// Seconds in which TCP still looks for its rate.
const STARTING: usize = 1;

fn per_mille(rate: u64) -> i64 {
    (rate as i64 - LIMIT as i64) * 1000 / LIMIT as i64
}

/// No second more than 5 % above the limit, the first included; steady ones within 2 %.
fn assert_paced(rates: &[u64]) {
    let never_above = rates.iter().all(|rate| per_mille(*rate) <= 50);
    let steady = rates.iter().skip(STARTING).all(|rate| per_mille(*rate).abs() <= 20);
    assert!(never_above && steady, "limit {LIMIT}, seconds {rates:?}");
}

/// A policer lets 200 ms of the rate pass at once, and no more than the limit in the long run.
fn assert_policed(rates: &[u64]) {
    let never_far_above = rates.iter().all(|rate| per_mille(*rate) <= 250);
    let mean = rates.iter().sum::<u64>() / rates.len() as u64;
    assert!(never_far_above && per_mille(mean) <= 50, "limit {LIMIT}, seconds {rates:?}");
}

/// What the kernel at hand can do; without fq the promise of the test's name is not shown.
fn check(test: &str, rates: &[u64]) {
    println!("{test}: {rates:?}");
    if has_fq() {
        assert_paced(rates);
    } else {
        assert_policed(rates);
        skip(test, "the kernel has no sch_fq: only the policer's bounds were checked");
    }
}

/// A sender that does not yield gets its limit from fq and from the policer alike.
fn check_udp(rates: &[u64]) {
    println!("udp: {rates:?}");
    let steady = rates.iter().skip(STARTING).all(|rate| per_mille(*rate).abs() <= 20);
    assert!(steady, "limit {LIMIT}, seconds {rates:?}");
    if has_fq() { assert_paced(rates) } else { assert_policed(rates) }
}

fn shaped(node: &Node, name: &str, number: u8, egress: u64, ingress: u64) -> Pod {
    let pod = node.pod(name, number);
    node.add(&pod, Annotations { egress, ingress });
    // Without tcx the guard in the pod empties the pod's own queue once, when it comes.
    if !has_tcx() {
        wait_for("the guard in the pod", Duration::from_secs(20), || {
            (node.status(&pod)["bypassed"]["guard"] != "pending").then_some(())
        });
    }
    pod
}

fn transfer(from: &Pod, to: &Pod, protocol: Protocol) -> Vec<u64> {
    let (from, address, to) = (from.netns(), to.address, to.netns());
    Transfer { from: &from, to: &to, address, protocol }.seconds(SECONDS)
}

#[test]
fn tcp_from_pod_keeps_its_limit() {
    with_ready_node("", |node| {
        let pod = shaped(node, "a", 2, LIMIT, 0);
        let remote = node.pod("remote", 9);
        let rates = transfer(&pod, &remote, Protocol::Tcp);
        check("tcp_from_pod_keeps_its_limit", &rates);
    });
}

#[test]
fn tcp_to_pod_keeps_its_limit() {
    with_ready_node("", |node| {
        let pod = shaped(node, "a", 2, 0, LIMIT);
        let remote = node.pod("remote", 9);
        let rates = transfer(&remote, &pod, Protocol::Tcp);
        check("tcp_to_pod_keeps_its_limit", &rates);
    });
}

#[test]
fn tcp_from_pod_to_pod_keeps_the_lower_of_two_limits() {
    with_ready_node("", |node| {
        let sender = shaped(node, "a", 2, 2 * LIMIT, 0);
        let receiver = shaped(node, "b", 3, 0, LIMIT);
        let rates = transfer(&sender, &receiver, Protocol::Tcp);
        check("tcp_from_pod_to_pod_keeps_the_lower_of_two_limits", &rates);
    });
}

#[test]
fn udp_offered_at_twice_the_limit_still_gets_the_limit() {
    with_ready_node("", |node| {
        let pod = shaped(node, "a", 2, LIMIT, LIMIT);
        let remote = node.pod("remote", 9);
        for (from, to) in [(&pod, &remote), (&remote, &pod)] {
            let rates = transfer(from, to, Protocol::Udp(2 * LIMIT));
            check_udp(&rates);
        }
    });
}

#[test]
fn node_default_limits_a_pod_without_annotation() {
    with_ready_node("default-egress = \"20Mbit\"\ndefault-ingress = \"20Mbit\"", |node| {
        let pod = shaped(node, "a", 2, 0, 0);
        let remote = node.pod("remote", 9);
        check_udp(&transfer(&pod, &remote, Protocol::Udp(2 * LIMIT)));
        check_udp(&transfer(&remote, &pod, Protocol::Udp(2 * LIMIT)));
        let status = node.status(&pod);
        assert_eq!(status["egress"]["origin"], "node-default");
        assert_eq!(status["egress"]["limit_bps"], LIMIT);
    });
}

#[test]
fn unlimited_pod_has_nothing_attached() {
    with_ready_node("", |node| {
        let pod = shaped(node, "a", 2, 0, 0);
        let root = tests::command::tc(&format!("qdisc show dev {}", pod.host_ifname));
        assert!(root.starts_with("qdisc noqueue 0: root"), "{root}");
        let inside = pod.run("tc qdisc show dev eth0");
        assert!(inside.starts_with("qdisc noqueue 0: root"), "{inside}");
    });
}

#[test]
fn status_says_limit_origin_mode_and_drops() {
    with_ready_node("default-egress = \"40Mbit\"", |node| {
        let pod = shaped(node, "a", 2, 0, LIMIT);
        let remote = node.pod("remote", 9);
        transfer(&remote, &pod, Protocol::Udp(2 * LIMIT));
        let status = node.status(&pod);
        let mode = if has_fq() { "paced" } else { "policed" };
        for (way, limit, origin) in
            [("egress", 40_000_000, "node-default"), ("ingress", LIMIT, "pod-annotation")]
        {
            assert_eq!(status[way]["limit_bps"], limit);
            assert_eq!(status[way]["origin"], origin);
            assert_eq!(status[way]["mode"], mode);
        }
        assert!(status["ingress"]["dropped_packets"].as_u64() > Some(1000), "{status}");
        assert_eq!(status["egress"]["dropped_packets"], 0);
    });
}
