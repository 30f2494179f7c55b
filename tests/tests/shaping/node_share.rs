// SPDX-License-Identifier: Apache-2.0
//! Node share: pods get their parts of the node's line by weight, whatever they
//! open, and what stays on the node does not use it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use serde_json::json;
use tests::api::ask;
use tests::cni::{Annotations, Call, expect_error};
use tests::command::{ip, json as parsed, text, wait_for};
use tests::flows::{Bulk, End, Progress, offer_udp};
use tests::kernel::{has_fq, skip};
use tests::meter::{Protocol, Transfer, in_netns, measure_seconds};
use tests::node::{Node, Pod, with_ready_node};
use tests::probes::Servers;

const CAPACITY: u64 = 20_000_000;
const SHARED: &str = "node-share = true\nnode-egress = '20Mbit'\nnode-ingress = '20Mbit'\n\
                      [[settings.sluice.bandwidth.class]]\nname = 'heavy'\nnamespaces = ['*']\n\
                      pods = ['heavy*']\nweight = 200\n";
const FLOOR: &str = "[[settings.sluice.bandwidth.class]]\nname = 'first'\nnamespaces = ['*']\n\
                     pods = ['a']\nfloor-egress = '10Mbit'\n";
const NO_LIMIT: Annotations = Annotations { egress: 0, ingress: 0 };
/// What of a frame of 1514 bytes is TCP's payload.
const PAYLOAD: f64 = 1448.0 / 1514.0;

/// Where the node's packets go to and come from: the default route makes its link an uplink.
fn uplink(node: &Node) -> Pod {
    let remote = node.pod("remote", 9);
    ip(&format!("route add default via {} dev {} onlink", remote.address, remote.host_ifname));
    remote
}

fn add(node: &Node, pod: &Pod) {
    let output = Call::new("ADD", pod, NO_LIMIT).run(pod);
    assert!(output.status.success(), "{}", text(&output));
    wait_for("its part of the node", Duration::from_secs(20), || {
        (limits(node, pod) == [Some(CAPACITY); 2]).then_some(())
    });
}

fn limits(node: &Node, pod: &Pod) -> [Option<u64>; 2] {
    let status = node.status(pod);
    ["egress", "ingress"].map(|direction| status[direction]["limit_bps"].as_u64())
}

fn end(pod: &Pod) -> ([std::path::PathBuf; 1], IpAddr) {
    ([pod.netns()], IpAddr::V4(pod.address))
}

/// Payload in bit/s of each pod's flows, from a second on, and the whole of it beside.
fn rates(pods: &[(&Pod, usize)], remote: &Pod, sends: bool) -> Vec<f64> {
    const WARM: Duration = Duration::from_secs(2);
    const SPAN: Duration = Duration::from_secs(5);
    let progress: Vec<Progress> = pods.iter().map(|(_, flows)| Progress::new(*flows)).collect();
    let ends: Vec<_> = pods.iter().map(|(pod, _)| end(pod)).collect();
    let remote = &end(remote);
    thread::scope(|scope| {
        let bulks: Vec<Bulk> = ends
            .iter()
            .zip(&progress)
            .map(|(own, progress)| {
                let own = End { netns: &own.0[0], address: own.1 };
                let other = End { netns: &remote.0[0], address: remote.1 };
                let ways = if sends { [own, other] } else { [other, own] };
                Bulk::start(scope, ways, "cubic", progress)
            })
            .collect();
        let sum = |progress: &Progress| progress.received().iter().sum::<u64>();
        thread::sleep(WARM);
        let before: Vec<u64> = progress.iter().map(sum).collect();
        thread::sleep(SPAN);
        let after: Vec<u64> = progress.iter().map(sum).collect();
        progress.iter().for_each(Progress::stop);
        bulks.into_iter().for_each(|bulk| drop(bulk.finish()));
        let rate =
            |(before, after): (&u64, &u64)| (after - before) as f64 * 8.0 / SPAN.as_secs_f64();
        before.iter().zip(&after).map(rate).collect()
    })
}

