// SPDX-License-Identifier: Apache-2.0
//! ADD, DEL and the agent's comings and goings.

use std::fs;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use tests::cni::{Annotations, Call, expect_error};
use tests::command::{json, output, tc, text, wait_for};
use tests::meter::{Protocol, Transfer};
use tests::node::{CONFLIST, USER_DATA, with_node, with_ready_node};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };

#[test]
fn killed_agent_changes_nothing_and_a_new_pod_is_shaped_meanwhile() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let remote = node.pod("remote", 9);
        let late = node.pod("late", 3);
        let (from, to) = (pod.netns(), remote.netns());
        let transfer = Transfer {
            from: &from,
            to: &to,
            address: remote.address,
            protocol: Protocol::Udp(2 * LIMIT),
        };
        let rates = transfer.seconds_while(4, || {
            node.kill_agent(Signal::SIGKILL);
            node.add(&late, BOTH);
        });
        let exact = rates.iter().skip(1).all(|rate| rate.abs_diff(LIMIT) <= LIMIT / 50);
        assert!(exact, "limit {LIMIT}, seconds {rates:?}");
        assert_eq!(node.status(&late)["egress"]["limit_bps"], LIMIT);
        let before = node.status(&pod)["egress"]["sent_packets"].as_u64();
        node.start_agent();
        let after = node.status(&pod)["egress"]["sent_packets"].as_u64();
        assert!(after >= before && before > Some(0), "counters: {before:?}, then {after:?}");
    });
}

#[test]
fn terminated_agent_leaves_its_pins() {
    with_ready_node("", |node| {
        node.kill_agent(Signal::SIGTERM);
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        assert_eq!(node.status(&pod)["ingress"]["limit_bps"], LIMIT);
    });
}

#[test]
fn del_takes_everything_off_and_frees_the_slot() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        node.del(&pod);
        let root = tc(&format!("qdisc show dev {}", pod.host_ifname));
        assert!(root.starts_with("qdisc noqueue"), "{root}");
        assert!(!pod.run("tc filter show dev eth0 parent 51ce:").contains("sluice"));
        let records: Vec<_> = fs::read_dir("/run/sluice/pods")
            .expect("the records")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert!(records.is_empty(), "{records:?}");
        node.add(&pod, BOTH);
        assert_eq!(node.status(&pod)["slot"], 1);
    });
}

#[test]
fn del_succeeds_twice_without_add_without_netns_and_without_configuration() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.del(&pod);
        node.add(&pod, BOTH);
        pod.delete();
        node.del(&pod);
        node.del(&pod);
        let mut call = Call::new("DEL", &pod, Annotations::default());
        call.netns = String::new();
        call.stdin = serde_json::Value::Null;
        let output = call.run(&pod);
        assert!(output.status.success(), "{}", text(&output));
    });
}

#[test]
fn del_without_netns_still_takes_the_host_end_off() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let mut call = Call::new("DEL", &pod, Annotations::default());
        call.netns = String::new();
        assert!(call.run(&pod).status.success());
        let root = tc(&format!("qdisc show dev {}", pod.host_ifname));
        assert!(root.starts_with("qdisc noqueue"), "{root}");
    });
}

#[test]
fn add_after_a_killed_add_starts_afresh() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        // The same ADD again, as after a plugin that was killed before it could answer.
        node.add(&pod, Annotations { egress: 2 * LIMIT, ingress: 0 });
        let status = node.status(&pod);
        assert_eq!(status["egress"]["limit_bps"], 2 * LIMIT);
        assert_eq!(status["ingress"]["limit_bps"], serde_json::Value::Null);
        assert_eq!(status["slot"], 1);
    });
}

#[test]
fn forty_pods_at_once_get_forty_slots() {
    with_ready_node("", |node| {
        let pods: Vec<_> = (1..=40).map(|n| node.pod(&format!("p{n}"), n)).collect();
        let children: Vec<_> = pods.iter().map(|pod| Call::new("ADD", pod, BOTH)).collect();
        let outputs: Vec<_> = std::thread::scope(|scope| {
            let runs = pods.iter().zip(&children).map(|(pod, call)| scope.spawn(|| call.run(pod)));
            let runs: Vec<_> = runs.collect();
            runs.into_iter().map(|run| run.join().expect("a plugin")).collect()
        });
        for output in &outputs {
            assert!(output.status.success(), "{}", text(output));
        }
        let output = node.sluice(&["status", "--json", "--interval", "1"]);
        let status = json(&String::from_utf8_lossy(&output.stdout));
        let slots = status["pods"].as_array().expect("pods").iter().map(|pod| pod["slot"].as_u64());
        assert_eq!(slots.collect::<Vec<_>>(), (1..=40).map(Some).collect::<Vec<_>>());
    });
}

