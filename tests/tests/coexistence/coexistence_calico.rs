// SPDX-License-Identifier: Apache-2.0
//! Beside Calico: its own limit in the place of ours, and its eBPF data plane
//! in place of kube-proxy (tests::calico says which version).

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::calico::{self, End, Felix, From, Way};
use tests::cni::{Annotations, Call};
use tests::command::{ip, json, tc, wait_for};
use tests::flood::{Direction, Flood};
use tests::ipv6::add_ipv6;
use tests::kernel::{has_fq, has_tcx, skip_for_tcx};
use tests::link::index;
use tests::meter::{in_netns, set_congestion};
use tests::node::{Node, Pod, mac_of, with_ready_node};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
/// A guest needs long for each, and is precise.
const SECONDS: u64 = 2;
const SOON: Duration = Duration::from_secs(20);

fn wait_for_mode(node: &Node, pod: &Pod, mode: &str) {
    wait_for(mode, SOON, || (node.status(pod)["ingress"]["mode"] == mode).then_some(()));
}

/// Without fq the shaper polices.
fn shaped() -> &'static str {
    if has_fq() { "paced" } else { "policed" }
}

fn findings(node: &Node) -> Vec<Value> {
    let report = json(&String::from_utf8_lossy(&node.sluice(&["doctor", "--json"]).stdout));
    report["findings"].as_array().expect("findings").clone()
}

#[test]
fn calicos_limit_in_the_place_of_ours_leaves_the_lower_of_the_two_until_it_goes() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        let flood = Flood { pod: &pod, remote: &remote, limit_bps: LIMIT };
        // Felix was first.
        calico::limit_ingress(&pod, 2 * LIMIT);
        node.add(&pod, BOTH);
        assert_eq!(node.status(&pod)["ingress"]["mode"], "guarded");
        // Without tcx it needs clsact in the pod, and lets sandboxes come first.
        wait_for("the guard in the pod", SOON, || {
            (node.status(&pod)["ingress"]["broken"] == false).then_some(())
        });
        let rates = flood.seconds_while(Direction::Ingress, 3, || ());
        assert!(rates[1..].iter().all(|rate| flood.is_limit(*rate)), "{rates:?}");
        let check = Call::new("CHECK", &pod, BOTH).run(&pod);
        assert!(check.status.success(), "{}", tests::command::text(&check));
        calico::lift_ingress(&pod);
        wait_for_mode(node, &pod, shaped());
        assert!(node.troubles("ingress-bypassed").is_empty());
        // Felix comes later.
        calico::limit_ingress(&pod, 2 * LIMIT);
        wait_for_mode(node, &pod, "guarded");
        let rates = flood.seconds_while(Direction::Ingress, 3, || ());
        assert!(rates[1..].iter().all(|rate| flood.is_limit(*rate)), "{rates:?}");
        let all = findings(node);
        let guarded = all.iter().find(|finding| finding["code"] == "guarded").expect("guarded");
        assert!(guarded["seen"].to_string().contains("tbf 1:"), "{guarded}");
        let faults: Vec<_> = all.iter().filter(|finding| finding["severity"] == "fault").collect();
        assert!(faults.is_empty(), "{faults:?}");
        assert!(
            node.troubles("ingress-bypassed").is_empty()
                && node.troubles("not-enforced").is_empty()
        );
        calico::limit_ingress(&pod, LIMIT / 2);
        let rates = flood.seconds_while(Direction::Ingress, 3, || ());
        assert!(rates[1..].iter().all(|rate| *rate <= LIMIT * 55 / 100), "{rates:?}");
        node.del(&pod);
        assert!(
            tc(&format!("qdisc show dev {}", pod.host_ifname)).starts_with("qdisc tbf 1: root")
        );
    });
}

/// A service of NodePort type, the pod behind it and a client elsewhere.
struct Service<'a> {
    pod: &'a Pod,
    client: &'a Pod,
    node: End,
    backend: End,
    client_ipv6: Ipv6Addr,
}

