// SPDX-License-Identifier: Apache-2.0
//! A pod in gVisor: a real containerd, and a real runsc by runc's interface. Its network
//! is runsc's own, which sends and receives by a packet socket on the pod's end. What it
//! sends passes that end's root qdisc like anything else; what it receives has passed the
//! host end's.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tests::containerd::{Containerd, Pod, PodSpec};
use tests::flows::{Progress, offer_udp, swallow_udp};
use tests::foreign;
use tests::kernel::skip;
use tests::meter::{in_netns, measure_seconds, send_tcp, take_tcp};
use tests::sluice_node::{EGRESS, INGRESS, PORTMAP, SLUICE, SluiceNode, conflist};

const LIMIT: u64 = 20_000_000;
const PEER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/peer"));
const PORT: &str = "5001";
const SOON: Duration = Duration::from_secs(10);
/// Of UDP at the MTU of 1500 less [`offer_udp`]'s room, and of TCP with timestamps.
const DATAGRAM: (u64, u64) = (1442, 1400);
const SEGMENT: (u64, u64) = (1514, 1448);

struct Sandbox<'a> {
    node: &'a SluiceNode,
    pod: Pod,
    remote: (&'a Path, Ipv4Addr),
}

impl Sandbox<'_> {
    fn peer(&self, name: &str, words: &str) -> Child {
        let words: Vec<_> = ["/peer"].into_iter().chain(words.split_whitespace()).collect();
        let mut command = self.node.runtime.command_in_sandbox(&self.pod, name, &words);
        command.stdout(Stdio::piped()).spawn().expect("run a program in the sandbox")
    }

    /// What the kernel beyond the node receives in each second, in bit/s of frames.
    fn sends(&self, protocol: &str) -> Vec<u64> {
        let (netns, address) = self.remote;
        let stop = &Progress::new(0);
        thread::scope(|scope| {
            let (ready, bound) = mpsc::channel();
            let sink = in_netns(scope, netns, move || match protocol {
                "udp" => swallow_udp(IpAddr::V4(address), &ready, stop),
                _ => {
                    let listener = TcpListener::bind((address, 0)).expect("listen");
                    ready.send(listener.local_addr().expect("a port")).expect("a receiver");
                    take_tcp(listener.accept().expect("accept").0, stop);
                }
            });
            let port = bound.recv_timeout(SOON).expect("the sink listens").port();
            let meter = in_netns(scope, netns, || measure_seconds(2));
            let words = format!("send {protocol} {address} {port} {} 4", 2 * LIMIT);
            let mut peer = self.peer(&format!("send-{protocol}"), &words);
            let rates = meter.join().expect("the meter");
            stop.stop();
            assert!(peer.wait().expect("its end").success());
            sink.join().expect("the sink");
            rates
        })
    }

    /// What a program in the sandbox receives in each second, in bit/s of frames.
    fn receives(&self, protocol: &str) -> Vec<u64> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("receive-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut peer = self.peer(&name, &format!("receive {protocol} {PORT} 2"));
        let mut lines = BufReader::new(peer.stdout.take().expect("a pipe")).lines();
        assert_eq!(lines.next().expect("a line").expect("text").trim(), "ready");
        let target = SocketAddr::new(self.pod.ip, PORT.parse().expect("a number"));
        let stop = &Progress::new(0);
        thread::scope(|scope| {
            let source = in_netns(scope, self.remote.0, move || match protocol {
                "udp" => offer_udp(target, 2 * LIMIT, stop),
                _ => send_tcp(target, stop),
            });
            let bytes = lines.map(|line| line.expect("text").trim().parse().expect("a number"));
            let bytes: Vec<u64> = bytes.collect();
            stop.stop();
            source.join().expect("the sender");
            assert!(peer.wait().expect("its end").success());
            let (frame, payload) = if protocol == "udp" { DATAGRAM } else { SEGMENT };
            bytes.iter().map(|bytes| bytes * 8 * frame / payload).collect()
        })
    }
}

