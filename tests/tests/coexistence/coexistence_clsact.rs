// SPDX-License-Identifier: Apache-2.0
//! Beside monitoring tools that put clsact on every device, with programs that
//! count, and remove it again, without asking who else is there (netobserv,
//! pping and Datadog have all done so).

use std::time::Duration;

use serde_json::Value;
use tests::cni::Annotations;
use tests::command::{tc, wait_for};
use tests::flood::{DIRECTIONS, Direction, Flood};
use tests::foreign;
use tests::kernel::has_tcx;
use tests::node::{Node, Pod, with_ready_node};
use tests::policy_agent::PolicyAgent;

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
/// What must happen within a second takes longer in an emulated guest.
const SOON: Duration = Duration::from_secs(10);
/// So many repairs within a minute and the agent stands back.
const CONTEST: usize = 10;

/// Troubles that the agent tells of, with this code.
fn troubles(node: &Node, code: &str) -> Vec<Value> {
    let status = node.sluice_json(&["status", "--json", "--interval", "1"]);
    let degraded = status["degraded"].as_array().expect("a list of troubles").iter();
    degraded.filter(|trouble| trouble["code"] == code).cloned().collect()
}

fn pod_is_whole(pod: &Pod) -> bool {
    pod.run("tc filter show dev eth0 parent 51ce:").contains("sluice_egress")
}

/// One visit: clsact if there is none, a filter that only counts, and all of it away.
fn visit_host_end(host: &str) {
    let program = foreign::pin("counts_only");
    tc(&format!("qdisc replace dev {host} clsact"));
    for side in ["ingress", "egress"] {
        tc(&format!(
            "filter add dev {host} {side} protocol all prio 49 handle 1 bpf da object-pinned \
             {program}"
        ));
    }
    tc(&format!("qdisc del dev {host} clsact"));
}

/// With each visit the kernel empties the device's queues, whoever's they are (net/sched/sch_api.c,
/// qdisc_graft): less may arrive meanwhile, but never more.
#[test]
fn monitor_that_comes_and_goes_on_the_hosts_end_costs_no_limit() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        foreign::load();
        node.add(&pod, BOTH);
        node.guard(&pod);
        let flood = Flood { pod: &pod, remote: &remote, limit_bps: LIMIT };
        for direction in DIRECTIONS {
            let rates = flood.seconds_while(direction, 4, || {
                (0..20).for_each(|_| visit_host_end(&pod.host_ifname));
            });
            let gap = flood.time_without_limit(&rates);
            assert!(gap <= Duration::from_millis(250), "{direction:?}: {gap:?} without: {rates:?}");
            assert!(flood.is_limit(rates[3]), "{direction:?}: {rates:?}");
        }
        assert_eq!(troubles(node, "contested"), Vec::<Value>::new());
        // Where the guard has to share a clsact it comes back with the next one.
        let policy = PolicyAgent::start();
        policy.allow(&pod.host_ifname);
        wait_for("the guard", SOON, || {
            let state = node.status(&pod)["guard"]["state"].clone();
            (state == if has_tcx() { "tcx" } else { "clsact" }).then_some(())
        });
    });
}

#[test]
fn pods_root_qdisc_comes_back_each_time_until_its_removal_is_a_contest_that_the_guard_wins() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        if !has_tcx() {
            PolicyAgent::start().allow(&pod.host_ifname);
        }
        node.add(&pod, BOTH);
        node.guard(&pod);
        let flood = Flood { pod: &pod, remote: &remote, limit_bps: LIMIT };
        let take_off = || {
            pod.run("tc qdisc del dev eth0 root");
            wait_for("the pod's qdisc", SOON, || pod_is_whole(&pod).then_some(()));
        };
        let rates = flood.seconds_while(Direction::Egress, 5, || (0..3).for_each(|_| take_off()));
        let gap = flood.time_without_limit(&rates);
        assert!(gap <= Duration::from_secs(1), "{gap:?} without limit: {rates:?}");
        assert!(flood.is_limit(rates[4]), "{rates:?}");
        assert_eq!(troubles(node, "contested"), Vec::<Value>::new());
        (3..CONTEST).for_each(|_| take_off());
        wait_for("the contest", SOON, || (!troubles(node, "contested").is_empty()).then_some(()));
        let contested = &troubles(node, "contested")[0];
        assert_eq!(contested["subject"], "default/a eth0");
        assert_eq!(contested["what"], "the pod's qdisc and filter are gone");
        pod.run("tc qdisc del dev eth0 root");
        assert_guard_holds(&flood);
        assert!(!pod_is_whole(&pod), "the agent goes on with the contest");
        let reason = node.status(&pod)["egress"]["reason"].clone();
        let reason = reason.as_str().expect("a reason");
        assert!(reason.contains("the pod gets round its shaper"), "{reason}");
    });
}

/// The guard lets nothing more pass than the limit.
fn assert_guard_holds(flood: &Flood) {
    let rates = flood.seconds_while(Direction::Egress, 10, || ());
    let mean = rates.iter().sum::<u64>() / rates.len() as u64;
    assert!((LIMIT * 90 / 100..=LIMIT * 105 / 100).contains(&mean), "{rates:?}");
}
