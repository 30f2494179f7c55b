// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin's verbs beside ADD and DEL, what it understands, and what a
//! call that was killed leaves.

use std::fs::{self, File};
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::cni::{Annotations, Call, expect_error};
use tests::command::{ip, json as parse, run, tc, text, wait_for};
use tests::crash::{End, PLUGIN_EFFECTS, run_until_call};
use tests::node::{BIN_DIR, Node, PIN_DIR, Pod, with_node, with_ready_node};
use tests::result_cache::Cached;

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
const VALID: &str = "cni.dev/valid-attachments";
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// A node whose pins are there and whose agent is not, so that nothing mends what a test breaks.
fn without_agent(test: impl FnOnce(&mut Node) + Send) {
    with_ready_node("", |node| {
        node.kill_agent(Signal::SIGTERM);
        test(node);
    });
}

/// The verb succeeds and says nothing at all.
fn silent(output: &Output) {
    let said = !output.stdout.is_empty() || !output.stderr.is_empty();
    assert!(output.status.success() && !said, "{}", text(output));
}

/// Code, and message with its details.
fn error(output: &Output) -> (u64, String) {
    let error = expect_error(output);
    let word = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    let details = word("details");
    let message = [word("msg"), details].into_iter().filter(|word| !word.is_empty());
    (error["code"].as_u64().expect("a code"), message.collect::<Vec<_>>().join(": "))
}

fn check(pod: &Pod) -> Output {
    Call::new("CHECK", pod, BOTH).run(pod)
}

fn missing(pod: &Pod, what: &str) {
    assert_eq!(error(&check(pod)), (103, format!("sluice: {what}")));
}

/// GC as libcni calls it: only a network, and the attachments of these pods.
fn gc(valid: &[&Pod]) -> Call {
    let attachments: Vec<Value> = valid.iter().map(|pod| attachment(pod)).collect();
    gc_of(json!({"cniVersion": "1.1.0", "name": "main", VALID: attachments}))
}

fn gc_of(stdin: Value) -> Call {
    let nothing = String::new();
    Call {
        verb: "GC",
        container_id: nothing.clone(),
        netns: nothing,
        ifname: "",
        bin_dir: BIN_DIR,
        stdin,
    }
}

fn attachment(pod: &Pod) -> Value {
    json!({"containerID": format!("id-{}", pod.name), "ifname": "eth0"})
}

/// Another interface, as for a further network card.
fn second_interface(pod: &Pod) {
    let (host, name) = (second_host_ifname(pod), &pod.name);
    ip(&format!("link add {host} type veth peer name eth1 netns {name}"));
    ip(&format!("link set {host} up"));
    ip(&format!("-n {name} link set eth1 up"));
}

fn second_host_ifname(pod: &Pod) -> String {
    format!("{}1", pod.host_ifname)
}

/// Names of the records' files, and of whatever else is there.
fn records() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/run/sluice/pods") else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// What hangs on both ends of the pair.
fn attached(pod: &Pod) -> String {
    let host = tc(&format!("qdisc show dev {}", pod.host_ifname));
    let inside = pod.run("tc qdisc show dev eth0");
    let filters = pod.run("tc filter show dev eth0 parent 51ce:");
    let gso = ["", &format!("-n {}", pod.name)].map(|namespace| {
        let device = if namespace.is_empty() { &pod.host_ifname } else { "eth0" };
        let link = parse(&ip(&format!("{namespace} -j -d link show {device}")));
        link[0]["gso_max_size"].to_string()
    });
    let lines = [host, inside, filters].concat();
    format!("{lines}\ngso {gso:?}")
}

/// What the programs read for this direction of a slot.
fn limit_in_map(slot: u64, direction: u64) -> Value {
    let key = (slot * 2 + direction) as u8;
    let pin = format!("{PIN_DIR}/lines");
    let words = format!("-j map lookup pinned {pin} key {key} 0 0 0");
    parse(&run("bpftool", &words.split(' ').collect::<Vec<_>>()))["formatted"]["value"]["limit"]
        .clone()
}

