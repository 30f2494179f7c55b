// SPDX-License-Identifier: Apache-2.0
//! Beside others who work with tcx, or clear what they find when they go over
//! to it: limits hold whatever happens on the host's end of a pod.

use std::time::Duration;

use nix::libc;
use tests::cni::Annotations;
use tests::command::{output, tc, wait_for};
use tests::flood::{DIRECTIONS, Direction, Flood};
use tests::foreign;
use tests::kernel::has_tcx;
use tests::link::index;
use tests::node::{Node, Pod, with_ready_node};
use tests::policy_agent::{PolicyAgent, Side, Verdict};
use tests::tcx::{prepend_egress, prepend_ingress};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
const SIDES: [Side; 2] = [Side::Ingress, Side::Egress];

/// As Calico does when it goes over to tcx (projectcalico/calico, pull request 10573): first its own
/// programs are there, then every filter and qdisc of the device goes, whoever's it is.
fn clear_everything(host: &str) {
    let lines = ["filter del dev HOST ingress", "filter del dev HOST egress"];
    let qdiscs = ["qdisc del dev HOST clsact", "qdisc del dev HOST root"];
    for line in lines.into_iter().chain(qdiscs) {
        let line = line.replace("HOST", host);
        // What is not there cannot be removed, and that is as good.
        output("tc", &line.split_whitespace().collect::<Vec<_>>());
    }
}

fn host_end_is_whole(pod: &Pod) -> bool {
    let filters = tc(&format!("filter show dev {} parent 51ce:", pod.host_ifname));
    filters.contains("sluice_ingress")
}

fn repairs(node: &Node) -> u64 {
    let status = node.sluice_json(&["status", "--json", "--interval", "1"]);
    status["agent"]["report"]["repairs"].as_u64().unwrap_or_else(|| panic!("repairs of {status}"))
}

fn attach_policy(agent: &PolicyAgent, pod: &Pod, verdict: Verdict) {
    for side in SIDES {
        agent.attach(&pod.host_ifname, side, verdict).expect("attach policy");
    }
}

#[test]
fn limits_hold_again_within_a_second_of_calicos_clean_up_and_policy_can_come_back() {
    with_ready_node("", |node| {
        let (agent, pod, remote) = (PolicyAgent::start(), node.pod("a", 2), node.pod("remote", 9));
        attach_policy(&agent, &pod, Verdict::Allow);
        node.add(&pod, BOTH);
        node.guard(&pod);
        foreign::load();
        let (program, device) = (foreign::pin("counts_only"), index(&pod.host_ifname));
        let _calico = has_tcx()
            .then(|| [prepend_ingress(&program, device), prepend_egress(&program, device)]);
        let flood = Flood { pod: &pod, remote: &remote, limit_bps: LIMIT };
        for direction in DIRECTIONS {
            let before = repairs(node);
            let rates = flood.seconds_while(direction, 4, || {
                clear_everything(&pod.host_ifname);
                wait_for("our qdisc and filter", Duration::from_secs(10), || {
                    host_end_is_whole(&pod).then_some(())
                });
            });
            let gap = flood.time_without_limit(&rates);
            assert!(
                gap <= Duration::from_secs(1),
                "{direction:?}: {gap:?} without limit: {rates:?}"
            );
            assert!(flood.is_limit(rates[3]), "{direction:?}: {rates:?}");
            wait_for("word of the repair", Duration::from_secs(10), || {
                (repairs(node) > before).then_some(())
            });
        }
        attach_policy(&agent, &pod, Verdict::Deny);
        let denied = flood_is_denied(&pod);
        assert!(denied, "policy that came back does nothing");
        attach_policy(&agent, &pod, Verdict::Allow);
        flood.assert_limit_holds();
        wait_for("the guard", Duration::from_secs(10), || {
            let state = node.status(&pod)["guard"]["state"].clone();
            (state == if has_tcx() { "tcx" } else { "clsact" }).then_some(())
        });
    });
}

/// Whether what the host sends to the pod is refused before any queue of its device.
fn flood_is_denied(pod: &Pod) -> bool {
    let sent = || {
        let text = tc(&format!("-s -j qdisc show dev {} root", pod.host_ifname));
        let qdiscs = tests::command::json(&text);
        qdiscs[0]["packets"].as_u64().expect("a counter")
    };
    let before = sent();
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("bind");
    let answers: Vec<_> = (0..5).map(|_| socket.send_to(b"x", (pod.address, 9))).collect();
    let refused = |answer: &std::io::Result<usize>| match answer {
        Ok(_) => true,
        Err(e) => e.raw_os_error() == Some(libc::ENOBUFS),
    };
    assert!(answers.iter().all(refused), "{answers:?}");
    sent() == before
}

/// Cilium's programs give OK for what they let through, which on tcx and on clsact alike ends the
/// list; what was there before does not run any more.
#[test]
fn program_in_front_that_ends_the_list_takes_nothing_from_a_limit() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        if !has_tcx() {
            PolicyAgent::start().allow(&pod.host_ifname);
        }
        node.add(&pod, BOTH);
        node.guard(&pod);
        foreign::load();
        let (program, host) = (foreign::pin("cil_from_container"), &pod.host_ifname);
        let device = index(host);
        let _cilium = has_tcx()
            .then(|| [prepend_ingress(&program, device), prepend_egress(&program, device)]);
        if !has_tcx() {
            for side in ["ingress", "egress"] {
                tc(&format!(
                    "filter add dev {host} {side} protocol all prio 1 handle 2 bpf da \
                     object-pinned {program}"
                ));
            }
        }
        let flood = Flood { pod: &pod, remote: &remote, limit_bps: LIMIT };
        flood.assert_limit_holds();
        let status = node.status(&pod);
        for direction in ["egress", "ingress"] {
            assert!(status[direction]["sent_packets"].as_u64() > Some(1000), "{status}");
        }
    });
}

/// The pod's own shaper does not depend on who is where on the host's end.
#[test]
fn tcx_of_others_may_come_and_go_around_a_pod() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        foreign::load();
        let (program, device) = (foreign::pin("cil_from_container"), index(&pod.host_ifname));
        let early = has_tcx().then(|| prepend_ingress(&program, device));
        node.add(&pod, BOTH);
        node.guard(&pod);
        let flood = Flood { pod: &pod, remote: &remote, limit_bps: LIMIT };
        let rates = flood.seconds_while(Direction::Egress, 4, || {
            drop(early);
            for _ in 0..10 {
                let _late = has_tcx().then(|| prepend_ingress(&program, device));
            }
        });
        assert!(rates[1..].iter().all(|rate| flood.is_limit(*rate)), "{rates:?}");
        let guard = node.status(&pod)["guard"].clone();
        assert_eq!(guard["state"], if has_tcx() { "tcx" } else { "off" });
        assert_eq!(guard["dropped_packets"], 0, "{guard}");
    });
}

/// A new agent's programs take the places of the old one's; nothing was removed.
#[test]
fn restart_of_the_agent_is_no_repair() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        PolicyAgent::start().allow(&pod.host_ifname);
        node.add(&pod, BOTH);
        node.guard(&pod);
        node.kill_agent(nix::sys::signal::Signal::SIGKILL);
        node.start_agent();
        let state = if has_tcx() { "tcx" } else { "clsact" };
        wait_for("the agent's first pass", Duration::from_secs(20), || {
            let status = node.sluice_json(&["status", "--json", "--interval", "1"]);
            let ready = status["agent"]["report"]["ready"] == true;
            (ready && node.guard(&pod)["state"] == state).then_some(())
        });
        assert_eq!(repairs(node), 0);
    });
}
