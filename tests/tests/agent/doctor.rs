// SPDX-License-Identifier: Apache-2.0
//! `sluice doctor` on nodes that are well and on nodes where others have been:
//! what it finds, what it does not find, and that it changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use flate2::read::GzDecoder;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::cni::Annotations;
use tests::command::{has_looked, ip, json as parse, output, run, tc, text, wait_for};
use tests::json_schema::assert_valid;
use tests::kernel::{has_fq, has_tcx, skip, skip_for_tcx};
use tests::link::index;
use tests::node::{CONF_DIR, CONFLIST, Node, PIN_DIR, Pod, USER_DATA, with_node, with_ready_node};
use tests::policy_agent::{PolicyAgent, Side, Verdict};
use tests::tcx::{append_ingress, prepend_ingress};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
const EGRESS: Annotations = Annotations { egress: LIMIT, ingress: 0 };
const FOREIGN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/foreign.bpf.o"));
const FOREIGN_PINS: &str = "/sys/fs/bpf/foreign";

/// What `doctor --json` says; its exit status says the same.
fn diagnosis(node: &Node) -> Value {
    let output = node.sluice(&["doctor", "--json"]);
    assert!(has_looked(&output) && output.stderr.is_empty(), "{}", text(&output));
    let seen = parse(&String::from_utf8_lossy(&output.stdout));
    assert_valid("doctor", &seen);
    let status = match (&seen["summary"]["fault"], &seen["summary"]["degraded"]) {
        (faults, _) if faults != 0 => 1,
        (_, degraded) => i32::from(degraded != 0) * 3,
    };
    assert_eq!(output.status.code(), Some(status), "{}", text(&output));
    seen
}

/// Codes of one severity, but for those that this kernel or this way of testing brings along: the
/// node mounts its BPF file system over the machine's.
fn codes(diagnosis: &Value, severity: &str) -> Vec<String> {
    let environment = ["no-fq", "no-tcx", "policed", "bpffs-hidden", "jit-hardened"];
    let all = diagnosis["findings"].as_array().expect("findings");
    let of_severity = all.iter().filter(|finding| finding["severity"] == severity);
    let codes = of_severity.filter_map(|finding| finding["code"].as_str());
    codes.filter(|code| !environment.contains(code)).map(str::to_owned).collect()
}

/// The one finding with this code; every part of it says something.
fn finding<'a>(diagnosis: &'a Value, code: &str) -> &'a Value {
    let all = diagnosis["findings"].as_array().expect("findings");
    let found = all.iter().find(|finding| finding["code"] == code);
    let found = found.unwrap_or_else(|| panic!("no {code} in {:#}", diagnosis["findings"]));
    for part in ["subject", "seen", "why", "remedy"] {
        assert!(found[part].as_str().is_some_and(|text| !text.is_empty()), "{part} of {found:#}");
    }
    found
}

fn says(finding: &Value, part: &str, words: &str) {
    let said = finding[part].as_str().expect("text");
    assert!(said.contains(words), "{words:?} is not in {part} of {finding:#}");
}

/// A pod with limits and a guard in place, on a node with network policy.
fn pod_with_policy(node: &Node) -> (PolicyAgent, Pod) {
    let (agent, pod) = (PolicyAgent::start(), node.pod("a", 2));
    for side in [Side::Ingress, Side::Egress] {
        agent.attach(&pod.host_ifname, side, Verdict::Allow).expect("attach policy");
    }
    node.add(&pod, BOTH);
    node.guard(&pod);
    (agent, pod)
}

/// Programs of others, each pinned under its name.
fn load_foreign() {
    fs::create_dir_all(FOREIGN_PINS).expect("make a directory of pins");
    fs::write("/run/foreign.bpf.o", FOREIGN).expect("write the object");
    run("bpftool", &["prog", "loadall", "/run/foreign.bpf.o", FOREIGN_PINS]);
}

fn foreign(program: &str) -> String {
    format!("{FOREIGN_PINS}/{program}")
}

/// Entries of one hook of the pod's end on the host.
fn hook<'a>(diagnosis: &'a Value, pod: &Pod, side: &str, layer: &str) -> &'a Vec<Value> {
    let devices = diagnosis["devices"].as_array().expect("devices");
    let device = devices.iter().find(|d| d["name"] == pod.host_ifname.as_str()).expect("a device");
    let hooks = device["hooks"].as_array().expect("hooks");
    let hook = hooks.iter().find(|hook| hook["side"] == side && hook["layer"] == layer);
    hook.unwrap_or_else(|| panic!("no {layer} on {side} in {device:#}"))["entries"]
        .as_array()
        .expect("entries")
}

