// SPDX-License-Identifier: Apache-2.0
//! The hooks of a device and what sits on them, in the order in which they run,
//! and what a verdict there means for those behind: on tcx everything but NEXT
//! ends the chain, clsact's included; on clsact everything but UNSPEC.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bpf::survey::{self, Loaded, Pin, Pinned, Side as BpfSide};
use serde::Serialize;

use super::owner::{self, Marks, Owner};
use super::verdict::{self, Returns};
use crate::netlink::Link;
use crate::netlink::survey::{CLSACT_EGRESS, CLSACT_INGRESS, ListedFilter, Lists, Qdisc};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Ingress,
    Egress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    Tcx,
    Clsact,
    /// Filters of the root qdisc, behind both; egress only.
    Root,
}

/// Where a packet is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    pub side: Side,
    pub layer: Layer,
    pub entries: Vec<HookEntry>,
}

/// One program or filter on a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HookEntry {
    pub owner: Owner,
    /// The filter's or else the program's.
    pub name: String,
    /// None on tcx.
    pub filter: Option<ListedFilter>,
    pub program: Option<u32>,
    pub tag: Option<String>,
    pub link: Option<u32>,
    pub returns: Returns,
    /// Whether [`Self::returns`] is what the owner's sources say, for the instructions do not show it.
    pub documented: bool,
}

/// A device with all that hangs on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Surveyed {
    #[serde(flatten)]
    pub device: Link,
    pub qdiscs: Vec<Qdisc>,
    pub hooks: Vec<Hook>,
    /// Whether a hook has more filters than were read.
    pub more_filters: bool,
}

/// What one network namespace has.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Namespace {
    pub devices: Vec<Surveyed>,
    /// None where there was no device to ask for.
    pub has_tcx: Option<bool>,
}

/// Programs by number, read once each, and where each is pinned.
#[derive(Debug, Default)]
pub struct Programs {
    bpffs: PathBuf,
    pub pins: Vec<Pin>,
    pinned: BTreeMap<u32, Vec<PathBuf>>,
    loaded: BTreeMap<u32, Option<(Loaded, Returns)>>,
    /// Devices that limits of others are on, by whose they are.
    ifbs: BTreeMap<u32, Owner>,
}

impl Programs {
    pub fn new(bpffs: &Path, pins: Vec<Pin>) -> Self {
        let mut pinned: BTreeMap<u32, Vec<PathBuf>> = BTreeMap::new();
        for pin in &pins {
            let program = match pin.holds {
                Pinned::Program { id } => Some(id),
                Pinned::Link { program, .. } => program,
                Pinned::Map => None,
            };
            if let Some(program) = program {
                pinned.entry(program).or_default().push(pin.path.clone());
            }
        }
        Self { bpffs: bpffs.to_owned(), pins, pinned, ..Self::default() }
    }

    /// None if it has gone.
    pub fn get(&mut self, id: u32) -> Option<(&Loaded, &Returns)> {
        let read = || {
            let loaded = survey::program(id).ok()?;
            let returns = verdict::returns(&loaded.instructions);
            Some((loaded, returns))
        };
        let found = self.loaded.entry(id).or_insert_with(read).as_ref()?;
        Some((&found.0, &found.1))
    }

    /// The programs that are pinned right below this directory.
    pub fn below(&mut self, dir: &Path) -> Vec<Loaded> {
        let ids = self.pins.iter().filter(|pin| pin.path.parent() == Some(dir));
        let ids = ids.filter_map(|pin| match pin.holds {
            Pinned::Program { id } => Some(id),
            _ => None,
        });
        let ids: Vec<u32> = ids.collect();
        ids.into_iter().filter_map(|id| self.get(id).map(|(loaded, _)| loaded.clone())).collect()
    }

