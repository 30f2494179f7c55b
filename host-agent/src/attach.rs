// SPDX-License-Identifier: Apache-2.0
//! Puts the shaper on a pod's veth pair and takes it off again. Egress: fq as
//! root and a clsact egress filter on the pod's own end. Ingress: a classful
//! root with a filter on it and an fq leaf on the host's end. It never touches
//! clsact or tcx of the host's end, where network policy lives. What fails
//! half-way is undone in reverse order.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bpf::{Direction, Mode, Pins, Slot};
use nix::errno::Errno;

use crate::limit::Limit;
use crate::netlink::{self, Filter, Link, Netlink, ROOT_HANDLE};

/// Both ends of a pod's veth pair, each with a socket of its namespace.
pub struct Veth {
    pod_netlink: Netlink,
    pub pod: Link,
    host_netlink: Netlink,
    pub host: Link,
    done: Vec<Effect>,
}

/// A thing that was done, so that it can be undone.
#[derive(Clone, Copy, Debug)]
enum Effect {
    PodRoot,
    PodGsoMaxSize { before: u32 },
    PodClsact,
    PodFilter,
    HostRoot,
}

impl Veth {
    /// Finds the pair by the pod's end: `ifname` inside the namespace `netns`.
    pub fn find(netns: &Path, ifname: &str) -> Result<Self> {
        let file = File::open(netns)
            .with_context(|| format!("open the network namespace {}", netns.display()))?;
        let mut pod_netlink = Netlink::open_in(&file)?;
        let mut host_netlink = Netlink::open()?;
        let pod = pod_netlink.link_by_name(ifname)?;
        let host = host_end(&mut host_netlink, &pod)?;
        Ok(Self { pod_netlink, pod, host_netlink, host, done: Vec::new() })
    }

    /// Shapes one direction; says whether packets are paced or policed. After a failure the caller
    /// decides what goes on and calls [`Self::undo`].
    pub fn attach(
        &mut self,
        pins: &Pins,
        slot: Slot,
        direction: Direction,
        limit: &Limit,
    ) -> Result<Mode> {
        match direction {
            Direction::Egress => self.attach_egress(pins, slot, limit),
            Direction::Ingress => self.attach_ingress(pins, slot, limit),
            Direction::Guard => bail!("the guard is not attached yet"),
        }
    }

    /// Undoes what was attached, last thing first; gives what could not be undone.
    pub fn undo(&mut self) -> Vec<netlink::Error> {
        let effects = std::mem::take(&mut self.done);
        effects.into_iter().rev().filter_map(|effect| self.undo_one(effect).err()).collect()
    }

    /// Takes off everything that carries our handles, whoever put it on. The pod's clsact and its
    /// GSO clamp stay: they go with the pod, and somebody else's filter may use the clsact by now.
    pub fn detach(&mut self) -> Vec<netlink::Error> {
        let effects = [Effect::HostRoot, Effect::PodFilter, Effect::PodRoot];
        let errors = effects.into_iter().filter_map(|effect| self.undo_one(effect).err());
        errors.filter(|error| !error.is_not_found()).collect()
    }

    fn undo_one(&mut self, effect: Effect) -> Result<(), netlink::Error> {
        match effect {
            Effect::PodRoot => self.pod_netlink.delete_root(&self.pod),
            Effect::PodGsoMaxSize { before } => {
                self.pod_netlink.set_gso_max_size(&self.pod, before)
            }
            Effect::PodClsact => self.pod_netlink.delete_clsact(&self.pod),
            Effect::PodFilter => self.pod_netlink.delete_egress_filter(&self.pod),
            Effect::HostRoot => self.host_netlink.delete_root(&self.host),
        }
    }

    fn attach_egress(&mut self, pins: &Pins, slot: Slot, limit: &Limit) -> Result<Mode> {
        let mode = self.add_pod_root(limit)?;
        pins.set_limit(slot, Direction::Egress, limit.for_bpf(mode))?;
        self.clamp_super_packets(limit)?;
        self.add_pod_clsact()?;
        let program = pins.program(Direction::Egress);
        let filter = Filter { program, name: "sluice_egress", slot: slot.number() };
        self.pod_netlink.add_egress_filter(&self.pod, &filter)?;
        self.done.push(Effect::PodFilter);
        Ok(mode)
    }

