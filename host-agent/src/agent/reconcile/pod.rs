// SPDX-License-Identifier: Apache-2.0
//! One pod interface, brought to what it should be: limits by the settings in
//! force, and everything in its place that our record says was put there. It
//! runs while no verb of the pod does, so a half-done ADD that it meets is a dead one.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use bpf::Pins;
use settings_model::Bandwidth;

use crate::host::netns::{is_netns, process_lives};
use crate::netlink::Link;
use crate::pod::direction::Direction;
use crate::pod::floors::NodeFloors;
use crate::pod::guard;
use crate::pod::record::{Arrival, Claim, Guard, Record, Records, Shaping};
use crate::pod::shaper::{self, Shaper};
use crate::pod::veth::{End, NoHostEnd, Veth};
use crate::pod::wanted::Wanted;

/// What every pod of a pass is judged by.
pub struct NodeView<'a> {
    pub records: &'a Records,
    pub pins: &'a Pins,
    pub bandwidth: &'a Bandwidth,
    /// The host's devices.
    pub links: &'a [Link],
    /// Of all pods together.
    pub floors: &'a NodeFloors,
    /// An older layout's guards are there as well, until all of ours are.
    pub upgrades: bool,
}

/// What was found and done.
#[derive(Debug, Default)]
pub struct Seen {
    /// The record as it is now, where it was brought to that.
    pub record: Option<Record>,
    /// The host's end, and the pod's namespace as events name it.
    pub host_index: Option<u32>,
    pub netns: Option<i32>,
    /// What was removed and is there again, by where it shapes.
    pub mended: Vec<(&'static str, String)>,
    /// A guard must be attached, after this time; a tcx link takes so long that the caller spreads them
    /// out.
    pub guard_due_in: Option<Duration>,
    /// Seconds since 1970 at which an override ends.
    pub live_until: Option<u64>,
    /// Interfaces of the pod that no record names.
    pub others: Vec<String>,
    /// Why not all is as it should be.
    pub failed: Option<anyhow::Error>,
}

/// None if the pod had gone, and with it now its record.
pub fn bring(node: &NodeView, claim: &Claim) -> Result<Option<Seen>> {
    if !claim.is_there() {
        return Ok(None);
    }
    let before = claim.read()?;
    let mut record = before.clone();
    record.live = record.live.filter(|live| live.until > seconds_since_1970());
    let wanted = node.floors.kept(record.wanted(node.bandwidth));
    let mut veth = match Veth::find(&record.netns, &claim.key.ifname) {
        Ok(veth) => veth,
        // Whatever it is, it needs nothing of us but to be noticed when it goes.
        Err(_) if wanted.is_unlimited() && has_nothing(&record) && !is_gone(&record)? => {
            return keep_unlimited(node, claim, record).map(Some);
        }
        // The pod is there, and its record stays until it goes: this is reported with its name.
        Err(e) if e.is::<NoHostEnd>() && !wanted.is_unlimited() => return Err(e),
        Err(_) if is_gone(&record)? => return collect(node, claim).map(|()| None),
        Err(e) if process_lives(&record.netns) => {
            return look_from_outside(node, claim, &record, &wanted, e).map(Some);
        }
        Err(e) => return Err(e),
    };
    veth.replaces_upstream = matches!(record.came, Arrival::Adopted { beside_upstream: true });
    forget_another_veth(node, claim, &mut record, &veth)?;
    let mut seen = Seen {
        host_index: Some(veth.host.link.index),
        netns: veth.host.link.peer_netns,
        live_until: record.live.map(|live| live.until),
        ..Seen::default()
    };
    let mut shaper = Shaper { pins: node.pins, slot: claim.slot, veth: &mut veth };
    let done = shaper.bring(node, claim, &mut record, &wanted, &mut seen);
    if done.is_ok() {
        record.admitted = None;
    }
    if record != before {
        node.records.rewrite(claim, &record)?;
    }
    seen.failed = done.err();
    if record.main.is_none() {
        seen.others = veth.others(node.links);
    }
    seen.record = Some(record);
    Ok(Some(seen))
}

impl Shaper<'_> {
    fn bring(
        &mut self,
        node: &NodeView,
        claim: &Claim,
        record: &mut Record,
        wanted: &Wanted,
        seen: &mut Seen,
    ) -> Result<()> {
        if !shaper::holds(node.pins, claim.slot, record, wanted)? {
            shaper::prepare(record, self.veth, wanted);
            node.records.rewrite(claim, record)?;
            self.change_ways(record, wanted)?;
            log::info!(
                POD_NAMESPACE = record.namespace.as_str(),
                POD_NAME = record.pod.as_str();
                "{}/{} {}: {}",
                record.namespace,
                record.pod,
                claim.key.ifname,
                wanted.to_text()
            );
        }
        if self.veth.replaces_upstream && self.veth.clear_upstream_egress()? {
            log::info!(
                POD_NAMESPACE = record.namespace.as_str(),
                POD_NAME = record.pod.as_str(),
                DIRECTION = "egress";
                "{}/{}: took over from the bandwidth plugin",
                record.namespace,
                record.pod
            );
        }
        if record.is_unlimited() || self.is_of_another(node)? {
            return Ok(());
        }
        let done = self.mend(record, wanted, seen);
        seen.mended.extend(self.mend_guard(record, node)?);
        // Without the proof that the shaper gives, honest packets would be charged twice.
        if done.is_ok() {
            seen.mended.extend(self.mend_ingress_guard(record)?);
        }
        seen.guard_due_in = guard::due_in(self.pins, record, node.upgrades);
        done
    }