#[test]
fn both_spellings_of_the_bandwidth_keys_are_understood() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        let mut call = Call::new("ADD", &pod, Annotations::default());
        call.stdin["runtimeConfig"] = serde_json::json!({"bandwidth": {
            "ingressRate": 10_000_000, "ingressBurst": 80_000,
            "egressRate": 20_000_000, "egressBurst": 4_294_967_295u64, "someday": true,
        }});
        let output = call.run(&pod);
        assert!(output.status.success(), "{}", text(&output));
        let status = node.status(&pod);
        assert_eq!(status["ingress"]["limit_bps"], 10_000_000);
        assert_eq!(status["egress"]["limit_bps"], 20_000_000);
    });
}

#[test]
fn version_and_status_answer_as_the_spec_says() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        let mut call = Call::new("VERSION", &pod, Annotations::default());
        call.stdin = serde_json::json!({"cniVersion": "0.4.0"});
        let answer = json(&String::from_utf8_lossy(&call.run(&pod).stdout));
        assert_eq!(answer["cniVersion"], "0.4.0");
        assert_eq!(
            answer["supportedVersions"],
            serde_json::json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
        let status = Call::new("STATUS", &pod, Annotations::default());
        assert!(status.run(&pod).status.success());
        // It would restore the pin.
        node.signal_agent(Signal::SIGSTOP);
        fs::remove_file("/sys/fs/bpf/sluice/v2/lines").expect("remove a pin");
        assert_eq!(expect_error(&status.run(&pod))["code"], 50);
    });
}

#[test]
fn class_of_the_namespace_comes_between_annotation_and_default() {
    let settings = "default-egress = \"30Mbit\"\n[[settings.sluice.bandwidth.class]]\nname = \
                    \"all\"\nnamespaces = [\"def*\"]\negress = \"20Mbit\"\ningress = \"10Mbit\"\n";
    with_ready_node(settings, |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, Annotations { egress: 0, ingress: LIMIT });
        let status = node.status(&pod);
        assert_eq!(status["egress"]["limit_bps"], 20_000_000);
        assert_eq!(status["egress"]["origin"], "class");
        assert_eq!(status["ingress"]["limit_bps"], LIMIT);
        assert_eq!(status["ingress"]["origin"], "pod-annotation");
    });
}

#[test]
fn full_disk_leaves_the_last_good_settings_in_force() {
    with_node(|node| {
        let dir = "/var/lib/sluice";
        fs::create_dir_all(dir).expect("make the state directory");
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))
            .expect("mount");
        node.boot_with("default-egress = \"10Mbit\"");
        let filling = fs::write(format!("{dir}/junk"), vec![0; 1 << 20]);
        assert!(filling.is_err(), "the disk is full");
        let user_data = fs::read_to_string(USER_DATA).expect("user data");
        // A restart, after which /run is empty, with settings that no disk has room for.
        fs::remove_dir_all("/run/sluice").expect("forget what is in force");
        let output = node.boot(&user_data.replace("10Mbit", "20Mbit"));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("No space left on device (os error 28)"), "{stderr}");
        let in_force = fs::read_to_string("/run/sluice/settings.toml").expect("settings");
        assert!(in_force.contains("default-egress = \"10Mbit\""), "{in_force}");
        // The same settings as before need no room at all.
        node.boot_with("default-egress = \"10Mbit\"");
    });
}

#[test]
fn sighup_puts_new_settings_in_force_and_refuses_broken_ones() {
    with_ready_node("default-egress = \"10Mbit\"", |node| {
        let old = fs::read_to_string(USER_DATA).expect("the user data");
        fs::write(USER_DATA, old.replace("10Mbit", "30Mbit")).expect("write user data");
        node.signal_agent(Signal::SIGHUP);
        let in_force = || fs::read_to_string("/run/sluice/settings.toml").unwrap_or_default();
        let second = Duration::from_secs(20);
        wait_for("new settings", second, || in_force().contains("30Mbit").then_some(()));
        fs::write(USER_DATA, old.replace("10Mbit", "10Mb")).expect("write user data");
        node.signal_agent(Signal::SIGHUP);
        let report = || fs::read_to_string("/run/sluice/boot.json").unwrap_or_default();
        wait_for("a refusal", second, || report().contains("last-good").then_some(()));
        assert!(in_force().contains("30Mbit"), "{}", in_force());
        let status = node.sluice(&["status"]);
        let text = String::from_utf8_lossy(&status.stdout);
        let first = format!(
            "settings: generation 2 ({USER_DATA}), the last good ones, instead of what was asked for\n"
        );
        assert!(text.starts_with(&first), "{text}");
        assert!(text.contains("\"10Mb\" has an unknown unit"), "{text}");
    });
}

#[test]
fn booting_twice_changes_nothing_and_disabling_takes_the_entry_out() {
    with_node(|node| {
        let untouched = fs::read_to_string(CONFLIST).expect("the conflist");
        node.boot_with("");
        let chained = fs::read_to_string(CONFLIST).expect("the conflist");
        assert!(chained.contains("\"type\":\"sluice\""), "{chained}");
        let inode = || output("stat", &["-c", "%i %y", CONFLIST]).stdout;
        let before = inode();
        node.boot_with("");
        assert_eq!(inode(), before);
        node.boot_with("enabled = false");
        assert_eq!(fs::read_to_string(CONFLIST).expect("the conflist"), untouched);
    });
}
