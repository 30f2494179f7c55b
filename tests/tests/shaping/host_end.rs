// SPDX-License-Identifier: Apache-2.0
//! Which device on the host is a pod's: the kernel's word there counts, not what
//! the pod's namespace or the previous result says.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::cni::{Annotations, Call, expect_error};
use tests::command::{ip, tc, text, wait_for};
use tests::link::index;
use tests::node::{Node, Pod, die_with_parent, with_ready_node};
use tests::result_cache::{Cached, bandwidth};

const FAST: Annotations = Annotations { egress: 50_000_000, ingress: 50_000_000 };
const SLOW: Annotations = Annotations { egress: 1000, ingress: 1000 };
const SOON: Duration = Duration::from_secs(10);

/// What of ours is on a device, the clamp of super-packets included.
fn shape_of(device: &str) -> String {
    let details = ip(&format!("-d link show {device}"));
    let gso = details.split("gso_max_size ").nth(1).and_then(|rest| rest.split(' ').next());
    let filters = tc(&format!("filter show dev {device} parent 51ce:"));
    // A new agent gives its own programs to the filters.
    let filters = filters.split(" id ").next().unwrap_or_default();
    format!("{}{filters}{gso:?}", tc(&format!("qdisc show dev {device}")))
}

/// What the pod can do with CAP_NET_ADMIN in its own namespace: a device of the name that its record
/// has, whose other end is in the pod too, with the indexes of `host` and of what that leads to.
fn impersonate(pod: &Pod, host: u32, inside: u32) {
    let name = &pod.name;
    ip(&format!("-n {name} link del eth0"));
    ip(&format!("-n {name} link add eth0 index {inside} type veth peer name x index {host}"));
    ip(&format!("-n {name} link set eth0 up"));
    ip(&format!("-n {name} link set x up"));
}

/// A victim and an attacker, both limited; indexes on the host are not those of pods.
fn with_two_pods(test: impl FnOnce(&mut Node, &Pod, &Pod) + Send) {
    with_ready_node("", |node| {
        (0..4).for_each(|n| drop(ip(&format!("link add d{n} type veth peer name e{n}"))));
        let (victim, attacker) = (node.pod("victim", 2), node.pod("attacker", 3));
        node.add(&victim, FAST);
        node.add(&attacker, SLOW);
        for pod in [&victim, &attacker] {
            node.guard(pod);
        }
        test(node, &victim, &attacker);
    });
}

fn trouble_of(node: &Node, code: &str, pod: &str) -> Option<Value> {
    let subject = format!("default/{pod} eth0");
    node.troubles(code).into_iter().find(|trouble| trouble["subject"] == subject.as_str())
}

#[test]
fn pod_that_claims_anothers_host_end_changes_nothing_there_and_is_reported() {
    with_two_pods(|node, victim, attacker| {
        let before = shape_of(&victim.host_ifname);
        // Whatever the order, the agent meets the new device under the old record.
        node.signal_agent(Signal::SIGSTOP);
        impersonate(attacker, index(&victim.host_ifname), 2);
        node.signal_agent(Signal::SIGCONT);
        let trouble = wait_for("the report", SOON, || trouble_of(node, "not-enforced", "attacker"));
        let what = trouble["what"].as_str().unwrap_or_default();
        assert!(what.starts_with("enivictim on the host is not the other end"), "{what}");
        assert_eq!(shape_of(&victim.host_ifname), before);
        node.kill_agent(Signal::SIGTERM);
        let error = expect_error(&Call::new("CHECK", attacker, SLOW).run(attacker));
        assert_eq!(error["code"], 100, "{error}");
        node.del(attacker);
        assert_eq!(shape_of(&victim.host_ifname), before);
        // Nor does an ADD of the pod take it, or what undoes that.
        let add = Call::new("ADD", attacker, SLOW).run(attacker);
        assert_eq!(expect_error(&add)["code"], 100, "{}", text(&add));
        assert_eq!(shape_of(&victim.host_ifname), before);
        assert_eq!(node.status(victim)["ingress"]["broken"], false);
    });
}

