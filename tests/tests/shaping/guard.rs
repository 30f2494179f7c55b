// SPDX-License-Identifier: Apache-2.0
//! The guard on the host's end: a pod that gets round its own shaper gains
//! nothing and is reported; an honest one never meets it; network policy on the
//! same device works as if it were not there.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::cni::{Annotations, Call};
use tests::command::{tc, wait_for};
use tests::kernel::{has_tcx, skip_for_tcx};
use tests::link::index;
use tests::meter::{Protocol, Transfer, in_netns, measure_seconds};
use tests::node::{Node, PIN_DIR, Pod, mac_of, with_ready_node};
use tests::policy_agent::{PolicyAgent, Side, Verdict};
use tests::proof::proof_of;
use tests::raw;

const LIMIT: u64 = 20_000_000;
const EGRESS: Annotations = Annotations { egress: LIMIT, ingress: 0 };
const TAMPERED_SECONDS: usize = 10;

/// A pod with a limit on egress, on a device where the guard finds a place: without tcx it shares
/// the clsact of network policy.
fn guarded_pod(node: &Node) -> Pod {
    let pod = node.pod("a", 2);
    guard(node, &[&pod]);
    pod
}

fn guard(node: &Node, pods: &[&Pod]) {
    if !has_tcx() {
        let policy = PolicyAgent::start();
        pods.iter().for_each(|pod| policy.allow(&pod.host_ifname));
    }
    let state = if has_tcx() { "tcx" } else { "clsact" };
    for pod in pods {
        node.add(pod, EGRESS);
        assert_eq!(node.guard(pod)["state"], state);
    }
}

/// A guarded pod, and whom it sends to, by frames of this size.
struct Pair {
    mtu: u32,
    pod: Pod,
    remote: Pod,
}

/// One with frames of the usual size, one with EKS' own.
fn guarded_pairs(node: &Node) -> [Pair; 2] {
    let pairs = [(1500, "a", 2), (9001, "b", 3)].map(|(mtu, name, number)| {
        let remote = node.pod(&format!("{name}2"), number + 10);
        let pair = Pair { mtu, pod: node.pod(name, number), remote };
        [&pair.pod, &pair.remote].into_iter().for_each(|end| end.set_mtu(mtu));
        pair
    });
    guard(node, &pairs.each_ref().map(|pair| &pair.pod));
    pairs
}

