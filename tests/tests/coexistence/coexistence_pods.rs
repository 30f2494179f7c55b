// SPDX-License-Identifier: Apache-2.0
//! Pods as the VPC CNI makes them: names of the ends on the host, further
//! interfaces, devices that are no pod's, its results, and what a restart of
//! the node leaves of all that.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::cilium;
use tests::cni::{Annotations, Call};
use tests::command::{ip, json as parse, tc, text, wait_for};
use tests::flood::{DIRECTIONS, Direction, Flood};
use tests::kernel::{has_fq, skip};
use tests::meter::{Protocol, Transfer};
use tests::node::{BIN_DIR, Node, Pod, with_ready_node};
use tests::tc_monitor::TcMonitor;

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
const SOON: Duration = Duration::from_secs(10);

fn both_ends_are_shaped(pod: &Pod) -> bool {
    let outside = tc(&format!("filter show dev {} parent 51ce:", pod.host_ifname));
    let inside = pod.run("tc filter show dev eth0 parent 51ce:");
    outside.contains("sluice_ingress") && inside.contains("sluice_egress")
}

/// Security groups for pods call it `vlan…`, and AWS_VPC_K8S_CNI_VETHPREFIX whatever it says.
#[test]
fn name_of_the_hosts_end_does_not_matter() {
    with_ready_node("", |node| {
        let remote = node.pod("remote", 9);
        for (number, name, host) in [(2, "strict", "vlan1a2b3c4d5e6"), (3, "custom", "abcd0815")] {
            let pod = node.pod_at(name, number, host);
            node.add(&pod, BOTH);
            Flood { pod: &pod, remote: &remote, limit_bps: LIMIT }.assert_limit_holds();
        }
    });
}

/// Network cards, a trunk's `vlan.eth.N`, and a card that is plugged in while all runs: shaping at
/// the pods asks nothing of them, not even sch_fq.
#[test]
fn devices_that_are_no_pods_are_never_touched() {
    with_ready_node("default-egress = \"20Mbit\"", |node| {
        ip("netns add wire");
        let card = |name: &str| {
            ip(&format!("link add {name} type veth peer name {name} netns wire"));
            ip(&format!("link set {name} up"));
        };
        card("ens5");
        card("vlan.eth.1");
        let pod = node.pod("a", 2);
        let monitor = TcMonitor::start();
        node.add(&pod, BOTH);
        card("ens6");
        ip("link set ens6 alias poked");
        node.boot_with("default-egress = \"30Mbit\"");
        node.signal_agent(Signal::SIGHUP);
        node.guard(&pod);
        wait_for("our root on the pod", SOON, || both_ends_are_shaped(&pod).then_some(()));
        let lines = monitor.lines();
        let of_cards = |line: &&String| {
            ["dev ens5 ", "dev ens6 ", "dev vlan.eth.1 "].iter().any(|dev| line.contains(dev))
        };
        // The kernel's own word of a new device.
        let mut used = lines.iter().filter(of_cards).filter(|line| !line.contains(" 0: "));
        assert_eq!(used.next(), None, "{lines:?}");
        for device in ["ens5", "ens6", "vlan.eth.1"] {
            let root = tc(&format!("qdisc show dev {device}"));
            assert!(root.starts_with("qdisc noqueue 0: root"), "{root}");
        }
    });
}

fn udp<'a>(from: &'a Path, to: &'a Path, pod: &Pod, bits_per_sec: u64) -> Transfer<'a> {
    Transfer { from, to, address: pod.address, protocol: Protocol::Udp(bits_per_sec) }
}

/// One card to each remote, as primary and secondary ENI are: SNAT and routes decide which one a
/// packet takes, so a limit on a card would be none of the pod.
#[test]
fn limit_is_of_all_the_pod_sends_whatever_card_it_leaves_by() {
    with_ready_node("", |node| {
        let (pod, one, other) = (node.pod("a", 2), node.pod("one", 8), node.pod("other", 9));
        node.add(&pod, Annotations { egress: LIMIT, ingress: 0 });
        let (from, to) = (pod.netns(), [one.netns(), other.netns()]);
        let sums = both_at_once(
            &udp(&from, &to[0], &one, 2 * LIMIT),
            &udp(&from, &to[1], &other, 2 * LIMIT),
        );
        assert_share_of_one_limit(&sums);
    });
}