#[test]
fn healthy_node_has_no_fault() {
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        let unlimited = node.pod("b", 3);
        node.add(&unlimited, Annotations::default());
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), [""; 0], "{:#}", seen["findings"]);
        // Network policy on each pod is what this node may lack.
        let mut degraded = codes(&seen, "degraded");
        degraded.retain(|code| code != "policy-missing");
        assert_eq!(degraded, [""; 0], "{:#}", seen["findings"]);
        assert_eq!(seen["summary"]["fault"], 0);
        let policy = hook(&seen, &pod, "ingress", "clsact").last().expect("policy");
        assert_eq!(
            (&policy["owner"], &policy["verdicts"]),
            (&json!("aws-network-policy"), &json!("OK"))
        );
        let own = &hook(&seen, &pod, "egress", "root")[0];
        assert_eq!((&own["owner"], &own["verdicts"]), (&json!("sluice"), &json!("UNSPEC/OK")));
    });
}

#[test]
fn verdicts_of_our_own_programs_are_read_off_their_instructions() {
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        let seen = diagnosis(node);
        let (layer, words) =
            if has_tcx() { ("tcx", "NEXT/DROP") } else { ("clsact", "UNSPEC/SHOT") };
        let guard = &hook(&seen, &pod, "ingress", layer)[0];
        assert_eq!((&guard["owner"], &guard["verdicts"]), (&json!("sluice"), &json!(words)));
        let inside = seen["pods"][0]["inside"]["hooks"].as_array().expect("hooks");
        // The agent may have attached the guard there meanwhile, too.
        let shaper = inside.iter().find(|hook| hook["side"] == "egress" && hook["layer"] == "root");
        let shaper = &shaper.expect("the shaper's hook")["entries"][0];
        assert_eq!(
            (&shaper["owner"], &shaper["verdicts"]),
            (&json!("sluice"), &json!("UNSPEC/OK"))
        );
        assert_eq!(shaper["documented"], false);
    });
}

#[test]
fn tree_shows_every_hook_in_order() {
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        let output = node.sluice(&["doctor", "--all"]);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = [
            format!("{} (pod default/a, slot 1), veth\n", pod.host_ifname),
            "prio 1 handle 0x1 ".into(),
            "[aws network policy] returns OK (can end the chain: nothing behind it runs then)"
                .into(),
            "egress   root: 1 prio 1 handle 0x51ce sluice_ingress [ours]\n".into(),
            "inside the pod: eth0, veth\n".into(),
            "egress   root: 1 prio 1 handle 0x51ce sluice_egress [ours]\n".into(),
        ];
        for words in expected {
            assert!(shown.contains(&words), "{words:?} is not in\n{shown}");
        }
        let guard =
            if has_tcx() { "tcx: 1 guard [ours]" } else { "sluice_guard [ours] -> 2 prio 1" };
        assert!(shown.contains(guard), "{guard:?} is not in\n{shown}");
    });
}

/// What ip, tc, bpftool and the file systems say of the node and of a pod, but for what the kernel
/// changes by itself (IPv6 addresses come in their own time).
fn state(pod: &Pod) -> String {
    let host = pod.host_ifname.as_str();
    let mut all = vec![ip("-d link show"), ip("-4 addr show"), ip("-4 route show table all")];
    all.extend([ip("netns list"), tc("qdisc show")]);
    for parent in ["ingress", "egress", "root"] {
        all.push(tc(&format!("filter show dev {host} {parent}")));
    }
    for line in ["ip -d link show", "tc qdisc show", "tc filter show dev eth0 parent 51ce:"] {
        all.push(pod.run(line));
    }
    let mut files = Vec::new();
    ["/run", "/var/lib", "/sys/fs/bpf"].iter().for_each(|dir| list(Path::new(dir), &mut files));
    // The agent holds a pod's place whenever it looks at it.
    files.retain(|file| !file.starts_with("/run/sluice/locks/containers "));
    files.sort_unstable();
    all.push(files.join("\n"));
    let dump = |map| run("bpftool", &["-j", "map", "dump", "pinned", &format!("{PIN_DIR}/{map}")]);
    all.extend(["guards", "flows"].map(dump));
    // Not the clocks: a pod looks for IPv6 routers when it likes to.
    let lines = parse(&dump("lines"));
    let lines = lines.as_array().expect("entries").iter();
    all.extend(lines.map(|line| line["formatted"]["value"]["limit"].to_string()));
    all.join("\n")
}

