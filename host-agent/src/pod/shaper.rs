// SPDX-License-Identifier: Apache-2.0
//! Brings one pod from what its record says to what is wanted: attaches, changes
//! or removes each direction, and the guard with egress. ADD starts from a
//! record without limits; a reload starts from whatever applies. The record must
//! be written between [`prepare`] and the rest, so that nothing is ever attached
//! that no record names.

use anyhow::{Context, Result};
use bpf::{Pins, Slot};
use settings_model::Rate;

use crate::netlink::{self, Gso};
use crate::pod::direction::Direction;
use crate::pod::guard;
use crate::pod::limit::Limit;
use crate::pod::record::{Claim, Guard, HostEnd, Mode, Record, Shaping};
use crate::pod::veth::{DeviceLook, End, ForeignRoot, Veth};
use crate::pod::wanted::Wanted;

/// One pod's veth pair and its slot.
pub struct Shaper<'a> {
    pub pins: &'a Pins,
    pub slot: Slot,
    pub veth: &'a mut Veth,
}

/// Enters what will be attached, and what it will find there.
pub fn prepare(record: &mut Record, veth: &Veth, wanted: &Wanted) {
    let host = &veth.host.link;
    record.host = Some(HostEnd { ifname: host.name.clone(), ifindex: host.index });
    let enter = |shaping: &mut Shaping, limit: Option<&Limit>, before: Gso| {
        if let (Shaping::Unlimited, Some(limit)) = (&shaping, limit) {
            *shaping = Shaping::of(limit, None, before);
        }
    };
    enter(&mut record.egress, wanted.egress.as_ref(), veth.pod.link.gso);
    enter(&mut record.ingress, wanted.ingress.as_ref(), host.gso);
}

/// Whether all that is wanted is already so, by the record and the maps.
pub fn holds(pins: &Pins, slot: Slot, record: &Record, wanted: &Wanted) -> Result<bool> {
    let same = |direction: Direction, shaping: &Shaping, limit: Option<&Limit>| -> Result<bool> {
        Ok(match (shaping, limit) {
            (Shaping::Unlimited, None) => true,
            (Shaping::Limited { origin, asked, mode: Some(mode), .. }, Some(limit)) => {
                let held = pins.limit(slot, direction)?;
                same_but_for_mtu(held, limit, in_programs(mode), direction)
                    && (*origin, *asked) == (limit.origin, limit.asked)
            }
            _ => false,
        })
    };
    Ok(same(Direction::Egress, &record.egress, wanted.egress.as_ref())?
        && same(Direction::Ingress, &record.ingress, wanted.ingress.as_ref())?)
}

/// Quantum and horizon follow from the rate and the device, which has not to be asked for this.
fn same_but_for_mtu(
    held: bpf::Limit,
    limit: &Limit,
    mode: bpf::Mode,
    direction: Direction,
) -> bool {
    let bpf::Limit { quantum_ns, horizon_ns, .. } = held;
    held == bpf::Limit { quantum_ns, horizon_ns, ..limit.for_bpf(mode, direction, 0) }
}

