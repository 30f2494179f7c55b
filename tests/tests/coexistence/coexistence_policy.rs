// SPDX-License-Identifier: Apache-2.0
//! Beside network policy, in every order and however either side ends: policy's
//! filters are never touched, never hidden, never mistaken, and nothing that
//! policy looks at or trips over is ever made.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::cni::{Annotations, Call};
use tests::command::{output, tc, text, wait_for};
use tests::kernel::has_tcx;
use tests::node::{Node, Pod, with_node, with_ready_node};
use tests::policy_agent::{PolicyAgent, Side, Verdict};
use tests::tc_monitor::TcMonitor;

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
const SIDES: [Side; 2] = [Side::Ingress, Side::Egress];
const SOON: Duration = Duration::from_secs(10);

fn attach_policy(agent: &PolicyAgent, pod: &Pod, verdict: Verdict) {
    for side in SIDES {
        agent.attach(&pod.host_ifname, side, verdict).expect("attach policy");
    }
}

/// The pod with all of ours on it, and the guard in a place of its own or beside policy.
fn wait_until_whole(node: &Node, pod: &Pod) {
    wait_for("the guard", SOON, || {
        let state = node.status(pod)["guard"]["state"].clone();
        (state == if has_tcx() { "tcx" } else { "clsact" }).then_some(())
    });
}

/// What policy sees on the device, by the look-ups of its own agent.
fn assert_policy_is(agent: &PolicyAgent, pod: &Pod, program: Option<&str>) {
    for side in SIDES {
        let found = agent.attached_program(&pod.host_ifname, side);
        assert_eq!(found.as_deref(), program, "{side:?}");
    }
}

/// Handles of the clsact filters of one side, in the order in which they run.
fn handles(pod: &Pod, side: &str) -> Vec<String> {
    let text = tc(&format!("filter show dev {} {side}", pod.host_ifname));
    let words = text.lines().filter_map(|line| line.split_once("handle ")?.1.split(' ').next());
    words.map(str::to_owned).collect()
}

/// As after an upgrade of the policy agent, which detaches what it takes for its own and attaches
/// its new programs; and with us before it, after it and in between.
#[test]
fn policy_agent_finds_detaches_and_attaches_its_own_in_every_order() {
    for add_comes in 0..3 {
        with_ready_node("", |node| {
            let (agent, pod) = (PolicyAgent::start(), node.pod("a", 2));
            for (moment, side) in [(0, Some(Side::Ingress)), (1, Some(Side::Egress)), (2, None)] {
                if moment == add_comes {
                    node.add(&pod, BOTH);
                }
                if let Some(side) = side {
                    agent.attach(&pod.host_ifname, side, Verdict::Allow).expect("attach policy");
                }
            }
            wait_until_whole(node, &pod);
            assert_policy_is(&agent, &pod, Some("policy_allow"));
            let guards = |pod: &Pod| {
                let all = handles(pod, "ingress");
                all.iter().filter(|handle| *handle == "0x51ce").count()
            };
            let own = usize::from(!has_tcx());
            assert_eq!(guards(&pod), own);
            for side in SIDES {
                agent.detach(&pod.host_ifname, side).expect("detach");
            }
            assert_policy_is(&agent, &pod, None);
            assert_eq!(guards(&pod), own, "policy's detach took the guard");
            attach_policy(&agent, &pod, Verdict::Deny);
            assert_policy_is(&agent, &pod, Some("policy_deny"));
            wait_for("the guard in front", SOON, || {
                (has_tcx() || handles(&pod, "ingress") == ["0x51ce", "0x1"]).then_some(())
            });
            assert_eq!(handles(&pod, "egress"), ["0x1"], "something of ours is on policy's egress");
        });
    }
}

/// Ids of the programs in policy's filters: an id that stays is a filter that was never away.
fn policy_programs(pod: &Pod) -> Vec<u64> {
    let list = |side: &str| tc(&format!("-j filter show dev {} {side}", pod.host_ifname));
    let ids = ["ingress", "egress"].into_iter().flat_map(|side| {
        let filters = tests::command::json(&list(side));
        let all = filters.as_array().expect("a list of filters").clone();
        all.into_iter().filter(|filter| filter["options"]["handle"] == "0x1")
    });
    ids.map(|filter| filter["options"]["prog"]["id"].as_u64().expect("an id")).collect()
}

#[test]
fn policys_filters_outlive_stop_kill_boot_reload_and_purge() {
    with_ready_node("", |node| {
        let (agent, pod) = (PolicyAgent::start(), node.pod("a", 2));
        attach_policy(&agent, &pod, Verdict::Deny);
        node.add(&pod, BOTH);
        wait_until_whole(node, &pod);
        let before = policy_programs(&pod);
        assert_eq!(before.len(), 2);
        let still = |what: &str| assert_eq!(policy_programs(&pod), before, "{what}");
        node.kill_agent(Signal::SIGTERM);
        still("stop");
        node.start_agent();
        wait_until_whole(node, &pod);
        node.kill_agent(Signal::SIGKILL);
        still("kill -9");
        node.boot_with("default-egress = \"30Mbit\"");
        still("boot");
        node.start_agent();
        node.signal_agent(Signal::SIGHUP);
        wait_until_whole(node, &pod);
        still("reload");
        // What an uninstall takes away, and then the pod's shaper while no one keeps it.
        node.kill_agent(Signal::SIGTERM);
        fs::remove_dir_all("/sys/fs/bpf/sluice").expect("remove the pins");
        fs::remove_dir_all("/run/sluice").expect("remove the records");
        still("purge");
        node.del(&pod);
        still("DEL");
        assert_policy_is(&agent, &pod, Some("policy_deny"));
    });
}