#[test]
fn check_is_silent_while_all_that_add_attached_is_there() {
    without_agent(|node| {
        let (pod, free) = (node.pod("a", 2), node.pod("free", 3));
        second_interface(&pod);
        node.add(&pod, BOTH);
        silent(&check(&pod));
        node.add(&free, Annotations::default());
        silent(&Call::new("CHECK", &free, Annotations::default()).run(&free));
        // Settings that have not reached the pod yet are no reason to give it up.
        node.boot_with("default-egress = \"1Mbit\"\nburst = \"9ms\"");
        silent(&check(&pod));
        silent(&Call::new("CHECK", &free, Annotations::default()).run(&free));
    });
}

#[test]
fn check_names_what_is_missing() {
    without_agent(|node| {
        let pod = node.pod("a", 2);
        second_interface(&pod);
        node.add(&pod, BOTH);
        let again = || {
            node.del(&pod);
            node.add(&pod, BOTH);
            silent(&check(&pod));
        };
        pod.run("tc filter del dev eth0 parent 51ce:");
        let filter = "the pod's filter is gone";
        missing(&pod, &format!("eth0 egress: {filter}"));
        pod.run("tc filter del dev eth1 parent 51ce:");
        missing(&pod, &format!("eth1 egress: {filter}; eth0 egress: {filter}"));
        again();
        tc(&format!("qdisc del dev {} root", pod.host_ifname));
        let root = "the qdisc and the filter of the host's end are gone";
        missing(&pod, &format!("eth0 ingress: {root}"));
        again();
        let zero = vec!["0"; line_bytes()].join(" ");
        let words = format!("map update pinned {PIN_DIR}/lines key 3 0 0 0 value {zero}");
        run("bpftool", &words.split(' ').collect::<Vec<_>>());
        let limit = "slot 1 has no limit in the maps";
        missing(&pod, &format!("eth1 ingress: {limit}; eth0 ingress: {limit}"));
        again();
        ip(&format!("link del {}", pod.host_ifname));
        ip(&format!("link add {} type veth peer name eth0 netns a", pod.host_ifname));
        missing(&pod, "eth0 is not the interface that ADD shaped: it was made again");
        ip(&format!("link del {}", pod.host_ifname));
        let message = "sluice: find the pod's interface eth0: find the interface eth0: No such \
                       device (os error 19)";
        assert_eq!(error(&check(&pod)), (100, message.into()));
    });
}

/// Of one limit in the maps.
fn line_bytes() -> usize {
    let info = run("bpftool", &["-j", "map", "show", "pinned", &format!("{PIN_DIR}/lines")]);
    parse(&info)["bytes_value"].as_u64().expect("a size") as usize
}

#[test]
fn check_of_a_pod_that_was_not_added_says_so() {
    without_agent(|node| {
        let pod = node.pod("a", 2);
        let text = "there is no record of eth0 of container id-a: it was not added, or has been \
                    deleted";
        missing(&pod, text);
        node.add(&pod, BOTH);
        node.del(&pod);
        missing(&pod, text);
        silent(&Call::new("CHECK", &pod, Annotations::default()).run(&pod));
    });
}

#[test]
fn check_and_gc_are_refused_in_versions_that_have_none() {
    without_agent(|node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let refused = |call: &mut Call, version: &str, allowed: &str| {
            call.stdin["cniVersion"] = version.into();
            let message = format!("sluice: cniVersion is \"{version}\", allowed are {allowed}");
            assert_eq!(error(&call.run(&pod)), (1, message));
        };
        let mut check = Call::new("CHECK", &pod, BOTH);
        for version in ["", "0.3.0", "0.3.1"] {
            refused(&mut check, version, "0.4.0, 1.0.0, 1.1.0");
        }
        let mut gc = gc(&[]);
        for version in ["", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
            refused(&mut gc, version, "1.1.0");
        }
        silent(&self::check(&pod));
        check.stdin["cniVersion"] = "1.1.0".into();
        check.stdin["prevResult"] = Value::Null;
        assert_eq!(error(&check.run(&pod)).0, 7);
    });
}