/// Name, inode, size and time of change. The BPF file system makes two files when it is first read.
fn list(dir: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("list a directory") {
        let (path, found) = entry.and_then(|e| Ok((e.path(), e.metadata()?))).expect("a file");
        let (seconds, nanoseconds) = (found.ctime(), found.ctime_nsec());
        let line = format!("{} {} {seconds}.{nanoseconds}", path.display(), found.ino());
        files.extend((!line.contains("debug")).then(|| format!("{line} {}", found.size())));
        if found.is_dir() {
            list(&path, files);
        }
    }
}

/// What the records of all pods say.
fn records() -> String {
    let entries = fs::read_dir("/run/sluice/pods").expect("list the records");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

#[test]
fn doctor_changes_nothing() {
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        load_foreign();
        tc(&format!(
            "qdisc add dev {} root handle 1: tbf rate 1mbit burst 4k latency 25ms",
            node.pod("b", 3).host_ifname
        ));
        // The kernel tells of a carrier a little later.
        wait_for("the pod's carrier", Duration::from_secs(5), || {
            pod.run("ip link show eth0").contains("state UP").then_some(())
        });
        // The guard in the pod is attached some seconds after ADD.
        wait_for("both guards", Duration::from_secs(20), || {
            (!records().contains("\"pending\"")).then_some(())
        });
        let before = state(&pod);
        for arguments in [&["doctor"][..], &["doctor", "--all"], &["doctor", "--json"]] {
            node.sluice(arguments);
        }
        assert_eq!(state(&pod), before);
    });
}

#[test]
fn archive_for_support_has_what_a_report_needs_and_no_secret() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let foreign = r#"{"name": "other", "plugins": [{"type": "x", "apiToken": "do-not-tell"}]}"#;
        fs::write(format!("{CONF_DIR}/99-other.conflist"), foreign).expect("a conflist");
        // nodeadm's part, and a script's, are nobody's business.
        let settings = fs::read_to_string(USER_DATA).expect("user data");
        let mime = format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=X\n\n--X\nContent-Type: \
             text/x-shellscript\n\n#!/bin/sh\nPASSWORD=do-not-tell\n--X\nContent-Type: \
             application/toml\n\n{settings}--X--\n"
        );
        fs::write("/var/lib/sluice/user-data.toml", mime).expect("user data");
        let output = node.sluice(&["support", "--output", "/run/support.tar.gz"]);
        assert!(output.status.success(), "{}", text(&output));
        let packed = fs::read("/run/support.tar.gz").expect("the archive");
        assert_eq!(fs::metadata("/run/support.tar.gz").expect("its mode").mode() & 0o777, 0o600);
        assert!(packed.len() < 1024 * 1024, "{} bytes", packed.len());
        let mut archive = tar::Archive::new(GzDecoder::new(&packed[..]));
        let mut files = BTreeMap::new();
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut content = String::new();
            entry.read_to_string(&mut content).expect("text");
            files.insert(name, content);
        }
        let file = |name: &str| &files[&format!("sluice-support/{name}")];
        for (name, words) in [
            ("status.txt", "pods:     1: "),
            ("doctor.txt", "enia (pod default/a"),
            ("pods.txt", "default/a"),
            ("settings.txt", "default-egress"),
            ("plan.txt", "user data from"),
            ("metrics.txt", "sluice_ready 1"),
            ("kernel.txt", "Linux"),
            ("conflists/10-main.conflist", "\"type\": \"sluice\""),
            ("conflists/99-other.conflist", "\"apiToken\": \"left out\""),
            ("run/sluice/boot.json", "as-asked"),
        ] {
            assert!(file(name).contains(words), "{name}: {}", file(name));
        }
        assert_eq!(parse(file("status.json"))["pods"][0]["pod"], "a");
        assert!(files.contains_key("sluice-support/journal.txt"));
        assert!(!files.values().any(|content| content.contains("do-not-tell")));
    });
}

