// SPDX-License-Identifier: Apache-2.0
//! What goes wrong is reported once and clearly, and leaves the node as it was.

use std::fs;
use std::process::Output;

use nix::mount::{MsFlags, mount};
use tests::cni::{Annotations, Call, expect_error};
use tests::command::{age, output, tc, text};
use tests::kernel::has_tcx;
use tests::node::{CONF_DIR, CONFLIST, Node, Pod, with_node, with_ready_node};

const BOTH: Annotations = Annotations { egress: 40_000_000, ingress: 40_000_000 };
const OUR_DIRS: &str =
    "[settings.sluice.cni]\nconf-dir = \"/run/node/net.d\"\nbin-dir = \"/run/node/bin\"\n";

/// Every file of a directory, with content and time.
fn files_below(dir: &str) -> String {
    let print = ["-type", "d", "-print", "-o", "-printf", "%p %s %T@\\n"];
    let find = output("find", &[&[dir][..], &print[..]].concat());
    let listing = String::from_utf8_lossy(&find.stdout).into_owned();
    format!("{listing}{}", fs::read_to_string(CONFLIST).unwrap_or_default())
}

/// Boot says this of the conflist and leaves it as it is; the settings are in force all the same.
fn boot_leaves_the_conflist(node: &Node, message: &str) {
    let before = files_below(CONF_DIR);
    let output = node.boot(&with_head("[settings.sluice.bandwidth]\ndefault-egress = \"9Mbit\"\n"));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = said.lines().next().unwrap_or_default();
    assert!(first.starts_with(&format!("sluice: error: {message}; next: ")), "{said}");
    assert_eq!(files_below(CONF_DIR), before);
    let settings = fs::read_to_string("/run/sluice/settings.toml").expect("settings in force");
    assert!(settings.contains("\"9Mbit\""), "{settings}");
}

fn with_head(rest: &str) -> String {
    format!("[settings.sluice]\nversion = 1\n{OUR_DIRS}{rest}")
}

#[test]
fn settings_that_cannot_be_used_exit_78_and_name_line_and_key() {
    with_node(|node| {
        let file = "/run/node/user-data.toml";
        let key = "settings.sluice.bandwidth";
        let table = [
            (
                "[settings.sluice\n",
                format!(
                    "{file}:1:17: not valid TOML at the end of the line: unclosed table, expected `]`"
                ),
            ),
            (
                "[settings.sluice]\nversion = 1\nbandwith.enabled = true\n",
                format!(
                    "{file}:3:1 settings.sluice.bandwith: unknown table; did you mean \"bandwidth\"?"
                ),
            ),
            (
                "[settings.sluice]\nversion = 1\nbandwidth.default-egress = \"500\"\n",
                format!(
                    "{file}:3:28 {key}.default-egress: \"500\" has no unit; use bit, kbit, mbit, \
                     gbit or tbit, e.g. \"500Mbit\""
                ),
            ),
            (
                "[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n\
                 default-egress = \"10Mb\"\ndefalt-ingress = \"1Mbit\"\n",
                format!(
                    "{file}:4:18 {key}.default-egress: \"10Mb\" has an unknown unit; use bit, \
                     kbit, mbit, gbit or tbit, e.g. \"500Mbit\"\n{file}:5:1 {key}.defalt-ingress: \
                     unknown key; did you mean \"default-ingress\"?"
                ),
            ),
        ];
        for (user_data, message) in table {
            let output = node.boot(user_data);
            assert_eq!(output.status.code(), Some(78), "{}", text(&output));
            let errors = message.lines().map(|line| format!("sluice: error: {line}\n"));
            let instead =
                "sluice: warn: in force: built-in defaults, instead of what was asked for\n";
            let expected = errors.collect::<String>() + instead;
            assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
            assert!(!fs::read_to_string(CONFLIST).expect("the conflist").contains("sluice"));
        }
    });
}

#[test]
fn conflist_that_is_no_list_is_left_alone() {
    with_node(|node| {
        let table = [
            ("{\"plugins\": [", "line 1 column 13: not JSON: EOF while parsing a list"),
            (
                "{\"type\": \"ptp\"}",
                "line 1 column 1: no \"plugins\": only a list can be chained to",
            ),
            (
                "{\"plugins\": [\n  {\"name\": \"x\"}\n]}",
                "line 2 column 3: entry 1 of \"plugins\" has no \"type\"",
            ),
        ];
        for (content, cause) in table {
            fs::write(CONFLIST, content).expect("write the conflist");
            boot_leaves_the_conflist(node, &format!("edit {CONFLIST}: {cause}"));
        }
    });
}

