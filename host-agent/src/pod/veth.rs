// SPDX-License-Identifier: Apache-2.0
//! Puts the shaper on a pod's veth pair, changes it, and removes it.
//! One layout for both directions, egress on the pod's own end, ingress on the
//! host's: a classful root with a filter on it, an fq leaf, and a leaf that takes
//! what is dropped. It never touches clsact or tcx, of either end: network policy
//! lives there on the host's, and sandboxes of virtual machines on the pod's.
//! Attaching adds what is not there yet, so it repairs as well; what fails
//! half-way is undone in reverse order.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use bpf::{Mode, Pins, Slot};
use nix::errno::Errno;

use crate::netlink::{self, Filter, Fq, Gso, Link, Netlink, ROOT_HANDLE, Root};
use crate::pod::direction::Direction;
use crate::pod::limit::Limit;

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
    done: Vec<(Direction, Effect)>,
}

/// A thing that was done, so that it can be undone.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Root,
    Gso { before: Gso },
}

/// What is found of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLook {
    /// What was removed.
    pub missing: Option<&'static str>,
    /// The program in our filter.
    pub program_id: Option<u32>,
    /// The slot that our filter names.
    pub slot: Option<u16>,
}

/// Qdiscs, filter, both.
const POD_PIECES: [&str; 3] =
    ["the pod's qdisc is gone", "the pod's filter is gone", "the pod's qdisc and filter are gone"];
const HOST_PIECES: [&str; 3] = [
    "the qdisc of the host's end is gone",
    "the filter of the host's end is gone",
    "the qdisc and the filter of the host's end are gone",
];
const OLD_LAYOUT: &str = "the pod's filter is where an older version put it";

/// A foreign root qdisc is where ours would go. It is never replaced.
#[derive(Debug, thiserror::Error)]
#[error("{device} already has a foreign root qdisc ({kind} {major:x}:)")]
pub struct ForeignRoot {
    device: String,
    kind: String,
    major: u16,
}

/// The pod is there, and no end on the host is its own: there is nothing to attach to.
#[derive(Debug, thiserror::Error)]
pub enum NoHostEnd {
    #[error("{pod} of the pod is not a veth or netkit: it has no other end")]
    NotAPair { pod: String },
    #[error("{pod} of the pod has no other end on the host: there is no device with index {index}")]
    Absent { pod: String, index: u32 },
    /// By chance, or because the pod has made a device that claims so.
    #[error("{host} on the host is not the other end of {pod} of the pod, so it is left alone")]
    Foreign { pod: String, host: String },
}

impl Veth {
    /// Finds the pair: the pod's end is `ifname` inside the namespace `netns`, the host's end is the one
    /// of which the kernel says, on the host, that its other end is that. What the pod's namespace
    /// says of its own devices only shows where to look: a pod may choose any index for them.
    pub fn find(netns: &Path, ifname: &str) -> Result<Self> {
        let file = open_netns(netns)?;
        let mut inside = Netlink::open_in(&file)?;
        let link = inside.link_by_name(ifname)?;
        let pod = End { netlink: inside, link };
        let mut host = End::beside(&pod.link)?;
        if !host.leads_to(&file)? {
            let (pod, host) = (pod.link.name, host.link.name);
            return Err(NoHostEnd::Foreign { pod, host }.into());
        }
        Ok(Self { pod, host, replaces_upstream: false, done: Vec::new() })
    }

    /// Names of the pod's other interfaces that lead to the host: those of further network cards, or
    /// of egress-cni for the other address family. Found among the devices of the host: how many there
    /// are in the pod is up to the pod.
    pub fn others(&mut self, on_host: &[Link]) -> Vec<String> {
        let own = &self.host.link;
        // Of the pair that was found the kernel has said that it leads into the pod.
        let same_pod = |host: &&Link| {
            host.is_pair() && host.index != own.index && host.peer_netns == own.peer_netns
        };
        let inside = on_host.iter().filter(same_pod).filter_map(|host| host.peer_index);
        let netlink = &mut self.pod.netlink;
        inside.filter_map(|index| Some(netlink.link_by_index(index).ok()?.name)).collect()
    }

    /// Shapes this direction. After a failure the caller decides what goes on and calls
    /// [`Self::undo`]. A foreign root qdisc is an error, [`ForeignRoot`].
    pub fn attach(
        &mut self,
        pins: &Pins,
        slot: Slot,
        direction: Direction,
        limit: &Limit,
    ) -> Result<Mode> {
        let length = self.sender(direction).link.tx_queue_len;
        let attached = self.put(pins, slot, direction, limit);
        let End { netlink, link } = self.sender(direction);
        if length == Some(0) {
            netlink.set_tx_queue_len(link, 0)?;
        }
        attached
    }

