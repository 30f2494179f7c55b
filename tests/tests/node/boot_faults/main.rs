// SPDX-License-Identifier: Apache-2.0
//! Whatever is bad at boot, the node comes up: STATUS is well, pods start, the
//! limits that can be in force are, and console and status say what is not.
//! One node, a row for each kind of fault; then what becomes of it once that is
//! corrected.

mod rows;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::cni::{Annotations, Call};
use tests::command::{age, executable, ip, json as parse, text, wait_for};
use tests::conflist::{conflist, has_entry};
use tests::node::{BIN_DIR, CONFLIST, Node, Pod, USER_DATA, with_node};

use rows::{DISK, DROP_IN, KUBELET_DIR, PINS, Row, fresh, read_only, rows, settings};

const SOON: Duration = Duration::from_secs(10);
/// The pod's annotation, and the settings' default for the other direction.
const INGRESS: Annotations = Annotations { egress: 0, ingress: 20_000_000 };
const EGRESS: u64 = 10_000_000;
const SETTINGS: &str = "/run/sluice/settings.toml";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn status(node: &Node) -> Value {
    node.sluice_json(&["status", "--json", "--interval", "1"])
}

fn codes(node: &Node) -> Vec<String> {
    let status = status(node);
    let troubles = status["degraded"].as_array().expect("a list").iter();
    troubles.map(|trouble| trouble["code"].as_str().expect("a code").to_owned()).collect()
}

