// SPDX-License-Identifier: Apache-2.0
//! CHECK: whether what ADD attached is still there. It only looks; what the
//! agent does later than ADD, or repairs by itself, is no reason to fail, because a
//! runtime may give a pod up for that.

use anyhow::Context;
use bpf::Pins;

use super::error::{CniCode, Error};
use super::interface::{lock_error, new_record, pins_error};
use super::request::Request;
use crate::host::paths::Paths;
use crate::pod::direction::Direction;
use crate::pod::record::{Claim, Guard, Mode, Record, Records, Shaping, VERBS_WAIT};
use crate::pod::veth::Veth;
use crate::settings::in_force::in_force;

/// An error that names all that is missing, of the interface and of those that came with it.
pub fn check(paths: &Paths, request: &Request) -> Result<(), Error> {
    let records = Records::new(paths);
    if !records.is_there() {
        return unrecorded(paths, request);
    }
    let _shared = records.share().map_err(lock_error)?;
    // Record, maps and devices agree meanwhile.
    let _held = records.hold(&request.key.container_id, VERBS_WAIT).map_err(lock_error)?;
    let claims = records.find_all(&request.key).map_err(Error::with(CniCode::Io))?;
    if claims.iter().all(|claim| claim.key != request.key) {
        return unrecorded(paths, request);
    }
    let mut missing = Vec::new();
    for claim in &claims {
        let record = claim.read().map_err(Error::with(CniCode::Io))?;
        // A limit that found no device is the agent's to report.
        if !record.is_unlimited() && record.host.is_some() {
            let pins = Pins::open(&paths.pin_dir()).map_err(pins_error)?;
            missing.extend(look(&pins, claim, &record)?);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::new(CniCode::Missing, missing.join("; "))) }
}

/// ADD leaves a pod without a record only if it needs no limit and all slots were taken. Without
/// settings what it needs is not known, and no pod is to be given up for that.
fn unrecorded(paths: &Paths, request: &Request) -> Result<(), Error> {
    let Ok(settings) = in_force(paths) else { return Ok(()) };
    if new_record(request).wanted(&settings.bandwidth).is_unlimited() {
        return Ok(());
    }
    let key = &request.key;
    let text = format!(
        "there is no record of {} of container {}: it was not added, or has been deleted",
        key.ifname, key.container_id
    );
    Err(Error::new(CniCode::Missing, text))
}

fn look(pins: &Pins, claim: &Claim, record: &Record) -> Result<Vec<String>, Error> {
    let ifname = &claim.key.ifname;
    let no_interface = Error::with(CniCode::NoInterface);
    let mut veth = Veth::find(&record.netns, ifname)
        .with_context(|| format!("find the pod's interface {ifname}"))
        .map_err(&no_interface)?;
    let host = &veth.host.link;
    if record.host.as_ref().is_none_or(|added| added.ifindex != host.index) {
        return Ok(vec![format!(
            "{ifname} is not the interface that ADD shaped: it was made again"
        )]);
    }
    let mut missing = Vec::new();
    for (direction, shaping) in record.directions() {
        let name = direction.name();
        let of_way = missing_of(pins, claim, record, &mut veth, (direction, shaping));
        let of_way = of_way.map_err(Error::with(CniCode::Missing))?;
        missing.extend(of_way.iter().map(|what| format!("{ifname} {name}: {what}")));
    }
    Ok(missing)
}

fn missing_of(
    pins: &Pins,
    claim: &Claim,
    record: &Record,
    veth: &mut Veth,
    (direction, shaping): (Direction, &Shaping),
) -> anyhow::Result<Vec<String>> {
    let Shaping::Limited { mode, .. } = shaping else { return Ok(Vec::new()) };
    let gone = match mode {
        None => return Ok(vec!["the attachment was never completed".into()]),
        Some(Mode::Paced) => veth.missing(direction, bpf::Mode::Paced)?.map(str::to_owned),
        Some(Mode::Policed) => veth.missing(direction, bpf::Mode::Policed)?.map(str::to_owned),
        Some(Mode::Guarded(_)) => missing_guard(pins, record, veth, direction)?,
    };
    let own = claim.slot.number();
    let held = if direction == Direction::Ingress { veth.host.root_slot()? } else { None };
    let foreign = held.filter(|held| *held != own);
    let foreign = foreign.map(|held| format!("the filter names slot {held} instead of {own}"));
    let limit = pins.limit(claim.slot, direction)?;
    let no_limit = format!("slot {own} has no limit in the maps");
    let no_limit = (limit == bpf::Limit::NONE).then_some(no_limit);
    Ok(gone.into_iter().chain(foreign).chain(no_limit).collect())
}

/// Only where nothing else enforces the limit; elsewhere the agent attaches the guard when it can.
fn missing_guard(
    pins: &Pins,
    record: &Record,
    veth: &mut Veth,
    direction: Direction,
) -> anyhow::Result<Option<String>> {
    let pod_end = record.ingress_guard.as_ref();
    let (state, end) = match direction {
        Direction::Egress => (record.guard.as_ref(), &mut veth.host),
        Direction::Ingress => (pod_end.map(|guard| &guard.state), &mut veth.pod),
    };
    let is_there = match (state, pod_end) {
        (Some(Guard::Tcx), Some(guard)) if direction == Direction::Ingress => {
            pins.ingress_guard_links()?.contains(&guard.end())
        }
        (Some(Guard::Tcx), _) => pins.guard_links()?.contains(&end.link.index),
        (Some(Guard::Clsact), _) => end.netlink.ingress_filter(&end.link)?.is_some(),
        // Without tcx the agent attaches the one in the pod seconds after ADD.
        (Some(Guard::Pending), _) => direction == Direction::Ingress,
        (Some(Guard::Off(_)) | None, _) => false,
    };
    Ok((!is_there).then(|| "the guard, which alone enforces the limit, is gone".into()))
}