#[test]
fn pods_share_the_node_by_weight_however_many_flows_they_open() {
    with_ready_node(SHARED, |node| {
        let remote = uplink(node);
        let pods = [("a", 2), ("b", 3), ("heavy", 4)].map(|(name, number)| node.pod(name, number));
        pods.iter().for_each(|pod| add(node, pod));
        let flows = [1, 8, 4];
        let by_weight = [0.25, 0.25, 0.5];
        // Half of the line is promised to the first, and the others share the rest.
        let with_floor = [0.5, 0.5 / 3.0, 1.0 / 3.0];
        for (sends, parts) in [(true, by_weight), (false, by_weight), (true, with_floor)] {
            if parts == with_floor {
                node.boot_with(&format!("{SHARED}{FLOOR}"));
                wait_for("the floor", Duration::from_secs(20), || {
                    text(&node.sluice(&["trace", "default/a"])).contains("floor").then_some(())
                });
            }
            let pods: Vec<_> = pods.iter().zip(flows).collect();
            let rates = rates(&pods, &remote, sends);
            let total: f64 = rates.iter().sum();
            let direction = if sends { "egress" } else { "ingress" };
            println!("{direction}: {rates:?}, total {total}");
            if !has_fq() {
                skip("pods_share_the_node", "without sch_fq parts are policed, not paced");
                continue;
            }
            let used = total / (CAPACITY as f64 * PAYLOAD);
            assert!((0.97..=1.01).contains(&used), "{direction}: used {used}: {rates:?}");
            for (rate, part) in rates.iter().zip(parts) {
                let of_part = rate / total / part;
                assert!((0.97..=1.03).contains(&of_part), "{direction}: {of_part}: {rates:?}");
            }
        }
    });
}

/// A pod that says little is not held back by those that fill the line, and pods of one node do not
/// use that line to talk to each other.
#[test]
fn full_line_holds_back_neither_a_quiet_pod_nor_what_stays_on_the_node() {
    with_ready_node(SHARED, |node| {
        let remote = &uplink(node);
        let pods = [("a", 2), ("b", 3), ("quiet", 4)].map(|(name, number)| node.pod(name, number));
        pods.iter().for_each(|pod| add(node, pod));
        let [a, b, quiet] = &pods;
        let busy = &Progress::new(4);
        let echo = &Progress::new(0);
        let (from, to, asker) = (&a.netns(), &remote.netns(), &quiet.netns());
        let (asked, local) = thread::scope(|scope| {
            let at = |netns, pod: &Pod| End { netns, address: IpAddr::V4(pod.address) };
            let bulk = Bulk::start(scope, [at(from, a), at(to, remote)], "cubic", busy);
            let servers = Servers::start_echo(scope, at(to, remote), echo);
            wait_for("the line to be full", Duration::from_secs(20), || {
                (busy.received().iter().sum::<u64>() > CAPACITY / 8).then_some(())
            });
            let asked = in_netns(scope, asker, move || servers.ask_by_new_flows(50));
            let asked = asked.join().expect("the quiet pod");
            let protocol = Protocol::Udp(2 * CAPACITY);
            let (from, to, address) = (&a.netns(), &b.netns(), b.address);
            let local = Transfer { from, to, address, protocol }.seconds(3);
            [busy, echo].into_iter().for_each(Progress::stop);
            bulk.finish();
            (asked, local)
        });
        println!("quiet pod's echo {asked:?}, between pods {local:?}");
        let slowest = local.iter().min().copied().unwrap_or_default();
        assert!(slowest > CAPACITY * 19 / 10, "between pods of the node: {local:?}");
        if !has_fq() {
            skip("full_line_holds_back", "without sch_fq nothing waits");
        }
    });
}

/// The sum over pods of what they have sent by the node's line.
fn counted() -> u64 {
    let scraped = ask("GET", "/metrics", "").body;
    let of_pods = scraped.lines().filter(|line| {
        line.starts_with("sluice_pod_node_bytes_total{") && line.contains("direction=\"egress\"")
    });
    let values = of_pods.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    values.sum()
}

