// SPDX-License-Identifier: Apache-2.0
//! Standalone mode: pods of a real containerd on a node without aws-node, with
//! addresses of delegated prefixes.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use tests::command::{ip, json, text, wait_for};
use tests::containerd::{Containerd, Pod, PodSpec};
use tests::kernel::has_fq;
use tests::meter::{Protocol, Transfer};
use tests::standalone::{
    CONFLIST, FIRST, IN_VPC, INTERNET, MTU, NODE, Node, PREFIX_V6, SECOND, STORE, client_seen,
    with_node, with_ready_node,
};

const LIMIT: u64 = 20_000_000;

fn first(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 1, last).into()
}

fn second(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 2, last).into()
}

/// Offered twice of it by UDP; from the second second on within 2 %, whether paced or policed.
fn assert_limited(from: &Path, to: &Path, address: IpAddr) {
    let IpAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    let rates = Transfer { from, to, address, protocol: Protocol::Udp(2 * LIMIT) }.seconds(3);
    println!("limit {LIMIT}, fq {}: {rates:?}", has_fq());
    let per_mille = |rate: &u64| (*rate as i64 - LIMIT as i64).abs() * 1000 / LIMIT as i64;
    assert!(rates.iter().skip(1).all(|rate| per_mille(rate) <= 20), "limit {LIMIT}: {rates:?}");
}

fn limited(name: &str) -> PodSpec {
    PodSpec::new("default", name)
        .annotation("kubernetes.io/egress-bandwidth", "20M")
        .annotation("kubernetes.io/ingress-bandwidth", "20M")
}

#[test]
fn pods_have_addresses_of_the_prefix_and_only_the_internet_sees_the_nodes() {
    for release in Containerd::ALL {
        with_ready_node(release, FIRST, |node| {
            let (a, b) = (node.pod("a"), node.pod("b"));
            assert_eq!([a.ip, b.ip], [first(16), first(17)]);
            let (in_a, in_b, outside) = (node.netns(&a), node.netns(&b), node.outside());
            let own = node.own_netns();
            let table = [
                ("pod to pod", &in_b, b.ip, &in_a, a.ip),
                ("pod to node", &own, NODE, &in_a, a.ip),
                ("node to pod", &in_a, a.ip, &own, NODE),
                ("pod to the VPC", &outside, IN_VPC, &in_a, a.ip),
                ("pod to the internet", &outside, INTERNET, &in_a, NODE),
                ("pod to itself", &in_a, a.ip, &in_a, a.ip),
            ];
            for (what, server, address, client, seen) in table {
                assert_eq!(client_seen(server, address, client), seen, "{what}, {release:?}");
            }
            assert_eq!(mtu_of(node, &a), MTU, "{release:?}");
            for pod in [&a, &b] {
                node.end(pod);
            }
            assert_eq!(node.taken(), [] as [IpAddr; 0], "{release:?}");
            let own = ip("route get 203.0.113.9");
            assert!(own.contains("via 10.0.0.1 dev eth0 src 10.0.0.10"), "{own}");
        });
    }
}

fn mtu_of(node: &Node, pod: &Pod) -> u32 {
    let mut ip = node.containerd.command_in_pod(pod, "ip");
    let output = ip.args(["-j", "link", "show", "eth0"]).output().expect("run ip");
    let links = json(&String::from_utf8_lossy(&output.stdout));
    links[0]["mtu"].as_u64().expect("an MTU") as u32
}

#[test]
fn pods_have_their_limits_in_both_directions() {
    with_ready_node(Containerd::Trixie17, FIRST, |node| {
        let pod = node.containerd.run_pod(&limited("a")).expect("run a pod");
        let (inside, outside) = (node.netns(&pod), node.outside());
        assert_limited(&inside, &outside, INTERNET);
        assert_limited(&outside, &inside, pod.ip);
        let unlimited = node.pod("b");
        assert_limited(&inside, &node.netns(&unlimited), unlimited.ip);
    });
}

#[test]
fn sixteen_of_sixteen_addresses_of_a_prefix_serve_pods() {
    with_ready_node(Containerd::Trixie17, FIRST, |node| {
        let pods: Vec<_> = (0..16).map(|n| node.pod(&format!("p{n}"))).collect();
        let addresses: Vec<_> = pods.iter().map(|pod| pod.ip).collect();
        assert_eq!(addresses, (16..32).map(first).collect::<Vec<_>>());
        let said = node.no_pod("one-too-many");
        assert!(said.contains("no IP addresses available in range set"), "{said}");
        for end in [&pods[0], &pods[15]] {
            let (inside, other) = (node.netns(end), node.netns(&pods[8]));
            assert_eq!(client_seen(&inside, end.ip, &other), pods[8].ip);
            assert_eq!(client_seen(&inside, end.ip, &node.outside()).to_string(), "10.0.0.1");
            assert_eq!(client_seen(&node.outside(), INTERNET, &inside), NODE);
        }
    });
}