#[test]
fn gc_takes_away_what_is_stale_and_nothing_else() {
    without_agent(|node| {
        let pods = ["a", "b", "c"].map(|name| node.pod(name, name.as_bytes()[0]));
        let [kept, alive, gone] = &pods;
        second_interface(kept);
        second_interface(alive);
        let before = attached(alive);
        pods.iter().for_each(|pod| node.add(pod, BOTH));
        gone.delete();
        fs::write("/run/sluice/pods/.9@id-other@eth0.json.tmp", "{").expect("write half a record");
        let shaped = attached(kept);
        assert_ne!(attached(alive), before);
        silent(&gc(&[kept]).run(kept));
        assert_eq!(records(), ["1@id-a@eth0.json", "1@id-a@eth1.json"]);
        assert_eq!((attached(kept), attached(alive)), (shaped, before));
        silent(&check(kept));
        let second = tc(&format!("qdisc show dev {}", second_host_ifname(alive)));
        assert!(second.starts_with("qdisc noqueue"), "{second}");
        assert_eq!(limit_in_map(2, 0), limit_in_map(1000, 0), "slot 2 is as new");
        silent(&gc(&[kept]).run(kept));
        node.add(alive, BOTH);
        assert_eq!(node.status(alive)["slot"], 2);
    });
}

#[test]
fn gc_removes_nothing_where_nothing_is_said_to_be_stale() {
    without_agent(|node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let (shaped, taken) = (attached(&pod), records());
        let head = json!({"cniVersion": "1.1.0", "name": "main"});
        let with = |key: &str, value: Value| {
            let mut stdin = head.clone();
            stdin[key] = value;
            gc_of(stdin).run(&pod)
        };
        let missing = |key: &str| {
            format!("sluice: {key} is missing, so nothing is known to be stale or was removed")
        };
        assert_eq!(error(&gc_of(head.clone()).run(&pod)), (7, missing(VALID)));
        let nameless = gc_of(json!({"cniVersion": "1.1.0", VALID: []})).run(&pod);
        assert_eq!(error(&nameless), (7, missing("name")));
        assert_eq!(error(&with(VALID, json!([{"ifname": "eth0"}]))).0, 6);
        assert_eq!(error(&with(VALID, json!({}))).0, 6);
        // Of another network, where nothing is valid; as another libcni calls it.
        silent(&gc_of(json!({"cniVersion": "1.1.0", "name": "other", VALID: []})).run(&pod));
        silent(&with("cni.dev/attachments", json!([attachment(&pod)])));
        let both = json!({"cniVersion": "1.1.0", "name": "main", VALID: [attachment(&pod)],
            "cni.dev/attachments": [attachment(&pod)]});
        silent(&gc_of(both).run(&pod));
        assert_eq!((attached(&pod), records()), (shaped, taken));
        // An empty list in Go.
        silent(&with(VALID, Value::Null));
        assert_eq!(records(), Vec::<String>::new());
    });
}

#[test]
fn gc_leaves_the_device_that_a_valid_attachment_shares() {
    without_agent(|node| {
        let pod = node.pod("a", 2);
        let mut stale = Call::new("ADD", &pod, BOTH);
        stale.container_id = "id-before".into();
        assert!(stale.run(&pod).status.success());
        node.add(&pod, BOTH);
        let shaped = attached(&pod);
        silent(&gc(&[&pod]).run(&pod));
        assert_eq!(records(), ["2@id-a@eth0.json"]);
        assert_eq!(attached(&pod), shaped);
        silent(&check(&pod));
    });
}

