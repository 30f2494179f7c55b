// SPDX-License-Identifier: Apache-2.0
//! The agent keeps every pod as it should be: what others remove comes
//! back, pods that the chain missed are adopted, and what has gone is cleared.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::cni::Annotations;
use tests::command::{executable, ip, json as parse, output, run, tc, text, wait_for};
use tests::foreign;
use tests::kernel::has_tcx;
use tests::link::{gso, gso_in, index};
use tests::meter::{Protocol, Transfer};
use tests::node::{CONF_DIR, CONFLIST, Node, PIN_DIR, Pod, with_ready_node};
use tests::policy_agent::PolicyAgent;
use tests::result_cache::{Cached, bandwidth};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
/// As it stands behind another one in the node's conflist.
const ENTRY: &str = concat!(
    ",\n    {\"type\":\"sluice\",\"capabilities\":",
    "{\"bandwidth\":true,\"io.kubernetes.cri.pod-annotations\":true}}"
);
/// What must happen within a second takes longer in an emulated guest.
const SOON: Duration = Duration::from_secs(10);

/// Whether everything that ADD put there is there, by tc's word.
fn is_whole(pod: &Pod, paced: bool) -> bool {
    let inside = pod.run("tc filter show dev eth0 parent 51ce:");
    let outside = tc(&format!("filter show dev {} parent 51ce:", pod.host_ifname));
    let roots = pod.run("tc qdisc show dev eth0");
    let leaf = tc(&format!("qdisc show dev {}", pod.host_ifname));
    let fq = !paced || (roots.contains("fq 51cf:") && leaf.contains("fq 51cf:"));
    let drop = roots.contains("pfifo 51d0:") && leaf.contains("pfifo 51d0:");
    inside.contains("sluice_egress") && outside.contains("sluice_ingress") && fq && drop
}

fn is_paced(node: &Node, pod: &Pod) -> bool {
    node.status(pod)["egress"]["mode"] == "paced"
}

fn soon(what: &str, ask: impl FnMut() -> Option<()>) {
    let began = Instant::now();
    wait_for(what, SOON, ask);
    println!("{what}: {} ms", began.elapsed().as_millis());
}

fn records() -> Vec<String> {
    let entries = fs::read_dir("/run/sluice/pods").expect("the records");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn what_somebody_takes_off_a_pod_comes_back() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let paced = is_paced(node, &pod);
        assert!(is_whole(&pod, paced));
        let host = &pod.host_ifname;
        let inside = |line: &str| drop(pod.run(line));
        inside("tc filter del dev eth0 parent 51ce: prio 1");
        soon("the pod's filter", || is_whole(&pod, paced).then_some(()));
        inside("tc qdisc del dev eth0 root");
        soon("the pod's qdisc", || is_whole(&pod, paced).then_some(()));
        inside("tc qdisc del dev eth0 parent 51ce:2 handle 51d0:");
        soon("what the pod's drops go to", || is_whole(&pod, paced).then_some(()));
        tc(&format!("qdisc del dev {host} root"));
        soon("the host's qdisc", || is_whole(&pod, paced).then_some(()));
        tc(&format!("filter del dev {host} parent 51ce: prio 1"));
        soon("the host's filter", || is_whole(&pod, paced).then_some(()));
        if paced {
            inside("tc qdisc del dev eth0 parent 51ce:1 handle 51cf:");
            soon("the pod's fq", || is_whole(&pod, paced).then_some(()));
            tc(&format!("qdisc del dev {host} parent 51ce:1 handle 51cf:"));
            soon("the host's fq", || is_whole(&pod, paced).then_some(()));
        }
        let clamped = gso(index(host)).0;
        ip(&format!("link set {host} gso_max_size 65536"));
        // Nothing tells of that; any event of the device does, or the slow pass.
        ip(&format!("link set {host} alias x"));
        soon("the clamp", || (gso(index(host)).0 == clamped).then_some(()));
        let remote = node.pod("remote", 9);
        let (from, to) = (pod.netns(), remote.netns());
        let protocol = Protocol::Udp(2 * LIMIT);
        let transfer = Transfer { from: &from, to: &to, address: remote.address, protocol };
        let rates = transfer.seconds(2);
        assert!(rates[1].abs_diff(LIMIT) <= LIMIT / 50, "{rates:?}");
    });
}