#[test]
fn prefix_that_goes_is_drained_and_no_address_is_given_twice() {
    with_ready_node(Containerd::Trixie17, FIRST, |node| {
        let old = [node.pod("a"), node.pod("b")];
        node.delegate(&[FIRST, SECOND]);
        node.reload();
        node.wait_until_ready_with("10.0.2.32");
        node.delegate(&[SECOND]);
        node.kill_agent();
        node.start_agent();
        node.wait_until_ready_without("10.0.1.16");

        let new: Vec<_> = (0..16).map(|n| node.pod(&format!("n{n}"))).collect();
        assert_eq!(
            new.iter().map(|pod| pod.ip).collect::<BTreeSet<_>>(),
            (32..48).map(second).collect()
        );
        assert!(node.no_pod("one-too-many").contains("no IP addresses available"));
        let inside = node.netns(&old[0]);
        assert_eq!(client_seen(&node.outside(), INTERNET, &inside), NODE);
        assert_eq!(client_seen(&node.netns(&new[0]), new[0].ip, &inside), old[0].ip);
        node.end(&old[1]);
        assert!(!node.taken().contains(&old[1].ip), "{:?}", node.taken());

        node.delegate(&[FIRST, SECOND]);
        node.reload();
        node.wait_until_ready_with("10.0.1.16");
        let rest: BTreeSet<_> = (0..15).map(|n| node.pod(&format!("r{n}")).ip).collect();
        assert_eq!(rest, (17..32).map(first).collect(), "all of it but for the pod that is there");
        assert!(node.no_pod("one-too-many").contains("no IP addresses available"));
    });
}

#[test]
fn pods_outlive_the_last_prefix_and_can_be_ended() {
    for release in Containerd::ALL {
        with_ready_node(release, FIRST, |node| {
            let (a, b) = (node.pod("a"), node.pod("b"));
            node.delegate(&[]);
            node.reload();
            node.wait_until_ready_without("10.0.1.16");
            let [what, next_step] = node.wait_for_trouble("no-prefixes");
            assert_eq!(what, NO_PREFIXES);
            assert!(next_step.contains("Ipv4PrefixCount"), "{next_step}");
            let said = node.no_pod("c");
            assert!(
                said.contains("no IP addresses available in range set: fe80::1-fe80::1"),
                "{said}"
            );
            node.end(&a);
            assert_eq!(node.taken(), [b.ip]);
            assert_eq!(client_seen(&node.outside(), INTERNET, &node.netns(&b)), NODE);

            node.delegate(&[FIRST]);
            node.reload();
            node.wait_until_ready_with("10.0.1.16");
            node.wait_for_no_trouble("no-prefixes");
            assert_ne!(node.pod("d").ip, b.ip);
        });
    }
}

const NO_PREFIXES: &str = "IMDS shows no prefix for pods: nothing at network/interfaces/macs/\
                           02:00:00:00:00:01/ipv4-prefix or ipv6-prefix";

#[test]
fn node_without_prefixes_is_not_ready_and_says_why_until_there_are_some() {
    with_node(Containerd::Trixie17, |node| {
        node.boot("standalone", "default-egress = \"20Mbit\"");
        node.start_agent();
        let [what, next_step] = node.wait_for_trouble("no-prefixes");
        assert_eq!(what, NO_PREFIXES);
        assert_eq!(
            next_step,
            "delegate some to the node's first interface: launch template, \
             NetworkInterfaces[].Ipv4PrefixCount (or Ipv6PrefixCount); they are taken as soon as \
             IMDS shows them"
        );
        let settings = fs::read_to_string(node.path("/run/sluice/settings.toml"));
        assert!(settings.expect("settings in force").contains("20Mbit"));
        let imds = node.imds.as_ref().expect("IMDS is there");
        imds.answer_all(Some(403));
        let [what, _] = node.wait_for_trouble("no-imds");
        let expected = "look for delegated prefixes: ask IMDS for network interfaces: 403 from \
                        http://169.254.169.254/latest/api/token: IMDS is switched off for this \
                        instance (metadata option HttpEndpoint)";
        assert_eq!(what, expected);
        assert_eq!(node.conflists(), [] as [&str; 0]);
        assert_eq!(node.table(), "");
        assert!(!node.containerd.status().expect("a status").ready);

        // Nothing says that it should look again.
        imds.answer_all(None);
        node.delegate(&[FIRST]);
        node.wait_until_ready_with("10.0.1.16");
        node.wait_for_no_trouble("no-imds");
        assert_eq!(node.pod("a").ip, first(16));
    });
}

