// SPDX-License-Identifier: Apache-2.0
//! The units as they ship, under a real systemd: `tests/vm/test-systemd` boots
//! a guest with it, and elsewhere these are skipped. The tests share the guest,
//! one after the other; each begins with settings of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::cni::{Annotations, Call};
use tests::command::{ip, json, output, run, text, wait_for};
use tests::imds::{Address, Imds};
use tests::kernel::has_tcx;
use tests::node::{BIN_DIR, Node, Pod};
use tests::policy_agent::PolicyAgent;
use tests::systemd::{
    AGENT, BOOT, is_ours, journal, number, property, signal_agent, systemctl, systemctl_fails,
    wait_for_successor, wait_until,
};

const USER_DATA: &str = "/var/lib/sluice/user-data.toml";
const MACHINE_SETTINGS: &str = "/etc/sluice/settings.toml";
const IN_FORCE: &str = "/run/sluice/settings.toml";
const MBIT: u64 = 1_000_000;
const NONE: Annotations = Annotations { egress: 0, ingress: 0 };
const EGRESS: Annotations = Annotations { egress: 20 * MBIT, ingress: 0 };
/// CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_BPF by their numbers.
const BOUNDING: u64 = 1 << 12 | 1 << 21 | 1 << 39 | 1 << 11;
const PERMITTED: u64 = 1 << 12 | 1 << 21 | 1 << 39;
const EFFECTIVE: u64 = 1 << 12 | 1 << 39;

/// Runs a test in the guest: no pod, the agent active, these bandwidth settings in force.
fn in_guest(name: &str, bandwidth: &str, test: impl FnOnce(&Node)) {
    if !is_ours(name) {
        return;
    }
    write_user_data(bandwidth);
    // Where the plugin is called from by `tests::cni`.
    fs::create_dir_all("/run/node").expect("make a directory");
    if !fs::exists(BIN_DIR).expect("look for the plugin") {
        std::os::unix::fs::symlink("/opt/cni/bin", BIN_DIR).expect("link the plugin");
    }
    systemctl(&format!("reset-failed {AGENT} {BOOT}"));
    systemctl(&format!("restart {BOOT} {AGENT}"));
    test(&Node::of_guest());
}

fn write_user_data(bandwidth: &str) {
    let text =
        format!("[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n{bandwidth}\n");
    fs::write(USER_DATA, text).expect("write user data");
}

/// A pod with its ADD done; `number` is its address.
fn pod(node: &Node, name: &str, number: u8, annotations: Annotations) -> Pod {
    let pod = node.pod(name, number);
    if !has_tcx() {
        // Left by the test before.
        let _ = fs::remove_dir_all("/sys/fs/bpf/globals");
        PolicyAgent::start().allow(&pod.host_ifname);
    }
    node.add(&pod, annotations);
    pod
}

fn remove(node: &Node, pod: &Pod) {
    node.del(pod);
    pod.delete();
}

fn egress_limit(node: &Node, pod: &Pod) -> Option<u64> {
    let status = node.status(pod);
    status["egress"]["limit_bps"].as_u64().filter(|_| !status["egress"]["mode"].is_null())
}

/// What is attached in the kernel, whoever runs.
fn assert_shaped(pod: &Pod) {
    let filters = pod.run("tc filter show dev eth0 parent 51ce:");
    assert!(filters.contains("sluice"), "{filters}");
    let root = pod.run("tc qdisc show dev eth0 root");
    assert!(root.starts_with("qdisc prio 51ce:"), "{root}");
}

fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").expect("read the uptime");
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).expect("seconds")
}

fn capabilities(set: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", number(AGENT, "MainPID")));
    let status = status.expect("read the agent's status");
    let line = status.lines().find_map(|line| line.strip_prefix(set)).expect("a set");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a mask")
}

#[test]
fn node_comes_up_with_boot_before_agent_before_kubelet() {
    if !is_ours("node_comes_up_with_boot_before_agent_before_kubelet") {
        return;
    }
    // Of the guest's own boot: journal entries, because later tests restart the units.
    let at = |unit: &str, message: &str| -> u64 {
        let unit = format!("UNIT={unit}");
        let entries = journal(&[&unit]);
        let has = |entry: &&Value| entry["MESSAGE"].as_str().unwrap_or("").starts_with(message);
        let found =
            entries.iter().find(has).unwrap_or_else(|| panic!("no \"{message}\" of {unit}"));
        let time = found["__MONOTONIC_TIMESTAMP"].as_str().expect("a time");
        time.parse().expect("a number")
    };
    let times = [
        at(BOOT, "Finished"),
        at(AGENT, "Starting"),
        at(AGENT, "Started"),
        at("kubelet.service", "Starting"),
    ];
    println!("boot finished, agent starting, started, kubelet starting: {times:?} us");
    assert!(times.is_sorted(), "{times:?}");
    let conflist = fs::read_to_string("/etc/cni/net.d/10-main.conflist").expect("the conflist");
    assert!(conflist.contains("\"type\":\"sluice\""), "{conflist}");
    assert!(Path::new("/opt/cni/bin/sluice").exists());
    assert_eq!(systemctl("is-system-running").trim(), "running");
}