#[test]
fn guard_that_somebody_takes_off_comes_back() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        let policy = PolicyAgent::start();
        policy.allow(&pod.host_ifname);
        node.add(&pod, BOTH);
        node.guard(&pod);
        let host = index(&pod.host_ifname);
        if has_tcx() {
            let pin = format!("{PIN_DIR}/links/{host}");
            fs::remove_file(&pin).expect("remove the guard's pin");
            // Nothing tells of that; any event of the device does, or the slow pass.
            ip(&format!("link set {} alias x", pod.host_ifname));
            soon("the guard's link", || fs::exists(&pin).unwrap_or(false).then_some(()));
            return;
        }
        let line = format!("filter del dev {} ingress prio 1 handle 0x51ce bpf", pod.host_ifname);
        tc(&line);
        let list = format!("filter show dev {} ingress", pod.host_ifname);
        soon("the guard's filter", || tc(&list).contains("sluice_guard").then_some(()));
    });
}

fn cache(pod: &Pod, plugins: &[&str], bandwidth: Value) {
    let (host_ifname, netns) = (pod.host_ifname.as_str(), pod.netns());
    Cached { pod: &pod.name, host_ifname, netns: &netns, plugins, bandwidth }.write();
}

fn status_of(node: &Node, pod: &Pod) -> Option<Value> {
    let output = node.sluice(&["status", "--json", "--interval", "1"]);
    let status = parse(&String::from_utf8_lossy(&output.stdout));
    let pods = status["pods"].as_array()?.clone();
    pods.into_iter().find(|p| p["pod"] == pod.name.as_str())
}

#[test]
fn pods_that_the_chain_missed_are_adopted_at_start_and_later() {
    with_ready_node("default-egress = \"30Mbit\"", |node| {
        node.kill_agent(Signal::SIGTERM);
        let early = node.pod("early", 2);
        cache(&early, &["ptp"], bandwidth(0, LIMIT));
        node.start_agent();
        let limit = |pod: &Pod, direction: &str| -> Option<u64> {
            let status = status_of(node, pod)?;
            status[direction]["mode"].as_str()?;
            status[direction]["limit_bps"].as_u64()
        };
        soon("early pod", || (limit(&early, "ingress") == Some(LIMIT)).then_some(()));
        assert_eq!(limit(&early, "egress"), Some(30_000_000));
        let late = node.pod("late", 3);
        cache(&late, &["ptp"], bandwidth(LIMIT, 0));
        soon("late pod", || (limit(&late, "egress") == Some(LIMIT)).then_some(()));
        // What the runtime deletes is not adopted again, though its cache file goes last.
        node.del(&late);
        ip(&format!("link set {} alias gone", late.host_ifname));
        fs::write("/var/lib/cni/results/poke", "{}").expect("poke");
        assert!(records().iter().all(|name| !name.contains("late")), "{:?}", records());
    });
}

/// What the upstream plugin leaves: ifb with tbf, ingress qdisc with a redirect to it, root tbf.
fn upstream_leftovers(pod: &Pod, mbit: u64) {
    let host = &pod.host_ifname;
    let rate = format!("rate {mbit}mbit burst 256kb latency 25ms");
    ip("link add bwp0123456789 type ifb");
    ip("link set bwp0123456789 up");
    tc(&format!("qdisc add dev bwp0123456789 root handle 1: tbf {rate}"));
    tc(&format!("qdisc add dev {host} ingress"));
    tc(&format!(
        "filter add dev {host} parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred \
         egress redirect dev bwp0123456789"
    ));
    tc(&format!("qdisc add dev {host} root handle 1: tbf {rate}"));
}

