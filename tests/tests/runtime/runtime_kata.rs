// SPDX-License-Identifier: Apache-2.0
//! A pod in a virtual machine, as Kata 4.1.0 wires it: a tap behind redirects on the
//! pod's end, made after our ADD. What the guest sends passes the pod's root qdisc, what
//! it receives has passed the host's, and both guards see what their shapers have charged.

use std::time::Duration;

use serde_json::Value;
use tests::cni::Annotations;
use tests::command::{output, wait_for};
use tests::kata::Vm;
use tests::kernel::has_tcx;
use tests::meter::{Protocol, Transfer};
use tests::node::{Node, Pod, with_ready_node};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
/// So that there is a guard on the host's end without tcx, too.
const GUARD: &str = "guard = \"own-clsact\"";

fn with_guest(test: impl FnOnce(&Node, &Pod, &Pod, &Vm) + Send) {
    with_ready_node(GUARD, |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        node.add(&pod, BOTH);
        let vm = Vm::start(&pod);
        wait_for("both guards", Duration::from_secs(30), || {
            let status = node.status(&pod);
            let states = [&status["guard"]["state"], &status["bypassed"]["guard"]];
            (!states.contains(&&Value::from("pending"))).then_some(())
        });
        test(node, &pod, &remote, &vm);
        vm.stop();
        // Its last moments are no reason for an alarm.
        let report = node.sluice_json(&["status", "--json", "--interval", "1"])["degraded"].clone();
        assert!(!report.to_string().contains("not-enforced"), "{report}");
        node.del(&pod);
        assert!(!pod.run("tc qdisc show dev eth0").contains("51ce"));
    });
}

#[test]
fn limits_of_a_guest_behind_a_tap_hold_both_ways() {
    with_guest(|node, pod, remote, vm| {
        let guest = (vm.netns(), pod.address);
        let beyond = (remote.netns(), remote.address);
        for (what, from, to) in [("sends", &guest, &beyond), ("receives", &beyond, &guest)] {
            let transfer = |protocol, seconds| {
                let transfer = Transfer { from: &from.0, to: &to.0, address: to.1, protocol };
                let rates = transfer.seconds(seconds);
                println!("the guest {what}, {protocol:?}: limit {LIMIT}, seconds {rates:?}");
                rates
            };
            let rates = transfer(Protocol::Udp(2 * LIMIT), 3);
            let exact = rates.iter().skip(1).all(|rate| rate.abs_diff(LIMIT) <= LIMIT / 50);
            assert!(exact, "{rates:?}");
            let rates = transfer(Protocol::Tcp, 4);
            let mean = rates.iter().skip(1).sum::<u64>() / 3;
            assert!((LIMIT * 9 / 10..=LIMIT * 105 / 100).contains(&mean), "{rates:?}");
        }
        let status = node.status(pod);
        let counters = [
            &status["guard"]["unshaped_packets"],
            &status["guard"]["dropped_packets"],
            &status["bypassed"]["packets"],
            &status["bypassed"]["dropped_packets"],
        ];
        assert_eq!(counters, [0; 4], "{status}");
        assert!(status["guard"]["passed_bytes"].as_u64() > Some(10_000_000), "{status}");
        // Where the guard in the pod has no place beside the shim's qdisc, that is said.
        let state = if has_tcx() { "tcx" } else { "off" };
        assert_eq!(status["bypassed"]["guard"], state);
    });
}

/// What Kata does on QEMU where `tx_rate_limiter_max_rate` is set (addHTBQdisc): its sandbox fails.
#[test]
fn shims_own_limit_on_what_the_guest_sends_finds_the_place_taken() {
    with_guest(|_, pod, _, _| {
        let words = format!("netns exec {} tc qdisc add dev eth0 root handle 1: htb", pod.name);
        let added = output("ip", &words.split_whitespace().collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&added.stderr);
        // EEXIST, in the kernel's own words where it has some.
        let words = ["File exists", "NLM_F_REPLACE needed to override"];
        let taken = words.iter().any(|words| said.contains(words));
        assert!(!added.status.success() && taken, "{said}");
        assert!(pod.run("tc qdisc show dev eth0").contains("51ce: root"));
    });
}