    fn entry(
        &mut self,
        program: Option<u32>,
        link: Option<u32>,
        filter: Option<ListedFilter>,
    ) -> HookEntry {
        let bpffs = self.bpffs.clone();
        let pins = program.and_then(|id| self.pinned.get(&id)).cloned().unwrap_or_default();
        let redirects_to = filter.as_ref().and_then(|filter| filter.redirects_to);
        let ifb = redirects_to.and_then(|to| self.ifbs.get(&to)).copied();
        let known = program.and_then(|id| self.get(id));
        let name = known.map_or("", |(loaded, _)| loaded.name.as_str());
        let (handle, priority) = filter.as_ref().map_or((0, 0), |f| (f.handle, f.priority));
        let filter_name = filter.as_ref().and_then(|f| f.name.as_deref()).unwrap_or("");
        let marks = Marks { program: name, filter: filter_name, handle, priority, pins: &pins };
        let owner = ifb.unwrap_or_else(|| owner::owner(&marks, &bpffs));
        // Without direct action the verdict is that of a class and its actions.
        let decides = filter.as_ref().is_none_or(|filter| filter.direct_action);
        let scanned = known.filter(|_| decides).map(|(_, returns)| returns.clone());
        let scanned = scanned.unwrap_or_default();
        let documented = owner::documented(owner).filter(|_| !scanned.complete);
        HookEntry {
            owner,
            name: if filter_name.is_empty() { name.into() } else { filter_name.into() },
            program,
            tag: known.map(|(loaded, _)| hex(&loaded.tag)),
            link: link.filter(|link| *link != 0),
            documented: documented.is_some(),
            returns: documented.unwrap_or(scanned),
            filter,
        }
    }
}

/// As bpftool prints a tag.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Namespace {
    /// Looks at the caller's namespace, which is the host's: it lists all that there is.
    pub fn look(programs: &mut Programs) -> Result<Self> {
        let mut netlink = Lists::open()?;
        let (devices, qdiscs) = (netlink.devices()?, netlink.qdiscs()?);
        let ifbs = devices.iter().filter_map(|ifb| Some((ifb.index, owner::of_ifb(ifb)?)));
        programs.ifbs = ifbs.collect();
        let mut found = Self::default();
        for device in devices {
            let own = qdiscs.iter().filter(|q| q.device == device.index).cloned().collect();
            let mut surveyed = Surveyed { device, qdiscs: own, ..Surveyed::default() };
            let has_tcx = surveyed.look(&mut netlink, programs);
            found.has_tcx = found.has_tcx.or(has_tcx);
            found.devices.push(surveyed);
        }
        Ok(found)
    }

    pub fn by_index(&self, index: u32) -> Option<&Surveyed> {
        self.devices.iter().find(|found| found.device.index == index)
    }
}

impl Surveyed {
    /// Looks at one device of the caller's namespace, which is a pod's.
    pub fn in_pod(programs: &mut Programs, ifname: &str) -> Result<Option<Self>> {
        let mut netlink = Lists::open()?;
        let Some(device) = netlink.device(ifname)? else { return Ok(None) };
        programs.ifbs = BTreeMap::new();
        let qdiscs = netlink.qdiscs_of(device.index)?;
        let mut surveyed = Self { device, qdiscs, ..Self::default() };
        surveyed.look(&mut netlink, programs);
        Ok(Some(surveyed))
    }

    pub fn root(&self) -> Option<&Qdisc> {
        self.qdiscs.iter().find(|qdisc| qdisc.is_root())
    }

    pub fn has_qdisc(&self, kind: &str) -> bool {
        self.qdiscs.iter().any(|qdisc| qdisc.kind == kind)
    }

    pub fn hook(&self, side: Side, layer: Layer) -> &[HookEntry] {
        let found = self.hooks.iter().find(|hook| hook.side == side && hook.layer == layer);
        found.map_or(&[], |hook| &hook.entries)
    }

    /// All that runs on this side before the root qdisc, in order.
    pub fn chain(&self, side: Side) -> impl Iterator<Item = (Layer, &HookEntry)> {
        [Layer::Tcx, Layer::Clsact]
            .into_iter()
            .flat_map(move |layer| self.hook(side, layer).iter().map(move |entry| (layer, entry)))
    }

    /// The two ends of a pod's pair know each other across namespaces.
    pub fn is_pod_end(&self) -> bool {
        self.device.is_pair() && self.device.peer_netns.is_some()
    }