#[test]
fn gc_goes_on_after_a_failure_and_tells_of_it() {
    without_agent(|node| {
        let pods = ["a", "b"].map(|name| node.pod(name, name.as_bytes()[0]));
        pods.iter().for_each(|pod| node.add(pod, BOTH));
        let (stuck, none) = ("/run/sluice/pods/1@id-a@eth0.json", None::<&str>);
        mount(Some(stuck), stuck, none, MsFlags::MS_BIND, none).expect("bind a record to itself");
        let (code, message) = error(&gc(&[]).run(&pods[0]));
        // Two C libraries have two texts for EBUSY.
        let named =
            message.starts_with(&format!("sluice: eth0 of container id-a: remove {stuck}: "));
        assert!(code == 101 && named && message.ends_with("(os error 16)"), "{message}");
        assert_eq!(records(), ["1@id-a@eth0.json"]);
    });
}

#[test]
fn add_killed_at_any_point_leaves_nothing_that_gc_does_not_clear() {
    without_agent(|node| {
        let pod = node.pod("a", 2);
        let call = Call::new("ADD", &pod, BOTH);
        fs::write("/run/stdin", call.stdin.to_string()).expect("write the configuration");
        let before = attached(&pod);
        let mut killed = 0;
        loop {
            let mut command = call.command(&pod);
            command.stdin(File::open("/run/stdin").expect("open the configuration"));
            command.stdout(Stdio::null());
            let end = run_until_call(&mut command, PLUGIN_EFFECTS, killed + 1);
            if end != End::Killed {
                assert_eq!(end, End::Exited(0));
                break;
            }
            killed += 1;
            silent(&gc(&[]).run(&pod));
            assert_eq!((attached(&pod), records()), (before.clone(), vec![]), "call {killed}");
            assert_eq!(limit_in_map(1, 0), limit_in_map(1000, 0), "call {killed}");
        }
        assert!(killed > 40, "{killed} calls");
        silent(&check(&pod));
    });
}

#[test]
fn own_annotations_reach_the_limit_and_others_do_not_matter() {
    with_ready_node("latency-target = \"8ms\"", |node| {
        let pod = node.pod("a", 2);
        let mut call = Call::new("ADD", &pod, BOTH);
        call.stdin["runtimeConfig"][ANNOTATIONS] = json!({
            "sluice.dev/egress-burst": "3ms", "sluice.dev/latency-target": "2ms",
            "sluice.dev/someday": "?", "example.org/egress-burst": "?",
        });
        assert!(call.run(&pod).status.success());
        let numbers = |direction| {
            let limit = limit_in_map(1, direction);
            (limit["burst_ns"].as_u64(), limit["target_ns"].as_u64())
        };
        assert_eq!(numbers(0), (Some(3_000_000), Some(2_000_000)));
        assert_eq!(numbers(1), (Some(5_000_000), Some(2_000_000)));
        let trace = node.sluice(&["trace", "default/a"]).stdout;
        let trace = String::from_utf8(trace).expect("UTF-8");
        for line in [
            "     burst           3ms         sluice.dev/egress-burst\n",
            "     burst           5ms         default\n",
            "     latency-target  2ms         sluice.dev/latency-target\n",
        ] {
            assert!(trace.contains(line), "{trace}");
        }
        node.del(&pod);
        call.stdin["runtimeConfig"][ANNOTATIONS] = Value::Null;
        assert!(call.run(&pod).status.success());
        assert_eq!(numbers(0), (Some(5_000_000), Some(8_000_000)));
    });
}

