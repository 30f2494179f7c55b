// SPDX-License-Identifier: Apache-2.0
//! The guard's links on real devices, in a network namespace of this thread.
#![allow(clippy::expect_used, reason = "clippy's exception for tests leaves out helper functions")]

mod bpffs;

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use bpf::{Direction, Limit, Mode, NS_PER_BYTE_SHIFT, Pins, Slot};
use nix::sched::{CloneFlags, unshare};

/// The host's end, which has the guard, has this index in every test.
const HOST_END: u32 = 77;

struct Node {
    dir: PathBuf,
    pins: Pins,
}

impl Node {
    /// A veth pair, `host` and `pod`, in a namespace of this thread; None without tcx, where there is
    /// no link, and where the guard has that setting.
    fn with_tcx() -> Option<Self> {
        unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace (needs root)");
        let dir = bpffs::load();
        let pins = Pins::open(&dir).expect("open the pins");
        add_veth();
        if pins.has_tcx() {
            return Some(Self { dir, pins });
        }
        assert!(!pins.attach_guard(HOST_END, slot(1)).expect("attach"));
        assert_eq!(pins.guard_links().expect("list"), []);
        None
    }

    /// The kernel's number of the pinned link.
    fn link_id(&self) -> u32 {
        self.link().id
    }

    fn program_of_link(&self) -> u32 {
        self.link().prog_id
    }

    fn link(&self) -> libbpf_rs::query::LinkInfo {
        let path = self.dir.join(format!("links/{HOST_END}"));
        libbpf_rs::Link::open(path).expect("open the link").info().expect("ask for it")
    }

    fn seen_by_guard(&self, slot: Slot) -> u64 {
        self.pins.unshaped(slot, Direction::Egress).expect("read counters").sent_packets
    }

    fn limit_guard(&self, slot: Slot) {
        let limit = Limit {
            ns_per_byte: 1 << NS_PER_BYTE_SHIFT,
            horizon_ns: 1_000_000_000,
            mode: Mode::Policed,
            ..Limit::NONE
        };
        self.pins.set_limit(slot, Direction::Egress, limit).expect("set the limit");
    }
}

fn slot(number: u16) -> Slot {
    Slot::new(number).expect("a slot")
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split_whitespace()).status().expect("run ip");
    assert!(status.success(), "ip {line}");
}

fn add_veth() {
    ip(&format!("link add host index {HOST_END} type veth peer name pod"));
    ip("link set host up");
    ip("link set pod up");
    ip("addr add 10.1.0.2/24 dev pod");
    ip("neigh add 10.1.0.1 lladdr 02:00:00:00:00:01 dev pod nud permanent");
}

/// Sends from the pod's end until `seen` grows.
fn send_until_seen(seen: impl Fn() -> u64) {
    let before = seen();
    let socket = UdpSocket::bind("10.1.0.2:0").expect("a socket");
    let deadline = Instant::now() + Duration::from_secs(20);
    while seen() == before {
        assert!(Instant::now() < deadline, "the guard sees nothing");
        socket.send_to(b"x", "10.1.0.1:9").expect("send");
        std::thread::yield_now();
    }
}

#[test]
fn guard_is_attached_once_however_often_it_is_asked_for() {
    let Some(node) = Node::with_tcx() else { return };
    assert_eq!(node.pins.guard_links().expect("list"), []);
    assert!(!node.pins.renew_guard(HOST_END).expect("ask"));
    assert!(node.pins.attach_guard(HOST_END, slot(1)).expect("attach"));
    let link = node.link_id();
    assert!(node.pins.attach_guard(HOST_END, slot(1)).expect("attach again"));
    assert_eq!(node.link_id(), link);
    assert!(node.pins.renew_guard(HOST_END).expect("ask"));
    assert_eq!(node.pins.guard_links().expect("list"), [HOST_END]);
    node.limit_guard(slot(1));
    send_until_seen(|| node.seen_by_guard(slot(1)));
}

#[test]
fn guard_of_an_older_load_keeps_its_link_and_gets_the_new_program() {
    let Some(mut node) = Node::with_tcx() else { return };
    node.pins.attach_guard(HOST_END, slot(1)).expect("attach");
    let (link, old) = (node.link_id(), node.pins.guard().expect("ask").1);
    bpf::load_and_pin(&node.dir).expect("load again");
    node.pins = Pins::open(&node.dir).expect("open the new pins");
    assert_ne!(node.pins.guard().expect("ask").1, old);
    assert_eq!(node.program_of_link(), old);
    assert!(node.pins.renew_guard(HOST_END).expect("renew"));
    assert_eq!(node.program_of_link(), node.pins.guard().expect("ask").1);
    assert_eq!(node.link_id(), link);
    node.limit_guard(slot(1));
    send_until_seen(|| node.seen_by_guard(slot(1)));
}

#[test]
fn link_of_a_device_that_has_gone_is_replaced_on_the_next_one_with_its_index() {
    let Some(node) = Node::with_tcx() else { return };
    node.pins.attach_guard(HOST_END, slot(1)).expect("attach");
    let dead = node.link_id();
    ip("link del host");
    assert!(!node.pins.renew_guard(HOST_END).expect("ask"));
    assert_eq!(node.pins.guard_links().expect("list"), [HOST_END]);
    add_veth();
    assert!(node.pins.attach_guard(HOST_END, slot(2)).expect("attach"));
    assert!(node.pins.renew_guard(HOST_END).expect("ask"));
    assert_ne!(node.link_id(), dead);
    node.limit_guard(slot(2));
    send_until_seen(|| node.seen_by_guard(slot(2)));
    // The pod that had the index before is removed only now.
    node.pins.detach_guard(HOST_END, slot(1)).expect("detach the first pod's");
    assert!(node.pins.renew_guard(HOST_END).expect("ask"));
    node.pins.detach_guard(HOST_END, slot(2)).expect("detach");
    assert_eq!(node.pins.guard_links().expect("list"), []);
}

#[test]
fn two_devices_of_one_slot_are_guarded_and_cleared_each_for_itself() {
    let Some(node) = Node::with_tcx() else { return };
    ip("link add host2 index 78 type veth peer name pod2");
    for ifindex in [HOST_END, 78] {
        assert!(node.pins.attach_guard(ifindex, slot(1)).expect("attach"));
    }
    node.pins.detach_guard(HOST_END, slot(1)).expect("detach");
    assert!(!node.pins.renew_guard(HOST_END).expect("ask"));
    assert!(node.pins.renew_guard(78).expect("ask"));
    node.pins.clear(slot(1)).expect("clear");
    assert!(node.pins.renew_guard(78).expect("ask"));
    node.pins.detach_link(78).expect("detach whoever's it is");
    node.pins.detach_link(78).expect("what is not there is no error");
    assert_eq!(node.pins.guard_links().expect("list"), []);
}