impl Service<'_> {
    /// What arrives over a connection to the service after its first second, in bit/s on the wire. The
    /// pod must see the client's own address.
    fn rate(&self, direction: Direction, is_ipv6: bool) -> u64 {
        let (listen, target) = (self.backend.of(is_ipv6), self.node.of(is_ipv6));
        let from: IpAddr =
            if is_ipv6 { self.client_ipv6.into() } else { self.client.address.into() };
        let receives = direction == Direction::Ingress;
        let bytes = thread::scope(|scope| {
            let (ready, bound) = mpsc::channel();
            let server = in_netns(scope, &self.pod.netns(), move || {
                let listener = TcpListener::bind(listen).expect("listen");
                listener.set_nonblocking(true).expect("not wait for ever");
                ready.send(()).expect("a client");
                let (stream, peer) = wait_for("a connection", SOON, || listener.accept().ok());
                stream.set_nonblocking(false).expect("wait from now on");
                assert_eq!(peer.ip(), from);
                if receives { take(stream) } else { give(stream) }
            });
            bound.recv_timeout(SOON).expect("the server listens");
            let client = in_netns(scope, &self.client.netns(), move || {
                let stream = TcpStream::connect_timeout(&target, SOON).expect("connect");
                if receives { give(stream) } else { take(stream) }
            });
            [server.join().expect("the server"), client.join().expect("the client")]
        });
        // A frame of 1514 bytes has so much of the stream.
        let payload = if is_ipv6 { 1428.0 } else { 1448.0 };
        let rate = ((bytes[0] + bytes[1]) * 8.0 * 1514.0 / payload) as u64;
        println!("{direction:?}, IPv6 {is_ipv6}: {rate}");
        rate
    }

    fn assert_rate(&self, direction: Direction, is_ipv6: bool) {
        let rate = self.rate(direction, is_ipv6);
        // TCP makes less of a policer.
        let most = if has_fq() { LIMIT / 100 } else { LIMIT / 10 };
        assert!(rate.abs_diff(LIMIT) <= most, "{direction:?}, IPv6 {is_ipv6}: {rate}");
    }

    /// What policy denies: nothing of it reaches the pod, and the pod is not charged.
    fn assert_denied(&self, node: &Node, felix: &Felix) {
        let before = felix.denied();
        let charged =
            || node.status(self.pod)["ingress"]["sent_packets"].as_u64().expect("a count");
        let charged_before = charged();
        thread::scope(|scope| {
            let (ready, bound) = mpsc::channel();
            let address = self.pod.address;
            let arrived = in_netns(scope, &self.pod.netns(), move || {
                let socket = UdpSocket::bind((address, 9999)).expect("bind");
                socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
                ready.send(()).expect("a sender");
                socket.recv(&mut [0; 64]).is_ok()
            });
            bound.recv_timeout(SOON).expect("the receiver");
            let send = move || {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
                (0..200).for_each(|_| drop(socket.send_to(b"x", (address, 9999))));
            };
            in_netns(scope, &self.client.netns(), send).join().expect("the sender");
            assert!(!arrived.join().expect("the receiver"), "a denied packet passed");
        });
        assert!(felix.denied() >= before + 200, "{before} {}", felix.denied());
        assert!(charged() < charged_before + 100, "denied packets are charged");
    }
}

/// Takes for so many seconds; gives the bytes of each after the first.
fn take(mut stream: TcpStream) -> f64 {
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut buffer = vec![0; 1 << 16];
    let (begin, mut bytes, mut counted) = (Instant::now(), 0, None);
    loop {
        let read = stream.read(&mut buffer).expect("data");
        assert_ne!(read, 0, "the sender has ended");
        bytes += read;
        let now = Instant::now();
        match counted {
            None if now - begin >= Duration::from_secs(1) => counted = Some((now, bytes)),
            Some((since, before)) if now - begin >= Duration::from_secs(SECONDS) => {
                return (bytes - before) as f64 / (now - since).as_secs_f64();
            }
            _ => {}
        }
    }
}

/// Gives for as long as the other end takes.
fn give(mut stream: TcpStream) -> f64 {
    stream.set_write_timeout(Some(SOON)).expect("a timeout");
    set_congestion(&stream, "cubic");
    let chunk = vec![0; 1 << 16];
    while let Err(ErrorKind::Interrupted) | Ok(()) = stream.write_all(&chunk).map_err(|e| e.kind())
    {
    }
    let _ = stream.shutdown(Shutdown::Both);
    0.0
}

