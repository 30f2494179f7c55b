// SPDX-License-Identifier: Apache-2.0
//! Puts the shaper on a pod's veth pair, changes it, and takes it off again.
//! Egress: fq as root and a clsact egress filter on the pod's own end. Ingress:
//! a classful root with a filter on it and an fq leaf on the host's end. It
//! never touches clsact or tcx of the host's end, where network policy lives.
//! Attaching puts there what is not there yet, so it mends as well; what fails
//! half-way is undone in reverse order.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bpf::{Direction, Mode, Pins, Slot};
use nix::errno::Errno;

use crate::limit::Limit;
use crate::netlink::{self, Filter, Fq, Gso, Link, Netlink, ROOT_HANDLE, Root, Roots};

/// One end of a veth pair, with a socket of its namespace.
pub struct End {
    pub netlink: Netlink,
    pub link: Link,
}

/// Both ends of a pod's veth pair.
pub struct Veth {
    pub pod: End,
    pub host: End,
    /// Whether the host's end may lose a root qdisc of the upstream bandwidth plugin to ours.
    pub replaces_upstream: bool,
    done: Vec<Effect>,
}

/// A thing that was done, so that it can be undone.
#[derive(Clone, Copy, Debug)]
enum Effect {
    PodRoot,
    PodGso { before: Gso },
    PodClsact,
    PodFilter,
    HostRoot,
    HostGso { before: Gso },
}

/// What is found of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// What somebody has taken off.
    pub missing: Option<&'static str>,
    /// The program in our filter.
    pub program_id: Option<u32>,
}

/// Root, filter, both.
const POD_PIECES: [&str; 3] =
    ["the pod's fq is gone", "the pod's filter is gone", "the pod's fq and filter are gone"];
const HOST_PIECES: [&str; 3] = [
    "the qdisc of the host's end is gone",
    "the filter of the host's end is gone",
    "the qdisc and the filter of the host's end are gone",
];

/// Somebody else's root qdisc is where ours would go. It is never replaced.
#[derive(Debug, thiserror::Error)]
#[error("{device} has the root qdisc {kind} {major:x}: of somebody else")]
pub struct ForeignRoot {
    device: String,
    kind: String,
    major: u16,
}

impl Veth {
    /// Finds the pair by the pod's end: `ifname` inside the namespace `netns`.
    pub fn find(netns: &Path, ifname: &str) -> Result<Self> {
        let pod = End::in_pod(netns, ifname)?;
        let mut outside = Netlink::open()?;
        let host = host_end(&mut outside, &pod.link)?;
        let host = End { netlink: outside, link: host };
        Ok(Self { pod, host, replaces_upstream: false, done: Vec::new() })
    }

    /// Names of the pod's other interfaces that lead to the host: those of further network cards, or
    /// of egress-cni for the other address family.
    pub fn others(&mut self) -> Result<Vec<String>, netlink::Error> {
        let mut links = self.pod.netlink.links()?;
        links.retain(|link| link.is_veth && link.index != self.pod.link.index);
        let mut names = Vec::new();
        for link in links {
            let host = host_end(&mut self.host.netlink, &link);
            let same_pod = |host: Link| host.peer_netns == self.host.link.peer_netns;
            if host.is_ok_and(same_pod) {
                names.push(link.name);
            }
        }
        Ok(names)
    }

    /// Shapes what the pod sends. After a failure the caller decides what goes on and calls
    /// [`Self::undo`].
    pub fn attach_egress(&mut self, pins: &Pins, slot: Slot, limit: &Limit) -> Result<Mode> {
        let mode = self.put_pod_root(limit)?;
        let way = Direction::Egress;
        set_limit(pins, slot, way, limit.for_bpf(mode, way, self.pod.link.mtu))?;
        let before = self.pod.link.gso;
        if self.pod.clamp(limit, before)? {
            self.done.push(Effect::PodGso { before });
        }
        self.add_pod_clsact()?;
        let filter = filter(pins, way, slot);
        let Self { pod, done, .. } = self;
        match pod.netlink.add_egress_filter(&pod.link, &filter) {
            Ok(()) => done.push(Effect::PodFilter),
            Err(e) if is_there(&e) => pod.netlink.replace_egress_filter(&pod.link, &filter)?,
            Err(e) => return Err(e.into()),
        }
        Ok(mode)
    }