#[test]
fn configuration_of_one_plugin_is_named_and_left_alone() {
    with_node(|node| {
        let first = format!("{CONF_DIR}/05-bridge.conf");
        fs::write(&first, r#"{"name":"n","type":"bridge"}"#).expect("write");
        let message = format!(
            "edit {first}: line 1 column 1: a runtime takes a .conf or .json for one plugin's \
             configuration, which has no chain; only a .conflist is one, with the plugin in its \
             \"plugins\""
        );
        boot_leaves_the_conflist(node, &message);
    });
}

#[test]
fn read_only_directory_of_the_conflist_keeps_no_settings_from_being_in_force() {
    with_node(|node| {
        let none = None::<&str>;
        mount(Some(CONF_DIR), CONF_DIR, none, MsFlags::MS_BIND, none).expect("bind");
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, CONF_DIR, none, read_only, none).expect("remount read-only");
        let message = format!(
            "write {CONFLIST}: Read-only file system (os error 30); under systemd ReadWritePaths= of \
             the unit says what may be written"
        );
        boot_leaves_the_conflist(node, &message);
    });
}

#[test]
fn missing_user_data_file_is_named() {
    with_node(|node| {
        let output = node.sluice(&["boot", "--user-data", "/nowhere", "--plugin", "/bin/true"]);
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        let message =
            "sluice: error: read the user data /nowhere: No such file or directory (os error 2)";
        assert_eq!(stderr.lines().next(), Some(message));
    });
}

/// What hangs on both ends of the pair, and the records.
fn pod_state(pod: &Pod) -> String {
    let host = tc(&format!("qdisc show dev {}", pod.host_ifname));
    let inside = match fs::exists(pod.netns()) {
        Ok(true) => output("ip", &["netns", "exec", &pod.name, "tc", "qdisc", "show"]).stdout,
        _ => Vec::new(),
    };
    let records = output("find", &["/run/sluice/pods", "-name", "*.json"]).stdout;
    let link = output("ip", &["-n", &pod.name, "-d", "link", "show", "eth0"]).stdout;
    let all = [host.into_bytes(), inside, records, link].concat();
    // A new veth is UNKNOWN until the kernel gets round to say UP, up to a second later.
    String::from_utf8_lossy(&all).replace("state UNKNOWN", "state UP")
}

/// ADD fails with this code and these words, and leaves the pod as it was.
fn add_fails(pod: &Pod, call: &Call, code: u32, message: &str) -> Output {
    let before = pod_state(pod);
    let output = call.run(pod);
    let error = expect_error(&output);
    let words = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(format!("{} | {}", words("msg"), words("details")), message);
    assert_eq!(error["code"], code);
    assert_eq!(pod_state(pod), before);
    output
}

#[test]
fn add_names_what_is_missing() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        let mut gone = Call::new("ADD", &pod, BOTH);
        gone.netns = "/run/netns/gone".into();
        add_fails(
            &pod,
            &gone,
            100,
            "sluice: find the pod's interface | open the network namespace /run/netns/gone: No \
             such file or directory (os error 2)",
        );
        let mut no_veth = Call::new("ADD", &pod, BOTH);
        no_veth.ifname = "eth7";
        add_fails(
            &pod,
            &no_veth,
            100,
            "sluice: find the pod's interface | find the interface eth7: No such device (os error \
             19)",
        );
        let mut loopback = Call::new("ADD", &pod, BOTH);
        loopback.ifname = "lo";
        add_fails(
            &pod,
            &loopback,
            100,
            "sluice: find the pod's interface | lo of the pod is not a veth or netkit: it has no \
             other end",
        );
    });
}