#[test]
fn upstream_plugins_limits_are_taken_over_from_a_running_pod() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        upstream_leftovers(&pod, LIMIT / 1_000_000);
        let (from, to) = (remote.netns(), pod.netns());
        let protocol = Protocol::Udp(2 * LIMIT);
        let transfer = Transfer { from: &from, to: &to, address: pod.address, protocol };
        let rates = transfer.seconds_while(4, || {
            cache(&pod, &["ptp", "bandwidth"], bandwidth(LIMIT, LIMIT));
            let links = || output("ip", &["link", "show", "bwp0123456789"]);
            soon("the take-over", || (!links().status.success()).then_some(()));
        });
        let roots = tc(&format!("qdisc show dev {}", pod.host_ifname));
        assert!(!roots.contains("tbf") && !roots.contains("ingress"), "{roots}");
        println!("{rates:?}");
        // The bucket of tbf, and the credit of policing, in the second of the change.
        assert!(rates.iter().all(|rate| *rate <= LIMIT * 5 / 4), "{rates:?}");
        assert!(rates.iter().skip(1).all(|rate| *rate >= LIMIT * 9 / 10), "{rates:?}");
    });
}

#[test]
fn foreign_tbf_is_not_taken_over_without_the_upstream_plugin_in_the_chain() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        upstream_leftovers(&pod, 20);
        cache(&pod, &["ptp"], bandwidth(LIMIT, LIMIT));
        soon("adoption", || status_of(node, &pod)?["egress"]["mode"].as_str().map(|_| ()));
        let roots = tc(&format!("qdisc show dev {}", pod.host_ifname));
        assert!(roots.contains("tbf 1: root") && roots.contains("ingress"), "{roots}");
    });
}

/// The same name, another device: as the VPC CNI does it for a StatefulSet.
#[test]
fn veth_that_was_made_again_under_the_same_name_gets_the_limit_anew() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let (paced, old) = (is_paced(node, &pod), index(&pod.host_ifname));
        ip(&format!("link del {}", pod.host_ifname));
        ip(&format!("link add {} type veth peer name eth0 netns a", pod.host_ifname));
        ip(&format!("link set {} up", pod.host_ifname));
        ip("-n a link set eth0 up");
        // Whether the agent saw the pod without an interface is a matter of luck: its record goes then,
        // else the new veth gets the limit. The runtime's next ADD finds either.
        soon("the old veth is forgotten", || {
            (records().is_empty() || is_whole(&pod, paced)).then_some(())
        });
        node.add(&pod, BOTH);
        assert!(is_whole(&pod, paced));
        node.guard(&pod);
        assert!(!fs::exists(format!("{PIN_DIR}/links/{old}")).expect("look for a pin"));
    });
}

#[test]
fn pod_that_went_without_a_del_leaves_nothing() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        node.guard(&pod);
        pod.delete();
        soon("no record", || records().is_empty().then_some(()));
        let links = || fs::read_dir(format!("{PIN_DIR}/links")).map_or(0, |dir| dir.count());
        soon("no link", || (links() == 0).then_some(()));
        let next = node.pod("b", 3);
        node.add(&next, BOTH);
        assert_eq!(node.status(&next)["slot"], 1);
    });
}

/// A veth outlives its namespace's file: the kernel takes it later, and later still where a process stays.
#[test]
fn pod_without_limits_that_was_looked_at_while_it_went_leaves_nothing() {
    with_ready_node("", |node| {
        let (pod, next) = (node.pod("a", 2), node.pod("b", 3));
        [&pod, &next].iter().for_each(|pod| node.add(pod, BOTH));
        node.boot_with("enabled = false");
        node.signal_agent(Signal::SIGHUP);
        let is_plain = |pod: &Pod| node.status(pod)["egress"]["mode"].is_null();
        soon("no limits", || (is_plain(&pod) && is_plain(&next)).then_some(()));
        let held = fs::File::open(pod.netns()).expect("hold the namespace");
        pod.delete();
        ip(&format!("link set {} mtu 1400", pod.host_ifname));
        // Who is due later is looked at later.
        next.delete();
        soon("one record less", || (records().len() == 1).then_some(()));
        drop(held);
        soon("no record", || records().is_empty().then_some(()));
    });
}