#[test]
fn no_annotation_raises_a_limit_above_the_maximum() {
    let keys = "max-egress = \"10Mbit\"\nmax-ingress = \"30Mbit\"\nmax-burst = \"6ms\"";
    with_ready_node(keys, |node| {
        let pod = node.pod("a", 2);
        let mut call = Call::new("ADD", &pod, BOTH);
        call.stdin["runtimeConfig"][ANNOTATIONS] =
            json!({"sluice.dev/egress-burst": "64MiB", "sluice.dev/ingress-burst": "2ms"});
        let output = call.run(&pod);
        assert!(output.status.success(), "{}", text(&output));
        let warned = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            warned,
            "sluice: default/a: its annotation asks for egress 20Mbit, above the maximum: it has 10Mbit\n\
             sluice: default/a: its annotation asks for egress burst 64MiB, above the maximum: it has 6ms\n"
        );
        // Nothing asks for more, or for a limit at all.
        let (cached, none) = (node.pod("b", 3), node.pod("c", 4));
        cache(&cached, json!({"EgressRate": 1_000_000_000, "IngressRate": LIMIT}));
        node.add(&none, Annotations { egress: 0, ingress: 0 });
        let limit = |pod: &Pod| {
            wait_for("the limits", Duration::from_secs(20), || {
                let status = node.status(pod);
                let direction = |direction: &str| {
                    let line = &status[direction];
                    let known = line["mode"].is_string();
                    known.then(|| json!([line["limit_bps"], line["origin"], line["asked"]]))
                };
                Some([direction("egress")?, direction("ingress")?])
            })
        };
        let (own, of_node) = ("pod-annotation", "node-default");
        assert_eq!(
            limit(&pod),
            [json!([10_000_000, own, "20Mbit"]), json!([20_000_000, own, null])]
        );
        assert_eq!(limit(&cached)[0], json!([10_000_000, own, "1Gbit"]));
        let asked =
            [json!([10_000_000, of_node, "unlimited"]), json!([30_000_000, of_node, "unlimited"])];
        assert_eq!(limit(&none), asked);
        let bursts = [0, 1].map(|direction| limit_in_map(1, direction)["burst_ns"].as_u64());
        assert_eq!(bursts, [Some(6_000_000), Some(2_000_000)]);
        let trace = node.sluice_json(&["trace", "default/a", "--json"]);
        assert_eq!(trace["interfaces"][0]["egress"]["maximum"]["value"], "10Mbit");
        assert_eq!(trace["interfaces"][0]["egress"]["maximum"]["asked"], "20Mbit");
        assert_eq!(trace["interfaces"][0]["ingress"]["maximum"]["asked"], Value::Null);
        assert_eq!(trace["interfaces"][0]["egress"]["queue"][0]["asked"][0], "64MiB");
        // Root of the node is above it.
        let set = ["limit", "set", "default/a", "--egress", "1Gbit", "--for", "10m"];
        assert!(node.sluice(&set).status.success());
        assert_eq!(limit(&pod)[0], json!([1_000_000_000, "live-override", null]));
    });
}

/// A pod that runs already, as the result cache tells of it.
fn cache(pod: &Pod, bandwidth: Value) {
    let (host_ifname, netns) = (pod.host_ifname.as_str(), pod.netns());
    Cached { pod: &pod.name, host_ifname, netns: &netns, plugins: &["ptp"], bandwidth }.write();
}

