// SPDX-License-Identifier: Apache-2.0
//! New settings reach pods that are there, under traffic and without a gap.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::cni::Annotations;
use tests::command::{tc, wait_for};
use tests::kernel::{has_fq, has_tcx};
use tests::link::{gso, gso_in, index};
use tests::meter::{Protocol, Transfer};
use tests::node::{Node, PIN_DIR, Pod, USER_DATA, with_ready_node};
use tests::policy_agent::PolicyAgent;

const MBIT: u64 = 1_000_000;
const NONE: Annotations = Annotations { egress: 0, ingress: 0 };

/// Settings that are asked for by SIGHUP, and how long the pod's record lagged behind them.
fn reload(node: &Node, pod: &Pod, bandwidth: &str, there: impl Fn(&Value) -> bool) -> Duration {
    let old = fs::read_to_string(USER_DATA).expect("the user data");
    let table = "[settings.sluice.bandwidth]\n";
    let (head, _) = old.split_once(table).expect("a table of bandwidth");
    fs::write(USER_DATA, format!("{head}{table}{bandwidth}\n")).expect("write user data");
    node.signal_agent(Signal::SIGHUP);
    wait_for("new limits", Duration::from_secs(20), || there(&node.status(pod)).then_some(()));
    let written = |path: &str| {
        let metadata = fs::metadata(path).unwrap_or_else(|e| panic!("look at {path}: {e}"));
        metadata.modified().expect("a time")
    };
    let record = format!("/run/sluice/pods/1@id-{}@eth0.json", pod.name);
    written(&record).duration_since(written("/run/sluice/settings.toml")).unwrap_or_default()
}

/// Limits that are attached; one that is only written down has no mode yet.
fn limits(status: &Value) -> (Option<u64>, Option<u64>) {
    let attached = |line: &Value| line["limit_bps"].as_u64().filter(|_| !line["mode"].is_null());
    (attached(&status["egress"]), attached(&status["ingress"]))
}

fn both(rate: &str) -> String {
    format!("default-egress = \"{rate}\"\ndefault-ingress = \"{rate}\"")
}

/// TCP of ten seconds; after the second the limit becomes what is said. Gives all seconds.
fn change_under_tcp(node: &Node, from: &Pod, to: &Pod, pod: &Pod, rate: u64) -> Vec<u64> {
    let (inside, outside) = (from.netns(), to.netns());
    let transfer =
        Transfer { from: &inside, to: &outside, address: to.address, protocol: Protocol::Tcp };
    transfer.seconds_while(10, || {
        std::thread::sleep(Duration::from_secs(4));
        let keys = both(&format!("{}Mbit", rate / MBIT));
        let lag = reload(node, pod, &keys, |status| limits(status) == (Some(rate), Some(rate)));
        assert!(lag <= Duration::from_millis(100), "the record lagged {lag:?} behind the settings");
    })
}

/// The first seconds at the old rate, the last at the new one, never nothing, never above both.
fn assert_follows(old: u64, new: u64, rates: &[u64]) {
    println!("from {old} to {new}: {rates:?}");
    let (above, below) = if has_fq() { (105, 95) } else { (125, 50) };
    let highest = old.max(new) * above / 100;
    assert!(rates.iter().all(|r| *r > 0 && *r <= highest), "{old} to {new}: {rates:?}");
    let near = |rate: u64, limit: u64| rate * 100 >= limit * below && rate * 100 <= limit * above;
    assert!(rates[1..3].iter().all(|r| near(*r, old)), "{old} to {new}: {rates:?}");
    assert!(rates[6..].iter().all(|r| near(*r, new)), "{old} to {new}: {rates:?}");
}

#[test]
fn new_rate_holds_under_tcp_without_a_gap_or_a_spike() {
    with_ready_node(&both("20Mbit"), |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        if !has_tcx() {
            PolicyAgent::start().allow(&pod.host_ifname);
        }
        node.add(&pod, NONE);
        node.guard(&pod);
        let rates = change_under_tcp(node, &pod, &remote, &pod, 40 * MBIT);
        assert_follows(20 * MBIT, 40 * MBIT, &rates);
        let rates = change_under_tcp(node, &remote, &pod, &pod, 10 * MBIT);
        assert_follows(40 * MBIT, 10 * MBIT, &rates);
        let rates = change_under_tcp(node, &pod, &remote, &pod, 30 * MBIT);
        assert_follows(10 * MBIT, 30 * MBIT, &rates);
        let status = node.status(&pod);
        assert_eq!(status["guard"]["dropped_packets"], 0, "{status}");
    });
}

/// What the programs read of the first slot: 0 egress, 1 ingress.
fn in_maps(direction: u32) -> Value {
    let key = (2 + direction).to_ne_bytes().map(|byte| byte.to_string()).join(" ");
    let line = format!("-j map lookup pinned {PIN_DIR}/lines key {key}");
    let words: Vec<_> = line.split_whitespace().collect();
    let line = tests::command::json(&tests::command::run("bpftool", &words));
    line["formatted"]["value"]["limit"].clone()
}