    /// Gives our filter this version's program.
    pub fn renew(&mut self, pins: &Pins, slot: Slot, way: Direction) -> Result<(), netlink::Error> {
        let filter = filter(pins, way, slot);
        let End { netlink, link } = self.sender(way);
        match way {
            Direction::Ingress => netlink.replace_root_filter(link, &filter),
            _ => netlink.replace_egress_filter(link, &filter),
        }
    }

    fn put_pod_root(&mut self, limit: &Limit) -> Result<Mode> {
        let added = self
            .pod
            .netlink
            .add_root_fq(&self.pod.link, limit.for_fq(Direction::Egress, self.pod.link.mtu));
        match added {
            Err(e) if is_there(&e) && self.pod.has_own_root()? => Ok(Mode::Paced),
            added => {
                let mode = mode_of(added).map_err(|e| self.pod.explain(e))?;
                if mode == Mode::Paced {
                    self.done.push(Effect::PodRoot);
                }
                Ok(mode)
            }
        }
    }

    /// Shapes what the pod receives. Somebody else's root qdisc is an error here: there is no guard
    /// on this way, so nothing at all would enforce the limit.
    pub fn attach_ingress(&mut self, pins: &Pins, slot: Slot, limit: &Limit) -> Result<Mode> {
        self.put_host_root()?;
        let host = &mut self.host;
        let mode = match host
            .netlink
            .add_leaf_fq(&host.link, limit.for_fq(Direction::Ingress, host.link.mtu))
        {
            Err(e) if is_there(&e) => Mode::Paced,
            added => mode_of(added)?,
        };
        let way = Direction::Ingress;
        set_limit(pins, slot, way, limit.for_bpf(mode, way, host.link.mtu))?;
        let filter = filter(pins, way, slot);
        match host.netlink.add_root_filter(&host.link, &filter) {
            Err(e) if is_there(&e) => host.netlink.replace_root_filter(&host.link, &filter)?,
            added => added?,
        }
        let before = host.link.gso;
        if host.clamp(limit, before)? {
            self.done.push(Effect::HostGso { before });
        }
        Ok(mode)
    }

    fn put_host_root(&mut self) -> Result<()> {
        match self.host.netlink.add_root_with_class(&self.host.link) {
            Ok(()) => self.done.push(Effect::HostRoot),
            Err(e) if is_there(&e) && self.host.has_own_root()? => {}
            Err(e)
                if is_there(&e) && self.replaces_upstream && self.host.has_upstream_root()? =>
            {
                self.host.netlink.replace_root_with_class(&self.host.link)?;
                self.done.push(Effect::HostRoot);
            }
            Err(e) => return Err(self.host.explain(e)),
        }
        Ok(())
    }

    /// Takes off what the upstream bandwidth plugin left to limit what the pod sends: ours is in force
    /// by now, so that for a moment both are, and never none.
    pub fn clear_upstream_egress(&mut self) -> Result<bool, netlink::Error> {
        let End { netlink, link } = &mut self.host;
        let Some(ifb) = netlink.upstream_ifb(link)? else { return Ok(false) };
        netlink.delete_ingress_qdisc(link)?;
        netlink.delete_link(&ifb)?;
        Ok(true)
    }

    /// Other parameters for the fq on this way. What waits in it is not lost: it is only ever given
    /// more room here.
    pub fn enlarge_fq(
        &mut self,
        way: Direction,
        old: &Limit,
        new: &Limit,
    ) -> Result<(), netlink::Error> {
        let mtu = self.mtu(way);
        let fq = new.for_fq(way, mtu);
        let before = old.for_fq(way, mtu);
        if fq.limit <= before.limit && fq.horizon_us <= before.horizon_us {
            return Ok(());
        }
        let fq = Fq { limit: fq.limit.max(before.limit), ..fq };
        match way {
            Direction::Ingress => self.host.netlink.change_leaf_fq(&self.host.link, fq),
            _ => self.pod.netlink.change_root_fq(&self.pod.link, fq),
        }
    }