/// The node that the client asks in the tunnel modes, with a line of its own to the client.
fn edge_of(node: &Node, client: &Pod, service: End) -> (Pod, Ipv6Addr) {
    let edge = node.pod("edge", 8);
    let edge_ipv6 = add_ipv6(&edge);
    ip(&format!("-n {} link add eth1 type veth peer name eth1 netns edge", client.name));
    ip(&format!("-n {} link set eth1 up", client.name));
    ip("-n edge link set eth1 up");
    let [near, far] =
        [format!("-n {}", client.name), "-n edge".to_owned()].map(|n| mac_of(&n, "eth1"));
    client.run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0");
    let own = client.address;
    let own6 = format!("fd01::{}", own.octets()[3]);
    for (service, own) in
        [(service.ipv4.to_string(), own.to_string()), (service.ipv6.to_string(), own6)]
    {
        let family = if own.contains(':') { "-6" } else { "-4" };
        let neighbour = "nud permanent dev eth1";
        ip(&format!("-n {} {family} route add {service} dev eth1 src {own}", client.name));
        ip(&format!("-n {} {family} neigh add {service} lladdr {far} {neighbour}", client.name));
        ip(&format!("-n edge {family} neigh add {own} lladdr {near} {neighbour}"));
    }
    (edge, edge_ipv6)
}

#[test]
fn service_of_calicos_ebpf_keeps_client_addresses_and_the_pods_limits_in_every_mode() {
    if !has_tcx() {
        return skip_for_tcx(
            "service_of_calicos_ebpf_keeps_client_addresses_and_the_pods_limits_in_every_mode",
        );
    }
    with_ready_node("", |node| {
        let (pod, client) = (node.pod("a", 2), node.pod("remote", 9));
        let [pod_ipv6, client_ipv6] = [&pod, &client].map(add_ipv6);
        let front = End {
            ipv4: Ipv4Addr::new(10, 9, 0, 1),
            ipv6: Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1),
            port: 30080,
        };
        let backend = End { ipv4: pod.address, ipv6: pod_ipv6, port: 8080 };
        let mut felix = Felix::start(front, backend);
        let to = |device, hop, translates| Way { device, translates, by_peer: false, hop };
        let host_end = index(&pod.host_ifname);
        let inwards = to(host_end, (pod.address, pod_ipv6), true);
        let to_client = to(index(&client.host_ifname), (client.address, client_ipv6), true);
        felix.send(From::Uplink, inwards);
        felix.send(From::Pod, to_client);
        // Policy before the pod's ADD, the rest after it: Felix works on either.
        felix.attach_egress("cali_to_wep", &pod.host_ifname);
        node.add(&pod, BOTH);
        node.guard(&pod);
        felix.attach_ingress("cali_from_wep", &pod.host_ifname);
        felix.attach_ingress("cali_from_hep", &client.host_ifname);
        let service = Service { pod: &pod, client: &client, node: front, backend, client_ipv6 };
        for is_ipv6 in [false, true] {
            service.assert_rate(Direction::Ingress, is_ipv6);
            service.assert_rate(Direction::Egress, is_ipv6);
        }
        service.assert_denied(node, &felix);

        // The client asks another node: its packets come by the tunnel, answers go back by it, or with
        // DSR straight to the client.
        let (edge, edge_ipv6) = edge_of(node, &client, front);
        let in_edge = |device: &str| {
            json(&ip(&format!("-n edge -j link show {device}")))[0]["ifindex"]
                .as_u64()
                .expect("an index") as u32
        };
        let gateway =
            (Ipv4Addr::new(169, 254, 1, 1), Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 0xffff));
        felix.send(From::EdgeIn, to(in_edge("eth0"), gateway, true));
        felix.send(From::EdgeBack, to(in_edge("eth1"), (client.address, client_ipv6), true));
        felix.attach_ingress_in(&edge, "cali_edge_in", "eth1");
        felix.attach_ingress_in(&edge, "cali_edge_back", "eth0");
        felix.attach_ingress("cali_from_hep", &edge.host_ifname);
        felix.send(From::Pod, to(index(&edge.host_ifname), (edge.address, edge_ipv6), false));
        service.assert_rate(Direction::Ingress, true);
        service.assert_rate(Direction::Egress, false);
        felix.send(From::Pod, to_client);
        service.assert_rate(Direction::Ingress, false);
        service.assert_rate(Direction::Egress, true);
        let status = node.status(&pod);
        assert_eq!(status["bypassed"]["dropped_packets"], 0, "{status}");
        assert_eq!(status["guard"]["unshaped_packets"], 0, "{status}");
        assert_eq!(status["ingress"]["mode"], shaped(), "{status}");
        assert!(findings(node).iter().any(|finding| finding["code"] == "calico-present"));

        // BPFRedirectToPeer: the pod's host end is skipped, the guard in the pod is not.
        felix.send(From::Uplink, Way { by_peer: true, ..inwards });
        let rate = service.rate(Direction::Ingress, false);
        assert!((LIMIT * 70 / 100..=LIMIT * 105 / 100).contains(&rate), "{rate}");
        assert!(!node.troubles("ingress-bypassed").is_empty());
        service.assert_denied(node, &felix);
    });
}