/// Two transfers of four seconds; the sum of both in each.
fn both_at_once(first: &Transfer, second: &Transfer) -> Vec<u64> {
    let (first, second) = thread::scope(|scope| {
        let other = scope.spawn(|| second.seconds(4));
        (first.seconds(4), other.join().expect("the other transfer"))
    });
    println!("{first:?} and {second:?}");
    first.iter().zip(&second).map(|(first, second)| first + second).collect()
}

/// They do not begin at the same moment, so the whole is judged: less the credit of the first
/// second, and without the last, in which one may have ended.
fn assert_share_of_one_limit(sums: &[u64]) {
    let middle = (sums[1] + sums[2]) / 2;
    assert!(middle.abs_diff(LIMIT) <= LIMIT / 20, "limit {LIMIT}, seconds {sums:?}");
}

/// A second interface with an address of its own: of another network card (mNicIf1), or as
/// egress-cni makes one for the other address family (v4if0).
fn second_interface(pod: &Pod, ifname: &str, host: &str, number: u8) -> Pod {
    let address = std::net::Ipv4Addr::new(10, 1, 1, number);
    let inside = format!("-n {}", pod.name);
    ip(&format!("link add {host} type veth peer name {ifname} netns {}", pod.name));
    ip(&format!("link set {host} up"));
    ip(&format!("{inside} link set {ifname} up"));
    ip(&format!("{inside} addr add {address}/32 dev {ifname}"));
    let mac = |namespace: &str, device: &str| tests::node::mac_of(namespace, device);
    ip(&format!("neigh add {address} lladdr {} dev {host} nud permanent", mac(&inside, ifname)));
    ip(&format!("route add {address} dev {host} scope link"));
    // What is sent from its address leaves by it.
    ip(&format!(
        "{inside} neigh add 169.254.1.2 lladdr {} dev {ifname} nud permanent",
        mac("", host)
    ));
    ip(&format!("{inside} route add 169.254.1.2 dev {ifname} scope link"));
    Pod { name: pod.name.clone(), host_ifname: host.into(), address }
}

#[test]
fn interfaces_of_a_pod_together_get_its_limit_and_no_more() {
    with_ready_node("", |node| {
        let (pod, one, other) = (node.pod("a", 2), node.pod("one", 8), node.pod("other", 9));
        let second = second_interface(&pod, "v4if0", "veth0815", 2);
        ip(&format!("-n a route add {} via 169.254.1.2 dev v4if0", other.address));
        node.add(&pod, BOTH);
        let (inside, ones, others) = (pod.netns(), one.netns(), other.netns());
        let out = both_at_once(
            &udp(&inside, &ones, &one, 2 * LIMIT),
            &udp(&inside, &others, &other, 2 * LIMIT),
        );
        assert_share_of_one_limit(&out);
        let sent = |host: &str| {
            let counters = tests::command::json(&ip(&format!("-j -s link show {host}")));
            counters[0]["stats64"]["rx"]["bytes"].as_u64().expect("a counter")
        };
        assert!(sent("veth0815") > 1_000_000, "nothing left by the second interface");
        // The meter counts what the whole namespace receives, so either transfer sees the sum.
        let (to_first, to_second) =
            (udp(&ones, &inside, &pod, 2 * LIMIT), udp(&others, &inside, &second, 2 * LIMIT));
        let rates = thread::scope(|scope| {
            let other = scope.spawn(|| to_second.seconds(4));
            (to_first.seconds(4), other.join().expect("the other transfer")).0
        });
        println!("to both: {rates:?}");
        assert!(rates[2].abs_diff(LIMIT) <= LIMIT / 20, "limit {LIMIT}, seconds {rates:?}");
    });
}

/// What aws-cni hands on: 0.4.0, MAC addresses that are table numbers, a dummy interface that only
/// carries numbers, and fields that no specification has. Its DEL counts these interfaces.
#[test]
fn result_of_the_vpc_cni_goes_through_as_it_is() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        let mut call = Call::new("ADD", &pod, BOTH);
        call.stdin["cniVersion"] = "0.4.0".into();
        call.stdin["prevResult"] = json!({
            "cniVersion": "0.4.0",
            "interfaces": [
                {"name": pod.host_ifname, "mac": ""},
                {"name": "eth0", "mac": "254", "sandbox": pod.netns()},
                {"name": "dummycc21c2d7785", "mac": "0", "sandbox": "1"},
            ],
            "ips": [{"version": "4", "interface": 1, "address": "10.1.0.2/32"}],
            "dns": {}, "someday": {"z": 1, "a": [1.50, null]},
        });
        let output = call.run(&pod);
        assert!(output.status.success(), "{}", text(&output));
        let result = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(result, call.stdin["prevResult"].to_string());
        assert_eq!(node.status(&pod)["egress"]["limit_bps"], LIMIT);
    });
}

