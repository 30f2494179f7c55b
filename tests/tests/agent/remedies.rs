// SPDX-License-Identifier: Apache-2.0
//! What docs/troubleshooting.md says to do is done, and the trouble is gone. `documentation` compares the codes
//! here with the page's.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::cni::Annotations;
use tests::command::{executable, ip, json as parse, tc, text, wait_for};
use tests::kernel::{has_fq, has_tcx};
use tests::link::index;
use tests::node::{BIN_DIR, CONF_DIR, CONFLIST, Node, PIN_DIR, Pod, USER_DATA, with_ready_node};
use tests::policy_agent::PolicyAgent;
use tests::result_cache::{Cached, bandwidth};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
const SOON: Duration = Duration::from_secs(20);

/// Of status and of doctor.
fn codes(node: &Node) -> BTreeSet<String> {
    let asked = [&["status", "--json", "--interval", "1"][..], &["doctor", "--json"]];
    let said = asked.map(|words| parse(&String::from_utf8_lossy(&node.sluice(words).stdout)));
    let lists = [&said[0]["degraded"], &said[1]["findings"]];
    let all = lists.into_iter().flat_map(|list| list.as_array().expect("a list"));
    all.map(|trouble| trouble["code"].as_str().expect("a code").to_owned()).collect()
}

fn wait_for_all(node: &Node, expected: &[&str]) {
    let mut seen = BTreeSet::new();
    let all_there = || {
        seen = codes(node);
        expected.iter().all(|code| seen.contains(*code)).then_some(())
    };
    wait_for(&format!("{expected:?}"), SOON, all_there);
}

/// These are there, and after the remedy none of them is.
fn remedied(node: &mut Node, expected: &[&str], remedy: impl FnOnce(&mut Node)) {
    wait_for_all(node, expected);
    remedy(node);
    wait_for(&format!("the end of {expected:?}"), SOON, || {
        let left = codes(node);
        expected.iter().all(|code| !left.contains(*code)).then_some(())
    });
}

fn pod(node: &Node, name: &str, number: u8) -> Pod {
    let pod = node.pod(name, number);
    if !has_tcx() {
        PolicyAgent::start().allow(&pod.host_ifname);
    }
    node.add(&pod, BOTH);
    node.guard(&pod);
    pod
}

/// As `sluice boot` of the node's own unit does it.
fn boot(node: &Node) {
    let settings = fs::read_to_string(USER_DATA).expect("user data");
    let output = node.boot(&settings);
    assert!(output.status.success(), "{}", text(&output));
}

fn reload(node: &Node) -> Option<i32> {
    node.sluice(&["reload"]).status.code()
}

fn next_step(node: &Node, code: &str) -> String {
    let output = node.sluice(&["status", "--json", "--interval", "1"]);
    let status = parse(&String::from_utf8_lossy(&output.stdout));
    let all = status["degraded"].as_array().expect("a list").clone();
    let found = all.iter().find(|trouble| trouble["code"] == code);
    found.expect("the code")["next_step"].as_str().expect("text").to_owned()
}

#[test]
fn foreign_root_qdisc_that_its_owner_removes_leaves_the_limit_without_a_restart() {
    with_ready_node("", |node| {
        let limited = pod(node, "a", 2);
        let tbf = "handle 1: tbf rate 90mbit burst 64k latency 50ms";
        tc(&format!("qdisc replace dev {} root {tbf}", limited.host_ifname));
        wait_for_all(node, &["guarded"]);
        // Which could not be repaired while that is there.
        assert!(!codes(node).contains("filter-missing"));
        remedied(node, &["guarded"], |_| {
            tc(&format!("qdisc del dev {} root", limited.host_ifname));
        });
        let unlimited = node.pod("c", 4);
        tc(&format!("qdisc add dev {} root handle 1: pfifo", unlimited.host_ifname));
        remedied(node, &["foreign-root-qdisc"], |_| {
            tc(&format!("qdisc del dev {} root", unlimited.host_ifname));
        });
        let other = node.pod("b", 3);
        if !has_tcx() {
            PolicyAgent::start().allow(&other.host_ifname);
        }
        other.run("tc qdisc add dev eth0 root handle 5: pfifo limit 100");
        node.add(&other, BOTH);
        remedied(node, &["guarded"], |_| {
            other.run("tc qdisc del dev eth0 root");
        });
        assert!(other.run("tc filter show dev eth0 parent 51ce:").contains("sluice_egress"));
    });
}

