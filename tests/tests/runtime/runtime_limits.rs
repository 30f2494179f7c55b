// SPDX-License-Identifier: Apache-2.0
//! Limits of pods of a real containerd 1.6, 1.7 and 2.1 hold. By itself, and
//! with every pod there before anything is measured: a sender that has to wait
//! 100 ms for a processor, while others start pods, gets its credit of a
//! policer later, in a second that should have been even.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use tests::containerd::{Pod, PodSpec};
use tests::meter::{Protocol, Transfer};
use tests::sluice_node::{EGRESS, INGRESS, PORTMAP, conflist, node_of_each_release, on_each};

const LIMIT: u64 = 20_000_000;

#[test]
fn limits_of_a_pod_hold_in_both_directions() {
    let mut nodes = node_of_each_release(&conflist("1.0.0", "node", &[PORTMAP]), "");
    let quantity = &LIMIT.to_string();
    let ends = on_each(&mut nodes, |_, node| {
        let pod = |name| PodSpec::new("default", name);
        let limited =
            node.run(&pod("limited").annotation(EGRESS, quantity).annotation(INGRESS, quantity));
        let other = node.run(&pod("other"));
        let inside = |pod: &Pod| (node.netns(pod), ipv4(pod));
        (inside(&limited), inside(&other), node.make_remote())
    });
    on_each(&mut nodes, |release, node| {
        let (limited, other, remote) = &ends[release as usize];
        let twice = Protocol::Udp(2 * LIMIT);
        for (what, from, to, protocol) in [
            ("to another pod", limited, other, twice),
            ("from another pod", other, limited, twice),
            ("to beyond the node", limited, remote, twice),
            ("from beyond the node, TCP", remote, limited, Protocol::Tcp),
        ] {
            let rates = transfer(from, to, protocol);
            println!("{release:?}, {what}: limit {LIMIT}, seconds {rates:?}");
            assert_limited(&rates, protocol);
        }
        let mode = node.pod("limited")["ingress"]["mode"].clone();
        println!("{release:?}: {mode}");
        let free = transfer(other, remote, Protocol::Udp(3 * LIMIT));
        println!("{release:?}, without a limit: offered {}, seconds {free:?}", 3 * LIMIT);
        assert!(free.iter().all(|rate| *rate > 2 * LIMIT), "{free:?}");
    });
}

/// A network namespace, and the address in it.
type End = (PathBuf, Ipv4Addr);

fn ipv4(pod: &Pod) -> Ipv4Addr {
    let IpAddr::V4(address) = pod.ip else { panic!("not IPv4: {}", pod.ip) };
    address
}

fn transfer(from: &End, to: &End, protocol: Protocol) -> Vec<u64> {
    Transfer { from: &from.0, to: &to.0, address: to.1, protocol }.seconds(3)
}

/// A sender that does not yield gets its limit, and no more. TCP gets no more either, in the long
/// run: a policer has 200 ms of credit. What it is exactly, is shown by shaping.rs.
fn assert_limited(rates: &[u64], protocol: Protocol) {
    let percent = |rate: u64| rate * 100 / LIMIT;
    let never_far_above = rates.iter().all(|rate| percent(*rate) <= 125);
    let mean = rates.iter().sum::<u64>() / rates.len() as u64;
    let steady = rates[1..].iter().all(|rate| (97..=103).contains(&percent(*rate)));
    let exact = protocol == Protocol::Tcp || steady;
    assert!(never_far_above && percent(mean) <= 112 && exact, "limit {LIMIT}, seconds {rates:?}");
}