/// As egress-cni makes them: a veth with a random name for the other address family.
#[test]
fn interfaces_of_one_pod_share_its_limit() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        ip("link add veth0815 type veth peer name v4if0 netns a");
        ip("link set veth0815 up");
        ip("-n a link set v4if0 up");
        node.add(&pod, BOTH);
        let both = |records: &[String]| {
            ["1@id-a@eth0.json", "1@id-a@v4if0.json"]
                .iter()
                .all(|name| records.iter().any(|r| r == name))
        };
        assert!(both(&records()), "{:?}", records());
        assert!(pod.run("tc filter show dev v4if0 parent 51ce:").contains("sluice_egress"));
        assert!(tc("filter show dev veth0815 parent 51ce:").contains("sluice_ingress"));
        // One that comes later is found by the agent.
        ip("link add veth4711 type veth peer name mNicIf1 netns a");
        ip("link set veth4711 up");
        ip("link set eniremote alias x");
        ip("link set enia alias x");
        soon("later interface", || {
            tc("filter show dev veth4711 parent 51ce:").contains("sluice_ingress").then_some(())
        });
        let _ = remote;
        node.del(&pod);
        assert!(records().is_empty(), "{:?}", records());
        assert!(!tc("qdisc show dev veth0815").contains("51ce"));
    });
}

/// The agent reads of an ADD while that is long through, or its DEL is already there.
#[test]
fn interface_that_came_along_is_left_as_it_was_before() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        ip("link add veth0815 type veth peer name v4if0 netns a");
        ip("link set veth0815 up");
        let state = || {
            let sizes = (gso(index("veth0815")), gso_in(&pod.netns(), "v4if0"));
            let inside = pod.run("tc filter show dev v4if0 parent 51ce:");
            (sizes, tc("qdisc show dev veth0815"), inside)
        };
        let before = state();
        for round in 0..20 {
            node.add(&pod, BOTH);
            node.del(&pod);
            assert_eq!(state(), before, "round {round}");
        }
    });
}

#[test]
fn entry_comes_back_when_somebody_writes_the_conflist_anew() {
    with_ready_node("", |_node| {
        let chained = fs::read_to_string(CONFLIST).expect("the conflist");
        let plain = chained.replace(ENTRY, "");
        assert_ne!(plain, chained);
        for _ in 0..5 {
            // As aws-node does it: a temporary file beside it, then a rename.
            fs::write(format!("{CONFLIST}.tmp"), &plain).expect("write");
            fs::rename(format!("{CONFLIST}.tmp"), CONFLIST).expect("rename");
            soon("the entry", || {
                (fs::read_to_string(CONFLIST).expect("the conflist") == chained).then_some(())
            });
        }
    });
}

#[test]
fn conflist_that_comes_late_gets_the_entry_and_none_is_made_before() {
    with_ready_node("", |node| {
        let chained = fs::read_to_string(CONFLIST).expect("the conflist");
        node.kill_agent(Signal::SIGTERM);
        fs::remove_file(CONFLIST).expect("remove the conflist");
        node.boot_with("");
        node.start_agent();
        let waits = || {
            let output = node.sluice(&["status", "--json", "--interval", "1"]);
            let status = String::from_utf8_lossy(&output.stdout).into_owned();
            status.contains("conflist-missing").then_some(())
        };
        soon("word that it waits", waits);
        let files = fs::read_dir(CONF_DIR).expect("the directory").count();
        assert_eq!(files, 0);
        fs::write(format!("{CONFLIST}.tmp"), chained.replace(ENTRY, "")).expect("write");
        fs::rename(format!("{CONFLIST}.tmp"), CONFLIST).expect("rename");
        soon("the entry", || {
            (fs::read_to_string(CONFLIST).expect("the conflist") == chained).then_some(())
        });
    });
}