#[test]
fn line_that_is_busy_for_long_says_which_pods_take_it() {
    with_ready_node(SHARED, |node| {
        node.wait_for_api();
        let remote = &uplink(node);
        let pods = [("a", 2), ("heavy", 4)].map(|(name, number)| node.pod(name, number));
        pods.iter().for_each(|pod| add(node, pod));
        let left = || {
            let link = parsed(&ip(&format!("-s -j link show dev {}", remote.host_ifname)));
            link[0]["stats64"]["tx"]["bytes"].as_u64().expect("bytes")
        };
        let (before, counted_before) = (left(), counted());
        let (from, to, address) = (&pods[0].netns(), &remote.netns(), remote.address);
        let protocol = Protocol::Udp(2 * CAPACITY);
        let transfer = Transfer { from, to, address, protocol };
        assert!(node.troubles("node-busy").is_empty());
        transfer.seconds_while(1, || {
            let entries = wait_for("the entry", Duration::from_secs(30), || {
                Some(node.troubles("node-busy")).filter(|all| !all.is_empty())
            });
            assert_eq!(entries[0]["subject"], "node egress", "{entries:?}");
            let what = entries[0]["what"].as_str().expect("text");
            let begins = "20Mbit busy for 10 s on end; most was taken by default/a ";
            assert!(what.starts_with(begins) && what.ends_with(" %, weight 100)"), "{what}");
            assert!(!what.contains("heavy"), "{what}");
            let status = node.sluice_json(&["status", "--json", "--interval", "1"]);
            let line = &status["node_share"]["egress"];
            assert_eq!((&line["capacity_bps"], &line["busy"]), (&CAPACITY.into(), &true.into()));
            assert_eq!(node.status(&pods[1])["egress"]["share"]["weight"], 200);
        });
        // Metrics are made once a second at most.
        wait_for("metrics that agree with the uplink", Duration::from_secs(5), || {
            let (left, counted) = (left() - before, counted() - counted_before);
            (left > CAPACITY && left.abs_diff(counted) <= left / 50).then_some(())
        });
        wait_for("the end of the entry", Duration::from_secs(20), || {
            node.troubles("node-busy").is_empty().then_some(())
        });
    });
}

/// Without a gap: what pods may do changes from one packet to the next.
#[test]
fn node_share_is_switched_on_and_off_while_pods_run() {
    with_ready_node("", |node| {
        uplink(node);
        let pod = node.pod("a", 2);
        node.add(&pod, NO_LIMIT);
        let limit = || node.status(&pod)["egress"]["limit_bps"].as_u64();
        assert_eq!(limit(), None);
        for (bandwidth, expected) in
            [(SHARED, Some(CAPACITY)), ("", None), (SHARED, Some(CAPACITY))]
        {
            node.boot_with(bandwidth);
            wait_for("the change", Duration::from_secs(20), || (limit() == expected).then_some(()));
        }
    });
}

#[test]
fn pod_is_refused_a_floor_that_is_promised_to_another_and_classes_have_what_is_left() {
    with_ready_node(&format!("{SHARED}{FLOOR}"), |node| {
        let promised = |pod: &Pod, floor: &str| {
            let mut call = Call::new("ADD", pod, NO_LIMIT);
            let own = json!({ "sluice.dev/egress-floor": floor });
            call.stdin["runtimeConfig"]["io.kubernetes.cri.pod-annotations"] = own;
            call.run(pod)
        };
        let [first, second, a] = [("b", 2), ("c", 3), ("a", 4)].map(|(name, n)| node.pod(name, n));
        assert!(promised(&first, "15Mbit").status.success());
        let refused = expect_error(&promised(&second, "6Mbit"));
        assert_eq!(refused["code"], 104);
        let message = "sluice: annotation sluice.dev/egress-floor: 6Mbit cannot be promised, 5Mbit of \
                    the node's 20Mbit is left; use at most that, or another node";
        assert_eq!(refused["msg"], message);
        assert!(promised(&second, "1Mbit").status.success());
        add(node, &a);
        let mut seen = String::new();
        let lowered = "egress: those of classes add up to 10Mbit, 4Mbit of 20Mbit is left";
        wait_for("floors", Duration::from_secs(20), || {
            seen = text(&node.sluice(&["status"]));
            seen.contains(lowered).then_some(())
        });
        let traced = text(&node.sluice(&["trace", "default/b"]));
        assert!(traced.contains("15Mbit") && traced.contains("egress-floor"), "{traced}");
    });
}