impl Shaper<'_> {
    /// Brings what the pod sends to this limit, and the guard with it.
    pub fn egress(&mut self, record: &mut Record, limit: Option<&Limit>) -> Result<()> {
        self.bring_egress(record, limit).context("shape pod egress")
    }

    /// Brings what the pod receives to this limit.
    pub fn ingress(&mut self, record: &mut Record, limit: Option<&Limit>) -> Result<()> {
        self.bring_ingress(record, limit).context("shape pod ingress")
    }

    fn bring_egress(&mut self, record: &mut Record, limit: Option<&Limit>) -> Result<()> {
        match (record.egress.clone(), limit) {
            (Shaping::Unlimited, None) => Ok(()),
            (Shaping::Limited { gso_before, .. }, None) => self.lift_egress(record, gso_before),
            (Shaping::Limited { mode: Some(mode), bits_per_sec, gso_before, .. }, Some(limit)) => {
                record.egress = Shaping::of(limit, Some(mode.clone()), gso_before);
                self.change(Direction::Egress, &mode, bits_per_sec, limit, gso_before)
            }
            (shaping, Some(limit)) => {
                let before = shaping.gso_before().unwrap_or(self.veth.pod.link.gso);
                let (mode, guard) = self.attach_egress(limit)?;
                record.egress = Shaping::of(limit, Some(mode), before);
                record.guard = Some(guard);
                Ok(())
            }
        }
    }

    fn bring_ingress(&mut self, record: &mut Record, limit: Option<&Limit>) -> Result<()> {
        let direction = Direction::Ingress;
        match (record.ingress.clone(), limit) {
            (Shaping::Unlimited, None) => Ok(()),
            (Shaping::Limited { gso_before, .. }, None) => {
                record.ingress = Shaping::Unlimited;
                self.pins.set_limit(self.slot, direction, bpf::Limit::NONE)?;
                let detached = first(self.veth.detach(direction, gso_before));
                let guard = record.ingress_guard.take().map_or_else(Vec::new, |guard| {
                    guard::detach_ingress(self.pins, self.slot, Some(self.veth), &guard)
                });
                detached.and(first(guard))
            }
            (Shaping::Limited { mode: Some(mode), bits_per_sec, gso_before, .. }, Some(limit)) => {
                record.ingress = Shaping::of(limit, Some(mode.clone()), gso_before);
                self.change(direction, &mode, bits_per_sec, limit, gso_before)
            }
            (shaping, Some(limit)) => {
                let before = shaping.gso_before().unwrap_or(self.veth.host.link.gso);
                let mode = self.attach_ingress(record, limit)?;
                record.ingress = Shaping::of(limit, Some(mode), before);
                Ok(())
            }
        }
    }

    /// Restores what was removed from the pod's end, and puts this version's program into the filter.
    /// Where a foreign root qdisc was in the way, it tries again as soon as that is gone.
    pub fn mend_egress(&mut self, record: &mut Record, limit: &Limit) -> Result<Option<String>> {
        let Shaping::Limited { mode: Some(mode), gso_before, .. } = record.egress.clone() else {
            return Ok(None);
        };
        if is_guarded(&mode) {
            if self.veth.pod.link.has_no_qdisc() {
                let (mode, _) = self.attach_egress(limit).context("shape pod egress")?;
                self.relieve_guard(&mode, Direction::Egress)?;
                record.egress = Shaping::of(limit, Some(mode), gso_before);
            }
            return Ok(None);
        }
        let direction = Direction::Egress;
        let look = self.veth.look(direction, in_programs(&mode))?;
        let Some(missing) = look.missing else {
            return self.renew(direction, look, limit, gso_before);
        };
        let (mode, guard) = self.attach_egress(limit).context("repair pod egress")?;
        if guard != Guard::Pending {
            record.guard = Some(guard);
        }
        record.egress = Shaping::of(limit, Some(mode), gso_before);
        self.veth.clamp(direction, limit, gso_before)?;
        Ok(Some(missing.into()))
    }

    /// The same for the host's end.
    pub fn mend_ingress(&mut self, record: &mut Record, limit: &Limit) -> Result<Option<String>> {
        let Shaping::Limited { mode: Some(mode), gso_before, .. } = record.ingress.clone() else {
            return Ok(None);
        };
        if is_guarded(&mode) {
            if self.veth.host.link.has_no_qdisc() {
                let mode = self.attach_ingress(record, limit).context("shape pod ingress")?;
                self.relieve_guard(&mode, Direction::Ingress)?;
                record.ingress = Shaping::of(limit, Some(mode), gso_before);
            }
            return Ok(None);
        }
        let direction = Direction::Ingress;
        let look = self.veth.look(direction, in_programs(&mode))?;
        let Some(missing) = look.missing else {
            return self.renew(direction, look, limit, gso_before);
        };
        let mode = self.attach_ingress(record, limit).context("repair pod ingress")?;
        // Nothing was restored where another qdisc has the place.
        let restored = (!is_guarded(&mode)).then(|| missing.into());
        record.ingress = Shaping::of(limit, Some(mode), gso_before);
        self.veth.clamp(direction, limit, gso_before)?;
        Ok(restored)
    }

    /// Where everything is in its place: this version's program, and the right size of super-packets.
    fn renew(
        &mut self,
        direction: Direction,
        look: DeviceLook,
        limit: &Limit,
        before: Gso,
    ) -> Result<Option<String>> {
        let foreign = look.slot.filter(|slot| *slot != self.slot.number());
        if foreign.is_some() || look.program_id != Some(self.pins.program_id(direction)?) {
            self.veth.renew(self.pins, self.slot, direction)?;
        }
        if let Some(foreign) = foreign {
            let own = self.slot.number();
            return Ok(Some(format!("the filter named slot {foreign} instead of {own}")));
        }
        let link = &self.veth.sender(direction).link;
        if link.gso == before.clamped(limit.gso_max_size(link.mtu)) {
            return Ok(None);
        }
        self.veth.clamp(direction, limit, before)?;
        Ok(Some("the size of super-packets was changed".into()))
    }

    /// Removes what an attempt that failed has attached, the guard included if it was egress.
    pub fn undo(&mut self, direction: Direction) -> Vec<String> {
        let mut left: Vec<String> = self.veth.undo().iter().map(ToString::to_string).collect();
        if direction == Direction::Egress {
            let host = &mut self.veth.host;
            let errors = guard::detach(self.pins, self.slot, host, &Guard::Clsact);
            left.extend(errors.iter().map(|e| format!("{e:#}")));
        }
        left
    }

    /// With a foreign root qdisc on the pod's end there is no shaper, and the guard, which then
    /// finds nothing shaped, enforces the limit; so that one is not left to the agent.
    fn attach_egress(&mut self, limit: &Limit) -> Result<(Mode, Guard)> {
        let attached = self.veth.attach(self.pins, self.slot, Direction::Egress, limit);
        let obstacle = match attached {
            Ok(mode) => return Ok((mode.into(), Guard::Pending)),
            Err(e) => e,
        };
        let Some(foreign) = obstacle.downcast_ref::<ForeignRoot>().map(ToString::to_string) else {
            return Err(obstacle);
        };
        match guard::attach(self.pins, self.slot, &mut self.veth.host, limit.guard)? {
            Guard::Off(reason) => Err(obstacle.context(no_guard_either(&reason))),
            guard => {
                self.police(Direction::Egress, limit)?;
                Ok((Mode::Guarded(foreign), guard))
            }
        }
    }

    /// The same for what the pod receives, where Calico's QoS may have the host's end: the guard in the
    /// pod enforces. Where that needs clsact the agent attaches it, because sandboxes come first there.
    fn attach_ingress(&mut self, record: &mut Record, limit: &Limit) -> Result<Mode> {
        let attached = self.veth.attach(self.pins, self.slot, Direction::Ingress, limit);
        let obstacle = match attached {
            Ok(mode) => return Ok(mode.into()),
            Err(e) => e,
        };
        let Some(foreign) = obstacle.downcast_ref::<ForeignRoot>().map(ToString::to_string) else {
            return Err(obstacle);
        };
        self.police(Direction::Ingress, limit)?;
        let mut guard = guard::of_pod(record, &self.veth.pod)?;
        let waits = guard.state == Guard::Pending && !self.pins.ingress_guard_is_link();
        if !waits && !matches!(guard.state, Guard::Tcx | Guard::Clsact) {
            let pod = &mut self.veth.pod;
            guard.state = guard::attach_ingress(self.pins, self.slot, &record.netns, pod, &guard)?;
        }
        if let Guard::Off(reason) = &guard.state {
            return Err(obstacle.context(no_guard_either(reason)));
        }
        record.ingress_guard = Some(guard);
        Ok(Mode::Guarded(foreign))
    }

    /// What the guard counted while it stood in is no sign of a bypass.
    fn relieve_guard(&self, now: &Mode, direction: Direction) -> Result<(), bpf::Error> {
        if is_guarded(now) {
            return Ok(());
        }
        self.pins.forget_unshaped(self.slot, direction)
    }

    /// What the guard goes by where it stands in for the shaper.
    fn police(&mut self, direction: Direction, limit: &Limit) -> Result<(), bpf::Error> {
        let mtu = self.veth.mtu(direction);
        let policed = limit.for_bpf(bpf::Mode::Policed, direction, mtu);
        self.pins.set_limit(self.slot, direction, policed)
    }

    /// Removes the guard in the pod that an ADD has attached which fails later.
    pub fn undo_ingress_guard(&mut self, record: &Record) -> Vec<String> {
        let guard = record.ingress_guard.as_ref();
        let errors =
            guard.map(|it| guard::detach_ingress(self.pins, self.slot, Some(self.veth), it));
        errors.iter().flatten().map(|e| format!("{e:#}")).collect()
    }

    /// One write to a map is the change; the clock goes on as it was. fq gets room first.
    fn change(
        &mut self,
        direction: Direction,
        mode: &Mode,
        old: u64,
        limit: &Limit,
        before: Gso,
    ) -> Result<()> {
        let mtu = self.veth.mtu(direction);
        let new = limit.for_bpf(in_programs(mode), direction, mtu);
        if is_guarded(mode) {
            self.pins.set_limit(self.slot, direction, new)?;
            return Ok(());
        }
        let old = Rate::from_bits_per_sec(old).map(|rate| Limit { rate, ..*limit });
        if let (Mode::Paced, Some(old)) = (mode, old) {
            let enlarged = self.veth.enlarge_fq(direction, &old, limit);
            // A pod may have removed its own; status shows that, and the guard enforces.
            enlarged.or_else(|e| if e.is_not_found() { Ok(()) } else { Err(e) })?;
        }
        // There is one, unless these are the maps of a new layout.
        self.pins.make_flows(self.slot, direction)?;
        self.pins.set_limit(self.slot, direction, new)?;
        self.veth.clamp(direction, limit, before)?;
        Ok(())
    }

    fn lift_egress(&mut self, record: &mut Record, before: Gso) -> Result<()> {
        record.egress = Shaping::Unlimited;
        self.pins.set_limit(self.slot, Direction::Egress, bpf::Limit::NONE)?;
        let detached = first(self.veth.detach(Direction::Egress, before));
        let guard = record.guard.take().map_or_else(Vec::new, |guard| {
            guard::detach(self.pins, self.slot, &mut self.veth.host, &guard)
        });
        detached.and(first(guard))
    }
}