/// All pairs at once, for so many seconds.
fn each(pairs: &[Pair], send: impl Fn(&Pair) -> Vec<u64> + Sync) -> Vec<Vec<u64>> {
    let send = &send;
    thread::scope(|scope| {
        let threads: Vec<_> = pairs.iter().map(|pair| scope.spawn(move || send(pair))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a transfer")).collect()
    })
}

/// Tampered with as `tamper` does, none of them gains anything: where a shaper of the pod would pace, no
/// more than the burst and a packet in the first second either.
fn gain_nothing(node: &Node, what: &str, pairs: &[Pair], tamper: impl Fn(&Pod)) {
    let paced = pairs.iter().all(|pair| node.status(&pair.pod)["egress"]["mode"] == "paced");
    pairs.iter().for_each(|pair| tamper(&pair.pod));
    let rates = each(pairs, |pair| flood(&pair.pod, &pair.remote, TAMPERED_SECONDS));
    for (pair, rates) in pairs.iter().zip(&rates) {
        let what = format!("{what}, MTU {}", pair.mtu);
        assert_gains_nothing(&what, rates);
        let mean = rates.iter().sum::<u64>() / rates.len() as u64;
        let first = LIMIT * 101 / 100 + 8 * u64::from(pair.mtu + 14);
        assert!(!paced || mean <= LIMIT * 101 / 100 && rates[0] <= first, "{what}: {rates:?}");
    }
}

fn dropped(status: &Value) -> u64 {
    status["guard"]["dropped_packets"].as_u64().expect("a counter")
}

fn link_pins() -> usize {
    std::fs::read_dir(format!("{PIN_DIR}/links")).map_or(0, Iterator::count)
}

/// Floods from several threads: UDP at twice the limit, all together.
fn flood(from: &Pod, to: &Pod, seconds: usize) -> Vec<u64> {
    let (inside, outside) = (from.netns(), to.netns());
    let protocol = Protocol::Udp(LIMIT / 2);
    let one = || Transfer { from: &inside, to: &outside, address: to.address, protocol };
    thread::scope(|scope| {
        let others: Vec<_> = (0..3).map(|_| scope.spawn(|| one().seconds(seconds + 1))).collect();
        let rates = one().seconds(seconds);
        others.into_iter().for_each(|other| drop(other.join().expect("a flood")));
        rates
    })
}

/// At most 5 % more than the limit over the whole time, and not much less either.
fn assert_gains_nothing(what: &str, rates: &[u64]) {
    let mean = rates.iter().sum::<u64>() / rates.len() as u64;
    println!("{what}: mean {mean}, seconds {rates:?}");
    assert!(mean <= LIMIT * 105 / 100, "{what}: limit {LIMIT}, seconds {rates:?}");
    assert!(mean >= LIMIT * 90 / 100, "{what}: limit {LIMIT}, seconds {rates:?}");
}

#[test]
fn pod_without_its_filter_gains_nothing_and_is_told_of() {
    with_ready_node("", |node| {
        let pairs = guarded_pairs(node);
        // Which would restore it.
        node.kill_agent(Signal::SIGKILL);
        gain_nothing(node, "without filter", &pairs, |pod| {
            pod.run("tc filter del dev eth0 parent 51ce: prio 1");
        });
        for Pair { pod, .. } in &pairs {
            let status = node.status(pod);
            let count = dropped(&status);
            assert!(count > 100, "{status}");
            let reason = format!(
                "the pod's filter is gone; the pod gets round its shaper: the guard dropped \
                 {count} packets"
            );
            assert_eq!(status["egress"]["reason"], reason);
        }
    });
}

#[test]
fn pod_without_qdisc_and_filter_gains_nothing_and_is_told_of() {
    with_ready_node("", |node| {
        let pairs = guarded_pairs(node);
        // Which would restore it.
        node.kill_agent(Signal::SIGKILL);
        gain_nothing(node, "without both", &pairs, |pod| {
            pod.run("tc qdisc del dev eth0 root");
        });
        for Pair { pod, .. } in &pairs {
            let status = node.status(pod);
            let gone = "the pod's qdisc and filter are gone; ";
            let reason = status["egress"]["reason"].as_str().expect("a reason");
            assert!(reason.starts_with(gone) && reason.contains("the guard dropped"), "{reason}");
        }
    });
}

/// A classid becomes tc_index where a filter gives OK (net/core/dev.c, tc_run). The packets say then that
/// they were shaped, but no one was charged for them.
#[test]
fn pod_that_forges_the_proof_gains_nothing_and_each_packet_is_counted() {
    with_ready_node("", |node| {
        let pairs = guarded_pairs(node);
        // Which would restore it.
        node.kill_agent(Signal::SIGKILL);
        gain_nothing(node, "forged proof", &pairs, |pod| {
            let slot = node.status(pod)["slot"].as_u64().expect("a slot");
            let proof = proof_of(slot, 0);
            pod.run("tc qdisc del dev eth0 root");
            pod.run("tc qdisc add dev eth0 clsact");
            let filter = format!("egress prio 1 u32 match u32 0 0 classid 1:{proof:x}");
            pod.run(&format!("tc filter add dev eth0 {filter}"));
        });
        for Pair { pod, remote, .. } in &pairs {
            let count = || node.status(pod)["guard"]["unshaped_packets"].as_u64().expect("a count");
            let before = count();
            send_from(pod, remote);
            // And what the pod's kernel says of its own.
            assert!((5..10).contains(&(count() - before)), "{before} {}", count());
        }
    });
}

/// Its filter still polices, so the guard has nothing to do.
#[test]
fn pod_without_its_fq_gains_nothing_and_is_told_of() {
    with_ready_node("", |node| {
        let pairs = guarded_pairs(node);
        // Which would restore it.
        node.kill_agent(Signal::SIGKILL);
        if node.status(&pairs[0].pod)["egress"]["mode"] != "paced" {
            return tests::kernel::skip("pod_without_its_fq", "without sch_fq there is none");
        }
        // All that fq held for later is out at once, and no more than the line's rate after that.
        pairs.iter().for_each(|pair| {
            pair.pod.run("tc qdisc del dev eth0 parent 51ce:1 handle 51cf:");
        });
        let rates = each(&pairs, |pair| flood(&pair.pod, &pair.remote, TAMPERED_SECONDS));
        for (Pair { pod, mtu, .. }, rates) in pairs.iter().zip(&rates) {
            assert_gains_nothing(&format!("without fq, MTU {mtu}"), rates);
            assert_eq!(node.status(pod)["egress"]["reason"], "the pod's qdisc is gone");
        }
    });
}

fn gateway_of(pod: &Pod) -> [u8; 6] {
    let mac = mac_of("", &pod.host_ifname);
    let octets: Vec<u8> =
        mac.split(':').map(|hex| u8::from_str_radix(hex, 16).expect("hex")).collect();
    octets.try_into().expect("six octets")
}

fn flood_past_the_qdisc(Pair { mtu, pod, remote }: &Pair) -> Vec<u64> {
    let stop = &AtomicBool::new(false);
    let (from, to, gateway) = (pod.address, remote.address, gateway_of(pod));
    let plan = &raw::Flood { from, to, gateway, mtu: *mtu, offer_bps: 2 * LIMIT };
    thread::scope(|scope| {
        let flood = move || raw::flood(plan, stop);
        let floods = [(); 2].map(|()| in_netns(scope, &pod.netns(), flood));
        let meter = in_netns(scope, &remote.netns(), move || measure_seconds(TAMPERED_SECONDS));
        let rates = meter.join();
        stop.store(true, Ordering::Relaxed);
        floods.into_iter().for_each(|flood| flood.join().expect("a flood"));
        rates.expect("rates")
    })
}

#[test]
fn pod_that_bypasses_its_qdisc_gains_nothing_and_is_told_of() {
    with_ready_node("", |node| {
        let pairs = guarded_pairs(node);
        let rates = each(&pairs, flood_past_the_qdisc);
        for (Pair { mtu, pod, .. }, rates) in pairs.iter().zip(&rates) {
            assert_gains_nothing(&format!("qdisc bypass, MTU {mtu}"), rates);
            let status = node.status(pod);
            assert!(dropped(&status) > 100, "{status}");
            // Nothing but the kernel's own, neighbour discovery for instance.
            assert!(status["egress"]["sent_packets"].as_u64() < Some(100), "{status}");
            let reason = status["egress"]["reason"].as_str().expect("a reason");
            assert!(reason.starts_with("the pod gets round its shaper"), "{reason}");
        }
    });
}

#[test]
fn honest_pod_loses_nothing_to_the_guard() {
    with_ready_node("", |node| {
        let pairs = guarded_pairs(node);
        each(&pairs, |Pair { pod, remote, .. }| {
            let (from, to, address) = (pod.netns(), remote.netns(), remote.address);
            let transfer = |protocol| Transfer { from: &from, to: &to, address, protocol };
            transfer(Protocol::Tcp).seconds(3);
            transfer(Protocol::Udp(2 * LIMIT)).seconds(3);
            for _ in 0..3 {
                // A burst after a pause, as the shaper's credit allows.
                thread::sleep(Duration::from_millis(300));
                transfer(Protocol::Udp(10 * LIMIT)).seconds(1);
            }
            Vec::new()
        });
        for Pair { pod, .. } in &pairs {
            let status = node.status(pod);
            assert_eq!(dropped(&status), 0, "{status}");
            assert_eq!(status["guard"]["unshaped_packets"], 0, "{status}");
            let guard = status["guard"]["passed_bytes"].as_u64().expect("a counter");
            let shaper = status["egress"]["sent_bytes"].as_u64().expect("a counter");
            // What fq still holds is charged, and has not passed.
            assert!(guard <= shaper && guard > shaper - shaper / 20, "{status}");
        }
    });
}

#[test]
fn pod_without_a_limit_on_egress_has_no_guard() {
    with_ready_node("", |node| {
        for (name, number, ingress) in [("a", 2, LIMIT), ("b", 3, 0)] {
            let pod = node.pod(name, number);
            node.add(&pod, Annotations { egress: 0, ingress });
            assert_eq!(node.status(&pod)["guard"], Value::Null);
        }
        assert_eq!(link_pins(), 0);
    });
}

#[test]
fn guard_needs_no_agent_and_goes_with_del_or_its_device() {
    with_ready_node("", |node| {
        let pod = guarded_pod(node);
        node.kill_agent(nix::sys::signal::Signal::SIGKILL);
        let sender = || UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"x", "10.1.0.9:9"));
        thread::scope(|scope| in_netns(scope, &pod.netns(), sender).join().expect("a sender"))
            .expect("send");
        assert!(node.status(&pod)["guard"]["passed_bytes"].as_u64() >= Some(1));
        node.del(&pod);
        assert_eq!(link_pins(), 0);
        assert!(!tc(&format!("filter show dev {} ingress", pod.host_ifname)).contains("sluice"));
        node.add(&pod, EGRESS);
        pod.delete();
        node.del(&pod);
        assert_eq!(link_pins(), 0);
    });
}