#[test]
fn clean_up_of_everything_foreign_is_told_by_what_is_missing() {
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        let guarded = has_tcx();
        node.kill_agent(nix::sys::signal::Signal::SIGKILL);
        // As Calico does where it takes devices over: root qdiscs and clsact go, tcx stays.
        tc(&format!("qdisc del dev {} root", pod.host_ifname));
        tc(&format!("qdisc del dev {} clsact", pod.host_ifname));
        pod.run("tc qdisc del dev eth0 root");
        let seen = diagnosis(node);
        assert_ne!(seen["summary"]["fault"], 0);
        let faults = codes(&seen, "fault");
        assert_eq!(faults.iter().filter(|code| *code == "filter-missing").count(), 2, "{faults:?}");
        let missing = finding(&seen, "filter-missing");
        says(missing, "subject", "pod default/a, egress (eth0 inside)");
        says(missing, "seen", "our root qdisc and the filter on it are gone");
        let degraded = codes(&seen, "degraded");
        assert_eq!(degraded.contains(&"guard-missing".into()), !guarded, "{degraded:?}");
    });
}

#[test]
fn missing_fq_is_a_fault_of_its_own() {
    if !has_fq() {
        return skip("missing_fq_is_a_fault_of_its_own", "the kernel has no sch_fq");
    }
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        // Which would restore it.
        node.kill_agent(nix::sys::signal::Signal::SIGKILL);
        pod.run("tc qdisc del dev eth0 parent 51ce:1 handle 51cf:");
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), ["fq-missing"], "{:#}", seen["findings"]);
        says(finding(&seen, "fq-missing"), "seen", "the fq 51cf: is gone");
    });
}

#[test]
fn foreign_root_qdiscs_on_either_end_are_named() {
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        node.kill_agent(nix::sys::signal::Signal::SIGKILL);
        tc(&format!("qdisc del dev {} root", pod.host_ifname));
        tc(&format!(
            "qdisc add dev {} root handle 1: tbf rate 1mbit burst 4k latency 25ms",
            pod.host_ifname
        ));
        let seen = diagnosis(node);
        assert_ne!(seen["summary"]["fault"], 0);
        let foreign = finding(&seen, "foreign-root-qdisc");
        says(foreign, "subject", "pod default/a, ingress (enia)");
        says(foreign, "seen", "the root qdisc is tbf 1:");
        assert_eq!(codes(&seen, "fault"), ["foreign-root-qdisc"]);
        // A pod that no one limits is none of our business, but a limit could not come.
        let other = node.pod("b", 3);
        tc(&format!("qdisc add dev {} root handle 1: pfifo", other.host_ifname));
        let seen = diagnosis(node);
        let all = seen["findings"].as_array().expect("findings");
        let subjects: Vec<_> = all
            .iter()
            .filter(|f| f["code"] == "foreign-root-qdisc")
            .map(|f| &f["severity"])
            .collect();
        assert_eq!(subjects, ["fault", "degraded"]);
    });
}

#[test]
fn guarded_pod_is_degraded_and_says_by_what() {
    with_ready_node("", |node| {
        let (agent, pod) = (PolicyAgent::start(), node.pod("a", 2));
        agent.allow(&pod.host_ifname);
        pod.run("tc qdisc add dev eth0 root handle 5: pfifo limit 100");
        node.add(&pod, EGRESS);
        let seen = diagnosis(node);
        says(finding(&seen, "guarded"), "seen", "eth0 already has a foreign root qdisc (pfifo 5:)");
    });
}

#[test]
fn program_that_passes_in_front_of_policy_and_guard_is_a_fault() {
    if !has_tcx() {
        return skip_for_tcx("program_that_passes_in_front_of_policy_and_guard_is_a_fault");
    }
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        load_foreign();
        let device = index(&pod.host_ifname);
        let link = prepend_ingress(&foreign("cil_from_container"), device);
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), ["policy-bypassed"]);
        let bypassed = finding(&seen, "policy-bypassed");
        says(bypassed, "subject", "enia (pod default/a)");
        says(bypassed, "seen", "on tcx: cil_from_contai");
        says(bypassed, "seen", "returns PASS/DROP: can end the chain: nothing behind it runs then");
        says(bypassed, "why", "network policy for the pod's egress does not see those packets");
        says(finding(&seen, "guard-hidden"), "seen", "cilium");
        says(finding(&seen, "cilium-present"), "subject", "node");
        drop(link);
        // Another test's process may have a copy of the descriptor until it runs its program.
        wait_for("the link's end", Duration::from_secs(5), || {
            (hook(&diagnosis(node), &pod, "ingress", "tcx").len() == 1).then_some(())
        });
        // Behind the guard it still hides policy.
        let _link = append_ingress(&foreign("cil_from_container"), device);
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), ["policy-bypassed"]);
        assert_eq!(codes(&seen, "degraded").iter().filter(|c| *c == "guard-hidden").count(), 0);
    });
}