#[test]
fn restarted_agent_puts_its_programs_into_the_pods_that_are_there() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        PolicyAgent::start().allow(&pod.host_ifname);
        node.add(&pod, BOTH);
        node.guard(&pod);
        let programs = || {
            let inside = pod.run("tc -j filter show dev eth0 parent 51ce:");
            let outside = tc(&format!("-j filter show dev {} parent 51ce:", pod.host_ifname));
            [inside, outside].map(|text| {
                let filters = parse(&text);
                let all = filters.as_array().expect("filters").iter();
                all.filter_map(|f| f["options"]["prog"]["id"].as_u64()).next()
            })
        };
        let before = programs();
        let (from, to) = (pod.netns(), remote.netns());
        let protocol = Protocol::Udp(2 * LIMIT);
        let transfer = Transfer { from: &from, to: &to, address: remote.address, protocol };
        let rates = transfer.seconds_while(4, || {
            node.kill_agent(Signal::SIGKILL);
            node.start_agent();
            soon("new programs", || {
                let now = programs();
                (now[0] > before[0] && now[1] > before[1]).then_some(())
            });
        });
        // Less is the work of a busy machine, not of the shaper.
        let held = |rate: &u64| (LIMIT * 8 / 10..=LIMIT * 21 / 20).contains(rate);
        assert!(rates.iter().skip(1).all(held), "limit {LIMIT}, seconds {rates:?}");
        // All of the old version's programs are gone with their last user.
        let shown = run("bpftool", &["-j", "prog", "show"]);
        let ids: Vec<_> = before.into_iter().flatten().collect();
        let old = |program: &&Value| program["id"].as_u64().is_some_and(|id| ids.contains(&id));
        soon("no old program", || {
            let all = parse(&run("bpftool", &["-j", "prog", "show"]));
            (!all.as_array()?.iter().any(|program| old(&program))).then_some(())
        });
        drop(shown);
    });
}

/// Pins of another layout, as an upgrade finds them: the directory's name is all that differs.
#[test]
fn upgrade_from_an_older_layout_leaves_no_second_without_the_limit() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        PolicyAgent::start().allow(&pod.host_ifname);
        node.add(&pod, BOTH);
        node.guard(&pod);
        node.kill_agent(Signal::SIGTERM);
        fs::rename(PIN_DIR, PIN_DIR.replace("v2", "v1")).expect("rename the pins");
        let (from, to) = (pod.netns(), remote.netns());
        let protocol = Protocol::Udp(2 * LIMIT);
        let transfer = Transfer { from: &from, to: &to, address: remote.address, protocol };
        let old = PIN_DIR.replace("v2", "v1");
        let rates = transfer.seconds_while(4, || {
            node.start_agent();
            soon("no old pins", || (!fs::exists(&old).expect("look")).then_some(()));
        });
        // A new clock gives its credit once more: without fq 200 ms, as the start of the flood does.
        assert!(rates.iter().all(|rate| *rate <= LIMIT * 29 / 20), "{rates:?}");
        assert!(rates.iter().skip(1).all(|rate| *rate >= LIMIT * 8 / 10), "{rates:?}");
        let over = rates.iter().filter(|rate| **rate > LIMIT * 21 / 20).count();
        assert!(over <= 2, "{rates:?}");
        node.guard(&pod);
        // What the older layout had let pass was under way when the new guard came.
        assert_eq!(node.status(&pod)["guard"]["unshaped_packets"], 0, "{}", node.status(&pod));
        node.del(&pod);
    });
}

/// fq as root and a filter on clsact in the pod, no leaf for what is dropped on the host's end.
#[test]
fn pod_of_an_older_version_gets_this_ones_layout_without_a_second_that_is_not_limited() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        PolicyAgent::start().allow(&pod.host_ifname);
        node.add(&pod, BOTH);
        node.guard(&pod);
        let paced = is_paced(node, &pod);
        node.kill_agent(Signal::SIGTERM);
        foreign::load();
        tc(&format!("qdisc del dev {} parent 51ce:2 handle 51d0:", pod.host_ifname));
        pod.run("tc qdisc del dev eth0 root");
        if paced {
            pod.run("tc qdisc add dev eth0 root handle 51ce: fq");
        }
        pod.run("tc qdisc add dev eth0 clsact");
        // Not by `ip netns exec`, which hides the pins.
        let line = format!(
            "--net=/run/netns/a tc filter add dev eth0 egress prio 1 handle 0x51ce bpf da \
             object-pinned {}",
            foreign::pin("counts_only")
        );
        run("nsenter", &line.split_whitespace().collect::<Vec<_>>());
        let (from, to) = (pod.netns(), remote.netns());
        let protocol = Protocol::Udp(2 * LIMIT);
        let transfer = Transfer { from: &from, to: &to, address: remote.address, protocol };
        let rates = transfer.seconds_while(5, || {
            node.start_agent();
            soon("this version's layout", || {
                let old = pod.run("tc filter show dev eth0 egress").contains("0x51ce");
                (is_whole(&pod, paced) && !old).then_some(())
            });
        });
        // The stand-in for the old filter limits nothing; the guard does, on the pod's own line.
        assert!(rates.iter().all(|rate| *rate <= LIMIT * 13 / 10), "{rates:?}");
        assert!(rates[3..].iter().all(|rate| rate.abs_diff(LIMIT) <= LIMIT / 20), "{rates:?}");
        node.del(&pod);
        assert!(!pod.run("tc qdisc show dev eth0").contains("51ce"));
    });
}