#[test]
fn add_refuses_a_configuration_that_it_cannot_use() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        let call = |change: fn(&mut Call)| {
            let mut call = Call::new("ADD", &pod, BOTH);
            change(&mut call);
            call
        };
        let table: [(Call, u32, &str); 8] = [
            (
                call(|c| c.stdin["prevResult"] = serde_json::Value::Null),
                7,
                "sluice: prevResult is missing: sluice must be chained after the plugin that makes \
                 the interface | ",
            ),
            (
                call(|c| c.stdin["cniVersion"] = "9.9.9".into()),
                1,
                "sluice: cniVersion is \"9.9.9\", allowed are 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0 | ",
            ),
            (
                call(|c| c.stdin["runtimeConfig"]["bandwidth"]["EgressRate"] = 999.into()),
                7,
                "sluice: runtimeConfig.bandwidth.egressRate is 999 bit/s, allowed are 1 kbit/s to \
                 1 Pbit/s | ",
            ),
            (
                call(|c| c.stdin["runtimeConfig"]["bandwidth"]["EgressRate"] = (-5).into()),
                7,
                "sluice: runtimeConfig.bandwidth.egressRate is -5, allowed is a number of bits | ",
            ),
            (
                call(|c| {
                    let annotations = serde_json::json!({"sluice.dev/egress-burst": "9 apples"});
                    c.stdin["runtimeConfig"]["io.kubernetes.cri.pod-annotations"] = annotations;
                }),
                7,
                "sluice: annotation sluice.dev/egress-burst: \"9 apples\" has an unknown unit; use ns, \
                 us, ms or s for time, or B, KB, MB, KiB or MiB for bytes, e.g. \"5ms\" or \"64KB\" | ",
            ),
            (
                call(|c| c.netns = String::new()),
                4,
                "sluice: CNI_NETNS is empty: ADD and CHECK need a network namespace | ",
            ),
            (
                call(|c| c.container_id = "../../etc/x".into()),
                4,
                "sluice: CNI_CONTAINERID is \"../../etc/x\", allowed are letters, digits, '_', '.' \
                 and '-', and a letter or digit first | ",
            ),
            (
                call(|c| c.verb = "FROB"),
                4,
                "sluice: CNI_COMMAND is \"FROB\", allowed are ADD, DEL, CHECK, GC, STATUS and \
                 VERSION | ",
            ),
        ];
        for (call, code, message) in table {
            // The position in a generated document says nothing.
            let strip = |text: String| text.split(" at line").next().unwrap_or_default().to_owned();
            let before = pod_state(&pod);
            let error = expect_error(&call.run(&pod));
            let words = |key: &str| strip(error[key].as_str().unwrap_or_default().to_owned());
            assert_eq!(format!("{} | {}", words("msg"), words("details")), message);
            assert_eq!(error["code"], code);
            assert_eq!(pod_state(&pod), before);
        }
    });
}

#[test]
fn full_maps_are_told_with_their_size() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        fs::create_dir_all("/run/sluice/pods").expect("make the records' directory");
        for slot in 1..1024 {
            let name = format!("/run/sluice/pods/{slot}@other{slot}@eth0.json");
            fs::write(name, "{}").expect("write a record");
        }
        let call = Call::new("ADD", &pod, BOTH);
        add_fails(&pod, &call, 102, "sluice: no free slot: all 1023 are taken | ");
    });
}

#[test]
fn add_before_the_agent_ever_ran_asks_to_try_again() {
    with_node(|node| {
        node.boot_with("");
        let pod = node.pod("a", 2);
        let call = Call::new("ADD", &pod, BOTH);
        let error = expect_error(&call.run(&pod));
        assert_eq!(error["code"], 11);
        assert_eq!(error["msg"], "sluice: open the shaper's pins (is sluice.service running?)");
        // An agent that has not come within a minute may never do.
        age("/run/sluice/settings.toml");
        node.add(&pod, BOTH);
    });
}

#[test]
fn foreign_root_qdisc_is_named_and_kept() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        let device = &pod.host_ifname;
        tc(&format!("qdisc add dev {device} root handle 1: tbf rate 1mbit burst 10k latency 25ms"));
        node.add(&pod, BOTH);
        // Without tcx the guard in the pod comes later, and until then the reason goes on.
        let named = "enia already has a foreign root qdisc (tbf 1:), so the guard drops the excess";
        let reason = node.status(&pod)["ingress"]["reason"].clone();
        assert!(reason.as_str().is_some_and(|reason| reason.contains(named)), "{reason}");
        assert_eq!(node.status(&pod)["ingress"]["broken"], !has_tcx());
        node.del(&pod);
        assert!(tc(&format!("qdisc show dev {device}")).starts_with("qdisc tbf 1: root"));
    });
}

#[test]
fn agent_without_bpf_file_system_says_so() {
    with_node(|node| {
        let none = None::<&str>;
        mount(Some("tmpfs"), "/sys/fs/bpf", Some("tmpfs"), MsFlags::empty(), none).expect("mount");
        let output = node.sluice(&["agent"]);
        assert_eq!(output.status.code(), Some(1));
        let message = "sluice: error: /sys/fs/bpf is no BPF file system: mount one there (mount -t \
                       bpf bpf)\n";
        assert_eq!(String::from_utf8_lossy(&output.stderr), message);
    });
}