#[test]
fn agent_is_ready_says_how_it_fares_and_holds_few_rights() {
    in_guest("agent_is_ready_says_how_it_fares_and_holds_few_rights", "", |_| {
        assert_eq!(property(AGENT, "ActiveState"), "active");
        assert_ne!(property(AGENT, "StatusText"), "");
        assert_eq!(capabilities("CapBnd"), BOUNDING);
        assert_eq!(capabilities("CapPrm"), PERMITTED);
        assert_eq!(capabilities("CapEff"), EFFECTIVE);
        let memory = number(AGENT, "MemoryCurrent");
        println!("memory {memory} bytes");
        assert!(memory < number(AGENT, "MemoryHigh") / 2, "{memory} bytes");
    });
}

#[test]
fn tcp_sockets_of_the_agent_are_made_by_its_aide() {
    in_guest("tcp_sockets_of_the_agent_are_made_by_its_aide", "", |node| {
        let answer = wait_for("metrics", Duration::from_secs(20), || {
            let mut stream = TcpStream::connect("127.0.0.1:9469").ok()?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok().map(|_| answer)
        });
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(node.troubles("no-metrics").is_empty());
        let status = format!("/proc/{}/status", number("sluice-aide.service", "MainPID"));
        let status = fs::read_to_string(status).expect("read the status of sluice-aide");
        let line = |key: &str| status.lines().find(|line| line.starts_with(key)).expect("a line");
        assert_eq!(line("CapPrm"), "CapPrm:\t0000000000080000", "CAP_SYS_PTRACE");
        assert!(!line("Uid").starts_with("Uid:\t0\t"), "{status}");
    });
}

#[test]
fn exposure_is_as_low_as_it_was() {
    if !is_ours("exposure_is_as_low_as_it_was") {
        return;
    }
    for (unit, most) in [(AGENT, 20), (BOOT, 15)] {
        let threshold = format!("--threshold={most}");
        let output = output("systemd-analyze", &["security", "--no-pager", &threshold, unit]);
        let said = text(&output);
        println!("{}", said.lines().find(|line| line.contains("Overall")).unwrap_or(""));
        assert!(output.status.success(), "{said}");
        let verify = run("systemd-analyze", &["--man=no", "verify", unit]);
        assert_eq!(verify, "");
    }
}

#[test]
fn standalone_mode_works_within_the_units_bounds() {
    in_guest("standalone_mode_works_within_the_units_bounds", "", |_| {
        let mac = "02:00:00:00:00:01";
        ip(&format!("link add ens5 address {mac} type dummy"));
        ip("link set ens5 up");
        let imds = Imds::start(Address::V4, None, &[]);
        imds.set("mac", mac);
        for (key, value) in [
            ("local-ipv4s", "10.0.0.10"),
            ("subnet-ipv4-cidr-block", "10.0.0.0/20"),
            ("vpc-ipv4-cidr-blocks", "10.0.0.0/16"),
            ("ipv4-prefix", "10.0.1.16/28"),
            ("ipv6-prefix", "2001:db8:1:2:3::/80"),
        ] {
            imds.set(&format!("network/interfaces/macs/{mac}/{key}"), value);
        }
        let chained = "/etc/cni/net.d/10-main.conflist";
        let text = fs::read(chained).expect("read the conflist");
        fs::remove_file(chained).expect("remove the conflist");
        let settings = "[settings.sluice]\nversion = 1\ncni.mode = \"standalone\"\n";
        fs::write(USER_DATA, settings).expect("write user data");
        systemctl(&format!("reload {AGENT}"));
        let own = "/etc/cni/net.d/10-sluice.conflist";
        let conflist =
            wait_for("the conflist", Duration::from_secs(60), || fs::read_to_string(own).ok());
        for subnet in ["10.0.1.16", "2001:db8:1:2:3::"] {
            assert!(conflist.contains(subnet), "{conflist}");
        }
        let table = run("nft", &["list", "table", "ip", "sluice"]);
        assert!(table.contains("10.0.1.16/28"), "{table}");
        let accept_ra = fs::read_to_string("/proc/sys/net/ipv6/conf/ens5/accept_ra");
        assert_eq!(accept_ra.expect("read accept_ra").trim(), "2");
        fs::write(chained, text).expect("write the conflist");
        write_user_data("");
        systemctl(&format!("reload {AGENT}"));
        wait_for("no conflist of ours", Duration::from_secs(60), || {
            (!fs::exists(own).expect("look for the conflist")).then_some(())
        });
        ip("link del ens5");
        ip("addr del 169.254.169.254/32 dev lo");
    });
}