#[test]
fn pod_that_came_without_an_agent_gets_its_guard_when_there_is_one() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        if !has_tcx() {
            PolicyAgent::start().allow(&pod.host_ifname);
        }
        node.kill_agent(nix::sys::signal::Signal::SIGKILL);
        node.add(&pod, EGRESS);
        let guard = node.status(&pod)["guard"].clone();
        assert_eq!(guard["state"], "pending");
        assert_eq!(guard["reason"], "the agent attaches it, and has not yet");
        node.start_agent();
        assert_eq!(node.guard(&pod)["state"], if has_tcx() { "tcx" } else { "clsact" });
    });
}

#[test]
fn foreign_root_qdisc_in_the_pod_stays_and_the_guard_enforces() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        if !has_tcx() {
            PolicyAgent::start().allow(&pod.host_ifname);
        }
        pod.run("tc qdisc add dev eth0 root handle 5: pfifo limit 100");
        node.add(&pod, EGRESS);
        let remote = node.pod("remote", 9);
        assert_gains_nothing("foreign root", &flood(&pod, &remote, TAMPERED_SECONDS));
        assert!(pod.run("tc qdisc show dev eth0").starts_with("qdisc pfifo 5: root"));
        let status = node.status(&pod);
        assert_eq!(status["egress"]["mode"], "guarded");
        assert_eq!(status["egress"]["limit_bps"], LIMIT);
        assert!(status["egress"]["dropped_packets"].as_u64() > Some(1000), "{status}");
        assert_eq!(
            status["egress"]["reason"],
            "degraded: eth0 already has a foreign root qdisc (pfifo 5:), so the guard drops the \
             excess"
        );
        node.del(&pod);
        assert!(pod.run("tc qdisc show dev eth0").starts_with("qdisc pfifo 5: root"));
    });
}

