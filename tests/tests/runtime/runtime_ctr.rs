// SPDX-License-Identifier: Apache-2.0
//! Containers without a pod's names, as `ctr run --cni` makes them: no CNI_ARGS, no
//! capabilities, the namespace as a process's file, and no DEL for one that runs by itself.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::command::{text, wait_for};
use tests::containerd::Containerd;
use tests::containerd::pause_image::NAME;
use tests::sluice_node::{PORTMAP, SLUICE, SluiceNode, conflist};

const SETTINGS: &str = "default-egress = \"20Mbit\"\ndefault-ingress = \"30Mbit\"";
const SOON: Duration = Duration::from_secs(20);

fn ctr(node: &SluiceNode, line: &str) -> String {
    let output = node.runtime.ctr("default").args(line.split_whitespace()).output();
    let output = output.expect("run ctr");
    assert!(output.status.success(), "{line}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Name and both limits of each pod that has no name of Kubernetes'.
fn unnamed(node: &SluiceNode) -> Vec<(String, Value, Value)> {
    let pods = node.pods().into_iter().filter(|pod| pod["pod"] == "" && pod["namespace"] == "");
    let mut pods: Vec<_> = pods
        .map(|pod| {
            let id = pod["container_id"].as_str().expect("an id").to_owned();
            (id, pod["egress"]["limit_bps"].clone(), pod["ingress"]["limit_bps"].clone())
        })
        .collect();
    pods.sort_by(|a, b| a.0.cmp(&b.0));
    pods
}

#[test]
fn containers_without_names_get_the_nodes_limits_and_are_told_apart_by_their_ids() {
    let conflist = conflist("1.0.0", "node", &[PORTMAP, SLUICE]);
    let mut node = SluiceNode::start(Containerd::Trixie17, &conflist, SETTINGS);
    node.runtime.import_image("default", None).expect("the image");
    for name in ["one", "two"] {
        ctr(&node, &format!("run --detach --cni {NAME} {name}"));
    }
    let limited = |id: &str| (format!("default-{id}"), 20_000_000.into(), 30_000_000.into());
    assert_eq!(unnamed(&node), [limited("one"), limited("two")]);
    let netns = node.record("default-one").expect("a record")["netns"].clone();
    assert!(netns.as_str().is_some_and(|netns| netns.starts_with("/proc/")), "{netns}");
    let listed = String::from_utf8_lossy(&node.sluice(&["pods"]).stdout).into_owned();
    assert!(listed.contains("default-one") && listed.contains("default-two"), "{listed}");
    // The agent that comes next finds them as they are.
    node.end_agent(Signal::SIGTERM);
    node.start_agent();
    assert_eq!(unnamed(&node), [limited("one"), limited("two")]);
    // No one calls DEL for these two: ctr has left them to themselves.
    for name in ["one", "two"] {
        ctr(&node, &format!("tasks delete --force {name}"));
    }
    wait_for("the end of their records", SOON, || unnamed(&node).is_empty().then_some(()));
    // Their results stay in libcni's cache, and are no one's.
    assert_eq!(node.troubles(), [""; 0]);
}