/// What the node itself sends and receives, no one holds back: pods have the rest of the line.
#[test]
fn node_and_pods_together_do_not_exceed_the_line() {
    const OWN: u64 = 8_000_000;
    /// A frame of 1442 bytes has 1400 of payload.
    const OWN_WIRE: f64 = OWN as f64 * 1442.0 / 1400.0;
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    const PORT: u16 = 9000;
    const FITS: std::ops::RangeInclusive<f64> = 0.94..=1.03;
    with_ready_node(SHARED, |node| {
        let remote = &uplink(node);
        ip(&format!("address add {HOST}/32 dev lo"));
        let pod = &node.pod("a", 2);
        add(node, pod);
        let (inside, outside) = (&pod.netns(), &remote.netns());
        let _sinks = thread::scope(|scope| {
            let bind = move |address| UdpSocket::bind((address, PORT)).expect("bind");
            let address = remote.address;
            [bind(HOST), in_netns(scope, outside, move || bind(address)).join().expect("a sink")]
        });
        // As a part of the line.
        let used = |sends: bool| {
            let progress = &Progress::new(4);
            let seconds = thread::scope(|scope| {
                let own = End { netns: inside, address: pod.address.into() };
                let other = End { netns: outside, address: remote.address.into() };
                let ways = if sends { [own, other] } else { [other, own] };
                let bulk = Bulk::start(scope, ways, "cubic", progress);
                let target = if sends { remote.address } else { HOST };
                let offer = move || offer_udp((target, PORT).into(), OWN, progress);
                let offer = match sends {
                    true => scope.spawn(offer),
                    false => in_netns(scope, outside, offer),
                };
                thread::sleep(Duration::from_secs(2));
                let seconds = in_netns(scope, ways[1].netns, || measure_seconds(5)).join();
                progress.stop();
                offer.join().expect("the node's own");
                bulk.finish();
                seconds.expect("measure")
            });
            let mean = seconds.iter().sum::<u64>() as f64 / seconds.len() as f64;
            let beside = if sends { 0.0 } else { OWN_WIRE };
            let used = (mean + beside) / CAPACITY as f64;
            println!("sends {sends}: {seconds:?}, with the node's own {used} of the line");
            used
        };
        for sends in [true, false] {
            // A machine that is busy with other things sends the node's own late, and then too fast.
            let all: Vec<f64> =
                (0..3).map(|_| used(sends)).take_while(|it| !FITS.contains(it)).collect();
            assert!(all.len() < 3, "sends {sends}: {all:?}");
        }
    });
}

/// A veth tells that it carries 10 Gbit/s. The plugin knows it as soon as the agent does.
#[test]
fn auto_is_the_speed_of_the_uplink_where_no_instance_type_is_known() {
    with_ready_node("node-share = true\n", |node| {
        let off = || text(&node.sluice(&["status"])).contains("node-share-off");
        wait_for("that it is off", Duration::from_secs(20), || off().then_some(()));
        let pods = [("a", 2), ("b", 3)].map(|(name, number)| node.pod(name, number));
        node.add(&pods[0], NO_LIMIT);
        assert_eq!(limits(node, &pods[0]), [None; 2]);
        uplink(node);
        wait_for("the uplink's speed", Duration::from_secs(20), || {
            (limits(node, &pods[0]) == [Some(10_000_000_000); 2]).then_some(())
        });
        wait_for("that it is on", Duration::from_secs(20), || (!off()).then_some(()));
        let output = Call::new("ADD", &pods[1], NO_LIMIT).run(&pods[1]);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(limits(node, &pods[1]), [Some(10_000_000_000); 2]);
    });
}