    /// Whether another record names the same device, and the shaper there is that one's: a runtime has
    /// made the sandbox again without a DEL of the first. Each would take the other's away for ever.
    fn is_of_another(&mut self, node: &NodeView) -> Result<bool> {
        let host = &mut self.veth.host;
        let Some(held) = host.root_slot()?.filter(|slot| *slot != self.slot.number()) else {
            return Ok(false);
        };
        let same_device = |claim: &Claim| {
            let record = claim.read().ok();
            record.and_then(|record| record.host).is_some_and(|h| h.ifindex == host.link.index)
        };
        let claims = node.records.list()?;
        Ok(claims.iter().any(|claim| claim.slot.number() == held && same_device(claim)))
    }

    /// One direction that fails leaves the other as it is wanted.
    fn change_ways(&mut self, record: &mut Record, wanted: &Wanted) -> Result<()> {
        let egress = self.egress(record, wanted.egress.as_ref());
        self.settle(Direction::Egress, &egress);
        let ingress = self.ingress(record, wanted.ingress.as_ref());
        self.settle(Direction::Ingress, &ingress);
        ingress.and(egress)
    }

    fn settle<T>(&mut self, direction: Direction, result: &Result<T>) {
        match result {
            Ok(_) => self.veth.keep(),
            Err(_) => self.undo(direction).iter().for_each(|complaint| log::warn!("{complaint}")),
        }
    }

    /// What is in the way of one piece does not keep another one from being repaired.
    fn mend(&mut self, record: &mut Record, wanted: &Wanted, seen: &mut Seen) -> Result<()> {
        let (mut egress, mut ingress) = (Ok(None), Ok(None));
        if let Some(limit) = &wanted.egress {
            egress = self.mend_egress(record, limit);
            self.settle(Direction::Egress, &egress);
        }
        if let Some(limit) = &wanted.ingress {
            ingress = self.mend_ingress(record, limit);
            self.settle(Direction::Ingress, &ingress);
        }
        let mended = |found: &Result<Option<String>>| found.as_ref().ok().cloned().flatten();
        seen.mended.extend(mended(&egress).map(|what| ("egress", what)));
        seen.mended.extend(mended(&ingress).map(|what| ("ingress", what)));
        egress.and(ingress).map(|_| ())
    }

    /// The link of a guard whose pin or device was removed is made again; one on clsact is put
    /// back in front.
    fn mend_guard(
        &mut self,
        record: &mut Record,
        node: &NodeView,
    ) -> Result<Option<(&'static str, String)>> {
        let index = self.veth.host.link.index;
        match &record.guard {
            Some(Guard::Tcx) if !self.pins.renew_guard(index)? => {
                record.guard = Some(Guard::Pending);
                Ok((!node.upgrades).then(|| ("guard", "the guard is gone".into())))
            }
            Some(Guard::Clsact)
                if node.upgrades && !guard::is_ours(self.pins, &mut self.veth.host)? =>
            {
                record.guard = Some(Guard::Pending);
                Ok(None)
            }
            Some(Guard::Clsact | Guard::Off(_)) => {
                let (place, host) = (node.bandwidth.guard, &mut self.veth.host);
                let guard = guard::attach(self.pins, self.slot, host, place)?;
                let before = record.guard.replace(guard);
                guard::tell(record, before.as_ref());
                Ok(None)
            }
            Some(Guard::Tcx | Guard::Pending) | None => Ok(None),
        }
    }

