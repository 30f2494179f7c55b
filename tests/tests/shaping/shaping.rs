// SPDX-License-Identifier: Apache-2.0
//! The limit holds: measured at the receiver, second by second.

use std::thread;
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
fn check(test: &str, mtu: u32, rates: &[u64]) {
    println!("{test}: MTU {mtu}: {rates:?}");
    if has_fq() {
        assert_paced(rates);
    } else {
        assert_policed(rates);
        skip(test, "the kernel has no sch_fq: only the policer's bounds were checked");
    }
}

/// A sender that does not yield gets its limit from fq and from the policer alike.
fn check_udp(mtu: u32, rates: &[u64]) {
    println!("udp: MTU {mtu}: {rates:?}");
    let steady = rates.iter().skip(STARTING).all(|rate| per_mille(*rate).abs() <= 20);
    assert!(steady, "limit {LIMIT}, seconds {rates:?}");
    if has_fq() { assert_paced(rates) } else { assert_policed(rates) }
}

fn shaped(node: &Node, name: &str, number: u8, limits: [u64; 2]) -> Pod {
    let pod = node.pod(name, number);
    limit(node, &pod, limits);
    pod
}

/// Egress and ingress.
fn limit(node: &Node, pod: &Pod, [egress, ingress]: [u64; 2]) {
    node.add(pod, Annotations { egress, ingress });
    // Without tcx the guard in the pod empties the pod's own queue once, when it comes.
    if !has_tcx() {
        wait_for("the guard in the pod", Duration::from_secs(20), || {
            (node.status(pod)["bypassed"]["guard"] != "pending").then_some(())
        });
    }
}

/// Two pods that may talk to each other, by frames of the usual size or of EKS' own.
struct Pair {
    mtu: u32,
    pod: Pod,
    other: Pod,
}

/// One pair for each MTU, each end with its limits, or none at all.
fn pairs(node: &Node, pod: [u64; 2], other: Option<[u64; 2]>) -> [Pair; 2] {
    [(1500, "a", 2), (9001, "b", 3)].map(|(mtu, name, number)| {
        let pair = Pair {
            mtu,
            pod: node.pod(name, number),
            other: node.pod(&format!("{name}2"), number + 10),
        };
        [&pair.pod, &pair.other].into_iter().for_each(|end| end.set_mtu(mtu));
        limit(node, &pair.pod, pod);
        if let Some(limits) = other {
            limit(node, &pair.other, limits);
        }
        pair
    })
}

/// All pairs at once: a second is one for all.
fn each(pairs: &[Pair], from_pod: bool, protocol: Protocol, check: impl Fn(u32, &[u64])) {
    let one = |pair: &Pair| match from_pod {
        true => transfer(&pair.pod, &pair.other, protocol),
        false => transfer(&pair.other, &pair.pod, protocol),
    };
    let rates: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = pairs.iter().map(|pair| scope.spawn(move || one(pair))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a transfer")).collect()
    });
    pairs.iter().zip(&rates).for_each(|(pair, rates)| check(pair.mtu, rates));
}

fn transfer(from: &Pod, to: &Pod, protocol: Protocol) -> Vec<u64> {
    let (from, address, to) = (from.netns(), to.address, to.netns());
    Transfer { from: &from, to: &to, address, protocol }.seconds(SECONDS)
}

#[test]
fn tcp_from_pod_keeps_its_limit() {
    with_ready_node("", |node| {
        let pairs = pairs(node, [LIMIT, 0], None);
        each(&pairs, true, Protocol::Tcp, |mtu, rates| {
            check("tcp_from_pod_keeps_its_limit", mtu, rates);
        });
    });
}

#[test]
fn tcp_to_pod_keeps_its_limit() {
    with_ready_node("", |node| {
        let pairs = pairs(node, [0, LIMIT], None);
        each(&pairs, false, Protocol::Tcp, |mtu, rates| {
            check("tcp_to_pod_keeps_its_limit", mtu, rates);
        });
    });
}