#[test]
fn limits_of_a_pod_in_gvisor_hold_both_ways_and_no_guard_drops() {
    let name = "limits_of_a_pod_in_gvisor_hold_both_ways_and_no_guard_drops";
    let conflist = conflist("1.0.0", "node", &[PORTMAP, SLUICE]);
    let node = SluiceNode::start(Containerd::Trixie17, &conflist, "");
    match node.runtime.install_gvisor() {
        Ok(version) => println!("{version}"),
        Err(e) => return skip(name, &format!("no gVisor: {e:#}")),
    }
    node.runtime.import_image("k8s.io", Some(("peer", PEER))).expect("the image");
    let quantity = LIMIT.to_string();
    let spec = PodSpec::new("default", "a").annotation(EGRESS, &quantity);
    let pod = node.run(&spec.annotation(INGRESS, &quantity).in_gvisor());
    node.guard("a");
    let (netns, address) = node.make_remote();
    let sandbox = Sandbox { node: &node, pod, remote: (&netns, address) };
    let is_paced = node.pod("a")["egress"]["mode"] == "paced";
    for protocol in ["udp", "tcp"] {
        for (what, rates) in
            [("sends", sandbox.sends(protocol)), ("receives", sandbox.receives(protocol))]
        {
            println!("the sandbox {what}, {protocol}: limit {LIMIT}, seconds {rates:?}");
            if protocol == "udp" {
                assert!(rates[1].abs_diff(LIMIT) <= LIMIT / 50, "{rates:?}");
                continue;
            }
            // Of a policer's drops its TCP of 2024 recovers two segments at a time, 200 ms apart.
            let recovers = is_paced || what == "receives";
            let least = if recovers { LIMIT * 3 / 4 } else { 0 };
            let mean = rates.iter().sum::<u64>() / rates.len() as u64;
            assert!((least..=LIMIT * 112 / 100).contains(&mean), "{rates:?}");
        }
    }
    let status = node.pod("a");
    let counters = [
        &status["guard"]["unshaped_packets"],
        &status["guard"]["dropped_packets"],
        &status["bypassed"]["packets"],
        &status["bypassed"]["dropped_packets"],
    ];
    assert_eq!(counters, [0; 4], "{status}");
    // Where the kernel has no fq.
    let troubles = node.troubles();
    assert!(troubles.iter().all(|code| code == "policed"), "{troubles:?}");
    what_is_handed_to_it_past_its_host_end_is_not_limited_and_reported(&sandbox);
    // Our DEL does its part, whatever the shim for runc makes of runsc's answers after that.
    drop(node.runtime.stop_pod(&sandbox.pod.id));
    assert_eq!(node.record(&sandbox.pod.id), None);
}

/// As Cilium and Calico do (bpf_redirect_peer): the guard in the pod drops, and runsc has its copy.
fn what_is_handed_to_it_past_its_host_end_is_not_limited_and_reported(sandbox: &Sandbox) {
    let Sandbox { node, pod, .. } = sandbox;
    let status = node.pod("a");
    let IpAddr::V4(address) = pod.ip else { panic!("not IPv4: {}", pod.ip) };
    let host_ifname = status["host_interface"].as_str().expect("a device").to_owned();
    let end = tests::node::Pod { name: "a".into(), host_ifname, address };
    node.runtime.inside(|| {
        foreign::load();
        foreign::redirect_to_peer("up0", &end);
    });
    let rates = sandbox.receives("udp");
    println!("the sandbox receives past its host end: limit {LIMIT}, seconds {rates:?}");
    assert!(rates[1] > LIMIT * 3 / 2, "{rates:?}");
    let ingress = node.pod("a")["ingress"].clone();
    let reason = ingress["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("a packet socket in the pod (gVisor's"), "{reason}");
    assert!(node.troubles().contains(&"not-enforced".to_owned()), "{:?}", node.troubles());
}