fn screen(node: &Node) -> String {
    let output = node.sluice(&["status", "--interval", "1"]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Egress and ingress of the pod.
fn limits(node: &Node, pod: &Pod) -> [Option<u64>; 2] {
    let status = node.status(pod);
    ["egress", "ingress"].map(|direction| status[direction]["limit_bps"].as_u64())
}

/// What a runtime asks of the chain's plugins before a node is Ready.
fn is_ready(pod: &Pod) {
    let mut call = Call::new("STATUS", pod, INGRESS);
    call.stdin = json!({"cniVersion": "1.1.0", "name": "main", "type": "sluice"});
    let output = call.run(pod);
    assert!(output.status.success(), "STATUS: {}", text(&output));
}

/// As a runtime does: our plugin is asked where our entry is.
fn start_pod(node: &Node, pod: &Pod) {
    assert!(fs::exists(format!("{BIN_DIR}/sluice")).expect("look"), "the chain names no plugin");
    is_ready(pod);
    node.add(pod, INGRESS);
}

fn wait_for_limits(node: &Node, pod: &Pod, wanted: [Option<u64>; 2], row: &str) {
    wait_for(&format!("{row}: {wanted:?}"), SOON, || (limits(node, pod) == wanted).then_some(()));
}

fn check(node: &mut Node, row: &Row, pod: &Pod) {
    let name = row.name;
    (row.fault)();
    let booted = node.boot(&row.user_data);
    assert_eq!(booted.status.code(), Some(row.status), "{name}: {}", text(&booted));
    assert!(said(&booted).contains(row.said), "{name}: {}", said(&booted));
    // The agent's unit starts it where this is.
    assert!(fs::exists(SETTINGS).expect("look"), "{name}: no settings are in force");
    node.start_agent();
    let codes = || codes(node);
    let is_said = || row.code.is_empty() || codes().iter().any(|code| code == row.code);
    wait_for(&format!("{name}: {} in {:?}", row.code, codes()), SOON, || is_said().then_some(()));
    assert!(screen(node).contains(row.said), "{name}: {}", screen(node));
    assert_eq!(Path::new(DROP_IN).is_file(), row.kubelet, "{name}: kubelet's file");
    // Where the user data's cni.conf-dir is not in force our entry is elsewhere, but pods come from
    // earlier chains too.
    let entry = fs::read_to_string(CONFLIST).is_ok_and(|text| text.contains("\"sluice\""));
    assert_eq!(entry, row.chained && row.in_force, "{name}: our entry");
    if row.chained && row.in_force {
        start_pod(node, pod);
        wait_for_limits(node, pod, [Some(EGRESS), Some(INGRESS.ingress)], name);
    }
    let shown = node.sluice(&["settings", "show"]);
    let shows = String::from_utf8_lossy(&shown.stdout).contains("default-egress = \"10Mbit\"");
    assert_eq!(shows, row.in_force, "{name}: {}", text(&shown));
    (row.correct)();
    if !row.chained {
        wait_for(&format!("{name}: our entry"), SOON, || {
            let output = node.sluice(&["reload"]);
            (output.status.success() && has_entry(&conflist())).then_some(())
        });
        start_pod(node, pod);
        wait_for_limits(node, pod, [Some(EGRESS), Some(INGRESS.ingress)], name);
    }
    node.kill_agent(Signal::SIGKILL);
}

#[test]
fn whatever_is_bad_at_boot_the_node_is_ready_and_pods_start_with_what_limits_there_can_be() {
    with_node(|node| {
        for row in rows() {
            println!("{}", row.name);
            fresh();
            let pod = node.pod("a", 2);
            check(node, &row, &pod);
            // A namespace's devices go some time after it; the next pod has the same name.
            ip(&format!("link del {}", pod.host_ifname));
            pod.delete();
        }
    });
}

/// Without IMDS, as where it is off or the network is late.
#[test]
fn node_without_imds_has_the_defaults_and_the_limits_of_annotations() {
    with_node(|node| {
        fresh();
        let plugin = executable("sluice-cni");
        let plugin = plugin.to_str().expect("UTF-8");
        let output = node.sluice(&["boot", "--imds-budget", "1", "--plugin", plugin]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(said(&output).contains("ask IMDS for the user data"), "{}", said(&output));
        assert!(fs::exists(SETTINGS).expect("look"));
        node.start_agent();
        assert!(codes(node).contains(&"settings-not-as-asked".to_owned()));
        let pod = node.pod("a", 2);
        // The built-in defaults have another bin-dir.
        symlink("/opt/cni/bin/sluice", format!("{BIN_DIR}/sluice")).expect("link");
        start_pod(node, &pod);
        assert_eq!(limits(node, &pod), [None, Some(INGRESS.ingress)]);
    });
}

/// For longer than any agent takes to start.
fn wait_in_vain_for_the_agent() {
    age(SETTINGS);
}

/// A pod starts without limits, which is said of it, and has them when `correct` has been.
fn admitted(node: &mut Node, why: &str, correct: impl FnOnce(&mut Node)) {
    let pod = node.pod("a", 2);
    is_ready(&pod);
    let call = Call::new("ADD", &pod, INGRESS);
    let output = call.run(&pod);
    assert!(output.status.success(), "{}", text(&output));
    let started = "sluice: default/a: started without limits: ";
    assert!(said(&output).starts_with(started) && said(&output).contains(why), "{}", said(&output));
    let seen = node.status(&pod);
    let reason = seen["ingress"]["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.starts_with("started without limits") && reason.contains(why), "{seen}");
    assert!(codes(node).contains(&"not-enforced".to_owned()), "{:?}", codes(node));
    assert!(Call::new("CHECK", &pod, INGRESS).run(&pod).status.success());
    correct(node);
    wait_for_limits(node, &pod, [Some(EGRESS), Some(INGRESS.ingress)], why);
    wait_for("the end of it", SOON, || {
        (!codes(node).contains(&"not-enforced".to_owned())).then_some(())
    });
    node.del(&pod);
    pod.delete();
}

#[test]
fn node_whose_agent_does_not_come_holds_no_pod_and_limits_it_once_it_does() {
    with_node(|node| {
        fresh();
        assert!(node.boot(&settings("")).status.success());
        wait_in_vain_for_the_agent();
        admitted(node, "open the pin", |node| node.start_agent());
    });
}

#[test]
fn without_a_bpf_file_system_pods_start_and_are_limited_once_there_is_one() {
    with_node(|node| {
        fresh();
        assert!(node.boot(&settings("")).status.success());
        let none = None::<&str>;
        mount(Some("tmpfs"), "/sys/fs/bpf", Some("tmpfs"), MsFlags::empty(), none).expect("mount");
        assert_eq!(node.sluice(&["agent"]).status.code(), Some(1));
        wait_in_vain_for_the_agent();
        admitted(node, "open the pin", |node| {
            umount("/sys/fs/bpf").expect("unmount");
            node.start_agent();
        });
    });
}

#[test]
fn pins_that_are_something_else_hold_no_pod() {
    with_node(|node| {
        fresh();
        assert!(node.boot(&settings("")).status.success());
        node.start_agent();
        node.kill_agent(Signal::SIGKILL);
        fs::remove_file(format!("{PINS}/v2/lines")).expect("remove a pin");
        wait_in_vain_for_the_agent();
        admitted(node, "open the pin", |node| node.start_agent());
    });
}

/// As where `boot` was refused, or has never run, and the chain is of the boot before.
#[test]
fn pods_start_without_settings_and_are_limited_once_there_are_some() {
    with_node(|node| {
        fresh();
        assert!(node.boot(&settings("")).status.success());
        assert!(has_entry(&conflist()));
        fs::remove_dir_all("/run/sluice").expect("remove");
        node.start_agent();
        assert!(codes(node).contains(&"not-booted".to_owned()), "{:?}", codes(node));
        admitted(node, "has `sluice boot` run?", |node| {
            assert!(node.boot(&settings("")).status.success());
        });
    });
}

#[test]
fn settings_that_cannot_be_read_hold_no_pod_and_end_no_limit() {
    with_node(|node| {
        fresh();
        assert!(node.boot(&settings("")).status.success());
        node.start_agent();
        let other = node.pod("b", 3);
        node.add(&other, INGRESS);
        fs::write(SETTINGS, "[\n").expect("write");
        wait_for("word of it", SOON, || {
            codes(node).contains(&"settings-unreadable".to_owned()).then_some(())
        });
        // The agent has those of before in its memory.
        let pod = node.pod("a", 2);
        is_ready(&pod);
        node.add(&pod, INGRESS);
        wait_for_limits(node, &pod, [Some(EGRESS), Some(INGRESS.ingress)], "unreadable settings");
        assert_eq!(limits(node, &other), [Some(EGRESS), Some(INGRESS.ingress)]);
    });
}

/// The last good generation contradicts as much as the settings that were asked for.
#[test]
fn number_that_contradicts_after_a_good_boot_takes_no_limit_away() {
    with_node(|node| {
        fresh();
        assert!(node.boot(&settings("")).status.success());
        assert!(Path::new(DROP_IN).is_file());
        fs::write(format!("{KUBELET_DIR}/50-site.conf"), "maxPods: 35\n").expect("write");
        // The node restarts: /run is empty, the disk and the chain are as they were.
        fs::remove_dir_all("/run/sluice").expect("remove");
        let output = node.boot(&settings(""));
        assert_eq!(output.status.code(), Some(78), "{}", text(&output));
        let boot = parse(&fs::read_to_string("/run/sluice/boot.json").expect("what is in force"));
        assert_eq!((&boot["reason"], &boot["max_pods"]["pods"]), (&json!("as-asked"), &json!(35)));
        assert!(!Path::new(DROP_IN).is_file(), "our number is below a foreign one");
        node.start_agent();
        let pod = node.pod("a", 2);
        start_pod(node, &pod);
        assert_eq!(limits(node, &pod), [Some(EGRESS), Some(INGRESS.ingress)]);
        assert!(screen(node).contains("gives it 35"), "{}", screen(node));
    });
}

/// kubelet as systemd has it, in this invocation.
fn kubelet_starts(invocation: &str) {
    let link = "/run/systemd/units/invocation:kubelet.service";
    fs::create_dir_all("/run/systemd/units").expect("make a directory");
    let _ = fs::remove_file(link);
    symlink(invocation, link).expect("link");
}

#[test]
fn number_that_kubelet_has_not_read_is_said_with_what_it_takes_until_it_restarts() {
    with_node(|node| {
        fresh();
        fs::create_dir_all("/run/systemd/units").expect("make a directory");
        let with = |pods: u16| settings("").replace("value = 58", &format!("value = {pods}"));
        // Before kubelet has started any number may come and go.
        for pods in [11, 12] {
            assert!(node.boot(&with(pods)).status.success());
        }
        kubelet_starts("first");
        node.start_agent();
        let behind = |node: &Node| codes(node).contains(&"kubelet-not-restarted".to_owned());
        assert!(!behind(node) && screen(node).contains("max-pods: 12 ("), "{}", screen(node));
        for pods in [13, 14] {
            fs::write(USER_DATA, with(pods)).expect("write user data");
            assert!(node.sluice(&["reload"]).status.success());
            let expected =
                format!("kubelet runs with max-pods 12; the settings in force give it {pods}");
            assert!(behind(node) && screen(node).contains(&expected), "{}", screen(node));
            assert!(screen(node).contains("systemctl restart kubelet"), "{}", screen(node));
            assert_eq!(status(node)["kubelet"]["max_pods"], 12);
        }
        kubelet_starts("second");
        assert!(!behind(node) && status(node)["kubelet"]["max_pods"] == 14, "{}", screen(node));
        fs::write(USER_DATA, with(15)).expect("write user data");
        assert!(node.sluice(&["reload"]).status.success());
        assert_eq!(status(node)["kubelet"]["max_pods"], 14);
        // What kubelet runs with is asked for again.
        fs::write(USER_DATA, with(14)).expect("write user data");
        assert!(node.sluice(&["reload"]).status.success());
        assert!(!behind(node), "{}", screen(node));
    });
}

#[test]
fn record_of_kubelets_file_that_cannot_be_kept_keeps_no_number_from_kubelet() {
    with_node(|node| {
        fresh();
        read_only(DISK);
        assert!(node.boot(&settings("")).status.success());
        let text = fs::read_to_string(DROP_IN).expect("kubelet's file");
        assert!(text.contains("maxPods: 58"), "{text}");
        drop(File::open("/run/sluice/generations/1.json").expect("settings in memory"));
        umount(DISK).expect("unmount");
        assert!(node.boot(&settings("")).status.success());
        assert!(fs::exists(format!("{DISK}/generations/1.json")).expect("look"));
    });
}