#[test]
fn pod_that_comes_later_is_limited_and_guarded() {
    in_guest("pod_that_comes_later_is_limited_and_guarded", "", |node| {
        let pod = pod(node, "late", 2, EGRESS);
        assert_eq!(egress_limit(node, &pod), Some(20 * MBIT));
        assert_shaped(&pod);
        // By the agent, in its own mount namespace, made before the pod was.
        assert_eq!(node.guard(&pod)["state"], if has_tcx() { "tcx" } else { "clsact" });
        // The confined agent can tell that root, who may do more than itself, is in no container.
        let set = ["limit", "set", "default/late", "--egress", "5Mbit", "--for", "10m"];
        let output = node.sluice(&set);
        assert!(output.status.success(), "{}", tests::command::text(&output));
        assert_eq!(egress_limit(node, &pod), Some(5 * MBIT));
        remove(node, &pod);
    });
}

#[test]
fn reload_takes_new_settings_to_a_living_pod_and_into_the_journal() {
    in_guest("reload_takes_new_settings_to_a_living_pod_and_into_the_journal", "", |node| {
        let pod = pod(node, "alive", 3, NONE);
        assert_eq!(egress_limit(node, &pod), None);
        for rate in [30, 40] {
            write_user_data(&format!("default-egress = \"{rate}Mbit\""));
            systemctl(&format!("reload {AGENT}"));
            wait_for("the new limit", Duration::from_secs(20), || {
                (egress_limit(node, &pod) == Some(rate * MBIT)).then_some(())
            });
            assert_shaped(&pod);
        }
        assert_eq!(property(AGENT, "ActiveState"), "active");
        let entries = journal(&["_SYSTEMD_UNIT=sluice.service", "POD_NAME=alive"]);
        let last = entries.last().expect("an entry about the pod");
        assert_eq!(last["POD_NAMESPACE"], "default");
        assert_eq!(
            last["MESSAGE"],
            "default/alive eth0: egress 40Mbit (node default), ingress unlimited"
        );
        assert_eq!(last["SYSLOG_IDENTIFIER"], "sluice");
        remove(node, &pod);
    });
}

#[test]
fn stopped_agent_leaves_limits_in_force() {
    in_guest("stopped_agent_leaves_limits_in_force", "", |node| {
        let pod = pod(node, "stopped", 4, EGRESS);
        node.guard(&pod);
        systemctl(&format!("stop {AGENT}"));
        assert_eq!(property(AGENT, "Result"), "success");
        assert_shaped(&pod);
        assert_eq!(egress_limit(node, &pod), Some(20 * MBIT));
        let second = self::pod(node, "meanwhile", 5, EGRESS);
        assert_eq!(node.status(&second)["guard"]["state"], "pending");
        systemctl(&format!("start {AGENT}"));
        assert_eq!(node.guard(&second)["state"], if has_tcx() { "tcx" } else { "clsact" });
        remove(node, &second);
        remove(node, &pod);
    });
}

#[test]
fn killed_agent_is_started_again_and_limits_stay() {
    in_guest("killed_agent_is_started_again_and_limits_stay", "", |node| {
        let pod = pod(node, "killed", 6, EGRESS);
        let main_pid = number(AGENT, "MainPID");
        signal_agent(Signal::SIGKILL);
        assert_shaped(&pod);
        wait_for_successor(main_pid);
        assert_eq!(egress_limit(node, &pod), Some(20 * MBIT));
        remove(node, &pod);
    });
}

#[test]
fn agent_that_hangs_is_ended_by_the_watchdog_and_started_again() {
    in_guest("agent_that_hangs_is_ended_by_the_watchdog_and_started_again", "", |_| {
        let main_pid = number(AGENT, "MainPID");
        signal_agent(Signal::SIGSTOP);
        wait_for_successor(main_pid);
        let entries = journal(&["UNIT=sluice.service"]);
        let by_watchdog = |entry: &Value| entry["UNIT_RESULT"] == "watchdog";
        assert!(entries.iter().any(by_watchdog), "no entry of {} is of a watchdog", entries.len());
    });
}

