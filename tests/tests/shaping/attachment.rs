// SPDX-License-Identifier: Apache-2.0
//! What hangs on the devices of a pod with limits, read back by others' eyes,
//! and that it is as before once the limits have gone.

use std::time::Duration;

use serde_json::Value;
use tests::cni::{Annotations, Call};
use tests::command::{ip, json, output, tc, wait_for};
use tests::flood::{Direction, Flood};
use tests::kernel::{has_fq, skip};
use tests::link::{Gso, gso, gso_in, index};
use tests::node::{Node, Pod, with_ready_node};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };

fn gso_of(pod: &Pod) -> [Gso; 2] {
    [gso_in(&pod.netns(), "eth0"), gso(index(&pod.host_ifname))]
}

/// Larger than 64 KiB on the one end, smaller on the other; the size for IPv4 has its own value.
fn pod_with_odd_sizes(node: &Node) -> (Pod, [Gso; 2]) {
    let pod = node.pod("a", 2);
    ip(&format!("-n {} link set eth0 gso_max_size 100000", pod.name));
    ip(&format!("link set {} gso_max_size 40000", pod.host_ifname));
    let before = gso_of(&pod);
    assert_eq!((before[0].0, before[1].0), (100_000, 40_000));
    assert_ne!(before[0].1, Some(100_000));
    (pod, before)
}

/// 1 ms of 20 Mbit/s is less than two frames, so these are what is left.
fn clamped(before: [Gso; 2]) -> [Gso; 2] {
    before.map(|(_, ipv4)| (3000, ipv4.map(|_| 3000)))
}

#[test]
fn super_packets_are_clamped_on_both_ends_and_restored_to_exactly_what_was() {
    with_ready_node("", |node| {
        let (pod, before) = pod_with_odd_sizes(node);
        node.add(&pod, BOTH);
        assert_eq!(gso_of(&pod), clamped(before));
        node.del(&pod);
        assert_eq!(gso_of(&pod), before);
        // The same ADD again, as after one that was killed, must not take our clamp for what was.
        node.add(&pod, BOTH);
        node.add(&pod, BOTH);
        node.del(&pod);
        assert_eq!(gso_of(&pod), before);
    });
}

/// As for BIG TCP: more than 64 KiB where the rate has room for it.
#[test]
fn large_super_packets_are_clamped_to_a_millisecond_of_the_rate_and_no_further() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        for line in ["-n a link set eth0", "link set enia"] {
            ip(&format!("{line} gso_max_size 185000"));
        }
        let before = gso_of(&pod);
        let sizes = || gso_of(&pod).map(|(size, _)| size);
        for (rate, size) in [(100_000_000_000, 185_000), (1_000_000_000, 125_000)] {
            node.add(&pod, Annotations { egress: rate, ingress: rate });
            assert_eq!(sizes(), [size; 2], "{rate}");
            // IPv4's own size is below either.
            assert_eq!(gso_of(&pod).map(|(_, ipv4)| ipv4), before.map(|(_, ipv4)| ipv4));
            node.del(&pod);
            assert_eq!(gso_of(&pod), before);
        }
    });
}

/// The kernel makes 1000 of 0 when a qdisc comes (net/sched/sch_api.c, qdisc_create).
#[test]
fn queue_length_of_both_ends_stays_what_it_was() {
    with_ready_node("", |node| {
        for (name, number, packets) in [("a", 2, 0), ("b", 3, 500)] {
            let pod = node.pod(name, number);
            let host = &pod.host_ifname;
            ip(&format!("-n {name} link set eth0 txqueuelen {packets}"));
            ip(&format!("link set {host} txqueuelen {packets}"));
            // `ip` leaves a length of 0 out.
            let length = |namespace: &str, device: &str| {
                let links = json(&ip(&format!("{namespace} -j link show {device}")));
                links[0]["txqlen"].as_u64().unwrap_or(0)
            };
            let lengths = || [length(&format!("-n {name}"), "eth0"), length("", host)];
            assert_eq!(lengths(), [packets; 2]);
            node.add(&pod, BOTH);
            assert_eq!(lengths(), [packets; 2]);
            node.del(&pod);
            assert_eq!(lengths(), [packets; 2]);
        }
    });
}

#[test]
fn del_without_netns_restores_the_host_end() {
    with_ready_node("", |node| {
        let (pod, before) = pod_with_odd_sizes(node);
        node.add(&pod, BOTH);
        let mut call = Call::new("DEL", &pod, Annotations::default());
        call.netns = String::new();
        assert!(call.run(&pod).status.success());
        assert_eq!(gso_of(&pod)[1], before[1]);
    });
}