#[test]
fn guard_behind_policy_on_clsact_is_told() {
    // With tcx it is never behind.
    if has_tcx() {
        return skip_for_tcx("guard_behind_policy_on_clsact_is_told");
    }
    with_ready_node("", |node| {
        let (agent, pod) = pod_with_policy(node);
        node.kill_agent(nix::sys::signal::Signal::SIGKILL);
        // As after a restart of the policy agent: what is attached last runs first.
        agent.attach(&pod.host_ifname, Side::Ingress, Verdict::Allow).expect("attach again");
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), [""; 0]);
        let hidden = finding(&seen, "guard-hidden");
        says(hidden, "seen", "aws network policy) returns OK");
        says(hidden, "subject", "pod default/a, guard (enia)");
    });
}

#[test]
fn neighbours_that_never_end_the_chain_are_no_finding_and_unknown_ones_stay_unknown() {
    if !has_tcx() {
        return skip_for_tcx(
            "neighbours_that_never_end_the_chain_are_no_finding_and_unknown_ones_stay_unknown",
        );
    }
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        load_foreign();
        let device = index(&pod.host_ifname);
        let harmless = ["counts_only", "calls_a_function"];
        let links = harmless.map(|program| prepend_ingress(&foreign(program), device));
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), [""; 0]);
        assert_eq!(codes(&seen, "note"), [""; 0], "{:#}", seen["findings"]);
        let verdicts: Vec<_> =
            hook(&seen, &pod, "ingress", "tcx").iter().map(|e| e["verdicts"].clone()).collect();
        assert_eq!(verdicts, ["NEXT/DROP", "NEXT", "NEXT/DROP"]);
        drop(links);
        let _link = prepend_ingress(&foreign("asks_a_helper"), device);
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), [""; 0]);
        assert_eq!(codes(&seen, "note"), ["guard-behind", "policy-perhaps-bypassed"]);
        says(
            finding(&seen, "guard-behind"),
            "seen",
            "returns unknown: what it returns could not be found out",
        );
    });
}

#[test]
fn filter_that_passes_in_front_of_policy_on_clsact_is_a_fault() {
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        load_foreign();
        let device = pod.host_ifname.as_str();
        // Newest first within a priority.
        tc(&format!(
            "filter add dev {device} egress prio 1 protocol all handle 7 bpf da object-pinned {}",
            foreign("cil_from_container")
        ));
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), ["policy-bypassed"]);
        let bypassed = finding(&seen, "policy-bypassed");
        says(bypassed, "seen", "on clsact: cil_from_container");
        says(bypassed, "why", "network policy for the pod's ingress does not see those packets");
    });
}

#[test]
fn handle_one_of_somebody_else_and_priority_one_of_another_kind_are_told() {
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        load_foreign();
        let device = pod.host_ifname.as_str();
        // Without a handle the kernel gives 1.
        tc(&format!(
            "filter add dev {device} ingress prio 5 protocol all bpf da object-pinned {}",
            foreign("counts_only")
        ));
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), [""; 0]);
        let taken = finding(&seen, "handle-one-taken");
        assert_eq!(taken["severity"], "degraded");
        says(taken, "seen", "priority 5, handle 0x1, on ingress");
        says(taken, "remedy", "tc filter del dev enia ingress pref 5 handle 0x1 bpf");
        let other = node.pod("b", 3).host_ifname;
        tc(&format!("qdisc add dev {other} clsact"));
        tc(&format!("filter add dev {other} egress prio 1 protocol ip u32 match u32 0 0"));
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), ["priority-taken"]);
        says(finding(&seen, "priority-taken"), "subject", "enib");
    });
}

