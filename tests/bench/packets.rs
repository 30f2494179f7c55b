// SPDX-License-Identifier: Apache-2.0
//! P2: what a UDP packet from a pod costs on its way out. The guest has one
//! processor and its time is its instructions, so the time that a sender without
//! pause needs is the work that its packets make, wherever it is done.

use std::fmt;
use std::net::UdpSocket;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tests::cni::Annotations;
use tests::command::wait_for;
use tests::flows::{End, udp_payload, udp_socket};
use tests::meter::in_netns;
use tests::node::Node;

use crate::figure::{Bound, Figure};
use crate::setups::Setup;
use crate::site::{Site, USUAL_MTU};

/// Far above what the machine can send.
pub const UNREACHABLE_BPS: u64 = 1_000_000_000_000;
const WARM_UP: usize = 5_000;
const PACKETS: usize = 40_000;
/// Guests run with shift=1.
const NS_PER_INSTRUCTION: f64 = 2.0;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Packets {
    pub setup: Setup,
    /// Of all the machine, for each packet.
    pub instructions: f64,
}

/// Both directions limited, so that all there is to a set-up is on.
pub fn run(setup: Setup, node: &Node) -> Packets {
    let site = Site::make(node, USUAL_MTU);
    setup.apply(&site, Annotations { egress: UNREACHABLE_BPS, ingress: UNREACHABLE_BPS });
    if setup == Setup::Sluice {
        wait_for_guards(&site);
    }
    let ns = ns_per_packet(site.pod.v4(), site.remote.v4());
    setup.remove(&site);
    Packets { setup, instructions: ns / NS_PER_INSTRUCTION }
}

/// What the agent does once for the pod is not a packet's.
fn wait_for_guards(site: &Site) {
    wait_for("both guards", Duration::from_secs(20), || {
        let status = site.node.status(&site.pod.pod);
        let guards = [&status["guard"]["state"], &status["bypassed"]["guard"]["state"]];
        guards.into_iter().all(|state| state != "pending").then_some(())
    });
}

/// No one reads what arrives: a full socket drops at the same small cost each time.
fn ns_per_packet(from: End<'_>, to: End<'_>) -> f64 {
    thread::scope(|scope| {
        let (ready, bound) = mpsc::channel();
        let (done, is_done) = mpsc::channel::<()>();
        in_netns(scope, to.netns, move || {
            let socket = UdpSocket::bind((to.address, 0)).expect("bind");
            ready.send(socket.local_addr().expect("a port")).expect("a receiver waits");
            // Until the other end of the channel goes.
            let _ = is_done.recv();
        });
        let target = bound.recv().expect("the sink is bound");
        let sender = in_netns(scope, from.netns, move || {
            let socket = udp_socket(target);
            send(&socket, WARM_UP);
            let start = Instant::now();
            send(&socket, PACKETS);
            start.elapsed().as_nanos() as f64 / PACKETS as f64
        });
        let ns = sender.join().expect("the sender");
        drop(done);
        ns
    })
}

fn send(socket: &UdpSocket, packets: usize) {
    let payload = udp_payload(socket);
    for _ in 0..packets {
        socket.send(&payload).expect("send");
    }
}

/// What each set-up adds to no limit.
pub fn figure(packets: &[Packets]) -> Figure {
    let find = |setup| packets.iter().find(|p| p.setup == setup).expect("measured").instructions;
    let none = find(Setup::None);
    let figure = Figure::new("P2", "instructions that a limit adds to each UDP packet", "")
        .detail("pod egress")
        .judge(find(Setup::Sluice) - none, Bound::AtMost, [1350.0, 1089.0])
        .peer("no limit, in all", none);
    let peers = packets.iter().filter(|p| !matches!(p.setup, Setup::None | Setup::Sluice));
    peers.fold(figure, |figure, p| figure.peer(p.setup.name(), p.instructions - none))
}

impl fmt::Display for Packets {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let setup = self.setup.name();
        write!(f, "{setup:<13} {:.0} instructions for each UDP packet", self.instructions)
    }
}