/// UDP at more than the first limit, with nothing that keeps its queue short, and one limit after
/// the other in the middle of it: what an old one has admitted is no less shaped.
fn guard_is_silent_while_limits_become(rates: &[u64]) {
    let keys = |rate: u64| both(&format!("{}Mbit", rate / MBIT)) + "\nlatency-target = \"100ms\"";
    with_ready_node(&keys(8 * MBIT), |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        if !has_tcx() {
            PolicyAgent::start().allow(&pod.host_ifname);
        }
        node.add(&pod, NONE);
        node.guard(&pod);
        let (inside, outside) = (pod.netns(), remote.netns());
        let protocol = Protocol::Udp(12 * MBIT);
        let address = remote.address;
        let transfer = Transfer { from: &inside, to: &outside, address, protocol };
        transfer.seconds_while(4, || {
            std::thread::sleep(Duration::from_secs(2));
            for rate in rates {
                reload(node, &pod, &keys(*rate), |s| limits(s).0 == Some(*rate));
            }
        });
        assert_eq!(node.status(&pod)["guard"]["unshaped_packets"], 0, "{}", node.status(&pod));
    });
}

#[test]
fn guard_is_silent_while_a_limit_is_lowered() {
    guard_is_silent_while_limits_become(&[MBIT]);
}

#[test]
fn guard_is_silent_while_a_limit_is_lowered_and_raised_again() {
    guard_is_silent_while_limits_become(&[MBIT, 7 * MBIT]);
}

#[test]
fn limits_come_and_go_with_everything_that_belongs_to_them() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        if !has_tcx() {
            PolicyAgent::start().allow(&pod.host_ifname);
        }
        let state = || {
            let host = tc(&format!("qdisc show dev {} root", pod.host_ifname));
            let sizes = (gso_in(&pod.netns(), "eth0"), gso(index(&pod.host_ifname)));
            let inside = (
                pod.run("tc qdisc show dev eth0 root"),
                pod.run("tc filter show dev eth0 parent 51ce:"),
            );
            (host, sizes, inside)
        };
        let untouched = state();
        node.add(&pod, NONE);
        assert_eq!(state(), untouched);
        reload(node, &pod, &both("20Mbit"), |s| limits(s) == (Some(20 * MBIT), Some(20 * MBIT)));
        assert_eq!(node.guard(&pod)["state"], if has_tcx() { "tcx" } else { "clsact" });
        let status = node.status(&pod);
        assert_eq!(status["egress"]["origin"], "node-default");
        assert_eq!(gso(index(&pod.host_ifname)).0, 3000);
        reload(node, &pod, &both("100Mbit"), |s| limits(s).1 == Some(100 * MBIT));
        assert_eq!(gso(index(&pod.host_ifname)).0, 12500);
        assert_eq!(gso_in(&pod.netns(), "eth0").0, 12500);
        reload(node, &pod, "", |s| limits(s) == (None, None));
        assert_eq!(state(), untouched);
        assert_eq!(node.status(&pod)["guard"], Value::Null);
        node.del(&pod);
    });
}

#[test]
fn annotation_still_wins_and_burst_latency_target_and_ecn_reach_the_programs() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, Annotations { egress: 20 * MBIT, ingress: 0 });
        let words = "burst = \"2ms\"\nlatency-target = \"7ms\"\necn = false\n";
        let keys = format!("default-egress = \"30Mbit\"\ndefault-ingress = \"10Mbit\"\n{words}");
        reload(node, &pod, &keys, |s| limits(s) == (Some(20 * MBIT), Some(10 * MBIT)));
        assert_eq!(node.status(&pod)["egress"]["origin"], "pod-annotation");
        for direction in [0, 1] {
            let limit = in_maps(direction);
            assert_eq!(limit["burst_ns"], 2 * MBIT, "{limit}");
            assert_eq!(limit["target_ns"], 7 * MBIT, "{limit}");
            assert_eq!(limit["ecn"], 0, "{limit}");
        }
    });
}

#[test]
fn maximum_reaches_pods_that_are_there_and_goes_again() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, Annotations { egress: 20 * MBIT, ingress: 0 });
        let keys = "max-egress = \"5Mbit\"\nmax-ingress = \"7Mbit\"";
        reload(node, &pod, keys, |s| limits(s) == (Some(5 * MBIT), Some(7 * MBIT)));
        assert_eq!(node.status(&pod)["egress"]["asked"], "20Mbit");
        // The same limit, no longer for the maximum's sake.
        let keys = "default-ingress = \"7Mbit\"";
        reload(node, &pod, keys, |s| limits(s) == (Some(20 * MBIT), Some(7 * MBIT)));
        assert_eq!(node.status(&pod)["ingress"]["asked"], Value::Null);
    });
}