#[test]
fn downgrade_is_refused_and_touches_nothing() {
    with_ready_node("", |node| {
        node.kill_agent(Signal::SIGTERM);
        fs::create_dir(PIN_DIR.replace("v2", "v3")).expect("pins of a newer version");
        let output = node.sluice(&["agent"]);
        assert_eq!(output.status.code(), Some(78), "{}", text(&output));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("/sys/fs/bpf/sluice/v3"), "{stderr}");
        assert!(fs::exists(format!("{PIN_DIR}/lines")).expect("look"));
    });
}

#[test]
fn detach_takes_off_all_of_ours_and_nothing_else() {
    with_ready_node("", |node| {
        let (pod, policy) = (node.pod("a", 2), PolicyAgent::start());
        policy.allow(&pod.host_ifname);
        let before = [
            tc(&format!("qdisc show dev {}", pod.host_ifname)),
            tc(&format!("filter show dev {} ingress", pod.host_ifname)),
        ];
        let conflist = fs::read_to_string(CONFLIST).expect("the conflist");
        let before_gso = gso(index(&pod.host_ifname));
        node.add(&pod, BOTH);
        node.guard(&pod);
        // One that no record names.
        let lost = node.pod("lost", 3);
        node.add(&lost, BOTH);
        cache(&lost, &["ptp"], bandwidth(LIMIT, LIMIT));
        let refused = node.sluice(&["detach"]);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("an agent runs already"));
        node.kill_agent(Signal::SIGTERM);
        let record = records().into_iter().find(|name| name.contains("lost")).expect("a record");
        fs::remove_file(format!("/run/sluice/pods/{record}")).expect("lose a record");
        let output = node.sluice(&["detach"]);
        assert!(output.status.success(), "{}", text(&output));
        let after = [
            tc(&format!("qdisc show dev {}", pod.host_ifname)),
            tc(&format!("filter show dev {} ingress", pod.host_ifname)),
        ];
        assert_eq!(after, before);
        assert_eq!(gso(index(&pod.host_ifname)), before_gso);
        for pod in [&pod, &lost] {
            assert!(!pod.run("tc filter show dev eth0 parent 51ce:").contains("sluice"));
            assert!(!pod.run("tc qdisc show dev eth0").contains("51ce"));
            assert!(!tc(&format!("qdisc show dev {}", pod.host_ifname)).contains("51ce"));
        }
        assert!(records().is_empty() && !fs::exists("/sys/fs/bpf/sluice").expect("look"));
        let left = fs::read_to_string(CONFLIST).expect("the conflist");
        assert!(conflist.contains("sluice") && !left.contains("sluice"), "{left}");
        assert!(fs::exists("/sys/fs/bpf/globals/aws/programs/policy_allow").expect("look"));
        node.del(&pod);
    });
}