#[test]
fn traces_of_the_upstream_bandwidth_plugin_are_told() {
    with_ready_node("", |node| {
        let _agent = PolicyAgent::start();
        let device = node.pod("a", 2).host_ifname;
        ip("link add bwp0123456789a type ifb");
        ip("link add bwpleft type ifb");
        tc(&format!("qdisc add dev {device} handle ffff: ingress"));
        tc(&format!(
            "filter add dev {device} parent ffff: protocol all prio 1 u32 match u32 0 0 \
             action mirred egress redirect dev bwp0123456789a"
        ));
        tc(&format!("qdisc add dev {device} root handle 1: tbf rate 1mbit burst 4k latency 25ms"));
        let seen = diagnosis(node);
        assert_ne!(seen["summary"]["fault"], 0);
        // One for the redirect, one for the ifb that no one uses; not one for the used ifb.
        let all = seen["findings"].as_array().expect("findings");
        let subjects: Vec<_> = all
            .iter()
            .filter(|f| f["code"] == "upstream-bandwidth")
            .map(|f| &f["subject"])
            .collect();
        assert_eq!(subjects, ["enia", "bwpleft"]);
        says(finding(&seen, "upstream-bandwidth"), "seen", "to bwp0123456789a");
        says(finding(&seen, "ingress-qdisc"), "why", "takes it for clsact");
        says(finding(&seen, "foreign-root-qdisc"), "seen", "upstream bandwidth plugin");
        assert_eq!(codes(&seen, "fault"), ["priority-taken", "ingress-qdisc"]);
    });
}

/// felix/dataplane/linux/qos of Calico: it restores what is deleted.
#[test]
fn calicos_limit_on_what_a_pod_sends_is_named_and_never_to_be_deleted() {
    with_ready_node("", |node| {
        let device = node.pod("a", 2).host_ifname;
        ip("link add bwcali01234567 type ifb");
        tc(&format!("qdisc add dev {device} ingress"));
        tc(&format!(
            "filter add dev {device} parent ffff: protocol all prio 1 u32 match u32 0 0 \
             action mirred egress redirect dev bwcali01234567"
        ));
        let seen = diagnosis(node);
        says(finding(&seen, "priority-taken"), "seen", "calico");
        for code in ["priority-taken", "ingress-qdisc"] {
            let found = finding(&seen, code);
            says(found, "remedy", "qos.projectcalico.org/egressBandwidth");
            assert!(!found["remedy"].to_string().contains(" del "), "{found:#}");
        }
    });
}

#[test]
fn policy_that_is_pinned_and_not_attached_is_a_fault() {
    with_ready_node("", |node| {
        let _agent = PolicyAgent::start();
        let pod = node.pod("a", 2);
        node.add(&pod, EGRESS);
        // As the agent calls the pin of a pod's program.
        let program = "/sys/fs/bpf/globals/aws/programs/policy_allow";
        let pin = "/sys/fs/bpf/globals/aws/programs/a@default_handle_egress";
        run("bpftool", &["prog", "pin", "pinned", program, pin]);
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), ["policy-missing"]);
        says(
            finding(&seen, "policy-missing"),
            "seen",
            "there is no clsact, and its program is pinned",
        );
    });
}

/// Issue 514 of the policy agent: it has pinned a new program, and the filter keeps the old one.
#[test]
fn policys_program_that_is_not_the_pinned_one_is_a_note() {
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        let pins = "/sys/fs/bpf/globals/aws/programs";
        let pinned = format!("{pins}/a@default_handle_egress");
        let pin = |program: &str| {
            run("bpftool", &["prog", "pin", "pinned", &format!("{pins}/{program}"), &pinned]);
        };
        pin("policy_allow");
        let outdated = |seen: &Value| codes(seen, "note").contains(&"policy-outdated".into());
        assert!(!outdated(&diagnosis(node)));
        fs::remove_file(&pinned).expect("remove the pin");
        pin("policy_deny");
        let seen = diagnosis(node);
        assert!(outdated(&seen), "{:#}", seen["findings"]);
        let finding = finding(&seen, "policy-outdated");
        says(finding, "subject", &format!("{} (pod default/a)", pod.host_ifname));
        says(finding, "seen", "is attached, and /sys/fs/bpf/globals/aws/programs/a@default");
        says(finding, "why", "changes of policy for the pod's egress");
    });
}