/// Removes everything that this record names and that is still there, as far as it can be
/// reached; gives what went wrong. Without `veth` the pod's end is out of reach.
pub fn remove(pins: Option<&Pins>, claim: &Claim, veth: Option<&mut Veth>) -> Vec<String> {
    let record = match claim.read() {
        Ok(record) => record,
        Err(e) => return vec![format!("{e:#}")],
    };
    let mut complaints = Vec::new();
    // What leads into another pod is not touched, whatever the record says.
    let on_host = |host: &HostEnd| {
        let end = End::on_host(host.ifindex, &host.ifname)?;
        Ok::<_, netlink::Error>(end.and_then(|mut end| end.may_be_of(&record.netns).then_some(end)))
    };
    match (veth, record.host.as_ref().map(on_host)) {
        (Some(veth), _) => {
            if is_of_another(claim.slot, &mut veth.host) {
                return complaints;
            }
            for (direction, shaping) in record.directions() {
                let errors = shaping.gso_before().map(|before| veth.detach(direction, before));
                complaints.extend(errors.iter().flatten().map(ToString::to_string));
            }
            complaints.extend(remove_guard(pins, claim.slot, &record, Some(&mut veth.host)));
            complaints.extend(remove_ingress_guard(pins, claim.slot, &record, Some(veth)));
        }
        (None, Some(Ok(mut host))) => {
            host = host.and_then(|mut end| (!is_of_another(claim.slot, &mut end)).then_some(end));
            if let (Some(host), Some(before)) = (&mut host, record.ingress.gso_before()) {
                let errors = [host.delete_root().err(), host.restore(before).err()];
                let errors = errors.iter().flatten().filter(|e| !e.is_not_found());
                complaints.extend(errors.map(ToString::to_string));
            }
            complaints.extend(remove_guard(pins, claim.slot, &record, host.as_mut()));
            complaints.extend(remove_ingress_guard(pins, claim.slot, &record, None));
        }
        (None, Some(Err(e))) => complaints.push(e.to_string()),
        (None, None) => {}
    }
    complaints
}