/// Both work on the new veth at once: policy's own error path (EEXIST, detach, attach) must not be
/// provoked, nor ours.
#[test]
fn fifty_adds_race_with_policys_attachment_and_none_fails() {
    with_ready_node("", |node| {
        let (agent, pod) = (&PolicyAgent::start(), &node.pod("a", 2));
        for round in 0..50 {
            let call = &Call::new("ADD", pod, BOTH);
            let (added, attached) = std::thread::scope(|scope| {
                let policy =
                    || SIDES.map(|side| agent.attach(&pod.host_ifname, side, Verdict::Allow));
                let (first, second);
                if round % 2 == 0 {
                    first = scope.spawn(move || call.run(pod));
                    second = scope.spawn(policy);
                } else {
                    second = scope.spawn(policy);
                    first = scope.spawn(move || call.run(pod));
                }
                (first.join().expect("the plugin"), second.join().expect("the policy agent"))
            });
            assert!(added.status.success(), "round {round}: {}", text(&added));
            assert_eq!(attached, [Ok(()), Ok(())], "round {round}");
            assert_policy_is(agent, pod, Some("policy_allow"));
            node.del(pod);
            assert_policy_is(agent, pod, Some("policy_allow"));
            // As if the veth were new.
            tc(&format!("qdisc del dev {} clsact", pod.host_ifname));
        }
    });
}

/// clsact of the host's end is policy's to make, and an `ingress` qdisc would be taken for it.
#[test]
fn no_qdisc_but_our_own_root_is_ever_made_or_removed_on_the_hosts_end() {
    with_ready_node("default-egress = \"30Mbit\"", |node| {
        let (agent, pod) = (PolicyAgent::start(), node.pod("a", 2));
        attach_policy(&agent, &pod, Verdict::Allow);
        let monitor = TcMonitor::start();
        node.add(&pod, BOTH);
        wait_until_whole(node, &pod);
        attach_policy(&agent, &pod, Verdict::Deny);
        node.kill_agent(Signal::SIGKILL);
        node.boot_with("default-egress = \"40Mbit\"");
        node.start_agent();
        wait_until_whole(node, &pod);
        tc(&format!("qdisc del dev {} root", pod.host_ifname));
        wait_for("our root", SOON, || {
            let root = tc(&format!("qdisc show dev {} root", pod.host_ifname));
            root.contains(" 51ce: ").then_some(())
        });
        node.del(&pod);
        let lines = monitor.lines();
        let qdiscs =
            lines.iter().filter(|line| line.trim_start_matches("deleted ").starts_with("qdisc "));
        let own = |line: &&String| {
            [" 51ce: ", " 51cf: ", " 51d0: ", " noqueue 0: "].iter().any(|part| line.contains(part))
        };
        let (own, others): (Vec<_>, Vec<_>) = qdiscs.partition(own);
        assert!(own.len() >= 4, "the monitor heard nothing: {lines:?}");
        assert_eq!(others, Vec::<&String>::new());
    });
}

/// Every file of the BPF file system but our own directory, by inode, and what is mounted there.
fn others_on_bpffs() -> (BTreeMap<String, u64>, Vec<String>) {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("read the mounts");
    let mounts = mounts.lines().filter(|line| line.contains(" /sys/fs/bpf"));
    let mut files = BTreeMap::new();
    walk(Path::new("/sys/fs/bpf"), &mut files);
    (files, mounts.map(str::to_owned).collect())
}

fn walk(dir: &Path, files: &mut BTreeMap<String, u64>) {
    for entry in fs::read_dir(dir).expect("list the BPF file system") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("look at a pin");
        if path.starts_with("/sys/fs/bpf/sluice") {
            continue;
        }
        files.insert(path.display().to_string(), metadata.ino());
        if metadata.is_dir() {
            walk(&path, files);
        }
    }
}

/// The policy agent's recovery walks /sys/fs/bpf/globals/aws and panics on what it does not know; a
/// file system mounted over its pins would hide them.
#[test]
fn pins_of_others_and_what_is_mounted_there_stay_as_they_were() {
    with_node(|node| {
        let agent = PolicyAgent::start();
        let before = others_on_bpffs();
        let pins = before.0.keys().filter(|path| path.contains("/globals/aws/programs/policy_"));
        assert_eq!(pins.count(), 2, "{before:?}");
        node.boot_with("");
        node.start_agent();
        let pod = node.pod("a", 2);
        attach_policy(&agent, &pod, Verdict::Allow);
        node.add(&pod, BOTH);
        wait_until_whole(node, &pod);
        node.kill_agent(Signal::SIGKILL);
        node.start_agent();
        wait_until_whole(node, &pod);
        node.del(&pod);
        assert_eq!(others_on_bpffs(), before);
    });
}

/// A redirect would skip policy, whose connection table is keyed by the device. What stands in the
/// kernel is looked at, with a program that does redirect to show that the look can tell.
#[test]
fn no_program_of_ours_redirects() {
    with_ready_node("", |_node| {
        tests::foreign::load();
        let dump = |pin: &str| {
            let dump = output("bpftool", &["prog", "dump", "xlated", "pinned", pin]);
            assert!(dump.status.success(), "{}", text(&dump));
            String::from_utf8_lossy(&dump.stdout).into_owned()
        };
        assert!(dump(&tests::foreign::pin("asks_a_helper")).contains("call bpf_redirect#"));
        for program in ["shape_egress", "shape_ingress", "guard"] {
            let instructions = dump(&format!("{}/{program}", tests::node::PIN_DIR));
            assert!(instructions.contains("call "), "{instructions}");
            let redirects = instructions.lines().filter(|line| line.contains("redirect"));
            assert_eq!(redirects.collect::<Vec<_>>(), [""; 0], "{program}");
        }
    });
}