#[test]
fn record_that_names_anothers_host_end_is_no_reason_to_touch_it() {
    with_two_pods(|node, victim, attacker| {
        let before = shape_of(&victim.host_ifname);
        node.kill_agent(Signal::SIGTERM);
        // As an older version would have left it.
        let path = "/run/sluice/pods/2@id-attacker@eth0.json";
        let text = fs::read_to_string(path).expect("a record");
        let mut record: Value = serde_json::from_str(&text).expect("JSON");
        record["host"] =
            json!({"ifname": victim.host_ifname, "ifindex": index(&victim.host_ifname)});
        fs::write(path, record.to_string()).expect("write");
        impersonate(attacker, index(&victim.host_ifname), 2);
        node.del(attacker);
        assert_eq!(shape_of(&victim.host_ifname), before);
        // The same where the pod has gone by then.
        fs::write(path, record.to_string()).expect("write");
        attacker.delete();
        node.del(attacker);
        assert_eq!(shape_of(&victim.host_ifname), before);
    });
}

#[test]
fn pair_within_the_host_is_no_pods() {
    with_ready_node("", |node| {
        (0..4).for_each(|n| drop(ip(&format!("link add d{n} type veth peer name e{n}"))));
        let pod = node.pod("a", 2);
        let before = shape_of("d2");
        impersonate(&pod, index("d2"), index("e2"));
        let add = Call::new("ADD", &pod, SLOW).run(&pod);
        let error = expect_error(&add);
        assert_eq!(error["code"], 100, "{error}");
        let details = error["details"].as_str().unwrap_or_default();
        assert!(details.starts_with("d2 on the host is not the other end"), "{error}");
        assert_eq!(shape_of("d2"), before);
    });
}

#[test]
fn pod_in_the_result_cache_is_adopted_by_its_own_host_end_only() {
    with_two_pods(|node, victim, attacker| {
        let before = shape_of(&victim.host_ifname);
        node.del(attacker);
        node.kill_agent(Signal::SIGTERM);
        impersonate(attacker, index(&victim.host_ifname), 2);
        Cached {
            pod: &attacker.name,
            host_ifname: &victim.host_ifname,
            netns: &attacker.netns(),
            plugins: &["ptp"],
            bandwidth: bandwidth(1000, 1000),
        }
        .write();
        node.start_agent();
        wait_for("the report", SOON, || trouble_of(node, "not-enforced", "attacker"));
        assert_eq!(shape_of(&victim.host_ifname), before);
    });
}

#[test]
fn filter_with_another_pods_slot_is_put_right() {
    with_two_pods(|_, victim, _| {
        let host = &victim.host_ifname;
        let filter = || tc(&format!("filter show dev {host} parent 51ce:"));
        assert!(filter().contains("flowid 51ce:1 "), "{}", filter());
        let pin = "/sys/fs/bpf/sluice/v2/shape_ingress";
        tc(&format!(
            "filter replace dev {host} parent 51ce: protocol all pref 1 handle 0x51ce bpf da \
             object-pinned {pin} classid 51ce:2"
        ));
        wait_for("the own slot", SOON, || filter().contains("flowid 51ce:1 ").then_some(()));
    });
}

#[test]
fn result_needs_no_interface_of_the_host() {
    with_ready_node("", |node| {
        let netns = "/run/netns/a";
        let inside = json!({"name": "eth0", "sandbox": netns});
        let table = [
            json!({"cniVersion": "1.0.0", "interfaces": [inside]}),
            json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/12"}]}),
            json!({"cniVersion": "1.0.0", "interfaces": null}),
            json!({"cniVersion": "1.0.0", "interfaces": []}),
            json!({"cniVersion": "1.0.0", "interfaces": [{"name": "enia", "sandbox": netns}]}),
            json!({"cniVersion": "1.0.0", "interfaces": [{"name": "other"}, inside]}),
            json!({"cniVersion": "0.4.0", "interfaces": [{"mac": "x"}, 7]}),
        ];
        let pod = node.pod("a", 2);
        for result in table {
            let mut call = Call::new("ADD", &pod, FAST);
            call.stdin["prevResult"] = result.clone();
            let output = call.run(&pod);
            assert!(output.status.success(), "{result}: {}", text(&output));
            assert_eq!(String::from_utf8_lossy(&output.stdout), result.to_string());
            let status = node.status(&pod);
            assert_eq!(status["host_interface"], "enia");
            assert_eq!(status["ingress"]["broken"], false, "{status}");
            call.verb = "CHECK";
            let output = call.run(&pod);
            assert!(output.status.success(), "CHECK {result}: {}", text(&output));
            node.del(&pod);
        }
    });
}