    /// MTU of the end that sends this way.
    pub fn mtu(&mut self, way: Direction) -> u32 {
        self.sender(way).link.mtu
    }

    /// Clamps super-packets of a limit that is already attached; `before` is what holds without.
    pub fn clamp(
        &mut self,
        way: Direction,
        limit: &Limit,
        before: Gso,
    ) -> Result<bool, netlink::Error> {
        self.sender(way).clamp(limit, before)
    }

    /// The end whose device sends on this way.
    pub fn sender(&mut self, way: Direction) -> &mut End {
        match way {
            Direction::Ingress => &mut self.host,
            Direction::Egress | Direction::Guard => &mut self.pod,
        }
    }

    /// What was attached is to stay, whatever fails later.
    pub fn keep(&mut self) {
        self.done.clear();
    }

    /// What of our attachment on this way somebody has taken off, or None.
    pub fn missing(
        &mut self,
        way: Direction,
        mode: Mode,
    ) -> Result<Option<&'static str>, netlink::Error> {
        let roots = (self.pod.netlink.roots()?, self.host.netlink.roots()?);
        Ok(self.look(way, mode, &roots.1, &roots.0)?.missing)
    }

    /// How our attachment on this way is. `host` and `pod` are the root qdiscs of either side.
    pub fn look(
        &mut self,
        way: Direction,
        mode: Mode,
        host: &Roots,
        pod: &Roots,
    ) -> Result<Look, netlink::Error> {
        let own = |roots: &Roots, link: &Link| {
            roots.get(&link.index).filter(|root| root.major == ROOT_HANDLE).cloned()
        };
        let policed = mode == Mode::Policed;
        let (root, filter, names) = match way {
            Direction::Ingress => {
                let End { netlink, link } = &mut self.host;
                let root = own(host, link).is_some_and(|root| policed || root.has_leaf);
                (root, netlink.root_filter(link)?, HOST_PIECES)
            }
            _ => {
                let End { netlink, link } = &mut self.pod;
                let root = policed || own(pod, link).is_some();
                (root, netlink.egress_filter(link)?, POD_PIECES)
            }
        };
        let missing = match (root, filter.is_some()) {
            (true, true) => None,
            (false, true) => Some(names[0]),
            (true, false) => Some(names[1]),
            (false, false) => Some(names[2]),
        };
        Ok(Look { missing, program_id: filter.and_then(|filter| filter.program_id) })
    }

    /// Whether the pod's end carries a filter with our handle.
    pub fn has_egress_of_ours(&mut self) -> Result<bool, netlink::Error> {
        Ok(self.pod.netlink.egress_filter(&self.pod.link)?.is_some())
    }

    /// Undoes what was attached, last thing first; gives what could not be undone.
    pub fn undo(&mut self) -> Vec<netlink::Error> {
        let effects = std::mem::take(&mut self.done);
        effects.into_iter().rev().filter_map(|effect| self.undo_one(effect).err()).collect()
    }

    /// Takes off everything on this way that carries our handles, whoever put it on. The pod's clsact
    /// stays: it goes with the pod, and somebody else's filter may use it by now.
    pub fn detach(&mut self, way: Direction, before: Gso) -> Vec<netlink::Error> {
        let effects = match way {
            Direction::Ingress => vec![Effect::HostRoot, Effect::HostGso { before }],
            _ => vec![Effect::PodFilter, Effect::PodRoot, Effect::PodGso { before }],
        };
        let errors = effects.into_iter().filter_map(|effect| self.undo_one(effect).err());
        errors.filter(|error| !error.is_not_found()).collect()
    }

    fn undo_one(&mut self, effect: Effect) -> Result<(), netlink::Error> {
        let Self { pod, host, .. } = self;
        match effect {
            Effect::PodRoot => pod.netlink.delete_root(&pod.link),
            Effect::PodGso { before } => pod.restore(before),
            Effect::PodClsact => pod.netlink.delete_clsact(&pod.link),
            Effect::PodFilter => pod.netlink.delete_egress_filter(&pod.link),
            Effect::HostRoot => host.netlink.delete_root(&host.link),
            Effect::HostGso { before } => host.restore(before),
        }
    }

    fn add_pod_clsact(&mut self) -> Result<(), netlink::Error> {
        match self.pod.netlink.add_clsact(&self.pod.link) {
            Ok(()) => self.done.push(Effect::PodClsact),
            Err(e) if is_there(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

impl End {
    pub fn in_pod(netns: &Path, ifname: &str) -> Result<Self> {
        let file = File::open(netns)
            .with_context(|| format!("open the network namespace {}", netns.display()))?;
        let mut netlink = Netlink::open_in(&file)?;
        let link = netlink.link_by_name(ifname)?;
        Ok(Self { netlink, link })
    }

    /// The end on the host, by what a record says. None if that index has gone, or has gone to a
    /// device of another name.
    pub fn on_host(index: u32, name: &str) -> Result<Option<Self>, netlink::Error> {
        let mut netlink = Netlink::open()?;
        match netlink.link_by_index(index) {
            Ok(link) if link.name == name => Ok(Some(Self { netlink, link })),
            Ok(_) => Ok(None),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn delete_root(&mut self) -> Result<(), netlink::Error> {
        self.netlink.delete_root(&self.link)
    }

    pub fn restore(&mut self, before: Gso) -> Result<(), netlink::Error> {
        if self.link.gso != before {
            self.netlink.set_gso(&self.link, before)?;
            self.link.gso = before;
        }
        Ok(())
    }

    fn has_own_root(&mut self) -> Result<bool, netlink::Error> {
        Ok(self.root()?.is_some_and(|root| root.major == ROOT_HANDLE))
    }

    /// The upstream plugin's is `tbf 1:` (plugins/meta/bandwidth, CreateTBF).
    fn has_upstream_root(&mut self) -> Result<bool, netlink::Error> {
        Ok(self.root()?.is_some_and(|root| root.kind == "tbf" && root.major == 1))
    }

    fn root(&mut self) -> Result<Option<Root>, netlink::Error> {
        Ok(self.netlink.roots()?.remove(&self.link.index))
    }

    /// Whether the device now has something else than `before`.
    fn clamp(&mut self, limit: &Limit, before: Gso) -> Result<bool, netlink::Error> {
        self.restore(before.clamped(limit.gso_max_size(self.link.mtu)))?;
        Ok(self.link.gso != before)
    }

    /// Names the qdisc that is in the way, which the kernel's EEXIST does not.
    fn explain(&mut self, error: netlink::Error) -> anyhow::Error {
        match self.foreign_root(&error) {
            Some(foreign) => anyhow::Error::from(error).context(foreign),
            None => error.into(),
        }
    }

    fn foreign_root(&mut self, error: &netlink::Error) -> Option<ForeignRoot> {
        let root = if is_there(error) { self.root().ok()? } else { None };
        let Root { kind, major, .. } = root.filter(|root| root.major != ROOT_HANDLE)?;
        Some(ForeignRoot { device: self.link.name.clone(), kind, major })
    }
}

/// The limit, and a table of flows to share it out; the table comes first, so that no packet meets
/// the limit without it.
fn set_limit(pins: &Pins, slot: Slot, way: Direction, limit: bpf::Limit) -> bpf::Result<()> {
    pins.make_flows(slot, way)?;
    pins.set_limit(slot, way, limit)
}

fn filter(pins: &Pins, way: Direction, slot: Slot) -> Filter<'_> {
    let name = if way == Direction::Ingress { "sluice_ingress" } else { "sluice_egress" };
    Filter { program: pins.program(way), name, slot: slot.number() }
}

fn is_there(error: &netlink::Error) -> bool {
    error.errno() == Some(Errno::EEXIST)
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
