// SPDX-License-Identifier: Apache-2.0
//! The pinned programs and maps, opened by path. This is all that the CNI
//! plugin needs of BPF, and it works while no agent runs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};

use crate::contract::{ABI, Counters, Delays, Direction, Limit, PodEnd, Share, Slot};
use crate::lines::Lines;
use crate::node::{self, Routes};
use crate::{Error, Result, flows, program, tcx};

/// Directory of the guard's links, below that of the pins; a link is called after its device's index.
const LINKS: &str = "links";
/// The same for the ingress guard; a link is called after the pod's end.
const POD_LINKS: &str = "pod_links";
/// The ingress guard for tcx, where the kernel can load it.
pub(crate) const POD_GUARD: &str = "ingress_guard_tcx";

/// Directory of the pins below a BPF file system, e.g. `/sys/fs/bpf` → `/sys/fs/bpf/sluice/v2`.
pub fn pin_dir(bpffs: &Path) -> PathBuf {
    bpffs.join(format!("sluice/v{ABI}"))
}

/// Open handles to everything that is pinned.
pub struct Pins {
    dir: PathBuf,
    lines: Lines,
    counters: MapHandle,
    flows: MapHandle,
    guards: MapHandle,
    shape_egress: OwnedFd,
    shape_ingress: OwnedFd,
    guard: OwnedFd,
    pod_ends: MapHandle,
    unshaped: MapHandle,
    routes: MapHandle,
    uplinks: MapHandle,
    ingress_guard: OwnedFd,
    ingress_guard_tcx: Option<OwnedFd>,
    /// Of the next load, which keeps what it holds.
    proof: MapHandle,
}