    /// Fills the hooks in; gives whether the kernel has tcx. A device that goes meanwhile has none.
    fn look(&mut self, netlink: &mut Lists, programs: &mut Programs) -> Option<bool> {
        let index = self.device.index;
        let mut has_tcx = None;
        for (side, bpf_side) in [(Side::Ingress, BpfSide::Ingress), (Side::Egress, BpfSide::Egress)]
        {
            let Ok(found) = survey::tcx(index, bpf_side) else { continue };
            has_tcx = Some(found.is_some());
            let entries = found.unwrap_or_default().into_iter();
            let entries = entries.map(|on| programs.entry(Some(on.program), Some(on.link), None));
            self.add(side, Layer::Tcx, entries.collect());
        }
        let sides = match () {
            () if self.has_qdisc("clsact") => {
                vec![(Side::Ingress, CLSACT_INGRESS), (Side::Egress, CLSACT_EGRESS)]
            }
            () if self.has_qdisc("ingress") => vec![(Side::Ingress, CLSACT_INGRESS)],
            () => Vec::new(),
        };
        for (side, parent) in sides {
            self.add_filters(netlink, programs, side, Layer::Clsact, parent);
        }
        if let Some(root) = self.root().map(|root| root.handle).filter(|handle| *handle != 0) {
            self.add_filters(netlink, programs, Side::Egress, Layer::Root, root);
        }
        has_tcx
    }

    fn add_filters(
        &mut self,
        netlink: &mut Lists,
        programs: &mut Programs,
        side: Side,
        layer: Layer,
        parent: u32,
    ) {
        let (filters, more) = netlink.filters(self.device.index, parent).unwrap_or_default();
        self.more_filters |= more;
        let entries = filters.into_iter().map(|f| programs.entry(f.program, None, Some(f)));
        self.add(side, layer, entries.collect());
    }

    fn add(&mut self, side: Side, layer: Layer, entries: Vec<HookEntry>) {
        if !entries.is_empty() {
            self.hooks.push(Hook { side, layer, entries });
        }
    }
}

/// Verdicts of include/uapi/linux/pkt_cls.h.
const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_STOLEN: i32 = 4;
const TC_ACT_REDIRECT: i32 = 7;
const TC_ACT_TRAP: i32 = 8;

/// What an entry does to those behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ends {
    /// It never lets a packet through that those behind would have stopped.
    Never,
    /// No one can say.
    Unknown,
    /// It can, and then nothing behind it sees the packet.
    CanPass,
}

impl HookEntry {
    pub fn handle(&self) -> u32 {
        self.filter.as_ref().map_or(0, |filter| filter.handle)
    }

    pub fn is_policy(&self) -> bool {
        self.owner == Owner::AwsNetworkPolicy
    }

    /// Whether it may send a packet elsewhere: by its verdict, which may be a helper's.
    pub fn may_redirect(&self) -> bool {
        let returns = &self.returns;
        let decides = self.filter.as_ref().is_none_or(|filter| filter.direct_action);
        self.program.is_some()
            && decides
            && (returns.values.contains(&TC_ACT_REDIRECT) || !returns.complete)
    }

    /// Whether what runs behind it can miss a packet that goes on.
    pub fn ends(&self, layer: Layer) -> Ends {
        let passes = |value: &&i32| is_end(**value, layer) && **value != TC_ACT_SHOT;
        match self.returns.values.iter().find(passes) {
            Some(_) => Ends::CanPass,
            None if self.returns.complete => Ends::Never,
            None => Ends::Unknown,
        }
    }

    /// `OK/SHOT`, `unknown`, `SHOT/unknown (tail calls)`.
    pub fn verdicts(&self, layer: Layer) -> String {
        let mut words: Vec<String> =
            self.returns.values.iter().map(|value| word(*value, layer)).collect();
        words.dedup();
        if !self.returns.complete {
            words.push("unknown".into());
        }
        let text = words.join("/");
        match (self.returns.tail_calls, self.documented) {
            (true, _) => text + " (goes on in other programs)",
            (false, true) => text + " (by its sources)",
            (false, false) => text,
        }
    }

