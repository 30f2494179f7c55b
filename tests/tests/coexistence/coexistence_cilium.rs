// SPDX-License-Identifier: Apache-2.0
//! Beside Cilium's lists of CNI plugins, alone and chained (its bandwidth manager is in
//! coexistence_pods.rs).

use std::fs;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::cilium::{self, Cilium};
use tests::command::{json, wait_for};
use tests::conflist::{Over, has_entry, kinds, numbered, write_as_aws_node};
use tests::node::{CONF_DIR, CONFLIST, Node, with_ready_node};

const SOON: Duration = Duration::from_secs(20);

fn list() -> String {
    fs::read_to_string(cilium::conflist()).expect("Cilium's list")
}

fn writes(node: &Node) -> u64 {
    let status = node.sluice_json(&["status", "--json", "--interval", "1"]);
    status["agent"]["report"]["conflist_writes"].as_u64().expect("a count")
}

fn finding(node: &Node, code: &str) -> Value {
    let report = json(&String::from_utf8_lossy(&node.sluice(&["doctor", "--json"]).stdout));
    let all = report["findings"].as_array().expect("findings").iter();
    all.clone().find(|finding| finding["code"] == code).cloned().unwrap_or_default()
}

#[test]
fn exclusive_cilium_is_named_after_a_few_writes_and_then_left_alone() {
    for chained_to in [None, Some("main")] {
        with_ready_node("", |node| {
            let over = AtomicBool::new(false);
            let cilium = Cilium { exclusive: true, chained_to };
            let before = writes(node);
            // As aws-node writes it: what Cilium makes of a list with our entry has that, too.
            node.signal_agent(Signal::SIGSTOP);
            write_as_aws_node(&numbered(1));
            thread::scope(|scope| {
                let running = scope.spawn(|| cilium.run(&over));
                let end = Over(&over);
                let aside = format!("{CONFLIST}.cilium_bak");
                wait_for("Cilium", SOON, || fs::exists(&aside).unwrap_or(false).then_some(()));
                node.signal_agent(Signal::SIGCONT);
                let contest = wait_for("word of the contest", SOON, || {
                    node.troubles("contested").pop().filter(|_| !has_entry(&list()))
                });
                assert_eq!(contest["subject"], cilium::conflist().display().to_string());
                let what = "Cilium writes this file again after each change (cni.exclusive=true)";
                assert_eq!(contest["what"], what);
                let next_step = contest["next_step"].as_str().expect("text");
                assert!(next_step.starts_with("set cni.exclusive=false"), "{next_step}");
                // Once for its own list; the rest are answers to ours.
                drop(end);
                let answers = running.join().expect("Cilium") - 1;
                assert!((4..=9).contains(&answers), "{chained_to:?}: {answers} answers");
            });
            assert!(writes(node) - before <= 10, "{} {before}", writes(node));
            let aside = finding(node, "cilium-exclusive");
            let seen = aside["seen"].as_str().unwrap_or_default();
            assert!(seen.ends_with("10-main.conflist.cilium_bak"), "{aside}");
        });
    }
}

#[test]
fn cilium_that_is_not_exclusive_keeps_our_entry_alone_and_chained() {
    for chained_to in [None, Some("main")] {
        with_ready_node("", |node| {
            let cilium = Cilium { exclusive: false, chained_to };
            for _ in 0..3 {
                // Each start of Cilium's may take the entry out.
                fs::remove_file(cilium::conflist())
                    .or_else(|_| fs::exists(CONF_DIR).map(drop))
                    .expect("remove");
                cilium.start();
                wait_for("our entry", SOON, || has_entry(&list()).then_some(()));
            }
            let kinds = kinds(&list());
            let has = |kind: &str| kinds.iter().any(|found| found == kind);
            assert!(has("cilium-cni") && has("ptp") == chained_to.is_some(), "{kinds:?}");
            assert!(node.troubles("contested").is_empty());
            assert_eq!(finding(node, "cilium-exclusive"), Value::Null);
        });
    }
}
