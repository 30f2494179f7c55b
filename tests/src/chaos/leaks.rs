// SPDX-License-Identifier: Apache-2.0
//! In the end all pods are deleted, and nothing of them may be left: on devices,
//! in maps, among links and programs, in files, in the agent.

use std::collections::BTreeSet;
use std::fs;

use super::agent::Operator;
use super::churn::{Extra, left_on};
use super::ledger::DIRECTIONS;
use super::measured::Measured;
use super::process::resident_kib;
use super::run::Run;
use crate::command::{ip, json, run as run_to_end};
use crate::link::{gso, gso_in, index};
use crate::node::{CONF_DIR, CONFLIST, Node, PIN_DIR, Pod};
use crate::pinned_map::{self, Held};

/// Two frames; a millisecond of any of the rates is less.
const CLAMPED: u32 = 3000;
/// Made by whoever comes first.
const LOCKS: [&str; 3] =
    ["/run/sluice/locks/containers", "/run/sluice/locks/pods", "/run/sluice/locks/records"];

/// An agent before there was any pod.
pub struct Baseline {
    files: usize,
    resident_kib: u64,
    conflist: String,
    in_conf_dir: BTreeSet<String>,
    in_run_dir: BTreeSet<String>,
}

impl Baseline {
    pub fn take(process: u32) -> Self {
        Self {
            files: open_files(process).len(),
            resident_kib: resident_kib(process),
            conflist: fs::read_to_string(CONFLIST).expect("the conflist"),
            in_conf_dir: files_below(CONF_DIR),
            in_run_dir: files_below("/run/sluice")
                .into_iter()
                .chain(LOCKS.map(Into::into))
                .collect(),
        }
    }
}

/// Every pod, in the proper way.
pub fn delete_all(node: &Node, run: &Run, pods: Vec<Measured>, crowd: Vec<Extra>) {
    for extra in crowd {
        extra.del(run);
        extra.delete();
    }
    for measured in &pods {
        let (pod, untouched) = (&measured.pod, gso(index(&measured.peer.host_ifname)).0);
        let ledger = measured.ledger.lock().expect("the ledger");
        let clamped = DIRECTIONS
            .map(|direction| if ledger.is_limited(direction) { CLAMPED } else { untouched });
        check_sizes(run, pod, "in the end", clamped);
        node.del(pod);
        check_sizes(run, pod, "after DEL", [untouched; 2]);
        let left = left_on(&pod.name, &pod.host_ifname, "eth0");
        if !left.is_empty() {
            run.fail(format!("DEL of {} has left {left}", pod.name));
        }
        pod.delete();
        measured.peer.delete();
    }
}

/// Super-packets of both ends, by the direction in which each sends.
fn check_sizes(run: &Run, pod: &Pod, when: &str, wanted: [u32; 2]) {
    let found = [gso_in(&pod.netns(), "eth0").0, gso(index(&pod.host_ifname)).0];
    if found != wanted {
        run.fail(format!("{} {when}: super-packets of {found:?}, not {wanted:?}", pod.name));
    }
}

pub fn check(run: &Run, baseline: &Baseline, operator: &Operator) {
    let process = operator.process();
    let eventually = |what: &str, left: &dyn Fn() -> String| {
        if !run.wait_for(what, || left().is_empty()) {
            run.fail(format!("left over: {}", left()));
        }
    };
    // A namespace that something holds keeps its veth.
    eventually("all devices to go", &|| {
        let links = json(&ip("-j link show"));
        let names = links.as_array().expect("links").iter().map(|link| link["ifname"].clone());
        names.filter(|name| name != "lo").map(|name| name.to_string()).collect()
    });
    eventually("all namespaces to go", &|| names_in("/run/netns").join(" "));
    eventually("all links to go", &|| names_in(&format!("{PIN_DIR}/links")).join(" "));
    eventually("the guards' map to be empty", &|| held("guards", Held::AnyEntry));
    eventually("nothing in any slot", &|| held("lines", Held::NotZero));
    eventually("old programs to go", &|| old_programs(&operator.programs));
    eventually("the conflist as it was", &|| match fs::read_to_string(CONFLIST) {
        Ok(text) if text == baseline.conflist => String::new(),
        found => format!("{found:?}"),
    });
    let beyond = |dir: &str, known: &BTreeSet<String>| {
        let found = files_below(dir);
        found.difference(known).cloned().collect::<Vec<_>>().join(" ")
    };
    eventually("only known files in /run/sluice", &|| beyond("/run/sluice", &baseline.in_run_dir));
    eventually("only known files beside the conflist", &|| beyond(CONF_DIR, &baseline.in_conf_dir));
    eventually("no more open files than at the start", &|| {
        let files = open_files(process);
        if files.len() > baseline.files { files.join(" ") } else { String::new() }
    });
    let now = resident_kib(process);
    println!(
        "agent's memory: {} KiB before the first pod, {now} at the end",
        baseline.resident_kib
    );
}

/// The three upper bytes of keys of `lines` from 2048 on.
const NODE_LINES: &str = r#","0x08","0x00","0x00"]"#;

/// What a pinned map still holds.
fn held(map: &str, held: Held) -> String {
    let all = pinned_map::held(format!("{PIN_DIR}/{map}").as_ref(), held).into_iter();
    // The node's own lines are behind those of all slots, and stay while pods share it.
    all.filter(|entry| !entry.contains(NODE_LINES)).collect::<Vec<_>>().join(" ")
}

/// Programs of agents that have gone, which nothing holds any more.
fn old_programs(known: &BTreeSet<u64>) -> String {
    let pinned = ["guard", "shape_egress", "shape_ingress"].map(|name| {
        let path = format!("{PIN_DIR}/{name}");
        json(&run_to_end("bpftool", &["-j", "prog", "show", "pinned", &path]))["id"].as_u64()
    });
    let shown = json(&run_to_end("bpftool", &["-j", "prog", "show"]));
    let loaded = shown.as_array().expect("programs").iter().filter_map(|p| p["id"].as_u64());
    let old = loaded.filter(|id| known.contains(id) && !pinned.contains(&Some(*id)));
    old.map(|id| format!("program {id} ")).collect()
}

fn open_files(process: u32) -> Vec<String> {
    let dir = format!("/proc/{process}/fd");
    let target = |name: &String| fs::read_link(format!("{dir}/{name}")).ok();
    let names = names_in(&dir);
    names.iter().filter_map(target).map(|path| path.display().to_string()).collect()
}

/// Of a directory that may not be there.
fn names_in(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

fn files_below(dir: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in names_in(dir) {
        let path = format!("{dir}/{name}");
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => found.extend(files_below(&path)),
            Ok(_) => drop(found.insert(path)),
            // It has just gone.
            Err(_) => {}
        }
    }
    found
}