#[test]
fn node_default_lets_a_pod_without_a_host_end_start_and_is_reported() {
    with_ready_node("default-egress = \"20Mbit\"\ndefault-ingress = \"20Mbit\"", |node| {
        let kinds = [("card", "type ifb"), ("pair", "type veth peer name x")];
        for (number, (name, kind)) in kinds.into_iter().enumerate() {
            let pod = node.pod(name, 2 + number as u8);
            ip(&format!("-n {name} link del eth0"));
            ip(&format!("-n {name} link add eth0 index 77 {kind}"));
            let asked = Call::new("ADD", &pod, FAST).run(&pod);
            assert_eq!(expect_error(&asked)["code"], 100, "{}", text(&asked));
            let call = Call::new("ADD", &pod, Annotations::default());
            let output = call.run(&pod);
            assert!(output.status.success(), "{}", text(&output));
            assert_eq!(output.stdout, call.stdin["prevResult"].to_string().as_bytes());
            let status = node.status(&pod);
            assert_eq!(
                (&status["egress"]["broken"], &status["ingress"]["broken"]),
                (&json!(true), &json!(true))
            );
            let trouble = wait_for("the report", SOON, || trouble_of(node, "not-enforced", name));
            let what = trouble["what"].as_str().unwrap_or_default();
            assert!(what.contains("eth0 of the pod"), "{what}");
            let check = Call::new("CHECK", &pod, Annotations::default()).run(&pod);
            assert!(check.status.success(), "{}", text(&check));
            node.boot_with("default-egress = \"unlimited\"");
            node.signal_agent(Signal::SIGHUP);
            wait_for("no report", SOON, || {
                trouble_of(node, "not-enforced", name).is_none().then_some(())
            });
            node.boot_with("default-egress = \"20Mbit\"\ndefault-ingress = \"20Mbit\"");
            node.signal_agent(Signal::SIGHUP);
            node.del(&pod);
        }
    });
}

#[test]
fn pod_whose_namespace_the_agent_cannot_see_is_judged_by_its_host_end() {
    with_ready_node("", |node| {
        node.kill_agent(Signal::SIGTERM);
        // As ProtectProc=invisible has it: the agent has no CAP_SYS_PTRACE.
        let hidden = "-t proc -o hidepid=invisible proc /proc";
        let mounted = Command::new("mount").args(hidden.split(' ')).status().expect("run mount");
        assert!(mounted.success());
        let pod = node.pod("a", 2);
        let mut pause = Command::new("nsenter");
        pause.args(["--net=/run/netns/a", "sleep", "1000"]);
        die_with_parent(&mut pause);
        let mut pause = pause.spawn().expect("start a pause process");
        node.start_agent();
        let mut call = Call::new("ADD", &pod, FAST);
        call.netns = format!("/proc/{}/ns/net", pause.id());
        // nsenter is in its own namespace first.
        let namespace = |path: &str| fs::metadata(path).map(|file| file.ino()).ok();
        wait_for("the process in the pod", SOON, || {
            (namespace(&call.netns) == namespace("/run/netns/a")).then_some(())
        });
        let output = call.run(&pod);
        assert!(output.status.success(), "{}", text(&output));
        node.guard(&pod);
        let passes =
            || node.sluice_json(&["status", "--json"])["agent"]["report"]["passes"].clone();
        let before = passes();
        node.signal_agent(Signal::SIGHUP);
        wait_for("another pass", SOON, || (passes() != before).then_some(()));
        assert_eq!(node.troubles("not-enforced"), Vec::<Value>::new());
        assert_eq!(node.status(&pod)["egress"]["broken"], false);
        // What is missing on the host's end is seen.
        tc("qdisc del dev enia root");
        wait_for("the report", SOON, || trouble_of(node, "not-enforced", "a"));
        call.verb = "DEL";
        assert!(call.run(&pod).status.success());
        pause.kill().expect("end the pause process");
        pause.wait().expect("wait for it");
    });
}
