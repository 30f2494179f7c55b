// SPDX-License-Identifier: Apache-2.0
//! A double of two parts of Calico's Felix, which cannot run without a cluster:
//! its limits (felix/dataplane/linux/qos/qos.go, as v3.32.0 and later have it), and
//! where its eBPF data plane attaches what serves in kube-proxy's place
//! (felix/bpf/tc/attach.go of v3.34.0-0.dev-67-g87c15906f2): a tcx link behind all that
//! are there, then clsact goes. The programs are those of fixtures/calico.bpf.c.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::thread;

use crate::command::{json, output, run, tc};
use crate::link::index;
use crate::meter::in_netns;
use crate::node::Pod;
use crate::tcx::{append_egress, append_ingress};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/calico.bpf.o"));
const PIN_DIR: &str = "/sys/fs/bpf/calico";
const MAP_DIR: &str = "/sys/fs/bpf/calico_maps";
/// As felix asks for: 25 ms of the rate wait in tbf, behind a burst.
const BURST: &str = "64k";

/// CreateOrUpdateIngressQdisc: QdiscReplace of the root by tbf 1:, whatever is there.
pub fn limit_ingress(pod: &Pod, bits_per_sec: u64) {
    let tbf = format!("root handle 1: tbf rate {bits_per_sec}bit burst {BURST} latency 25ms");
    tc(&format!("qdisc replace dev {} {tbf}", pod.host_ifname));
}

/// RemoveIngressQdisc: each tbf of the device.
pub fn lift_ingress(pod: &Pod) {
    let qdiscs = json(&tc(&format!("-j qdisc show dev {}", pod.host_ifname)));
    for qdisc in qdiscs.as_array().expect("a list").iter().filter(|q| q["kind"] == "tbf") {
        let handle = qdisc["handle"].as_str().expect("a handle");
        tc(&format!("qdisc del dev {} root handle {handle}", pod.host_ifname));
    }
}

/// Addresses and port of one end of a service.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
    pub port: u16,
}

impl End {
    pub fn of(&self, is_ipv6: bool) -> SocketAddr {
        match is_ipv6 {
            true => (self.ipv6, self.port).into(),
            false => (self.ipv4, self.port).into(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let port = u32::from(self.port.to_be()).to_ne_bytes();
        [&self.ipv4.octets()[..], &self.ipv6.octets(), &port].concat()
    }
}

/// Where one of the programs sends packets on.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub device: u32,
    pub translates: bool,
    /// BPFRedirectToPeer.
    pub by_peer: bool,
    pub hop: (Ipv4Addr, Ipv6Addr),
}

/// The programs' ways, as fixtures/calico.bpf.c numbers them.
#[derive(Clone, Copy, Debug)]
pub enum From {
    Uplink,
    Pod,
    EdgeIn,
    EdgeBack,
}

pub struct Felix {
    links: Vec<OwnedFd>,
}

impl Felix {
    pub fn start(node: End, pod: End) -> Self {
        fs::create_dir_all(PIN_DIR).expect("make a directory of pins");
        fs::write("/run/calico.bpf.o", OBJECT).expect("write the object");
        let load = ["prog", "loadall", "/run/calico.bpf.o", PIN_DIR, "pinmaps", MAP_DIR];
        run("bpftool", &load);
        update("service", 0, &[node.bytes(), pod.bytes()].concat());
        Self { links: Vec::new() }
    }

    pub fn send(&self, from: From, way: Way) {
        let words = [way.device, way.translates.into(), way.by_peer.into()];
        let words = words.map(u32::to_ne_bytes).concat();
        let (hop, hop6) = (way.hop.0.octets(), way.hop.1.octets());
        update("ways", from as u32, &[&words[..], &hop, &hop6].concat());
    }

    /// AttachProgram with TCX, of what the device receives: behind all others, then without clsact.
    pub fn attach_ingress(&mut self, program: &str, device: &str) {
        self.links.push(append_ingress(&pin(program), index(device)));
        remove_clsact(device);
    }

    /// The same of what it sends.
    pub fn attach_egress(&mut self, program: &str, device: &str) {
        self.links.push(append_egress(&pin(program), index(device)));
        remove_clsact(device);
    }

    /// The same on a device of another node.
    pub fn attach_ingress_in(&mut self, node: &Pod, program: &str, device: &'static str) {
        let program = pin(program);
        let attach = move || append_ingress(&program, index(device));
        let link = thread::scope(|scope| in_netns(scope, &node.netns(), attach).join());
        self.links.push(link.expect("attach"));
    }

    /// Packets that policy has denied.
    pub fn denied(&self) -> u64 {
        let map = format!("{MAP_DIR}/denied");
        let dump = json(&run("bpftool", &["-j", "map", "dump", "pinned", &map]));
        dump[0]["formatted"]["value"].as_u64().unwrap_or_else(|| panic!("a count in {dump}"))
    }
}

/// RemoveQdisc: clsact goes, with every filter on it.
fn remove_clsact(device: &str) {
    output("tc", &["qdisc", "del", "dev", device, "clsact"]);
}

fn pin(program: &str) -> String {
    format!("{PIN_DIR}/{program}")
}

fn update(map: &str, key: u32, value: &[u8]) {
    let text = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>();
    let map = format!("{MAP_DIR}/{map}");
    let words = ["map", "update", "pinned", &map, "key"].map(str::to_owned);
    let words = [&words[..], &text(&key.to_ne_bytes()), &["value".to_owned()], &text(value)];
    run("bpftool", &words.concat().iter().map(String::as_str).collect::<Vec<_>>());
}