#[test]
fn one_limit_clamps_one_end_and_a_fast_one_clamps_none() {
    with_ready_node("", |node| {
        let (pod, before) = pod_with_odd_sizes(node);
        node.add(&pod, Annotations { egress: 0, ingress: LIMIT });
        assert_eq!(gso_of(&pod), [before[0], clamped(before)[1]]);
        node.add(&pod, Annotations { egress: LIMIT, ingress: 10_000_000_000 });
        assert_eq!(gso_of(&pod), [clamped(before)[0], before[1]]);
    });
}

#[test]
fn fq_holds_what_the_horizon_admits_and_never_drops_for_its_own() {
    let test = "fq_holds_what_the_horizon_admits_and_never_drops_for_its_own";
    if !has_fq() {
        return skip(test, "the kernel has no sch_fq");
    }
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, Annotations { egress: 5 * LIMIT, ingress: 1000 });
        let inside = json(&pod.run("tc -j qdisc show dev eth0"));
        assert_fq(&inside, "51cf:", (172_779, 10_480_538));
        // Two frames take 24 s at 1 kbit/s, and fq's horizon would be 10.
        let host = json(&tc(&format!("-j qdisc show dev {}", pod.host_ifname)));
        assert_fq(&host, "51cf:", (10_000, 40_280_000));
    });
}

#[test]
fn what_fq_drops_after_it_was_charged_is_shown() {
    if !has_fq() {
        return skip("what_fq_drops_after_it_was_charged_is_shown", "the kernel has no sch_fq");
    }
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        node.add(&pod, BOTH);
        let dropped = || node.status(&pod)["ingress"]["fq_dropped_packets"].clone();
        assert_eq!(dropped(), 0);
        let flood = Flood { pod: &pod, remote: &remote, limit_bps: LIMIT };
        flood.seconds_while(Direction::Ingress, 1, || ());
        assert_eq!(dropped(), 0);
        let leaf = "parent 51ce:1 handle 51cf:";
        tc(&format!("qdisc change dev {} {leaf} fq limit 1", pod.host_ifname));
        flood.seconds_while(Direction::Ingress, 1, || ());
        let line = &node.status(&pod)["ingress"];
        let reason = line["reason"].as_str().expect("a reason");
        assert!(line["fq_dropped_packets"].as_u64() > Some(0), "{line}");
        assert!(
            reason.contains("; fq dropped ") && reason.ends_with(" that count as sent"),
            "{line}"
        );
    });
}

/// Whether an entry, slot and direction, has a table of flows.
fn has_flows(slot: u8, direction: u8) -> bool {
    let key = (slot * 2 + direction).to_string();
    let line = ["map", "lookup", "pinned", "/sys/fs/bpf/sluice/v2/flows", "key"];
    let lookup = output("bpftool", &[&line[..], &[key.as_str(), "0", "0", "0"][..]].concat());
    lookup.status.success()
}

#[test]
fn first_slots_have_tables_of_flows_and_a_later_one_gets_its_own() {
    with_ready_node("", |node| {
        wait_for("spare tables", Duration::from_secs(5), || has_flows(64, 1).then_some(()));
        assert!(has_flows(1, 0) && has_flows(1, 1) && !has_flows(65, 0));
        std::fs::create_dir_all("/run/sluice/pods").expect("make the records' directory");
        for slot in 1..65 {
            let name = format!("/run/sluice/pods/{slot}@other{slot}@eth0.json");
            std::fs::write(name, "{}").expect("write a record");
        }
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        assert!(has_flows(65, 0) && has_flows(65, 1));
        // The next one with this slot finds the table there.
        node.del(&pod);
        node.add(&pod, BOTH);
    });
}

fn assert_fq(qdiscs: &Value, handle: &str, (packets, horizon_us): (u64, u64)) {
    let list = qdiscs.as_array().expect("a list of qdiscs");
    let fq = list.iter().find(|q| q["kind"] == "fq" && q["handle"] == handle).expect("an fq");
    let options = &fq["options"];
    assert_eq!(options["limit"], packets, "{fq}");
    assert_eq!(options["flow_limit"], packets, "{fq}");
    assert_eq!(options["horizon"], horizon_us, "{fq}");
    assert!(options.get("horizon_cap").is_some(), "{fq}");
}