#[test]
fn agent_that_lives_longer_than_the_watchdog_feeds_it() {
    in_guest("agent_that_lives_longer_than_the_watchdog_feeds_it", "", |_| {
        assert_eq!(property(AGENT, "WatchdogUSec"), "1min");
        let (main_pid, start) = (number(AGENT, "MainPID"), uptime());
        wait_for("the watchdog's time to be over", Duration::from_secs(200), || {
            (uptime() > start + 65.0).then_some(())
        });
        assert_eq!(number(AGENT, "MainPID"), main_pid);
        assert_eq!(property(AGENT, "ActiveState"), "active");
    });
}

#[test]
fn settings_that_cannot_be_used_are_not_tried_again() {
    in_guest("settings_that_cannot_be_used_are_not_tried_again", "", |_| {
        fs::create_dir_all("/etc/sluice").expect("make a directory");
        let machine = "[sluice]\nversion = 1\n[sluice.agent]\non-invalid = \"fail\"\n";
        fs::write(MACHINE_SETTINGS, machine).expect("write settings");
        write_user_data("burst = 5");
        systemctl_fails(&format!("restart {BOOT}"));
        assert_eq!(number(BOOT, "ExecMainStatus"), 78);
        let entries = journal(&["_SYSTEMD_UNIT=sluice-boot.service", "PRIORITY=3"]);
        let message = entries.last().expect("an error")["MESSAGE"].as_str().expect("text");
        assert!(message.contains("burst"), "{message}");

        // What is in force, but of another version of us.
        fs::write(IN_FORCE, "[sluice]\nversion = 1\nnonsense = 1\n").expect("write settings");
        let _ = output("systemctl", &["restart", AGENT]);
        wait_until(AGENT, "ActiveState", "failed");
        assert_eq!(number(AGENT, "ExecMainStatus"), 78);
        assert_eq!(number(AGENT, "NRestarts"), 0);

        // Nothing in force at all.
        fs::remove_file(IN_FORCE).expect("remove what is in force");
        systemctl(&format!("reset-failed {AGENT}"));
        systemctl_fails(&format!("start {AGENT}"));
        assert_eq!(property(AGENT, "AssertResult"), "no");
        fs::remove_file(MACHINE_SETTINGS).expect("remove settings");
    });
}

#[test]
fn credential_of_the_node_is_user_data() {
    in_guest("credential_of_the_node_is_user_data", "", |node| {
        fs::create_dir_all("/run/credstore").expect("make a directory");
        let credential = "/run/credstore/sluice.user-data";
        let text = "[sluice]\nversion = 1\n[sluice.bandwidth]\ndefault-egress = \"50Mbit\"\n";
        fs::write(credential, text).expect("write a credential");
        systemctl(&format!("restart {BOOT} {AGENT}"));
        let boot = json(&fs::read_to_string("/run/sluice/boot.json").expect("boot.json"));
        let name = boot["documents"][0].as_str().expect("a name");
        assert!(name.ends_with("/sluice.user-data"), "{boot}");
        let pod = pod(node, "given", 7, NONE);
        assert_eq!(egress_limit(node, &pod), Some(50 * MBIT));
        remove(node, &pod);
        fs::remove_file(credential).expect("remove the credential");
    });
}

#[test]
fn directories_of_others_cannot_be_written() {
    in_guest("directories_of_others_cannot_be_written", "", |node| {
        let pod = node.pod("other", 8);
        let main_pid = number(AGENT, "MainPID").to_string();
        let write = |path: &str| {
            let arguments = ["-m", "-t", &main_pid, "touch", path];
            output("nsenter", &arguments).status.success()
        };
        for path in ["/usr/x", "/etc/x", "/run/x", "/var/x", "/proc/sys/net/core/x"] {
            assert!(!write(path), "{path} can be written");
        }
        for dir in ["/run/sluice", "/var/lib/sluice", "/etc/cni/net.d", "/opt/cni/bin"] {
            let path = format!("{dir}/.x.tmp");
            assert!(write(&path), "{path} cannot be written");
            fs::remove_file(&path).expect("remove it");
        }
        // Read-only or not, the namespaces of pods that came later are there.
        let seen =
            run("nsenter", &["-m", "-t", &main_pid, "stat", "-f", "-c", "%T", "/run/netns/other"]);
        assert_eq!(seen.trim(), "nsfs", "{seen}");
        pod.delete();
        let _ = Call::new("DEL", &pod, NONE).run(&pod);
    });
}