#[test]
fn agent_that_is_started_puts_all_right_that_was_lost_meanwhile() {
    with_ready_node("", |node| {
        let (a, b, gone) = (pod(node, "a", 2), pod(node, "b", 3), pod(node, "gone", 4));
        node.kill_agent(Signal::SIGKILL);
        let mut lost = vec!["agent-not-running", "filter-missing", "guard-pending"];
        a.run("tc filter del dev eth0 parent 51ce: prio 1");
        if has_fq() {
            b.run("tc qdisc del dev eth0 parent 51ce:1 handle 51cf:");
            lost.push("fq-missing");
        }
        if has_tcx() {
            let pin = format!("{PIN_DIR}/links/{}", index(&a.host_ifname));
            fs::remove_file(pin).expect("remove the guard's pin");
            lost.push("guard-missing");
        }
        ip(&format!("link set {} gso_max_size 65536", b.host_ifname));
        let late = node.pod("late", 5);
        node.add(&late, BOTH);
        let missed = node.pod("missed", 6);
        let (host_ifname, netns) = (missed.host_ifname.as_str(), missed.netns());
        let bandwidth = bandwidth(LIMIT, LIMIT);
        Cached { pod: "missed", host_ifname, netns: &netns, plugins: &["ptp"], bandwidth }.write();
        gone.delete();
        lost.extend(["gso-clamp-lost", "pod-without-record", "record-without-pod"]);
        remedied(node, &lost, Node::start_agent);
        node.kill_agent(Signal::SIGTERM);
        fs::remove_dir_all("/sys/fs/bpf/sluice").expect("remove the pins");
        remedied(node, &["pins-missing"], Node::start_agent);
    });
}

#[test]
fn node_that_was_detached_says_so_and_limits_pods_again_once_the_agent_starts() {
    with_ready_node("", |node| {
        let pod = pod(node, "a", 2);
        node.kill_agent(Signal::SIGTERM);
        let output = node.sluice(&["detach"]);
        assert!(output.status.success(), "{}", text(&output));
        for command in ["status", "doctor"] {
            let said = String::from_utf8_lossy(&node.sluice(&[command]).stdout).into_owned();
            assert!(said.contains("as after sluice detach: no pod has a limit"), "{said}");
            assert!(!said.contains("limits stay in force"), "{said}");
        }
        remedied(node, &["agent-not-running", "entry-missing"], Node::start_agent);
        node.add(&pod, BOTH);
        assert!(pod.run("tc filter show dev eth0 parent 51ce:").contains("sluice_egress"));
    });
}

#[test]
fn boot_puts_settings_entry_and_plugin_in_their_places_again() {
    with_ready_node("", |node| {
        node.kill_agent(Signal::SIGTERM);
        let whole = fs::read_to_string(CONFLIST).expect("the conflist");
        let write = |text: &str| fs::write(CONFLIST, text).expect("write the conflist");
        fs::remove_file("/run/sluice/settings.toml").expect("lose the settings");
        fs::remove_file("/run/sluice/boot.json").expect("and what is said of them");
        remedied(node, &["not-booted"], |node| boot(node));
        fs::write("/run/sluice/settings.toml", "?").expect("spoil the settings");
        remedied(node, &["settings-unreadable"], |node| boot(node));
        write(&whole.replace("\"bandwidth\":true", "\"bandwidth\":false"));
        remedied(node, &["entry-changed"], |node| boot(node));
        let upstream = whole.replace("\"type\":\"sluice\"", "\"type\":\"bandwidth\"");
        write(&upstream);
        remedied(node, &["entry-missing", "upstream-entry"], |node| boot(node));
        fs::remove_file(format!("{BIN_DIR}/sluice")).expect("no plugin");
        remedied(node, &["plugin-missing"], |node| boot(node));
        fs::remove_file(CONFLIST).expect("no conflist");
        remedied(node, &["conflist-missing"], |node| {
            write(&whole);
            boot(node);
        });
        let other = format!("{CONF_DIR}/00-other.conflist");
        fs::write(&other, whole.replace("sluice", "tuning")).expect("another conflist");
        remedied(node, &["conflist-shadowed"], |_| {
            fs::remove_file(&other).expect("move it away");
        });
        fs::create_dir("/sys/fs/bpf/sluice/v1").expect("pins of another version");
        remedied(node, &["pins-of-other-version"], |_| {
            fs::remove_dir("/sys/fs/bpf/sluice/v1").expect("remove them");
        });
    });
}

