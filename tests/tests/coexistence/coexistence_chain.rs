// SPDX-License-Identifier: Apache-2.0
//! Beside the VPC CNI's own care for the node's files: its conflist, which it
//! writes again at each start, and the plugins that it copies.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::sys::inotify::AddWatchFlags;
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::command::{text, wait_for};
use tests::conflist::{Watched, conflist, write_as_aws_node};
use tests::node::{BIN_DIR, CONF_DIR, CONFLIST, Node, USER_DATA, with_node, with_ready_node};

/// What must happen within a second takes longer in an emulated guest.
const SOON: Duration = Duration::from_secs(10);
/// misc/10-aws.conflist of amazon-vpc-cni-k8s, filled in and shortened.
const TEMPLATE: &str = r#"{"cniVersion":"0.4.0","name":"aws-cni","disableCheck":true,"plugins":[
 {"name":"aws-cni","type":"aws-cni","vethPrefix":"eni","mtu":"MTU","podSGEnforcingMode":"strict"},
 {"type":"portmap","capabilities":{"portMappings":true},"snat":true}]}
"#;

/// Our entry, as it was put behind the only other one of a node's first conflist.
fn entry() -> String {
    let text = conflist();
    let from = text.find(r#"{"type":"sluice""#).expect("our entry is the second one");
    text[from..text.rfind("\n  ]").expect("the end of the list")].to_owned()
}

#[test]
fn new_settings_of_the_daemonset_stay_as_written_beside_our_entry() {
    with_ready_node("", |_node| {
        let entry = entry();
        for mtu in ["9001", "1500", "8900"] {
            let template = TEMPLATE.replace("MTU", mtu);
            write_as_aws_node(&template);
            let expected =
                template.replace("\"snat\":true}]", &format!("\"snat\":true}},\n {entry}]"));
            wait_for("our entry", SOON, || (conflist() == expected).then_some(()));
        }
    });
}

const UPSTREAM: &str = r#"{"type":"bandwidth","capabilities":{"bandwidth":true}}"#;

/// The template with something behind portmap.
fn template_with(last: &str) -> String {
    TEMPLATE.replace("MTU", "9001").replace("\"snat\":true}]", &format!("\"snat\":true}},{last}]"))
}

/// ENABLE_BANDWIDTH_PLUGIN=true while Sluice runs: each time that the VPC CNI writes the entry ours
/// takes its place, and status says so as long as it comes.
#[test]
fn upstream_plugin_that_comes_later_gives_its_place_to_ours_and_is_told_of() {
    with_ready_node("", |node| {
        let entry = entry();
        for _ in 0..3 {
            write_as_aws_node(&template_with(UPSTREAM));
            wait_for("our entry in its place", SOON, || {
                (conflist() == template_with(&entry)).then_some(())
            });
        }
        let trouble = wait_for("word of it", SOON, || node.troubles("upstream-replaced").pop());
        assert_eq!(trouble["subject"], CONFLIST);
        let next_step = trouble["next_step"].as_str().expect("what to do");
        assert!(next_step.contains("ENABLE_BANDWIDTH_PLUGIN=false"), "{next_step}");
        write_as_aws_node(&TEMPLATE.replace("MTU", "9001"));
        wait_for("our entry", SOON, || conflist().contains(&entry).then_some(()));
        wait_for("the end of the trouble", SOON, || {
            node.troubles("upstream-replaced").is_empty().then_some(())
        });
    });
}

/// Rates in the entry itself limit every pod. It stays until the settings have defaults in their place.
#[test]
fn rates_of_the_upstream_plugins_own_entry_are_never_lost() {
    with_ready_node("", |node| {
        let entry = entry();
        let with_rates = template_with(r#"{"type":"bandwidth","ingressRate":20000000}"#);
        for _ in 0..2 {
            write_as_aws_node(&with_rates);
            let trouble = wait_for("word of it", SOON, || node.troubles("upstream-rates").pop());
            let what = trouble["what"].as_str().expect("what was seen");
            assert!(what.ends_with("do not have its default-ingress = \"20Mbit\""), "{what}");
            assert_eq!(conflist(), with_rates);
        }
        let table = "[settings.sluice.bandwidth]\n";
        let given = format!("{table}default-ingress = \"30Mbit\"\n");
        let old = fs::read_to_string(USER_DATA).expect("the user data");
        fs::write(USER_DATA, old.replace(table, &given)).expect("write user data");
        node.signal_agent(Signal::SIGHUP);
        wait_for("our entry in its place", SOON, || {
            (conflist() == template_with(&entry)).then_some(())
        });
        wait_for("the end of it", SOON, || {
            node.troubles("upstream-rates").is_empty().then_some(())
        });
    });
}

/// With `keep` we stand aside for as long as it is there, and come back when it has gone.
#[test]
fn upstream_plugin_that_is_to_be_kept_is_stood_aside_for() {
    with_node(|node| {
        let first = conflist();
        boot_keeping(node);
        let entry = entry();
        node.start_agent();
        let with_both = template_with(&format!("{UPSTREAM},{entry}"));
        for written in [template_with(UPSTREAM), with_both] {
            write_as_aws_node(&written);
            wait_for("the upstream plugin alone", SOON, || {
                (conflist() == template_with(UPSTREAM)).then_some(())
            });
            let trouble = wait_for("word of it", SOON, || node.troubles("upstream-entry").pop());
            let what = trouble["what"].as_str().expect("what was seen");
            assert!(what.contains("cni.upstream-bandwidth is \"keep\""), "{what}");
        }
        write_as_aws_node(&first);
        wait_for("our entry", SOON, || conflist().contains(&entry).then_some(()));
        assert_eq!(node.troubles("upstream-entry"), Vec::<Value>::new());
    });
}

fn boot_keeping(node: &Node) {
    let output = node.boot(&format!(
        "[settings.sluice]\nversion = 1\n[settings.sluice.cni]\nconf-dir = \"{CONF_DIR}\"\n\
         bin-dir = \"{BIN_DIR}\"\nupstream-bandwidth = \"keep\"\n"
    ));
    assert!(output.status.success(), "{}", text(&output));
}

/// Boot does what the agent does, and says so to whoever asks what is in force.
#[test]
fn upstream_plugin_that_was_there_first_gives_its_place_to_ours_at_boot() {
    with_node(|node| {
        write_as_aws_node(&template_with(UPSTREAM));
        node.boot_with("");
        assert!(!conflist().contains("\"bandwidth\",\"cap"), "{}", conflist());
        assert!(conflist().contains(r#"{"type":"sluice""#), "{}", conflist());
        let status = node.sluice(&["status"]);
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        let warning =
            format!("{CONFLIST}: the upstream \"bandwidth\" plugin's entry was taken out");
        assert!(said.contains(&warning), "{said}");
        node.boot_with("enabled = false");
        assert_eq!(conflist(), TEMPLATE.replace("MTU", "9001"));
    });
}

/// containerd reloads on write, rename and removal but not on creation, so a file that was renamed
/// into the directory goes unseen; and it reads every .conf, .conflist and .json, half-written or not
/// (internal/cri/server/cni_conf_syncer.go).
fn assert_containerd_sees_a_whole_file(events: &[(AddWatchFlags, String)]) {
    let loaded = |name: &str| [".conf", ".conflist", ".json"].iter().any(|e| name.ends_with(e));
    let named = |flag: AddWatchFlags| {
        let hits = events.iter().filter(move |(mask, _)| mask.contains(flag));
        hits.map(|(_, name)| name.as_str()).collect::<Vec<_>>()
    };
    let written = [named(AddWatchFlags::IN_CREATE), named(AddWatchFlags::IN_MODIFY)].concat();
    assert!(!written.is_empty() && written.iter().all(|name| !loaded(name)), "{events:?}");
    let (from, to) = (named(AddWatchFlags::IN_MOVED_FROM), named(AddWatchFlags::IN_MOVED_TO));
    assert_eq!((from.len(), to), (1, vec!["10-main.conflist"]), "{events:?}");
    assert_eq!(named(AddWatchFlags::IN_DELETE), [""; 0], "{events:?}");
}

#[test]
fn conflist_is_replaced_whole_and_so_that_containerd_notices() {
    with_node(|node| {
        let watched = Watched::begin();
        node.boot_with("");
        assert_containerd_sees_a_whole_file(&watched.events());
        node.boot_with("enabled = false");
        assert_containerd_sees_a_whole_file(&watched.events());
    });
}

/// containerd takes the first of these files; before the main plugin's is there, any would make the
/// node ready too early.
#[test]
fn nothing_is_written_where_there_is_no_conflist_yet() {
    with_node(|node| {
        let main = conflist();
        node.boot_with("");
        fs::remove_file(CONFLIST).expect("remove the conflist");
        let watched = Watched::begin();
        let user_data = fs::read_to_string(tests::node::USER_DATA).expect("user data");
        let output = node.boot(&user_data.replace(
            "[settings.sluice.bandwidth]\n",
            "[settings.sluice.bandwidth]\ndefault-egress = \"10Mbit\"\n",
        ));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        node.start_agent();
        let trouble = wait_for("word of it", SOON, || node.troubles("conflist-missing").pop());
        assert_eq!(trouble["what"], "there is no CNI configuration yet");
        let touched: Vec<_> = watched.events();
        let changed = |(mask, _): &&(AddWatchFlags, String)| {
            mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)
        };
        assert_eq!(touched.iter().filter(changed).count(), 0, "{touched:?}");
        write_as_aws_node(&main);
        wait_for("our entry", SOON, || conflist().contains(r#"{"type":"sluice""#).then_some(()));
    });
}

/// aws-vpc-cni-init copies all of these at each start, as a temporary file and a rename
/// (cmd/aws-vpc-cni-init/main.go; the list is core_plugins_test.go's).
const CORE_PLUGINS: &[&str] = &[
    "bandwidth",
    "bridge",
    "dhcp",
    "dummy",
    "firewall",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
    "aws-cni",
    "egress-cni",
    "aws-cni-support.sh",
];

#[test]
fn plugins_that_the_vpc_cni_copies_never_replace_ours() {
    with_ready_node("", |_node| {
        let own = || {
            let metadata = fs::metadata(format!("{BIN_DIR}/sluice")).expect("our plugin");
            (metadata.ino(), metadata.mtime_nsec(), metadata.mode())
        };
        let before = own();
        for name in CORE_PLUGINS {
            fs::write(format!("{BIN_DIR}/{name}.tmp"), "new").expect("copy");
            fs::rename(format!("{BIN_DIR}/{name}.tmp"), format!("{BIN_DIR}/{name}"))
                .expect("rename");
        }
        assert_eq!(own(), before);
    });
}