#[test]
fn without_any_place_for_the_guard_it_is_off_and_a_foreign_root_is_an_error() {
    if has_tcx() {
        return skip_for_tcx(
            "without_any_place_for_the_guard_it_is_off_and_a_foreign_root_is_an_error",
        );
    }
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, EGRESS);
        let guard = node.guard(&pod);
        assert_eq!(guard["state"], "off");
        assert_eq!(
            guard["reason"],
            "no tcx in this kernel and no clsact on enia that it can share: guard is off"
        );
        let other = node.pod("b", 3);
        other.run("tc qdisc add dev eth0 root handle 5: pfifo limit 100");
        let error = tests::cni::expect_error(&Call::new("ADD", &other, EGRESS).run(&other));
        assert_eq!(error["code"], 101);
        let details = error["details"].as_str().expect("details");
        assert!(details.starts_with("no guard could enforce the limit either: no tcx"), "{error}");
        assert!(details.contains("eth0 already has a foreign root qdisc (pfifo 5:)"), "{error}");
        // Network policy arrives, and with it a place.
        PolicyAgent::start().allow(&pod.host_ifname);
        wait_for("the guard", Duration::from_secs(2), || {
            (node.status(&pod)["guard"]["state"] == "clsact").then_some(())
        });
    });
}

fn has_clsact(device: &str) -> bool {
    tc(&format!("qdisc show dev {device}")).contains("clsact")
}

#[test]
fn own_clsact_gives_the_guard_a_place_and_is_left_to_policy() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, EGRESS);
        let device = &pod.host_ifname;
        node.guard(&pod);
        if !has_tcx() {
            // What is loud until an operator decides.
            let [trouble] = &node.troubles("guard-off")[..] else { panic!("one entry") };
            let next = trouble["next_step"].as_str().expect("a next step");
            assert!(next.contains("bandwidth.guard = \"own-clsact\""), "{trouble}");
        }
        assert!(!has_clsact(device));
        node.boot_with("guard = \"own-clsact\"");
        if has_tcx() {
            node.signal_agent(Signal::SIGHUP);
            let other = node.pod("b", 3);
            node.add(&other, EGRESS);
            assert_eq!(node.guard(&other)["state"], "tcx");
            assert!(!has_clsact(device) && !has_clsact(&other.host_ifname));
            return;
        }
        let guarded = || {
            wait_for("the guard", Duration::from_secs(10), || {
                (node.status(&pod)["guard"]["state"] == "clsact").then_some(())
            });
            guard_in_front(device);
        };
        guarded();
        assert!(node.troubles("guard-off").is_empty());
        // Policy comes, and finds a clsact; it goes with its clsact, and comes again.
        let policy = PolicyAgent::start();
        policy.allow(device);
        guard_in_front(device);
        tc(&format!("qdisc del dev {device} clsact"));
        wait_for("a new clsact", Duration::from_secs(10), || has_clsact(device).then_some(()));
        guarded();
        policy.allow(device);
        guard_in_front(device);
        // When we leave, what is policy's stays.
        node.del(&pod);
        let left = tc(&format!("filter show dev {device} ingress"));
        assert!(!left.contains("0x51ce") && left.contains("handle"), "{left}");
        // Without policy ADD has a place too: a foreign root qdisc in the pod is no error then.
        let other = node.pod("b", 3);
        other.run("tc qdisc add dev eth0 root handle 5: pfifo limit 100");
        node.add(&other, EGRESS);
        assert_eq!(node.status(&other)["egress"]["mode"], "guarded");
    });
}

