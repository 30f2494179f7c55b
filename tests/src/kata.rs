// SPDX-License-Identifier: Apache-2.0
//! A double of a Kata sandbox, as the shim of Kata 4.1.0 makes one by default
//! (`internetworking_model = "tcfilter"`; setupTCFiltering in
//! src/runtime/virtcontainers/network_linux.go, the same in runtime-rs' tc_filter_model.rs).
//! The runtime makes the namespace and calls ADD; then the shim adds a tap, gives it and
//! eth0 an `ingress` qdisc each, and redirects all that one receives to the other. eth0
//! keeps its address, and the guest has the same one.
//!
//! The guest is a namespace with a tap of its own. Two threads carry frames between the
//! taps with their virtio headers, as vhost-net does, so that its super-packets stay whole.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::command::{ip, run};
use crate::meter::in_netns;
use crate::node::{Pod, mac_of};

/// The name that the shim gives it.
const TAP: &str = "tap0_kata";
/// A super-packet with its headers.
const LARGEST: usize = 1 << 17;
/// TUN_F_CSUM, TUN_F_TSO4 and TUN_F_TSO6: what a guest of QEMU takes.
const OFFLOADS: libc::c_ulong = 1 | 2 | 4;

/// A guest; ended by [`Vm::stop`], or with the namespaces of the test.
pub struct Vm {
    pod: Pod,
    guest: String,
    stop: Arc<AtomicBool>,
    carriers: [JoinHandle<()>; 2],
}

impl Vm {
    /// What the shim does on its start, and a guest that is up.
    pub fn start(pod: &Pod) -> Self {
        let guest = format!("{}-guest", pod.name);
        ip(&format!("netns add {guest}"));
        let outer = open_tap(&pod.netns(), TAP);
        ip(&format!("-n {} link set {TAP} mtu 1500 up", pod.name));
        for (from, to) in [(TAP, "eth0"), ("eth0", TAP)] {
            pod.run(&format!("tc qdisc add dev {from} ingress"));
            pod.run(&format!(
                "tc filter add dev {from} parent ffff: protocol all u32 match u8 0 0 action mirred \
                 egress redirect dev {to}"
            ));
        }
        let inner = open_tap(&netns(&guest), "eth0");
        let (pod_mac, host_mac) =
            (mac_of(&format!("-n {}", pod.name), "eth0"), mac_of("", &pod.host_ifname));
        for line in [
            format!("link set eth0 address {pod_mac} up"),
            format!("addr add {}/32 dev eth0", pod.address),
            "route add 169.254.1.1 dev eth0 scope link".into(),
            "route add default via 169.254.1.1 dev eth0".into(),
            format!("neigh add 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent"),
        ] {
            ip(&format!("-n {guest} {line}"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let carriers = [(inner.try_clone(), outer.try_clone()), (Ok(outer), Ok(inner))];
        let carriers = carriers.map(|(from, to)| {
            let (from, to) = (from.expect("a descriptor"), to.expect("a descriptor"));
            let stop = stop.clone();
            thread::spawn(move || carry(from, to, &stop))
        });
        Self { pod: pod.clone(), guest, stop, carriers }
    }

    /// Where programs in the guest run.
    pub fn netns(&self) -> PathBuf {
        netns(&self.guest)
    }

    /// What the shim does before the runtime calls DEL (removeTCFiltering).
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for carrier in self.carriers {
            carrier.join().expect("a carrier");
        }
        self.pod.run("tc filter del dev eth0 parent ffff:");
        self.pod.run("tc qdisc del dev eth0 ingress");
        ip(&format!("-n {} link set eth0 down", self.pod.name));
        ip(&format!("netns del {}", self.guest));
    }
}

fn netns(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// The tap is there for as long as its descriptor.
fn open_tap(netns: &Path, name: &'static str) -> File {
    if !Path::new("/dev/net/tun").exists() {
        run("modprobe", &["tun"]);
    }
    thread::scope(|scope| in_netns(scope, netns, || make_tap(name)).join().expect("a tap"))
}

fn make_tap(name: &str) -> File {
    let tap = File::options().read(true).write(true).open("/dev/net/tun").expect("open a tap");
    // SAFETY: zeroes are a value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the kernel reads and writes a structure of this size.
    let made = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(made, 0, "make tap {name}: {}", std::io::Error::last_os_error());
    // SAFETY: the argument is a number.
    let set = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, OFFLOADS) };
    assert_eq!(set, 0, "offloads of {name}: {}", std::io::Error::last_os_error());
    tap
}

fn carry(mut from: File, mut to: File, stop: &AtomicBool) {
    let mut frame = vec![0; LARGEST];
    while !stop.load(Ordering::Relaxed) {
        let mut waiting = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        let is_there = poll(&mut waiting, PollTimeout::from(100_u8)).is_ok_and(|count| count > 0);
        if is_there && let Ok(length) = from.read(&mut frame) {
            // What a device that is down refuses is lost, as it is of a real one.
            let _ = to.write(&frame[..length]);
        }
    }
}