#[test]
fn detach_beside_the_nodes_own_network_names_what_it_could_not_reach() {
    with_ready_node("", |node| {
        let (pod, beside) = (node.pod("a", 2), node.pod("beside", 3));
        node.add(&pod, BOTH);
        cache(&pod, &["ptp"], bandwidth(LIMIT, LIMIT));
        node.kill_agent(Signal::SIGTERM);
        let netns = format!("--net={}", beside.netns().display());
        let sluice = executable("sluice").display().to_string();
        let output = output("nsenter", &[&netns, &sluice, "detach"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("is this the node's own network namespace?"), "{said}");
        // By handle and by the runtime's cache it is found all the same.
        let output = node.sluice(&["detach"]);
        assert!(output.status.success(), "{}", text(&output));
        assert!(!pod.run("tc qdisc show dev eth0").contains("51ce"));
        assert!(!tc(&format!("qdisc show dev {}", pod.host_ifname)).contains("51ce"));
    });
}

#[test]
fn who_takes_the_same_off_again_and_again_is_reported_and_left_alone() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        PolicyAgent::start().allow(&pod.host_ifname);
        node.add(&pod, BOTH);
        node.guard(&pod);
        let contested = || {
            let output = node.sluice(&["status", "--json", "--interval", "1"]);
            let status = String::from_utf8_lossy(&output.stdout).into_owned();
            status.contains("contested").then_some(())
        };
        let filter = || pod.run("tc filter show dev eth0 parent 51ce:").contains("sluice_egress");
        for _ in 0..10 {
            pod.run("tc filter del dev eth0 parent 51ce: prio 1");
            soon("the filter or a report", || filter().then_some(()).or_else(&contested));
        }
        soon("the report", contested);
        pod.run("tc filter del dev eth0 parent 51ce: prio 1");
        let remote = node.pod("remote", 9);
        let (from, to) = (pod.netns(), remote.netns());
        let protocol = Protocol::Udp(2 * LIMIT);
        let transfer = Transfer { from: &from, to: &to, address: remote.address, protocol };
        let rates = transfer.seconds(3);
        assert!(!filter());
        // By the guard, which without fq gives as much credit as the shaper.
        assert!(rates.iter().skip(1).all(|rate| *rate <= LIMIT * 21 / 20), "{rates:?}");
    });
}

#[test]
fn second_agent_is_refused() {
    with_ready_node("", |node| {
        let output = node.sluice(&["agent"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains(
                "an agent runs already: lock /run/sluice/locks/agent: waited 0ns; held by process "
            ),
            "{stderr}"
        );
    });
}

#[test]
fn agent_that_finds_no_settings_leaves_limits_as_they_are() {
    with_ready_node("default-egress = \"20Mbit\"", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, Annotations::default());
        node.guard(&pod);
        node.kill_agent(Signal::SIGTERM);
        fs::remove_file("/run/sluice/settings.toml").expect("lose the settings in force");
        node.start_agent();
        soon("word of it", || {
            let output = node.sluice(&["status", "--json", "--interval", "1"]);
            let status = parse(&String::from_utf8_lossy(&output.stdout));
            status.to_string().contains("\"not-booted\"").then_some(())
        });
        assert_eq!(node.status(&pod)["egress"]["limit_bps"], LIMIT);
        assert!(pod.run("tc filter show dev eth0 parent 51ce:").contains("sluice_egress"));
    });
}

#[test]
fn foreign_qdisc_on_one_way_does_not_keep_the_other_from_being_mended() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        PolicyAgent::start().allow(&pod.host_ifname);
        node.add(&pod, BOTH);
        node.guard(&pod);
        let tbf = "handle 1: tbf rate 90mbit burst 64k latency 50ms";
        tc(&format!("qdisc replace dev {} root {tbf}", pod.host_ifname));
        pod.run("tc filter del dev eth0 parent 51ce: prio 1");
        let filter = || pod.run("tc filter show dev eth0 parent 51ce:").contains("sluice_egress");
        soon("the pod's filter", || filter().then_some(()));
        if has_tcx() {
            let pin = format!("{PIN_DIR}/links/{}", index(&pod.host_ifname));
            fs::remove_file(&pin).expect("remove the guard's pin");
            ip(&format!("link set {} alias x", pod.host_ifname));
            soon("the guard's link", || fs::exists(&pin).unwrap_or(false).then_some(()));
        }
    });
}