#[test]
fn network_stays_while_imds_is_silent_and_the_agent_starts_anew() {
    with_ready_node(Containerd::Trixie17, FIRST, |node| {
        let a = node.pod("a");
        let before = (node.conflist(), node.table());
        node.kill_agent();
        node.imds = None;
        let nft = node.containerd.command("nft").args(["flush", "ruleset"]).status();
        assert!(nft.expect("run nft").success());
        node.start_agent();
        node.wait_for_trouble("no-imds");
        assert_eq!((node.conflist(), node.table()), before);
        let b = node.pod("b");
        assert_eq!([a.ip, b.ip], [first(16), first(17)]);
        for pod in [&a, &b] {
            assert_eq!(client_seen(&node.outside(), INTERNET, &node.netns(pod)), NODE);
        }
        // So it does where an operator has settings read again.
        node.boot("standalone", "");
        assert_eq!((node.conflist(), node.table()), before);
    });
}

#[test]
fn what_somebody_removes_is_back_with_the_next_look() {
    with_ready_node(Containerd::Trixie17, FIRST, |node| {
        let before = (node.conflist(), node.table());
        let nft = node.containerd.command("nft").args(["flush", "ruleset"]).status();
        assert!(nft.expect("run nft").success());
        fs::remove_file(node.path(CONFLIST)).expect("remove the conflist");
        node.reload();
        wait_for("both", Duration::from_secs(20), || {
            ((node.conflist(), node.table()) == before).then_some(())
        });
    });
}

#[test]
fn internet_never_sees_a_pods_own_address_while_prefixes_come_and_go() {
    with_ready_node(Containerd::Trixie17, FIRST, |node| {
        let pod = node.pod("a");
        let (inside, outside, done) = (node.netns(&pod), node.outside(), AtomicBool::new(false));
        let node = &*node;
        let asked = thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client_seen(&outside, INTERNET, &inside), NODE);
                    asked += 1;
                }
                asked
            });
            for turn in 0..10 {
                let both = [FIRST, SECOND];
                node.delegate(if turn % 2 == 0 { &both } else { &both[1..] });
                node.reload();
                let expected = turn % 2 == 0;
                wait_for("the change", Duration::from_secs(20), || {
                    let conflist = node.conflist();
                    (conflist.contains("10.0.1.16") == expected && conflist.contains("10.0.2.32"))
                        .then_some(())
                });
            }
            done.store(true, Ordering::Relaxed);
            asking.join().expect("every answer as it should be")
        });
        println!("{asked} connections");
        assert!(asked > 10, "{asked}");
    });
}

#[test]
fn pods_have_ipv6_addresses_of_a_prefix_and_the_node_keeps_its_route() {
    with_node(Containerd::Trixie17, |node| {
        node.delegate(&[PREFIX_V6]);
        // As outside of the unit, which leaves /proc/sys to the image.
        node.boot("standalone", "");
        node.start_agent();
        node.wait_until_ready_with("2001:db8:1:2:3::");
        let accept_ra = fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra");
        assert_eq!(accept_ra.expect("read accept_ra").trim(), "2");
        let (a, b) = (node.pod("a"), node.pod("b"));
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!([a.ip, b.ip], ["2001:db8:1:2:3::1", "2001:db8:1:2:3::2"].map(address));
        let (inside, own) = (node.netns(&a), node.own_netns());
        let internet = address("2001:db8:ffff::9");
        let own_address = address("2001:db8:1:2::10");
        assert_eq!(client_seen(&node.netns(&b), b.ip, &inside), a.ip);
        assert_eq!(client_seen(&own, own_address, &inside), a.ip);
        assert_eq!(client_seen(&inside, a.ip, &own), own_address);
        assert_eq!(client_seen(&node.outside(), internet, &inside), a.ip, "IPv6 is not translated");
        assert_eq!(node.table(), "");
        node.end(&a);
        assert_eq!(node.taken(), [b.ip]);
    });
}

#[test]
fn pods_have_addresses_of_both_kinds_where_both_are_delegated() {
    with_node(Containerd::Sid21, |node| {
        node.delegate(&[FIRST, PREFIX_V6]);
        node.boot("standalone", "");
        node.start_agent();
        node.wait_until_ready_with("2001:db8:1:2:3::");
        let pod = node.pod("a");
        let v6 = "2001:db8:1:2:3::1".parse::<IpAddr>().expect("an address");
        assert_eq!((pod.ip, node.taken()), (first(16), vec![first(16), v6]));
        assert_eq!(
            client_seen(&node.netns(&pod), v6, &node.outside()).to_string(),
            "2001:db8:1:2::1"
        );
        assert_eq!(client_seen(&node.outside(), INTERNET, &node.netns(&pod)), NODE);
        node.end(&pod);
        assert_eq!(node.taken(), [] as [IpAddr; 0]);
    });
}

