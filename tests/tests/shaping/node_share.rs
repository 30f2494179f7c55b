// SPDX-License-Identifier: Apache-2.0
//! Node share: pods get their parts of the node's line by weight, whatever they
//! open, and what stays on the node does not use it.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use tests::api::scrape;
use tests::cni::{Annotations, Call};
use tests::command::{ip, json, text, wait_for};
use tests::flows::{Bulk, End, Progress};
use tests::kernel::{has_fq, skip};
use tests::meter::{Protocol, Transfer, in_netns};
use tests::node::{Node, Pod, with_ready_node};
use tests::probes::Servers;

const CAPACITY: u64 = 20_000_000;
const SHARED: &str = "node-share = true\nnode-egress = '20Mbit'\nnode-ingress = '20Mbit'\n\
                      [[settings.sluice.bandwidth.class]]\nname = 'heavy'\nnamespaces = ['*']\n\
                      pods = ['heavy*']\nweight = 200\n";
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
        let status = node.status(pod);
        let limits = ["egress", "ingress"].map(|direction| status[direction]["limit_bps"].as_u64());
        (limits == [Some(CAPACITY); 2]).then_some(())
    });
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
        let parts = [0.25, 0.25, 0.5];
        for sends in [true, false] {
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
    let scraped = scrape("127.0.0.1:9469", "text/plain").body;
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
            let link = json(&ip(&format!("-s -j link show dev {}", remote.host_ifname)));
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