#[test]
fn burst_that_means_not_set_limits_with_the_settings_burst() {
    with_ready_node("burst = \"7ms\"", |node| {
        let bursts = ["34359738359", "34359738360", "18446744073709551615", "18446744073709552000"];
        for (number, burst) in bursts.into_iter().enumerate() {
            let text = format!(r#"{{"EgressRate":{LIMIT},"EgressBurst":{burst}}}"#);
            let (added, found) = (format!("a{number}"), format!("b{number}"));
            let pod = node.pod(&added, 2 * number as u8 + 2);
            let call = Call::new("ADD", &pod, BOTH);
            // As text, since a number may be too large for what holds JSON here.
            let stdin = call
                .stdin
                .to_string()
                .replace(&call.stdin["runtimeConfig"]["bandwidth"].to_string(), &text);
            let output = call.run_with(&pod, &stdin);
            assert!(output.status.success(), "{burst}: {}", tests::command::text(&output));
            let other = node.pod(&found, 2 * number as u8 + 3);
            cache(&other, parse(&text));
            for pod in [pod, other] {
                let slot = wait_for("the limit", Duration::from_secs(20), || {
                    let pods = node.sluice_json(&["pods", "--json", "--interval", "1"]);
                    let pods = pods["pods"].as_array().expect("pods").clone();
                    let pod = pods.into_iter().find(|p| p["pod"] == pod.name.as_str())?;
                    pod["egress"]["mode"].is_string().then(|| pod["slot"].as_u64())?
                });
                let limit = limit_in_map(slot, 0);
                assert_eq!(limit["burst_ns"], 7_000_000, "{burst} of {}", pod.name);
            }
        }
    });
}

#[test]
fn pod_that_cannot_be_adopted_as_it_asks_is_listed_and_degrades_the_node() {
    with_ready_node("default-egress = \"10Mbit\"", |node| {
        let pod = node.pod("a", 2);
        cache(&pod, json!({"EgressRate": 999, "IngressRate": LIMIT}));
        fs::write("/var/lib/cni/results/main-id-b-eth0", "{\"kind\":").expect("half a file");
        let troubles = wait_for("both reports", Duration::from_secs(20), || {
            let troubles = node.troubles("not-adopted");
            (troubles.len() == 2).then_some(troubles)
        });
        assert_eq!(troubles[0]["subject"], "/var/lib/cni/results/main-id-b-eth0");
        assert_eq!(troubles[1]["subject"], "default/a eth0");
        let what = troubles[1]["what"].as_str().expect("a text");
        assert!(what.starts_with("runtimeConfig.bandwidth.egressRate is 999 bit/s"), "{what}");
        // The node's own limit is in force meanwhile.
        wait_for("the default", Duration::from_secs(20), || {
            (node.status(&pod)["egress"]["limit_bps"] == 10_000_000).then_some(())
        });
        let pods = node.sluice(&["pods", "--interval", "1"]).stdout;
        let pods = String::from_utf8_lossy(&pods).into_owned();
        assert!(pods.contains("\ndefault/a eth0: not-adopted: runtimeConfig"), "{pods}");
        for file in ["main-id-a-eth0", "main-id-b-eth0"] {
            fs::remove_file(format!("/var/lib/cni/results/{file}")).expect("remove");
        }
        wait_for("no report", Duration::from_secs(20), || {
            node.troubles("not-adopted").is_empty().then_some(())
        });
    });
}

#[test]
fn names_that_act_on_a_terminal_are_shown_escaped_everywhere() {
    with_node(|node| {
        node.boot_with("");
        let log = "/run/node/agent.log";
        node.start_agent_logging_to(File::create(log).expect("a log"));
        let mut pod = node.pod("a", 2);
        second_interface(&pod);
        ip("-n a link set eth1 down"); // Linux 6.1 renames no device that is up
        ip("-n a link set eth1 name \u{1b}[31mE");
        pod.name = "\u{1b}[2Jweb\u{9b}1m\nforged".into();
        let mut call = Call::new("ADD", &pod, BOTH);
        call.netns = "/run/netns/a".into();
        call.container_id = "id-a".into();
        let output = call.run(&pod);
        assert!(output.status.success(), "{}", text(&output));
        tc("qdisc del dev enia root");
        wait_for("a line of the log", Duration::from_secs(20), || {
            let said = fs::read_to_string(log).expect("the log");
            said.contains("\\u001b[2Jweb").then_some(())
        });
        for arguments in [
            &["pods"][..],
            &["pods", "--json"],
            &["status"],
            &["status", "--json"],
            &["top", "--once"],
            &["doctor", "--all"],
        ] {
            let said = node.sluice(arguments).stdout;
            let said = String::from_utf8_lossy(&said).into_owned();
            let acts = |c: char| c.is_control() && c != '\n' && c != '\t';
            assert!(!said.contains(acts) && !said.contains("\nforged"), "{arguments:?}: {said}");
        }
        let said = fs::read_to_string(log).expect("the log");
        assert!(!said.contains('\u{1b}') && !said.contains("\nforged"), "{said}");
    });
}

#[test]
fn adopted_pod_keeps_its_own_annotations() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        let info = json!({
            "kind": "cniCacheV1", "containerId": "id-a", "ifName": "eth0", "networkName": "main",
            "config": "", "cniArgs": [["K8S_POD_NAME", "a"], ["K8S_POD_NAMESPACE", "default"]],
            "capabilityArgs": {"bandwidth": {"EgressRate": LIMIT},
                ANNOTATIONS: {"sluice.dev/egress-burst": "3ms"}},
            "result": {"interfaces": [{"name": "eth0", "sandbox": pod.netns()}]},
        });
        fs::create_dir_all("/var/lib/cni/results").expect("make the result cache");
        fs::write("/var/lib/cni/results/main-id-a-eth0", info.to_string()).expect("write");
        wait_for("the adopted limit", Duration::from_secs(20), || {
            (limit_in_map(1, 0)["burst_ns"] == 3_000_000).then_some(())
        });
        // It is of the network that the cache names.
        node.kill_agent(Signal::SIGTERM);
        silent(&gc(&[&pod]).run(&pod));
        assert_eq!(records(), ["1@id-a@eth0.json"]);
        silent(&gc(&[]).run(&pod));
        assert_eq!(records(), Vec::<String>::new());
    });
}