#[test]
fn what_is_corrected_in_settings_and_files_is_right_after_a_reload() {
    with_ready_node("", |node| {
        let good = fs::read_to_string(USER_DATA).expect("user data");
        fs::write(USER_DATA, good.clone() + "no-such-key = 1\n").expect("write user data");
        assert_eq!(reload(node), Some(78));
        assert!(next_step(node, "settings-not-as-asked").contains("correct the settings"));
        remedied(node, &["settings-not-as-asked"], |node| {
            fs::write(USER_DATA, &good).expect("correct them");
            assert_eq!(reload(node), Some(0));
        });
        let _taken = TcpListener::bind("127.0.0.1:9998").expect("take a port");
        let agent = "[settings.sluice.agent]\nmetrics-listen = \"127.0.0.1:9998\"\n";
        fs::write(USER_DATA, good.clone() + agent).expect("write user data");
        assert_eq!(reload(node), Some(0));
        remedied(node, &["no-metrics"], |node| {
            fs::write(USER_DATA, good.clone() + &agent.replace("9998", "9997")).expect("another");
            assert_eq!(reload(node), Some(0));
        });
        let whole = fs::read_to_string(CONFLIST).expect("the conflist");
        fs::write(CONFLIST, "{").expect("spoil the conflist");
        remedied(node, &["conflist-unreadable"], |node| {
            fs::write(CONFLIST, &whole).expect("repair it");
            reload(node);
        });
        let limited = pod(node, "a", 2);
        let mut records = fs::read_dir("/run/sluice/pods").expect("the records");
        let record = records.next().expect("a record").expect("an entry").path();
        fs::write(&record, "?").expect("spoil the record");
        remedied(node, &["record-unreadable"], |node| {
            fs::remove_file(&record).expect("remove the record");
            node.add(&limited, BOTH);
        });
    });
}

/// IMDS cannot be reached: nothing is wrong with the settings.
#[test]
fn user_data_that_cannot_be_had_is_not_said_to_need_correction() {
    with_ready_node("", |node| {
        let boot = || {
            let plugin = executable("sluice-cni").display().to_string();
            node.sluice(&["boot", "--imds-budget", "1", "--plugin", &plugin]).status.code()
        };
        assert_eq!(boot(), Some(1));
        let says = next_step(node, "settings-not-as-asked");
        assert!(says.contains("write the settings to /var/lib/sluice/user-data.toml"), "{says}");
        fs::copy(USER_DATA, "/var/lib/sluice/user-data.toml").expect("write the settings");
        assert_eq!(boot(), Some(0));
        assert!(!codes(node).contains("settings-not-as-asked"));
    });
}

#[test]
fn floors_that_are_too_much_for_the_node_are_kept_with_fewer_pods() {
    let keys = "node-share = true\nnode-egress = '1Gbit'\nnode-ingress = '1Gbit'\n\
                [[settings.sluice.bandwidth.class]]\nname = 'a'\nnamespaces = ['*']\n\
                floor-egress = '600Mbit'\n";
    with_ready_node(keys, |node| {
        let pods = [("a", 2), ("b", 3)].map(|(name, number)| node.pod(name, number));
        pods.iter().for_each(|pod| node.add(pod, Annotations { egress: 0, ingress: 0 }));
        remedied(node, &["floors-lowered"], |node| node.del(&pods[0]));
    });
}

#[test]
fn capacity_that_is_not_known_is_set() {
    with_ready_node("node-share = true\nnode-egress = '1Gbit'\n", |node| {
        remedied(node, &["node-share-off"], |node| {
            node.boot_with("node-share = true\nnode-egress = '1Gbit'\nnode-ingress = '1Gbit'\n");
        });
    });
}