#[test]
fn other_network_that_comes_first_is_not_displaced() {
    with_node(Containerd::Trixie17, |node| {
        node.delegate(&[FIRST]);
        let other = node.path("/etc/cni/net.d/10-aws.conflist");
        let text = r#"{"cniVersion":"1.0.0","name":"aws","plugins":[{"type":"ptp"}]}"#;
        fs::write(&other, text).expect("write another network");
        node.boot("standalone", "");
        node.start_agent();
        let [what, _] = node.wait_for_trouble("other-network");
        assert!(
            what.ends_with(
                "10-aws.conflist is there, which runtimes take before 10-sluice.conflist"
            )
        );
        assert_eq!(node.conflists(), ["10-aws.conflist"]);
        assert_eq!(fs::read_to_string(&other).expect("read it"), text);
        fs::remove_file(other).expect("remove it");
        node.wait_until_ready_with("10.0.1.16");
        node.wait_for_no_trouble("other-network");
    });
}

#[test]
fn detach_takes_conflist_and_table_and_nothing_else() {
    with_ready_node(Containerd::Trixie17, FIRST, |node| {
        let pod = node.pod("a");
        let nft = |line: &str| {
            let output = node.containerd.command("nft").args(line.split_whitespace()).output();
            String::from_utf8_lossy(&output.expect("run nft").stdout).into_owned()
        };
        nft("add table ip another");
        node.kill_agent();
        let output = node.sluice(&["detach"]);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(node.conflists(), [] as [&str; 0]);
        assert_eq!(node.table(), "");
        let nft =
            node.containerd.command("nft").args(["list", "tables"]).output().expect("run nft");
        assert_eq!(String::from_utf8_lossy(&nft.stdout).trim(), "table ip another");
        // Its address is not given to another one when the mode comes back.
        node.boot("standalone", "");
        node.start_agent();
        node.wait_until_ready_with("10.0.1.16");
        assert_ne!(node.pod("b").ip, pod.ip);
        node.end(&pod);
    });
}

#[test]
fn another_mode_takes_conflist_and_table_away() {
    with_ready_node(Containerd::Trixie17, FIRST, |node| {
        for mode in ["chain", "off"] {
            node.boot(mode, "");
            wait_for("no conflist", Duration::from_secs(20), || {
                node.conflists().is_empty().then_some(())
            });
            wait_for("no table", Duration::from_secs(20), || node.table().is_empty().then_some(()));
            node.boot("standalone", "");
            node.wait_until_ready_with("10.0.1.16");
            wait_for("the table", Duration::from_secs(20), || {
                (!node.table().is_empty()).then_some(())
            });
        }
    });
}

#[test]
fn conflist_of_an_earlier_start_is_gone_before_the_runtime_sees_it() {
    with_node(Containerd::Trixie17, |node| {
        fs::write(node.path(CONFLIST), "{}").expect("write what an image may hold");
        node.boot("standalone", "");
        assert_eq!(node.conflists(), [] as [&str; 0]);
    });
}

#[test]
fn address_that_a_killed_add_has_leaked_is_given_back_and_no_other() {
    with_ready_node(Containerd::Trixie17, FIRST, |node| {
        let pod = node.pod("a");
        let leaked = node.path(STORE).join("10.0.1.20");
        fs::write(&leaked, "no-such-container\r\neth0").expect("take an address");
        // The pod's result is lost, but its address is in use all the same.
        let result = format!("/var/lib/cni/results/sluice-{}-eth0", pod.id);
        fs::remove_file(node.path(result)).expect("lose a result");
        // Of the container that came to nothing there may be one all the same.
        let loopback = "/var/lib/cni/results/cni-loopback-no-such-container-lo";
        fs::write(node.path(loopback), "{}").expect("write a result");
        let young = node.path(STORE).join("10.0.1.21");
        fs::write(young, "another\r\neth0").expect("take an address");
        for address in [&leaked, &node.path(STORE).join("10.0.1.16")] {
            let long_ago = SystemTime::now() - Duration::from_secs(700);
            let file = fs::File::options().write(true).open(address).expect("open");
            file.set_modified(long_ago).expect("set the time");
        }
        node.reload();
        wait_for("the leaked address", Duration::from_secs(20), || {
            (!leaked.exists()).then_some(())
        });
        assert_eq!(node.taken(), [first(16), first(21)]);
    });
}