/// Whether the shaper on the host's end is that of another record, which has taken it over.
fn is_of_another(slot: Slot, host: &mut End) -> bool {
    host.root_slot().is_ok_and(|held| held.is_some_and(|held| held != slot.number()))
}

fn remove_guard(
    pins: Option<&Pins>,
    slot: Slot,
    record: &Record,
    host: Option<&mut End>,
) -> Vec<String> {
    let (Some(pins), Some(guard)) = (pins, &record.guard) else { return Vec::new() };
    let errors = match (host, &record.host) {
        (Some(host), _) => guard::detach(pins, slot, host, guard),
        // The device has gone and has taken everything along but the pin of a dead link.
        (None, Some(host)) => {
            pins.detach_guard(host.ifindex, slot).err().map(|e| vec![e.into()]).unwrap_or_default()
        }
        (None, None) => Vec::new(),
    };
    errors.iter().map(|e| format!("{e:#}")).collect()
}

fn remove_ingress_guard(
    pins: Option<&Pins>,
    slot: Slot,
    record: &Record,
    veth: Option<&mut Veth>,
) -> Vec<String> {
    let (Some(pins), Some(guard)) = (pins, &record.ingress_guard) else { return Vec::new() };
    let errors = guard::detach_ingress(pins, slot, veth, guard);
    errors.iter().map(|e| format!("{e:#}")).collect()
}

/// What the programs of this direction get.
fn in_programs(mode: &Mode) -> bpf::Mode {
    match mode {
        Mode::Paced => bpf::Mode::Paced,
        Mode::Policed | Mode::Guarded(_) => bpf::Mode::Policed,
    }
}

/// Whether the guard stands in for the shaper.
fn is_guarded(mode: &Mode) -> bool {
    matches!(mode, Mode::Guarded(_))
}

fn no_guard_either(reason: &str) -> String {
    format!("no guard could enforce the limit either: {reason}")
}

fn first<E: Into<anyhow::Error>>(errors: Vec<E>) -> Result<()> {
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}
