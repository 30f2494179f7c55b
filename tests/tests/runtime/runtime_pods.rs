// SPDX-License-Identifier: Apache-2.0
//! Pods of a real containerd 1.6, 1.7 and 2.1, made over the CRI with ptp,
//! portmap and us in the chain: annotations arrive as limits, and with the last
//! pod everything of it has gone.

use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use tests::containerd::{Containerd, Pod, PodSpec};
use tests::pinned_map;
use tests::sluice_node::{EGRESS, INGRESS, PORTMAP, SluiceNode, conflist, on_each_release};

/// Not the built-in burst; nor is it containerd's, 2^32 - 1 bits where no one asked for one.
const SETTINGS: &str = "burst = \"7ms\"";
const BURST_NS: u64 = 7_000_000;
const REFUSED: &str = "get cni namespace options: reading pod bandwidth annotations: resource is unreasonably small (< 1kbit)";
const NO_QUANTITY: &str = "get cni namespace options: reading pod bandwidth annotations: quantities must match the \
     regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

fn on_each(test: impl Fn(Containerd, &mut SluiceNode) + Sync) {
    on_each_release(&conflist("1.0.0", "node", &[PORTMAP]), SETTINGS, test);
}

fn pod(name: &str) -> PodSpec {
    PodSpec::new("default", name)
}

#[test]
fn both_annotations_one_or_none_arrive_as_limits() {
    on_each(|_, node| {
        let both = pod("both").annotation(EGRESS, "10M").annotation(INGRESS, "20M");
        let table = [
            (both, [Some(10_000_000), Some(20_000_000)]),
            (pod("egress").annotation(EGRESS, "10M"), [Some(10_000_000), None]),
            (pod("ingress").annotation(INGRESS, "20M"), [None, Some(20_000_000)]),
            (pod("other").annotation("example.com/team", "a"), [None, None]),
            (pod("none"), [None, None]),
        ];
        for (spec, limits) in table {
            let ran = node.run(&spec);
            assert_eq!(node.limits(&spec.name), limits, "{}", spec.name);
            assert_eq!(in_record(node, &ran), limits, "{}", spec.name);
        }
        node.remove_all();
        node.nothing_left();
    });
}

/// Bit/s of egress and ingress, by the pod's record.
fn in_record(node: &SluiceNode, pod: &Pod) -> [Option<u64>; 2] {
    let record = node.record(&pod.id).expect("a record");
    ["egress", "ingress"].map(|direction| record[direction]["limited"]["bits_per_sec"].as_u64())
}

#[test]
fn quantities_of_kubernetes_arrive_as_bits_per_second() {
    let table = [
        ("10M", 10_000_000),
        ("1Gi", 1_073_741_824),
        ("1k", 1_000),
        ("1P", 1_000_000_000_000_000),
        ("1.5M", 1_500_000),
        ("1e7", 10_000_000),
        ("10000000m", 10_000),
    ];
    on_each(|_, node| {
        for (index, (quantity, bits_per_sec)) in table.into_iter().enumerate() {
            let spec = pod(&format!("p{index}"));
            let ran = node.run(&spec.annotation(EGRESS, quantity).annotation(INGRESS, quantity));
            let wanted = [Some(bits_per_sec); 2];
            assert_eq!(node.limits(&format!("p{index}")), wanted, "{quantity}");
            assert_eq!(in_record(node, &ran), wanted, "{quantity}");
        }
        node.remove_all();
        node.nothing_left();
    });
}