#[test]
fn result_of_add_is_the_previous_one_byte_for_byte_in_every_version() {
    without_agent(|node| {
        let pod = node.pod("a", 2);
        let result = format!(
            "{{ \"interfaces\" : [{{\"sandbox\":\"\",\"name\":\"{}\"}}],\n\t\"mtu\": 1.50e3, \
             \"x\": \"\\u00e9\\/\", \"cniVersion\": \"0.4.0\" }}",
            pod.host_ifname
        );
        for version in ["", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let stdin = format!(
                "{{\"cniVersion\":\"{version}\",\"name\":\"main\",\"prevResult\":{result},\
                 \"runtimeConfig\":{{\"bandwidth\":{{\"ingressRate\":{LIMIT}}}}}}}"
            );
            let output = Call::new("ADD", &pod, BOTH).run_with(&pod, &stdin);
            assert!(output.status.success(), "{}", text(&output));
            assert_eq!(String::from_utf8_lossy(&output.stdout), result);
            node.del(&pod);
        }
    });
}

#[test]
fn status_needs_no_container_and_fails_when_add_would() {
    with_node(|node| {
        node.boot_with("");
        let mut status = gc_of(json!({"cniVersion": "1.1.0", "name": "main", "type": "sluice"}));
        status.verb = "STATUS";
        let pod = node.pod("a", 2);
        let (code, message) = error(&status.run(&pod));
        assert_eq!(code, 50, "{message}");
        assert!(message.contains("/sys/fs/bpf/sluice/v2/lines"), "{message}");
        node.start_agent();
        silent(&status.run(&pod));
        silent(&status.run_with(&pod, ""));
        status.stdin["cniVersion"] = "9.9.9".into();
        assert_eq!(error(&status.run(&pod)).0, 1);
        for slot in 1..1024 {
            let name = format!("/run/sluice/pods/{slot}@other{slot}@eth0.json");
            fs::write(name, "{}").expect("write a record");
        }
        let full = error(&status.run_with(&pod, ""));
        assert_eq!(full, (50, "sluice: no free slot: all 1023 are taken".into()));
    });
}

#[test]
fn del_after_the_node_started_anew_is_silent_and_leaves_no_trace() {
    with_node(|node| {
        // The plugin is there, and nothing of /run or of the pins.
        node.boot_with("");
        fs::remove_dir_all("/run/sluice").expect("forget what is in force");
        let pod = node.pod("a", 2);
        let mut del = Call::new("DEL", &pod, BOTH);
        silent(&del.run(&pod));
        del.stdin["prevResult"] = Value::Null;
        del.netns = String::new();
        silent(&del.run(&pod));
        silent(&del.run(&pod));
        let there = fs::exists("/run/sluice").expect("look for /run/sluice");
        assert!(!there && fs::exists(format!("{BIN_DIR}/sluice")).expect("look"));
    });
}