/// What is gone after a restart of the node: /run, the BPF file system, the runtime's cache, all
/// interfaces. The sandboxes of before are deleted by then or later, with nothing to go by.
#[test]
fn after_a_restart_of_the_node_old_sandboxes_are_deleted_and_new_pods_limited() {
    with_ready_node("", |node| {
        let (old, remote) = (node.pod("old", 2), node.pod("remote", 9));
        node.add(&old, BOTH);
        node.guard(&old);
        node.kill_agent(Signal::SIGKILL);
        lose_what_a_restart_loses(&old);
        let mut del = Call::new("DEL", &old, Annotations::default());
        del.stdin["prevResult"] = Value::Null;
        let deleted = |when: &str| {
            let output = del.run(&old);
            assert!(
                output.status.success() && output.stdout.is_empty(),
                "{when}: {}",
                text(&output)
            );
        };
        deleted("before boot");
        node.boot_with("");
        deleted("before the agent");
        node.start_agent();
        deleted("beside the agent");
        let pod = node.pod("a", 3);
        node.add(&pod, BOTH);
        assert_eq!(node.status(&pod)["slot"], 1);
        deleted("beside a pod in the same slot");
        let flood = Flood { pod: &pod, remote: &remote, limit_bps: LIMIT };
        for direction in DIRECTIONS {
            let rates = flood.seconds_while(direction, 2, || ());
            assert!(flood.is_limit(rates[1]), "{direction:?}: {rates:?}");
        }
    });
}

fn lose_what_a_restart_loses(pod: &Pod) {
    pod.delete();
    umount2("/sys/fs/bpf", MntFlags::MNT_DETACH).expect("unmount bpffs");
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), None::<&str>)
        .expect("mount bpffs");
    fs::remove_dir_all("/run/sluice").expect("forget /run");
    assert!(fs::exists(format!("{BIN_DIR}/sluice")).expect("look for the plugin"));
    // The cache was never made here, as after cni-cache-reset.service.
    assert!(!fs::exists("/var/lib/cni/results").expect("look for the cache"));
}

/// Where the main plugin fails (ipamd or network policy is down) the runtime calls no one after it,
/// and then DEL for all; should one call us nevertheless, the error names what is missing and nothing
/// is left behind.
#[test]
fn failed_main_plugin_leaves_nothing_of_ours() {
    with_ready_node("", |node: &mut Node| {
        let pod = node.pod("a", 2);
        node.del(&pod);
        let mut call = Call::new("ADD", &pod, BOTH);
        call.stdin["prevResult"] = Value::Null;
        let error = tests::cni::expect_error(&call.run(&pod));
        let message = error["msg"].as_str().expect("a message");
        assert!(message.starts_with("sluice: prevResult is missing: "), "{message}");
        assert!(tc(&format!("qdisc show dev {}", pod.host_ifname)).starts_with("qdisc noqueue"));
        let records = fs::read_dir("/run/sluice/pods").map_or(0, Iterator::count);
        assert_eq!(records, 0);
    });
}

/// Packets that ours has held until their time leave Cilium's queue at once.
#[test]
fn cilium_that_limits_the_same_pod_on_the_card_is_reported_and_takes_nothing_from_the_rate() {
    let name =
        "cilium_that_limits_the_same_pod_on_the_card_is_reported_and_takes_nothing_from_the_rate";
    if !has_fq() {
        return skip(name, "the kernel has no sch_fq");
    }
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        node.add(&pod, Annotations { egress: LIMIT, ingress: 0 });
        let reported = || {
            let output = node.sluice(&["doctor", "--json"]);
            let report = parse(&String::from_utf8_lossy(&output.stdout));
            let findings = report["findings"].as_array().expect("findings").clone();
            findings.into_iter().find(|finding| finding["code"] == "cilium-bandwidth")
        };
        assert_eq!(reported(), None);
        cilium::limit_on_card(&remote.host_ifname, LIMIT);
        let flood = Flood { pod: &pod, remote: &remote, limit_bps: LIMIT };
        let rates = flood.seconds_while(Direction::Egress, 3, || ());
        let mean = rates[1..].iter().sum::<u64>() / 2;
        assert!((LIMIT * 97 / 100..=LIMIT * 102 / 100).contains(&mean), "{rates:?}");
        let seen = reported().expect("a finding")["seen"].to_string();
        assert!(seen.contains("cilium_throttle is pinned"), "{seen}");
    });
}