#[test]
fn burst_that_nobody_asked_for_is_the_settings_own() {
    on_each(|_, node| {
        let spec = pod("a").annotation(EGRESS, "20M").annotation(INGRESS, "20M");
        let ran = node.run(&spec);
        let record = node.record(&ran.id).expect("a record");
        let annotated = &record["annotated"];
        let said =
            ["egress", "egress_burst", "ingress", "ingress_burst"].map(|key| &annotated[key]);
        assert_eq!(json!(said), json!(["20Mbit", null, "20Mbit", null]));
        let slot = node.pod("a")["slot"].as_u64().expect("a slot") as usize;
        let limits = node.runtime.host_path("/sys/fs/bpf/sluice/v2/lines");
        for direction in [0, 1] {
            let [ns_per_byte, burst_ns] = pinned_map::words(&limits, 2 * slot + direction, 2)[..]
            else {
                panic!("a limit has two words at least")
            };
            assert_eq!((ns_per_byte >> 22, burst_ns), (400, BURST_NS));
        }
    });
}

#[test]
fn quantities_that_containerd_refuses_leave_nothing_of_ours() {
    on_each(|release, node| {
        for (index, (quantity, words)) in
            [("999", REFUSED), ("0", REFUSED), ("abc", NO_QUANTITY), ("", NO_QUANTITY)]
                .into_iter()
                .enumerate()
        {
            let spec = pod(&format!("bad{index}")).annotation(EGRESS, quantity);
            let said = node.refused(&spec);
            assert!(said.starts_with("Unknown: failed to setup network for sandbox"), "{said}");
            assert!(said.ends_with(words), "{said}");
        }
        let of_runtime = |left: &str| left.starts_with("Sandbox") || left.starts_with("namespace");
        node.nothing_left_but(of_runtime);
        let left = node.runtime.sandboxes().expect("the list of pods");
        match release {
            // They can be neither stopped nor removed: the annotation is read at each attempt.
            Containerd::Bookworm16 => {
                assert!(left.len() == 4 && left.iter().all(|pod| !pod.ready), "{left:?}");
                for pod in &left {
                    let said = format!("{:#}", node.runtime.stop_pod(&pod.id).expect_err("stop"));
                    assert!(said.contains("failed to destroy network for sandbox"), "{said}");
                }
            }
            Containerd::Trixie17 => {
                assert!(left.len() == 4 && left.iter().all(|pod| !pod.ready), "{left:?}");
                node.remove_all();
                node.nothing_left();
            }
            Containerd::Sid21 => node.nothing_left(),
        }
    });
}

#[test]
fn fifty_pods_at_once_are_all_limited_and_leave_nothing() {
    const PODS: u64 = 50;
    on_each(|release, node| {
        let node = &*node;
        let began = Instant::now();
        let ran: Vec<Pod> = thread::scope(|scope| {
            let start = |number: u64| {
                let rate = format!("{}k", 1000 + number);
                let spec = pod(&format!("p{number}"));
                let spec = spec.annotation(EGRESS, &rate).annotation(INGRESS, &rate);
                scope.spawn(move || node.run(&spec))
            };
            let starts: Vec<_> = (0..PODS).map(start).collect();
            starts.into_iter().map(|start| start.join().expect("a pod")).collect()
        });
        let started = began.elapsed();
        let pods = node.pods();
        let slots: BTreeSet<_> = pods.iter().filter_map(|pod| pod["slot"].as_u64()).collect();
        assert_eq!(slots, (1..=PODS).collect());
        for number in 0..PODS {
            let name = Value::from(format!("p{number}"));
            let pod = pods.iter().find(|pod| pod["pod"] == name).expect("a line of the pod");
            let limits =
                ["egress", "ingress"].map(|direction| pod[direction]["limit_bps"].as_u64());
            assert_eq!(limits, [Some((1000 + number) * 1000); 2]);
            let enforced = ["egress", "ingress"].map(|direction| pod[direction]["broken"] == false);
            assert_eq!(enforced, [true; 2], "{pod}");
        }
        let began = Instant::now();
        thread::scope(|scope| {
            for pod in &ran {
                scope.spawn(|| {
                    node.stop(&pod.id);
                    node.remove(&pod.id);
                });
            }
        });
        let ended = began.elapsed();
        node.nothing_left();
        println!("{release:?}: {PODS} pods came in {started:?} and went in {ended:?}");
    });
}