#[test]
fn lost_clamp_is_told_with_the_command_that_brings_it_back() {
    with_ready_node("", |node| {
        let (_agent, pod) = pod_with_policy(node);
        // Which would restore it.
        node.kill_agent(nix::sys::signal::Signal::SIGKILL);
        ip(&format!("-n {} link set eth0 gso_max_size 60000", pod.name));
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), [""; 0]);
        let lost = finding(&seen, "gso-clamp-lost");
        says(lost, "seen", "gso_max_size is 60000, and was set to 3000");
        let remedy = lost["remedy"].as_str().expect("text").split(';').next().expect("a command");
        run("sh", &["-c", remedy]);
        assert!(!codes(&diagnosis(node), "degraded").contains(&"gso-clamp-lost".into()));
    });
}

#[test]
fn chain_that_lost_our_entry_or_has_upstreams_is_a_fault() {
    with_ready_node("", |node| {
        // Which would restore it.
        node.kill_agent(nix::sys::signal::Signal::SIGKILL);
        let chained = fs::read_to_string(CONFLIST).expect("read the conflist");
        let faults = |text: &str| {
            fs::write(CONFLIST, text).expect("write the conflist");
            codes(&diagnosis(node), "fault")
        };
        assert_eq!(faults(r#"{"plugins":[{"type":"aws-cni"}]}"#), ["entry-missing"]);
        let upstream = chained.replace("[\n", "[\n    {\"type\": \"aws-cni\"},\n");
        let upstream = upstream.replace("\"ptp\"", "\"bandwidth\"");
        assert_eq!(faults(&upstream), ["upstream-entry"]);
        assert_eq!(faults(&chained), [""; 0]);
        let first = format!("{CONF_DIR}/05-first.conflist");
        fs::write(&first, r#"{"plugins":[{"type":"x"}]}"#).expect("write");
        assert_eq!(faults(&chained), ["conflist-shadowed"]);
        fs::remove_file(first).expect("remove");
        fs::remove_file("/run/node/bin/sluice").expect("remove the plugin");
        assert_eq!(faults(&chained), ["plugin-missing"]);
    });
}

#[test]
fn node_that_was_never_booted_says_what_to_do() {
    with_node(|node| {
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), ["not-booted", "pins-missing"]);
        says(finding(&seen, "not-booted"), "remedy", "sluice boot");
        says(finding(&seen, "pins-missing"), "subject", PIN_DIR);
        fs::create_dir_all("/sys/fs/bpf/sluice/v1").expect("make another layout");
        let other = diagnosis(node);
        let other = finding(&other, "pins-of-other-version");
        assert_eq!(
            (&other["subject"], &other["severity"]),
            (&json!("/sys/fs/bpf/sluice/v1"), &json!("note"))
        );
    });
}

#[test]
fn records_and_results_that_do_not_match_are_told() {
    with_ready_node("", |node| {
        let (gone, missed) = (node.pod("a", 2), node.pod("b", 3));
        node.add(&gone, EGRESS);
        // Which would clear the one and adopt the other at once.
        node.signal_agent(Signal::SIGSTOP);
        gone.delete();
        let result = json!({
            "kind": "cniCacheV1", "containerId": "id-b", "ifName": "eth0", "networkName": "main",
            "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "b"]],
            "result": {"interfaces": [{"name": "eth0", "sandbox": missed.netns()}]},
        });
        fs::create_dir_all("/var/lib/cni/results").expect("make the cache");
        fs::write("/var/lib/cni/results/main-id-b-eth0", result.to_string()).expect("write");
        let seen = diagnosis(node);
        assert_eq!(codes(&seen, "fault"), [""; 0]);
        says(finding(&seen, "pod-without-record"), "subject", "pod default/b");
        says(finding(&seen, "record-without-pod"), "subject", "pod default/a");
        // Stopped in the middle of its work it would keep an ADD waiting.
        node.signal_agent(Signal::SIGCONT);
        node.add(&missed, EGRESS);
        assert!(!codes(&diagnosis(node), "degraded").contains(&"pod-without-record".into()));
    });
}

#[test]
fn who_may_not_look_is_told_what_is_missing() {
    with_node(|_| {
        let sluice = tests::command::executable("sluice");
        let sluice = sluice.to_str().expect("path is UTF-8");
        let dropped = output(
            "setpriv",
            &["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sluice, "doctor"],
        );
        assert_eq!(dropped.status.code(), Some(1));
        let said = String::from_utf8_lossy(&dropped.stderr).into_owned();
        assert_eq!(said, "sluice: error: survey the node: needs root (CAP_SYS_ADMIN is missing)\n");
    });
}