#[test]
fn tcp_from_pod_to_pod_keeps_the_lower_of_two_limits() {
    with_ready_node("", |node| {
        let pairs = pairs(node, [2 * LIMIT, 0], Some([0, LIMIT]));
        each(&pairs, true, Protocol::Tcp, |mtu, rates| {
            check("tcp_from_pod_to_pod_keeps_the_lower_of_two_limits", mtu, rates);
        });
    });
}

#[test]
fn udp_offered_at_twice_the_limit_still_gets_the_limit() {
    with_ready_node("", |node| {
        let pairs = pairs(node, [LIMIT, LIMIT], None);
        for from_pod in [true, false] {
            each(&pairs, from_pod, Protocol::Udp(2 * LIMIT), check_udp);
        }
    });
}

/// A frame of 9001 bytes takes more than a second then, so what counts is the sum.
#[test]
fn lowest_limit_lets_no_more_pass_than_it_says_nor_much_less() {
    const LOWEST: u64 = 64_000;
    with_ready_node("", |node| {
        let pairs = pairs(node, [LOWEST, LOWEST], None);
        for from_pod in [true, false] {
            for protocol in [Protocol::Udp(10 * LOWEST), Protocol::Tcp] {
                each(&pairs, from_pod, protocol, |mtu, rates| {
                    let frame = u64::from(mtu + 14) * 8;
                    let [all, steady] = [rates, &rates[STARTING..]]
                        .map(|r| (r.iter().sum::<u64>(), r.len() as u64));
                    println!("{protocol:?} at MTU {mtu}: {} bits in {rates:?}", all.0);
                    let says = |seconds: u64| seconds * LOWEST;
                    assert!(all.0 <= says(all.1) * 105 / 100 + 2 * frame, "{mtu}: {rates:?}");
                    assert!(steady.0 + 2 * frame >= says(steady.1) * 95 / 100, "{mtu}: {rates:?}");
                });
            }
        }
    });
}

#[test]
fn node_default_limits_a_pod_without_annotation() {
    with_ready_node("default-egress = \"20Mbit\"\ndefault-ingress = \"20Mbit\"", |node| {
        let pairs = pairs(node, [0, 0], None);
        for from_pod in [true, false] {
            each(&pairs, from_pod, Protocol::Udp(2 * LIMIT), check_udp);
        }
        let status = node.status(&pairs[0].pod);
        assert_eq!(status["egress"]["origin"], "node-default");
        assert_eq!(status["egress"]["limit_bps"], LIMIT);
    });
}

#[test]
fn unlimited_pod_has_nothing_attached() {
    with_ready_node("", |node| {
        let pod = shaped(node, "a", 2, [0, 0]);
        let root = tests::command::tc(&format!("qdisc show dev {}", pod.host_ifname));
        assert!(root.starts_with("qdisc noqueue 0: root"), "{root}");
        let inside = pod.run("tc qdisc show dev eth0");
        assert!(inside.starts_with("qdisc noqueue 0: root"), "{inside}");
    });
}

#[test]
fn status_says_limit_origin_mode_and_drops() {
    with_ready_node("default-egress = \"40Mbit\"", |node| {
        let pod = shaped(node, "a", 2, [0, LIMIT]);
        let remote = node.pod("remote", 9);
        transfer(&remote, &pod, Protocol::Udp(2 * LIMIT));
        let status = node.status(&pod);
        let mode = if has_fq() { "paced" } else { "policed" };
        for (direction, limit, origin) in
            [("egress", 40_000_000, "node-default"), ("ingress", LIMIT, "pod-annotation")]
        {
            assert_eq!(status[direction]["limit_bps"], limit);
            assert_eq!(status[direction]["origin"], origin);
            assert_eq!(status[direction]["mode"], mode);
        }
        assert!(status["ingress"]["dropped_packets"].as_u64() > Some(1000), "{status}");
        assert_eq!(status["egress"]["dropped_packets"], 0);
    });
}