impl Pins {
    /// Opens all pins of `dir`; [`Error::is_not_pinned`] tells a node where no agent has run yet.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            lines: Lines::open(&dir.join("lines"))?,
            counters: open_map(&dir.join("counters"))?,
            flows: open_map(&dir.join("flows"))?,
            guards: open_map(&dir.join("guards"))?,
            shape_egress: program::open(&dir.join("shape_egress"))?,
            shape_ingress: program::open(&dir.join("shape_ingress"))?,
            guard: program::open(&dir.join("guard"))?,
            pod_ends: open_map(&dir.join("pod_ends"))?,
            unshaped: open_map(&dir.join("unshaped"))?,
            routes: open_map(&dir.join("routes"))?,
            uplinks: open_map(&dir.join("uplinks"))?,
            ingress_guard: program::open(&dir.join("ingress_guard"))?,
            ingress_guard_tcx: match program::open(&dir.join(POD_GUARD)) {
                Err(e) if e.is_not_pinned() => None,
                opened => Some(opened?),
            },
            proof: open_map(&dir.join("proof"))?,
        })
    }

    /// Pins again what someone has unpinned; says whether anything was missing. What is attached and
    /// what the maps hold was never gone: these handles keep it.
    pub fn put_back(&self) -> Result<bool> {
        let maps = [
            ("lines", self.lines.map()),
            ("counters", &self.counters),
            ("flows", &self.flows),
            ("guards", &self.guards),
            ("pod_ends", &self.pod_ends),
            ("unshaped", &self.unshaped),
            ("routes", &self.routes),
            ("uplinks", &self.uplinks),
            ("proof", &self.proof),
        ];
        // The programs last: who finds them finds the rest.
        let tcx = self.ingress_guard_tcx.as_ref().map(|program| (POD_GUARD, program));
        let programs = [
            ("ingress_guard", &self.ingress_guard),
            ("guard", &self.guard),
            ("shape_egress", &self.shape_egress),
            ("shape_ingress", &self.shape_ingress),
        ];
        let maps = maps.map(|(name, map)| (name, map.as_fd()));
        let programs = tcx.into_iter().chain(programs).map(|(name, fd)| (name, fd.as_fd()));
        let all = maps.into_iter().chain(programs);
        let missing: Vec<_> = all.filter(|(name, _)| !self.dir.join(name).exists()).collect();
        for (name, fd) in &missing {
            let path = self.dir.join(name);
            tcx::pin(*fd, &path).map_err(|source| Error::PutBack { path, source })?;
        }
        Ok(!missing.is_empty())
    }

    /// The program that shapes this direction.
    pub fn program(&self, direction: Direction) -> BorrowedFd<'_> {
        match direction {
            Direction::Egress => self.shape_egress.as_fd(),
            Direction::Ingress => self.shape_ingress.as_fd(),
        }
    }

    /// The kernel's number of that program: what is attached with another one is out of date.
    pub fn program_id(&self, direction: Direction) -> Result<u32> {
        program::id(self.program(direction))
    }

    /// The guard of the host's end as a filter, and the kernel's number of it.
    pub fn guard(&self) -> Result<(BorrowedFd<'_>, u32)> {
        let program = self.guard.as_fd();
        Ok((program, program::id(program)?))
    }

    /// The ingress guard as a filter, and the kernel's number of it.
    pub fn ingress_guard(&self) -> Result<(BorrowedFd<'_>, u32)> {
        let program = self.ingress_guard.as_fd();
        Ok((program, program::id(program)?))
    }

    /// Puts a limit in force at once; clock and counters stay as they are.
    pub fn set_limit(&self, slot: Slot, direction: Direction, limit: Limit) -> Result<()> {
        self.lines.set_limit(slot, direction, limit)
    }

    /// The same for what all pods share: the node's own line in this direction.
    pub fn set_node_limit(&self, direction: Direction, limit: Limit) -> Result<()> {
        self.lines.set_limit(Slot::NODE, direction, limit)
    }

    /// What the node can do in this direction, where pods share it.
    pub fn node_limit(&self, direction: Direction) -> Result<Limit> {
        self.lines.limit(Slot::NODE, direction)
    }

    /// What this pod has used of the node's line, and waited for it.
    pub fn share(&self, slot: Slot, direction: Direction) -> Result<Share> {
        self.lines.share(slot, direction)
    }

    /// How the node's own line is.
    pub fn node_line(&self, direction: Direction) -> Result<Share> {
        self.lines.share(Slot::NODE, direction)
    }

    /// What uses the node's line: what comes from one of these devices, and what the routes say leaves
    /// the node.
    pub fn set_node_paths(&self, uplinks: &BTreeSet<u32>, routes: &Routes) -> Result<()> {
        let set = node::set_routes(&self.routes, routes)
            .and_then(|()| node::set_uplinks(&self.uplinks, uplinks));
        self.lines.forget_paths().and(set)
    }

    /// Gives the entry a table of flows unless it has one; without it nothing passes. Waits until no
    /// program can use what was there before, 15 ms and more.
    pub fn make_flows(&self, slot: Slot, direction: Direction) -> Result<()> {
        flows::make(&self.flows, [(slot, direction)])
    }

    /// The same for both directions of many slots, waiting only once (6.1 waits for each table).
    pub fn make_flows_for(&self, slots: &[Slot]) -> Result<()> {
        flows::make(&self.flows, flows::entries(slots.iter().copied()))
    }

    /// Puts the guard at the head of tcx of the host's end, as this slot's. A guard that is there
    /// already keeps its place and gets this directory's program. False where the kernel has no tcx:
    /// then the guard knows the slot all the same, and can be a filter.
    pub fn attach_guard(&self, ifindex: u32, slot: Slot) -> Result<bool> {
        let value = u32::from(slot.number()).to_ne_bytes();
        self.guards
            .update(&ifindex.to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(|source| Error::GuardSlot { ifindex, source })?;
        self.lines.set_guard_end(slot, Direction::Egress, PodEnd { netns: 0, ifindex })?;
        tcx::attach_ingress(self.guard.as_fd(), ifindex, &self.guard_pin(ifindex))
    }

    /// Takes the link off, dead or alive, and forgets the host's end, unless that has been given to
    /// another slot since.
    pub fn detach_guard(&self, ifindex: u32, slot: Slot) -> Result<()> {
        match self.guarded_slot(ifindex)? {
            Some(holder) if holder != u32::from(slot.number()) => Ok(()),
            _ => self.detach_link(ifindex),
        }
    }

    /// Takes the link off, dead or alive, and forgets the host's end, whoever's that was.
    pub fn detach_link(&self, ifindex: u32) -> Result<()> {
        tcx::remove_pin(&self.guard_pin(ifindex))?;
        match self.guards.delete(&ifindex.to_ne_bytes()) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(Error::GuardSlot { ifindex, source })
            }
            _ => Ok(()),
        }
    }

    /// Whether a guard is linked to the device; one of another version gets this one's program.
    pub fn renew_guard(&self, ifindex: u32) -> Result<bool> {
        tcx::renew_ingress(self.guard.as_fd(), ifindex, &self.guard_pin(ifindex))
    }

    /// Whether the ingress guard can be a tcx link here.
    pub fn ingress_guard_is_link(&self) -> bool {
        self.ingress_guard_tcx.is_some() && self.has_tcx()
    }

    /// Puts the ingress guard at the head of tcx of the pod's end, as this slot's; the caller is in the
    /// pod's network namespace. False where the kernel has no tcx, or cannot load the program for it.
    pub fn attach_ingress_guard(&self, end: PodEnd, slot: Slot) -> Result<bool> {
        let Some(program) = &self.ingress_guard_tcx else { return Ok(false) };
        let value = u32::from(slot.number()).to_ne_bytes();
        self.pod_ends
            .update(&end.key(), &value, MapFlags::ANY)
            .map_err(|source| Error::PodEnd { end, source })?;
        self.lines.set_guard_end(slot, Direction::Ingress, end)?;
        tcx::attach_ingress(program.as_fd(), end.ifindex, &self.pod_link(end))
    }

    /// Whether an ingress guard is linked there; one of another version gets this one's program.
    pub fn renew_ingress_guard(&self, end: PodEnd) -> Result<bool> {
        let Some(program) = &self.ingress_guard_tcx else { return Ok(false) };
        tcx::renew_ingress(program.as_fd(), end.ifindex, &self.pod_link(end))
    }

    /// Takes the link off, dead or alive, unless the end has been given to another slot since.
    pub fn detach_ingress_guard(&self, end: PodEnd, slot: Slot) -> Result<()> {
        let error = |source| Error::PodEnd { end, source };
        let held = self.pod_ends.lookup(&end.key(), MapFlags::ANY).map_err(error)?;
        match held {
            Some(value) if value != u32::from(slot.number()).to_ne_bytes() => Ok(()),
            _ => self.detach_pod_link(end),
        }
    }

    /// The same, whoever's that was.
    pub fn detach_pod_link(&self, end: PodEnd) -> Result<()> {
        tcx::remove_pin(&self.pod_link(end))?;
        match self.pod_ends.delete(&end.key()) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(Error::PodEnd { end, source })
            }
            _ => Ok(()),
        }
    }

    /// All pods' ends that have a pinned link, dead or alive.
    pub fn ingress_guard_links(&self) -> Result<Vec<PodEnd>> {
        let end = |name: &str| {
            let (netns, ifindex) = name.split_once('-')?;
            Some(PodEnd { netns: netns.parse().ok()?, ifindex: ifindex.parse().ok()? })
        };
        self.names_of(POD_LINKS).map(|names| names.iter().filter_map(|name| end(name)).collect())
    }

    /// What came to this direction's guard without having passed the shaper, since the slot was last
    /// cleared.
    pub fn unshaped(&self, slot: Slot, direction: Direction) -> Result<Counters> {
        read_counters(&self.unshaped, "unshaped", slot, direction)
    }

    /// Bytes that this direction's guard has seen of what the shaper let pass.
    pub fn passed_bytes(&self, slot: Slot, direction: Direction) -> Result<u64> {
        self.lines.passed_bytes(slot, direction)
    }

    fn pod_link(&self, end: PodEnd) -> PathBuf {
        self.dir.join(POD_LINKS).join(format!("{}-{}", end.netns, end.ifindex))
    }

    /// Indexes of all devices that have a pinned link, dead or alive.
    pub fn guard_links(&self) -> Result<Vec<u32>> {
        let names = self.names_of(LINKS)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn names_of(&self, links: &str) -> Result<Vec<String>> {
        let path = self.dir.join(links);
        let error = |source| Error::List { path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(error(source)),
        };
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        let names: Vec<_> = names.collect::<io::Result<_>>().map_err(error)?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// Whether the guard can be on tcx in this kernel, found by trying.
    pub fn has_tcx(&self) -> bool {
        tcx::is_supported(self.guard.as_fd())
    }

    fn guarded_slot(&self, ifindex: u32) -> Result<Option<u32>> {
        let held = self.guards.lookup(&ifindex.to_ne_bytes(), MapFlags::ANY);
        let held = held.map_err(|source| Error::GuardSlot { ifindex, source })?;
        Ok(held.and_then(|value| value.try_into().ok()).map(u32::from_ne_bytes))
    }

    fn guard_pin(&self, ifindex: u32) -> PathBuf {
        self.dir.join(LINKS).join(ifindex.to_string())
    }

    /// The limit in force.
    pub fn limit(&self, slot: Slot, direction: Direction) -> Result<Limit> {
        self.lines.limit(slot, direction)
    }

    /// Sum over all CPUs since the slot was last cleared.
    pub fn counters(&self, slot: Slot, direction: Direction) -> Result<Counters> {
        read_counters(&self.counters, "counters", slot, direction)
    }

    /// How long sent packets were held back since the slot was last cleared; a direction that is policed
    /// holds nothing back.
    pub fn delays(&self, slot: Slot, direction: Direction) -> Result<Delays> {
        self.lines.delays(slot, direction)
    }

    /// Makes the slot as new: no limit, clock and counters at zero, in both directions. Links of the
    /// guard go by [`Self::detach_guard`]. A table of flows is emptied when it is used again.
    pub fn clear(&self, slot: Slot) -> Result<()> {
        for direction in Direction::BOTH {
            self.lines.clear(slot, direction)?;
            clear_counters(&self.counters, "counters", slot, direction)?;
            clear_counters(&self.unshaped, "unshaped", slot, direction)?;
        }
        Ok(())
    }
}

fn read_counters(
    map: &MapHandle,
    name: &'static str,
    slot: Slot,
    direction: Direction,
) -> Result<Counters> {
    let layout = Error::Layout { map: name, slot: slot.number() };
    let copies = map
        .lookup_percpu(&slot.key(direction), MapFlags::ANY)
        .map_err(|source| Error::ReadMap { map: name, slot: slot.number(), source })?;
    copies.as_deref().and_then(Counters::sum).ok_or(layout)
}

fn clear_counters(
    map: &MapHandle,
    name: &'static str,
    slot: Slot,
    direction: Direction,
) -> Result<()> {
    let error = |source| Error::WriteMap { map: name, slot: slot.number(), source };
    let cpus = libbpf_rs::num_possible_cpus().map_err(error)?;
    let zero = vec![vec![0; map.value_size() as usize]; cpus];
    map.update_percpu(&slot.key(direction), &zero, MapFlags::ANY).map_err(error)
}

pub(crate) fn open_map(path: &Path) -> Result<MapHandle> {
    MapHandle::from_pinned_path(path)
        .map_err(|source| Error::OpenPin { path: path.to_owned(), source })
}
