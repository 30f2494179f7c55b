// SPDX-License-Identifier: Apache-2.0
//! The set-ups that are compared, and how each is put on a pod: Sluice through
//! its CNI plugin, the others as their users would have them.

use std::sync::Once;
use std::{fs, mem};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tests::cni::Annotations;
use tests::command::{run, tc};
use tests::node::PIN_DIR;

use crate::site::Site;
use crate::upstream;

const EDT_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/edt.bpf.o"));
const EDT_FILE: &str = "/run/edt.bpf.o";
const EDT_MAPS: &str = "/sys/fs/bpf/bench-maps";
/// Pinned programs of fixtures/edt.bpf.c.
pub const PEERS: &str = "/sys/fs/bpf/bench";
/// Cilium's agent sets the same: two seconds of horizon, 2^15 buckets.
const CILIUM_FQ: &str = "fq horizon 2s buckets 32768";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setup {
    None,
    /// The queue that Sluice puts on a pod's egress, without a program or a limit.
    Fq,
    /// The qdiscs that Sluice puts on a pod's egress, without a program: what they cost by themselves.
    Queues,
    /// The same with a filter that does nothing.
    QueuesAndFilter,
    /// And with a program on the host's end that does nothing either.
    EmptyGuard,
    Sluice,
    /// Sluice without the guard on the host's end.
    SluiceUnguarded,
    /// The bandwidth plugin of the CNI project, with the burst that containerd asks for.
    Upstream,
    /// The same with a burst of 32 KB, as an expert would configure it.
    #[serde(rename = "upstream-32kb")]
    Upstream32Kb,
    /// Cilium's form of departure times: stamped and released on the uplink.
    CiliumEdt,
    Cake,
    TbfFqCodel,
}

impl Setup {
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).expect("a name");
        name.as_str().expect("a word").to_owned()
    }

    /// Limits the pod of `site`; a rate of 0 is no limit.
    pub fn apply(self, site: &Site, limits: Annotations) {
        match self {
            Self::None => {}
            Self::Fq => {
                tc(&format!("-n {} qdisc add dev eth0 root fq", site.pod.pod.name));
            }
            Self::Queues => queues(site),
            Self::QueuesAndFilter => queues_and_filter(site),
            Self::EmptyGuard => {
                queues_and_filter(site);
                let device = tests::link::index(&site.pod.pod.host_ifname);
                // The link goes with its device.
                mem::forget(tests::tcx::append_ingress(&format!("{PEERS}/empty"), device));
            }
            Self::Sluice => site.node.add(&site.pod.pod, limits),
            Self::SluiceUnguarded => {
                site.node.add(&site.pod.pod, limits);
                site.node.guard(&site.pod.pod);
                // Which would put it back.
                site.node.signal_agent(Signal::SIGSTOP);
                let ifindex = tests::link::index(&site.pod.pod.host_ifname);
                fs::remove_file(format!("{PIN_DIR}/links/{ifindex}")).expect("take the guard off");
            }
            Self::Upstream => upstream::add(&site.pod.pod, limits, upstream::BURST_NOT_SET),
            Self::Upstream32Kb => upstream::add(&site.pod.pod, limits, upstream::BURST_32_KB),
            Self::CiliumEdt => cilium_edt(site, limits),
            Self::Cake => each_direction(site, limits, |rate, namespace, device| {
                let cake = format!("cake bandwidth {rate}bit besteffort");
                tc(&format!("{namespace} qdisc add dev {device} root {cake}"));
            }),
            Self::TbfFqCodel => each_direction(site, limits, tbf_fq_codel),
        }
    }

    /// What outlives the pod's devices.
    pub fn remove(self, site: &Site) {
        match self {
            Self::Sluice => site.node.del(&site.pod.pod),
            Self::SluiceUnguarded => {
                site.node.signal_agent(Signal::SIGCONT);
                site.node.del(&site.pod.pod);
            }
            Self::Upstream | Self::Upstream32Kb => upstream::del(&site.pod.pod),
            _ => {}
        }
    }
}

/// Egress on the pod's own device, ingress on its host end.
fn each_direction(site: &Site, limits: Annotations, put: impl Fn(u64, &str, &str)) {
    let pod = &site.pod.pod;
    let inside = format!("-n {}", pod.name);
    for (rate, namespace, device) in
        [(limits.egress, inside.as_str(), "eth0"), (limits.ingress, "", &pod.host_ifname)]
    {
        if rate != 0 {
            put(rate, namespace, device);
        }
    }
}

/// As netlink/tc.rs makes them.
fn queues(site: &Site) {
    let pod = &site.pod.pod.name;
    let bands = "prio bands 2 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0";
    tc(&format!("-n {pod} qdisc add dev eth0 root handle 1: {bands}"));
    tc(&format!("-n {pod} qdisc add dev eth0 parent 1:1 fq"));
}

fn queues_and_filter(site: &Site) {
    queues(site);
    load_peers();
    // `tc -n` would have a /sys of its own, without the pin.
    let filter = format!("tc filter add dev eth0 parent 1: bpf object-pinned {PEERS}/empty");
    let line = format!("--net=/run/netns/{} {filter}", site.pod.pod.name);
    run("nsenter", &line.split(' ').collect::<Vec<_>>());
}

fn tbf_fq_codel(rate: u64, namespace: &str, device: &str) {
    let tbf = format!("tbf rate {rate}bit burst 32kb latency 400ms");
    tc(&format!("{namespace} qdisc add dev {device} root handle 1: {tbf}"));
    tc(&format!("{namespace} qdisc add dev {device} parent 1:1 handle 10: fq_codel"));
}

/// Egress on the uplink, as Cilium has it. It has no form for ingress but the same on the host end.
fn cilium_edt(site: &Site, limits: Annotations) {
    load_peers();
    let devices = [
        (limits.egress, &site.remote.pod.host_ifname),
        (limits.ingress, &site.pod.pod.host_ifname),
    ];
    for (rate, device) in devices.into_iter().filter(|(rate, _)| *rate != 0) {
        limit_edt(rate);
        tc(&format!("qdisc add dev {device} root {CILIUM_FQ}"));
        tc(&format!("qdisc add dev {device} clsact"));
        tc(&format!("filter add dev {device} egress bpf da object-pinned {PEERS}/edt"));
    }
}

/// The one limit of the program `edt`, with its clock at zero.
pub fn limit_edt(rate_bps: u64) {
    let words = [(rate_bps / 8).to_ne_bytes(), [0; 8]].concat();
    let value: Vec<String> = words.iter().map(u8::to_string).collect();
    let map = format!("{EDT_MAPS}/edt_limits");
    let update = format!("map update pinned {map} key 0 0 0 0 value {}", value.join(" "));
    run("bpftool", &update.split_whitespace().collect::<Vec<_>>());
}

/// Loads and pins the programs of fixtures/edt.bpf.c, once.
pub fn load_peers() {
    static LOADED: Once = Once::new();
    LOADED.call_once(|| {
        fs::write(EDT_FILE, EDT_OBJECT).expect("write the object");
        for dir in [PEERS, EDT_MAPS] {
            fs::create_dir(dir).expect("make a pin directory");
        }
        run("bpftool", &["prog", "loadall", EDT_FILE, PEERS, "pinmaps", EDT_MAPS]);
    });
}