fn send_from(pod: &Pod, to: &Pod) {
    let target = (to.address, 9);
    let send = move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        (0..5).for_each(|_| drop(socket.send_to(b"x", target)));
    };
    thread::scope(|scope| in_netns(scope, &pod.netns(), send).join().expect("a sender"));
}

/// Network policy's verdict on what the pod sends, and whether the guard sees it as well.
fn verdict_holds(node: &Node, pod: &Pod, remote: &Pod, verdict: Verdict) {
    let received = || {
        let read = || std::fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
        let table = thread::scope(|scope| in_netns(scope, &remote.netns(), read).join());
        let table = table.expect("counters");
        let line = table.lines().filter(|line| line.starts_with("Ip:")).nth(1).expect("values");
        line.split_whitespace().nth(3).and_then(|v| v.parse::<u64>().ok()).expect("InReceives")
    };
    let passed = || node.status(pod)["guard"]["passed_bytes"].as_u64().expect("a counter");
    let before = (received(), passed());
    send_from(pod, remote);
    let after = (received(), passed());
    let expected = if verdict == Verdict::Allow { 5 } else { 0 };
    assert_eq!(after.0 - before.0, expected, "{verdict:?}");
    // And what the pod's kernel says of its own.
    assert!(after.1 - before.1 >= 5 * (14 + 20 + 8 + 1), "{verdict:?}: {before:?} {after:?}");
}

/// A program on tcx that passes ends the chain there; the guard has to come before it.
#[test]
fn foreign_tcx_program_that_passes_hides_nothing_from_the_guard() {
    if !has_tcx() {
        return skip_for_tcx("foreign_tcx_program_that_passes_hides_nothing_from_the_guard");
    }
    with_ready_node("", |node| {
        let _agent = PolicyAgent::start();
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        let program = "/sys/fs/bpf/globals/aws/programs/policy_allow";
        let _foreign = tests::tcx::append_ingress(program, index(&pod.host_ifname));
        node.add(&pod, EGRESS);
        node.guard(&pod);
        verdict_holds(node, &pod, &remote, Verdict::Allow);
    });
}

#[test]
fn policy_decides_and_the_guard_sees_all_whoever_came_first_and_after_every_reattach() {
    for policy_first in [true, false] {
        with_ready_node("", |node| {
            let (agent, pod, remote) =
                (PolicyAgent::start(), node.pod("a", 2), node.pod("remote", 9));
            let device = pod.host_ifname.as_str();
            if policy_first {
                agent.allow(device);
            }
            node.add(&pod, EGRESS);
            node.guard(&pod);
            for verdict in [Verdict::Allow, Verdict::Deny, Verdict::Deny, Verdict::Allow] {
                agent.attach(device, Side::Ingress, verdict).expect("attach policy");
                guard_in_front(device);
                verdict_holds(node, &pod, &remote, verdict);
            }
            agent.detach(device, Side::Ingress).expect("detach");
            assert_eq!(agent.attached_program(device, Side::Ingress), None);
            verdict_holds(node, &pod, &remote, Verdict::Allow);
        });
    }
}

/// Without tcx the agent has to move the guard's filter: soon after policy's.
fn guard_in_front(device: &str) {
    if has_tcx() {
        return;
    }
    wait_for("the guard in front", Duration::from_millis(500), || {
        let filters = tc(&format!("filter show dev {device} ingress"));
        let first = filters.lines().find(|line| line.contains("handle"))?;
        first.contains("handle 0x51ce").then_some(())
    });
}