#[test]
fn pins_that_are_removed_come_back_with_all_they_held() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        node.guard(&pod);
        let in_pod = || node.status(&pod)["bypassed"]["guard"].clone();
        soon("the guard in the pod", || (in_pod() != "pending").then_some(()));
        let limits = || {
            let words = format!("-j map lookup pinned {PIN_DIR}/lines key 2 0 0 0");
            let output = output("bpftool", &words.split(' ').collect::<Vec<_>>());
            // Not the clock: a pod looks for IPv6 routers when it likes to.
            let line = || parse(&String::from_utf8_lossy(&output.stdout));
            output.status.success().then(|| line()["formatted"]["value"]["limit"].clone())
        };
        let held = limits().expect("a limit");
        let all = || {
            let names = fs::read_dir(PIN_DIR).into_iter().flatten().flatten();
            let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        let before = all();
        let filter = pod.run("tc filter show dev eth0 parent 51ce:");
        for remove in ["lines", "shape_egress", ""] {
            let path = format!("{PIN_DIR}/{remove}");
            node.signal_agent(Signal::SIGSTOP);
            match remove {
                "" => fs::remove_dir_all("/sys/fs/bpf/sluice").expect("remove all"),
                _ => fs::remove_file(path).expect("remove one"),
            }
            node.signal_agent(Signal::SIGCONT);
            soon("the pins", || (all() == before).then_some(()));
            assert_eq!(limits().as_ref(), Some(&held));
            // Limits were in force all the time, by the same program.
            assert_eq!(pod.run("tc filter show dev eth0 parent 51ce:"), filter);
            assert_eq!(node.status(&pod)["guard"]["state"], node.guard(&pod)["state"]);
        }
        // A pod can come and go again.
        let other = node.pod("b", 3);
        node.add(&other, BOTH);
        node.del(&other);
        let codes = node.sluice_json(&["status", "--json", "--interval", "1"]);
        let codes = codes["degraded"].as_array().expect("a list").iter();
        let codes: Vec<_> = codes.map(|trouble| trouble["code"].to_string()).collect();
        assert!(!codes.iter().any(|code| code.contains("pins-missing")), "{codes:?}");
    });
}

/// Looks into a pod's namespace, each of which opens its file.
struct Looks(Inotify);

impl Looks {
    fn at(pod: &Pod) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).expect("watch");
        let path = format!("/run/netns/{}", pod.name);
        inotify.add_watch(path.as_str(), AddWatchFlags::IN_OPEN).expect("watch the namespace");
        Self(inotify)
    }

    fn count(&self) -> usize {
        self.0.read_events().map_or(0, |events| events.len())
    }

    /// Until what the guards' coming has caused is over: what is attached inside the pod is an event.
    fn wait_for_quiet(&self) {
        let mut last = Instant::now();
        soon("no more looks", || {
            last = if self.count() > 0 { Instant::now() } else { last };
            (last.elapsed() > Duration::from_millis(500)).then_some(())
        });
    }
}

#[test]
fn what_the_agent_writes_itself_causes_no_look() {
    with_ready_node("", |node| {
        let (pod, late) = (node.pod("a", 2), node.pod("b", 3));
        node.add(&pod, BOTH);
        soon("both guards", || {
            let status = node.status(&pod);
            let states = [&status["guard"]["state"], &status["bypassed"]["guard"]];
            states.iter().all(|state| *state != "pending" && !state.is_null()).then_some(())
        });
        let path = |number: &str| {
            let name = records().into_iter().find(|name| name.starts_with(number));
            format!("/run/sluice/pods/{}", name.expect("a record"))
        };
        let looks = Looks::at(&pod);
        looks.wait_for_quiet();
        let write = |text: &str| {
            fs::write("/run/record", text).expect("write the record");
            fs::rename("/run/record", path("1@")).expect("put it in place");
        };
        let text = fs::read_to_string(path("1@")).expect("the record");
        write(&text);
        // What comes after it has been seen to. `status` would look as well.
        node.add(&late, BOTH);
        soon("the next pod's guard", || {
            let record = fs::read_to_string(path("2@")).expect("the record");
            (!record.contains("\"guard\": \"pending\"")).then_some(())
        });
        assert_eq!(looks.count(), 0, "looks at a pod whose record says what the agent wrote");
        write(&text.replace("\"took_ns\": ", "\"took_ns\": 1"));
        soon("a look", || (looks.count() > 0).then_some(()));
    });
}