    /// The effect on those behind, in words.
    pub fn effect(&self, layer: Layer) -> &'static str {
        let redirects = self.returns.values.contains(&TC_ACT_REDIRECT);
        match (self.ends(layer), layer) {
            (Ends::Never, _) if self.returns.values == [TC_ACT_SHOT].into() => "drops everything",
            (Ends::Never, _) => "goes on or drops",
            (Ends::Unknown, _) => "what it returns could not be found out",
            (Ends::CanPass, _) if redirects => "can send packets elsewhere, past all behind it",
            (Ends::CanPass, Layer::Tcx) => {
                "can end the chain: nothing behind it runs then, clsact included"
            }
            (Ends::CanPass, _) => "can end the chain: nothing behind it runs then",
        }
    }

    /// For messages: `foo (program 7, owner unknown)`.
    pub fn label(&self) -> String {
        let name = match (self.name.as_str(), &self.filter) {
            ("", Some(filter)) => filter.kind.as_str(),
            ("", None) => "a program without a name",
            (name, _) => name,
        };
        match self.program {
            Some(program) => format!("{name} (program {program}, {})", self.owner),
            None => format!("{name} ({})", self.owner),
        }
    }
}

/// Codes that the layer does not know go on like UNSPEC (net/core/dev.c, tcx_action_code;
/// net/sched/cls_bpf.c, cls_bpf_exec_opcode).
fn is_end(value: i32, layer: Layer) -> bool {
    match layer {
        Layer::Tcx => matches!(value, TC_ACT_OK | TC_ACT_SHOT | TC_ACT_REDIRECT),
        Layer::Clsact | Layer::Root => {
            matches!(value, TC_ACT_OK | TC_ACT_SHOT | TC_ACT_STOLEN | TC_ACT_REDIRECT | TC_ACT_TRAP)
        }
    }
}

fn word(value: i32, layer: Layer) -> String {
    match (value, layer) {
        (TC_ACT_OK, Layer::Tcx) => "PASS".into(),
        (TC_ACT_OK, _) => "OK".into(),
        (TC_ACT_SHOT, Layer::Tcx) => "DROP".into(),
        (TC_ACT_SHOT, _) => "SHOT".into(),
        (TC_ACT_STOLEN, Layer::Clsact | Layer::Root) => "STOLEN".into(),
        (TC_ACT_TRAP, Layer::Clsact | Layer::Root) => "TRAP".into(),
        (TC_ACT_REDIRECT, _) => "REDIRECT".into(),
        (_, Layer::Tcx) => "NEXT".into(),
        (_, _) => "UNSPEC".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(values: &[i32], complete: bool) -> HookEntry {
        let returns = Returns { complete, ..Returns::exactly(values) };
        HookEntry { returns, ..HookEntry::default() }
    }

    #[test]
    fn what_ends_a_chain_is_known_for_each_layer() {
        assert_eq!(entry(&[-1, 2], true).ends(Layer::Tcx), Ends::Never);
        assert_eq!(entry(&[0], true).ends(Layer::Tcx), Ends::CanPass);
        assert_eq!(entry(&[4], true).ends(Layer::Tcx), Ends::Never);
        assert_eq!(entry(&[4], true).ends(Layer::Clsact), Ends::CanPass);
        assert_eq!(entry(&[2], false).ends(Layer::Clsact), Ends::Unknown);
        assert_eq!(entry(&[0, 2], false).ends(Layer::Clsact), Ends::CanPass);
    }

    #[test]
    fn verdicts_are_told_by_the_names_of_their_layer() {
        assert_eq!(entry(&[-1, 0, 2], true).verdicts(Layer::Tcx), "NEXT/PASS/DROP");
        assert_eq!(entry(&[-1, 0, 2], true).verdicts(Layer::Clsact), "UNSPEC/OK/SHOT");
        assert_eq!(entry(&[2], false).verdicts(Layer::Clsact), "SHOT/unknown");
        assert_eq!(entry(&[], false).verdicts(Layer::Clsact), "unknown");
    }
}