    /// The same for the one on the pod's end, which ADD leaves to the agent whole.
    fn mend_ingress_guard(
        &mut self,
        record: &mut Record,
    ) -> Result<Option<(&'static str, String)>> {
        if record.ingress.is_unlimited() {
            return Ok(None);
        }
        let mut guard = guard::of_pod(record, &self.veth.pod)?;
        let mut mended = None;
        match &guard.state {
            Guard::Tcx if !self.pins.renew_ingress_guard(guard.end())? => {
                guard.state = Guard::Pending;
                mended = Some(("ingress", "the guard in the pod is gone".into()));
            }
            Guard::Clsact | Guard::Off(_) => {
                let (netns, pod) = (&record.netns, &mut self.veth.pod);
                guard.state = guard::attach_ingress(self.pins, self.slot, netns, pod, &guard)?;
            }
            Guard::Tcx | Guard::Pending => {}
        }
        record.ingress_guard = Some(guard);
        Ok(mended)
    }
}

/// The record may be of a veth that was deleted and made again under the same name.
fn forget_another_veth(
    node: &NodeView,
    claim: &Claim,
    record: &mut Record,
    veth: &Veth,
) -> Result<()> {
    let Some(host) = &record.host else { return Ok(()) };
    if host.ifindex != veth.host.link.index {
        node.pins.detach_guard(host.ifindex, claim.slot)?;
        record.host = None;
        record.egress = Shaping::Unlimited;
        record.ingress = Shaping::Unlimited;
        record.guard = None;
        if let Some(guard) = record.ingress_guard.take() {
            node.pins.detach_ingress_guard(guard.end(), claim.slot)?;
        }
    }
    Ok(())
}

/// Of a pod whose namespace is a process's file, as cri-dockerd names it, the agent can see the
/// host's end only. What it finds there as it should be shows that the limits are in force.
fn look_from_outside(
    node: &NodeView,
    claim: &Claim,
    record: &Record,
    wanted: &Wanted,
    out_of_reach: anyhow::Error,
) -> Result<Seen> {
    let Some(host) = &record.host else { return Err(out_of_reach) };
    let mut end = End::on_host(host.ifindex, &host.ifname)?;
    let own = Some(claim.slot.number());
    let ingress = match &mut end {
        _ if record.ingress.is_unlimited() => true,
        Some(end) => end.root_slot()? == own,
        None => false,
    };
    if !ingress || !shaper::holds(node.pins, claim.slot, record, wanted)? {
        let what = "the limits are not as they should be, and the pod's namespace is out of reach";
        return Err(out_of_reach.context(what));
    }
    Ok(Seen {
        host_index: Some(host.ifindex),
        netns: end.and_then(|end| end.link.peer_netns),
        guard_due_in: guard::due_in(node.pins, record, node.upgrades),
        ..Seen::default()
    })
}

/// Whether nothing was ever attached: no limit, or none that found a device to be put on.
fn has_nothing(record: &Record) -> bool {
    record.is_unlimited() || record.host.is_none()
}

fn keep_unlimited(node: &NodeView, claim: &Claim, mut record: Record) -> Result<Seen> {
    if !record.is_unlimited() {
        (record.egress, record.ingress) = (Shaping::Unlimited, Shaping::Unlimited);
        node.records.rewrite(claim, &record)?;
    }
    let host_index = record.host.map(|host| host.ifindex);
    Ok(Seen { host_index, ..Seen::default() })
}

/// A veth goes with either of its ends, so a pod without its namespace or its host's end is no more.
fn is_gone(record: &Record) -> Result<bool> {
    if let Some(host) = &record.host {
        return Ok(End::on_host(host.ifindex, &host.ifname)?.is_none());
    }
    Ok(!is_netns(&record.netns) && !process_lives(&record.netns))
}

fn collect(node: &NodeView, claim: &Claim) -> Result<()> {
    let complaints = shaper::remove(Some(node.pins), claim, None);
    complaints.iter().for_each(|complaint| log::warn!("{complaint}"));
    // Before another pod can have the slot.
    let is_own = |other: &Claim| other == claim || other.slot != claim.slot;
    if node.records.list()?.iter().all(is_own) {
        node.pins.clear(claim.slot)?;
    }
    node.records.release(claim)
}

fn seconds_since_1970() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs())
}
