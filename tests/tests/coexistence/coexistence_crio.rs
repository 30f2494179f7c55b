// SPDX-License-Identifier: Apache-2.0
//! CRI-O by a double: its values, and its order of calls, which is not containerd's. It
//! checks each pod right after ADD and gives it up if the check fails; waits for STATUS
//! before any pod; deletes by what it kept of ADD; and collects garbage when it starts.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::command::{age, json as parse, tc, wait_for};
use tests::crio::Crio;
use tests::node::{Node, Pod, with_node, with_ready_node};

const EGRESS: (&str, &str) = ("kubernetes.io/egress-bandwidth", "20000000");
const INGRESS: (&str, &str) = ("kubernetes.io/ingress-bandwidth", "30000000");
const BURST: (&str, &str) = ("sluice.dev/ingress-burst", "9ms");
const BOTH: [(&str, &str); 2] = [EGRESS, INGRESS];
const SOON: Duration = Duration::from_secs(20);

fn limits(node: &Node, pod: &Pod) -> [Option<u64>; 2] {
    let status = node.status(pod);
    ["egress", "ingress"].map(|direction| status[direction]["limit_bps"].as_u64())
}

fn record(pod: &Pod) -> Option<Value> {
    let entries = fs::read_dir("/run/sluice/pods").expect("the records").flatten();
    let records = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    records.map(|text| parse(&text)).find(|record| record["pod"] == pod.name.as_str())
}

fn has_root_of_ours(pod: &Pod) -> bool {
    tc(&format!("qdisc show dev {}", pod.host_ifname)).contains("51ce")
}

#[test]
fn each_pod_of_crio_passes_the_check_that_follows_its_add_at_once() {
    with_ready_node("burst = \"7ms\"\nguard = \"own-clsact\"", |node| {
        let table = [
            ("both", vec![EGRESS, INGRESS], [Some(20_000_000), Some(30_000_000)]),
            ("one", vec![EGRESS, BURST], [Some(20_000_000), None]),
            ("other", vec![INGRESS, BURST], [None, Some(30_000_000)]),
            ("none", vec![("kubernetes.io/config.source", "api")], [None, None]),
        ];
        for version in ["0.4.0", "1.0.0", "1.1.0"] {
            let crio = Crio::load(version);
            for (number, (name, annotations, expected)) in table.iter().enumerate() {
                let pod = node.pod(name, 2 + number as u8);
                crio.run_pod(&pod, annotations).expect("a pod");
                assert_eq!(limits(node, &pod), *expected, "{version}, {name}");
                let annotated = record(&pod).expect("a record")["annotated"].clone();
                let bursts = [&annotated["egress_burst"], &annotated["ingress_burst"]];
                let burst = if annotations.contains(&BURST) { json!("9ms") } else { Value::Null };
                assert_eq!(bursts, [&Value::Null, &burst], "{version}, {name}");
                crio.stop_pod(&pod).expect("its end");
                assert_eq!((record(&pod), has_root_of_ours(&pod)), (None, false));
                pod.delete();
            }
        }
        // Where the guard alone enforces, it is there by then.
        let pod = node.pod("guarded", 2);
        pod.run("tc qdisc add dev eth0 root handle 5: pfifo limit 100");
        Crio::load("1.1.0").run_pod(&pod, &BOTH).expect("a pod");
        assert_eq!(node.status(&pod)["egress"]["mode"], "guarded");
        // And a rate that containerd would not hand on ends the pod with nothing left.
        let pod = node.pod("slow", 3);
        let refused = Crio::load("1.1.0").run_pod(&pod, &[(EGRESS.0, "999")]);
        let said = refused.expect_err("a rate below 1 kbit/s");
        assert!(
            said.contains("runtimeConfig.bandwidth.egressRate is 999 bit/s, allowed are 1 kbit/s"),
            "{said}"
        );
        assert_eq!((record(&pod), has_root_of_ours(&pod)), (None, false));
    });
}

#[test]
fn crio_makes_pods_once_the_agent_has_pinned_or_has_not_come_for_a_minute() {
    for comes in [true, false] {
        with_node(|node| {
            node.boot_with("");
            let crio = Crio::load("1.1.0");
            let said = crio.status().expect_err("no agent yet");
            assert!(said.contains("\"code\":50"), "{said}");
            if comes {
                node.start_agent();
            } else {
                age("/run/sluice/settings.toml");
            }
            crio.status().expect("a node that is ready");
            crio.gc(&[], &[]).expect("garbage of no pod");
            // Without an agent it starts without its limits, and the check does not end it.
            let pod = node.pod("a", 2);
            crio.run_pod(&pod, &BOTH).expect("a pod");
            assert_eq!(record(&pod).expect("a record")["admitted"].is_null(), comes);
            if !comes {
                node.start_agent();
            }
            let expected = [Some(20_000_000), Some(30_000_000)];
            wait_for("its limits", SOON, || (limits(node, &pod) == expected).then_some(()));
            crio.check(&pod).expect("a pod as it should be");
            // No agent is needed for a next one.
            node.kill_agent(Signal::SIGKILL);
            let next = node.pod("b", 3);
            crio.run_pod(&next, &BOTH).expect("a pod");
            assert!(has_root_of_ours(&next));
        });
    }
}

#[test]
fn crio_that_starts_again_keeps_its_pods_and_collects_the_others() {
    with_ready_node("", |node| {
        let crio = Crio::load("1.1.0");
        let [kept, stale, lost] = [("kept", 2), ("stale", 3), ("lost", 4)].map(|(name, number)| {
            let pod = node.pod(name, number);
            crio.run_pod(&pod, &BOTH).expect("a pod");
            pod
        });
        // One is in libcni's cache still, another not even there.
        let cached = fs::read_dir("/var/lib/cni/results").expect("the cache").flatten();
        let id = record(&lost).expect("a record")["netns"].clone();
        for file in cached.map(|entry| entry.path()) {
            if parse(&fs::read_to_string(&file).expect("a file"))["netns"] == id {
                fs::remove_file(file).expect("lose a file of the cache");
            }
        }
        // The namespace of a pod may have gone before its DEL.
        stale.delete();
        let again = Crio::load("1.1.0");
        again.status().expect("a node that is ready");
        again.gc(&[&kept], &[&stale]).expect("its garbage");
        assert_eq!((record(&stale), record(&lost)), (None, None));
        assert!(!has_root_of_ours(&lost));
        again.check(&kept).expect("a pod as it should be");
        assert_eq!(limits(node, &kept), [Some(20_000_000), Some(30_000_000)]);
        again.stop_pod(&kept).expect("its end");
        again.stop_pod(&kept).expect("the same again");
        assert_eq!((record(&kept), has_root_of_ours(&kept)), (None, false));
    });
}

/// Its cache has names, capabilities and /var/run/netns. It deletes by the list of then, so without us.
#[test]
fn pod_that_crio_made_without_sluice_is_adopted_and_needs_no_del() {
    with_ready_node("", |node| {
        let crio = Crio::load("1.1.0");
        let pod = node.pod("a", 2);
        crio.has_run_without_us(&pod, &BOTH);
        let expected = [Some(20_000_000), Some(30_000_000)];
        let adopted = || record(&pod).is_some() && limits(node, &pod) == expected;
        wait_for("its limits", SOON, || adopted().then_some(()));
        assert!(has_root_of_ours(&pod));
        pod.delete();
        crio.forget(&pod);
        wait_for("the end of its record", SOON, || record(&pod).is_none().then_some(()));
    });
}