    fn put(
        &mut self,
        pins: &Pins,
        slot: Slot,
        direction: Direction,
        limit: &Limit,
    ) -> Result<Mode> {
        let root = self.put_root(direction)?;
        let End { netlink, link } = self.sender(direction);
        let mode = match netlink.add_leaf_fq(link, limit.for_fq(direction, link.mtu)) {
            Err(e) if is_there(&e) => Mode::Paced,
            added => mode_of(added)?,
        };
        // Before the program that sends there what it drops.
        match netlink.add_drop_class(link, &root) {
            Err(e) if !is_there(&e) => return Err(e.into()),
            _ => {}
        }
        // The table comes first, so that no packet meets the limit without it.
        pins.make_flows(slot, direction)?;
        pins.set_limit(slot, direction, limit.for_bpf(mode, direction, link.mtu))?;
        let filter = filter(pins, direction, slot);
        match netlink.add_root_filter(link, &filter) {
            Err(e) if is_there(&e) => netlink.replace_root_filter(link, &filter)?,
            added => added?,
        }
        let before = link.gso;
        if self.sender(direction).clamp(limit, before)? {
            self.done.push((direction, Effect::Gso { before }));
        }
        if direction == Direction::Egress {
            self.remove_old_filter()?;
        }
        Ok(mode)
    }

    /// Until here both charged, so there is no moment without a limit.
    fn remove_old_filter(&mut self) -> Result<(), netlink::Error> {
        let End { netlink, link } = &mut self.pod;
        match netlink.egress_filter(link)? {
            Some(_) => netlink.delete_egress_filter(link),
            None => Ok(()),
        }
    }

    /// Gives our filter this version's program.
    pub fn renew(
        &mut self,
        pins: &Pins,
        slot: Slot,
        direction: Direction,
    ) -> Result<(), netlink::Error> {
        let filter = filter(pins, direction, slot);
        let End { netlink, link } = self.sender(direction);
        netlink.replace_root_filter(link, &filter)
    }

    /// Puts the root there; gives its kind.
    fn put_root(&mut self, direction: Direction) -> Result<String> {
        let replaces = direction == Direction::Ingress && self.replaces_upstream;
        let end = self.sender(direction);
        let kind = match end.netlink.add_root_with_class(&end.link) {
            Err(e) if is_there(&e) => match end.netlink.root(&end.link)? {
                // An older version's, without a class; the packets in it are lost.
                Root { kind, major: ROOT_HANDLE, .. } if kind == "fq" => {
                    end.netlink.delete_root(&end.link)?;
                    end.netlink.add_root_with_class(&end.link)?
                }
                Root { kind, major: ROOT_HANDLE, .. } => return Ok(kind),
                root if replaces && root.is_upstreams() => {
                    end.netlink.replace_root_with_class(&end.link)?
                }
                _ => return Err(end.explain(e)),
            },
            added => added?,
        };
        self.done.push((direction, Effect::Root));
        Ok(kind.into())
    }

    /// Removes what the upstream bandwidth plugin left to limit what the pod sends: ours is in force
    /// by now, so that for a moment both are, and never none.
    pub fn clear_upstream_egress(&mut self) -> Result<bool, netlink::Error> {
        let End { netlink, link } = &mut self.host;
        let Some(ifb) = netlink.upstream_ifb(link)? else { return Ok(false) };
        netlink.delete_ingress_qdisc(link)?;
        netlink.delete_link(&ifb)?;
        Ok(true)
    }

    /// Other parameters for the fq in this direction. What waits in it is not lost: it is only ever given
    /// more room here.
    pub fn enlarge_fq(
        &mut self,
        direction: Direction,
        old: &Limit,
        new: &Limit,
    ) -> Result<(), netlink::Error> {
        let mtu = self.mtu(direction);
        let fq = new.for_fq(direction, mtu);
        let before = old.for_fq(direction, mtu);
        if fq.limit <= before.limit && fq.horizon_us <= before.horizon_us {
            return Ok(());
        }
        let fq = Fq { limit: fq.limit.max(before.limit), ..fq };
        let End { netlink, link } = self.sender(direction);
        netlink.change_leaf_fq(link, fq)
    }

    /// MTU of the end that sends in this direction.
    pub fn mtu(&mut self, direction: Direction) -> u32 {
        self.sender(direction).link.mtu
    }

    /// Clamps super-packets of a limit that is already attached; `before` is what applies without.
    pub fn clamp(
        &mut self,
        direction: Direction,
        limit: &Limit,
        before: Gso,
    ) -> Result<bool, netlink::Error> {
        self.sender(direction).clamp(limit, before)
    }

    /// The end whose device sends in this direction.
    pub fn sender(&mut self, direction: Direction) -> &mut End {
        match direction {
            Direction::Ingress => &mut self.host,
            Direction::Egress => &mut self.pod,
        }
    }

    /// What was attached is to stay, whatever fails later.
    pub fn keep(&mut self) {
        self.done.clear();
    }