    fn add_pod_root(&mut self, limit: &Limit) -> Result<Mode> {
        let added = self.pod_netlink.add_root_fq(&self.pod, limit.for_fq());
        let mode = match mode_of(added) {
            Ok(mode) => mode,
            Err(e) => return Err(explain_root(&mut self.pod_netlink, &self.pod, e)),
        };
        if mode == Mode::Paced {
            self.done.push(Effect::PodRoot);
        }
        Ok(mode)
    }

    fn clamp_super_packets(&mut self, limit: &Limit) -> Result<(), netlink::Error> {
        let clamp = limit.gso_max_size(self.pod.mtu);
        let before = self.pod.gso_max_size;
        if clamp < before {
            self.pod_netlink.set_gso_max_size(&self.pod, clamp)?;
            self.done.push(Effect::PodGsoMaxSize { before });
        }
        Ok(())
    }

    fn add_pod_clsact(&mut self) -> Result<(), netlink::Error> {
        match self.pod_netlink.add_clsact(&self.pod) {
            Ok(()) => self.done.push(Effect::PodClsact),
            Err(e) if e.errno() == Some(Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn attach_ingress(&mut self, pins: &Pins, slot: Slot, limit: &Limit) -> Result<Mode> {
        if let Err(e) = self.host_netlink.add_root_with_class(&self.host) {
            return Err(explain_root(&mut self.host_netlink, &self.host, e));
        }
        self.done.push(Effect::HostRoot);
        let mode = mode_of(self.host_netlink.add_leaf_fq(&self.host, limit.for_fq()))?;
        pins.set_limit(slot, Direction::Ingress, limit.for_bpf(mode))?;
        let program = pins.program(Direction::Ingress);
        let filter = Filter { program, name: "sluice_ingress", slot: slot.number() };
        self.host_netlink.add_root_filter(&self.host, &filter)?;
        Ok(mode)
    }
}

/// Takes our root qdisc off a host end whose pod namespace cannot be entered any more. An index
/// that has gone to a device of another name is left alone.
pub fn detach_host_end(index: u32, name: &str) -> Result<(), netlink::Error> {
    let mut netlink = Netlink::open()?;
    match netlink.link_by_index(index) {
        Ok(link) if link.name == name => netlink.delete_root(&link),
        Ok(_) => Ok(()),
        Err(e) => Err(e),
    }
}

/// The host's end must point back, or an index of another namespace was met by chance.
fn host_end(netlink: &mut Netlink, pod: &Link) -> Result<Link> {
    let Some(index) = pod.peer_index else {
        bail!("{} of the pod is not a veth: it has no other end", pod.name);
    };
    let host = netlink.link_by_index(index)?;
    if host.peer_index != Some(pod.index) {
        bail!("{} on the host is not the other end of {} of the pod", host.name, pod.name);
    }
    Ok(host)
}

/// A kernel without sch_fq answers ENOENT: then the programs police.
fn mode_of(added: Result<(), netlink::Error>) -> Result<Mode, netlink::Error> {
    match added {
        Ok(()) => Ok(Mode::Paced),
        Err(e) if e.errno() == Some(Errno::ENOENT) => Ok(Mode::Policed),
        Err(e) => Err(e),
    }
}

/// Names the qdisc that is in the way, which the kernel's EEXIST does not.
fn explain_root(netlink: &mut Netlink, link: &Link, error: netlink::Error) -> anyhow::Error {
    let root = match error.errno() {
        Some(Errno::EEXIST) => netlink.root_qdisc(link).unwrap_or_default(),
        _ => None,
    };
    match root {
        Some((kind, major)) if major != ROOT_HANDLE => anyhow::Error::from(error).context(format!(
            "{} has the root qdisc {kind} {major:x}: of somebody else",
            link.name
        )),
        _ => error.into(),
    }
}