    /// What of our attachment in this direction was removed, or None.
    pub fn missing(
        &mut self,
        direction: Direction,
        mode: Mode,
    ) -> Result<Option<&'static str>, netlink::Error> {
        Ok(self.look(direction, mode)?.missing)
    }

    /// How our attachment in this direction is.
    pub fn look(&mut self, direction: Direction, mode: Mode) -> Result<DeviceLook, netlink::Error> {
        let names = if direction == Direction::Ingress { HOST_PIECES } else { POD_PIECES };
        let End { netlink, link } = self.sender(direction);
        let layout = netlink.layout(link)?;
        let whole = layout.root && layout.drop && (mode == Mode::Policed || layout.leaf);
        let filter = netlink.root_filter(link)?;
        let old = direction == Direction::Egress && netlink.egress_filter(link)?.is_some();
        let missing = match (whole, filter.is_some()) {
            (_, _) if old => Some(OLD_LAYOUT),
            (true, true) => None,
            (false, true) => Some(names[0]),
            (true, false) => Some(names[1]),
            (false, false) => Some(names[2]),
        };
        let slot = filter.and_then(|filter| filter.slot);
        Ok(DeviceLook { missing, program_id: filter.and_then(|filter| filter.program_id), slot })
    }

    /// Whether the pod's end carries a qdisc or a filter with our handle.
    pub fn has_egress_of_ours(&mut self) -> Result<bool, netlink::Error> {
        let old = self.pod.netlink.egress_filter(&self.pod.link)?.is_some();
        Ok(old || self.pod.netlink.layout(&self.pod.link)?.root)
    }

    /// Undoes what was attached, last thing first; gives what could not be undone.
    pub fn undo(&mut self) -> Vec<netlink::Error> {
        let effects = std::mem::take(&mut self.done);
        let undone = effects.into_iter().rev();
        undone.filter_map(|(direction, effect)| self.sender(direction).undo(effect).err()).collect()
    }

    /// Removes everything in this direction that carries our handles, whoever added it.
    pub fn detach(&mut self, direction: Direction, before: Gso) -> Vec<netlink::Error> {
        let old =
            if direction == Direction::Egress { self.remove_old_filter().err() } else { None };
        let end = self.sender(direction);
        let effects = [Effect::Root, Effect::Gso { before }];
        let errors = effects.into_iter().filter_map(|effect| end.undo(effect).err());
        errors.chain(old).filter(|error| !error.is_not_found()).collect()
    }
}

impl End {
    pub fn in_pod(netns: &Path, ifname: &str) -> Result<Self> {
        let mut netlink = Netlink::open_in(open_netns(netns)?)?;
        let link = netlink.link_by_name(ifname)?;
        Ok(Self { netlink, link })
    }

    /// The end on the host that the pod's end names, if that names it back.
    fn beside(pod: &Link) -> Result<Self> {
        let mut netlink = Netlink::open()?;
        let link = other_end(&mut netlink, pod)?;
        Ok(Self { netlink, link })
    }

    /// Whether the other end lies in this namespace, by the kernel's word on the host.
    fn leads_to(&mut self, netns: &File) -> Result<bool, netlink::Error> {
        let there = self.link.peer_netns;
        Ok(there.is_some() && there == self.netlink.netns_id(netns)?)
    }

    /// Whether it may be the end of a pod whose namespace this was: not if that is there, and the device
    /// leads elsewhere.
    pub fn may_be_of(&mut self, netns: &Path) -> bool {
        let elsewhere = |file: File| self.leads_to(&file).is_ok_and(|leads| !leads);
        let elsewhere = File::open(netns).is_ok_and(elsewhere);
        self.link.is_pair() && !elsewhere
    }

    /// The slot that our filter on the root qdisc names, if there is one.
    pub fn root_slot(&mut self) -> Result<Option<u16>, netlink::Error> {
        Ok(self.netlink.root_filter(&self.link)?.and_then(|filter| filter.slot))
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

    fn undo(&mut self, effect: Effect) -> Result<(), netlink::Error> {
        match effect {
            Effect::Root => self.delete_root(),
            Effect::Gso { before } => self.restore(before),
        }
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
        let root = is_there(error).then(|| self.netlink.root(&self.link))?;
        let Root { kind, major } = root.ok().filter(|root| !root.is_ours())?;
        Some(ForeignRoot { device: self.link.name.clone(), kind, major })
    }
}

fn filter(pins: &Pins, direction: Direction, slot: Slot) -> Filter<'_> {
    let name = if direction == Direction::Ingress { "sluice_ingress" } else { "sluice_egress" };
    Filter { program: pins.program(direction), name, slot: slot.number() }
}

fn is_there(error: &netlink::Error) -> bool {
    error.errno() == Some(Errno::EEXIST)
}

fn open_netns(netns: &Path) -> Result<File> {
    File::open(netns).with_context(|| format!("open the network namespace {}", netns.display()))
}

/// The device that the pod's end names, if that is an end too and names it back. In which namespace
/// its own other end lies is still to be asked.
fn other_end(netlink: &mut Netlink, pod: &Link) -> Result<Link> {
    let Some(index) = pod.peer_index.filter(|_| pod.is_pair()) else {
        return Err(NoHostEnd::NotAPair { pod: pod.name.clone() }.into());
    };
    let host = match netlink.link_by_index(index) {
        Err(e) if e.is_not_found() => {
            return Err(NoHostEnd::Absent { pod: pod.name.clone(), index }.into());
        }
        found => found?,
    };
    if !host.is_pair() || host.peer_index != Some(pod.index) {
        let (pod, host) = (pod.name.clone(), host.name);
        return Err(NoHostEnd::Foreign { pod, host }.into());
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
