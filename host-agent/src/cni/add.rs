// SPDX-License-Identifier: Apache-2.0
//! ADD: shapes or fails whole, but where the node itself has no settings or no
//! programs it lets the pod start, for the agent to shape.

use anyhow::anyhow;
use bpf::Pins;
use settings_model::Bandwidth;

use super::error::{CniCode, Error};
use super::interface::{
    NO_PINS, complain, find, forget, lock_error, new_record, pins_error, take_off,
};
use super::request::Request;
use super::status::is_starting;
use crate::host::paths::Paths;
use crate::netlink::Gso;
use crate::pod::direction::Direction;
use crate::pod::floors::NodeFloors;
use crate::pod::limit::Limit;
use crate::pod::record::{Arrival, Key, NoFreeSlot, Record, Records, Shaping, VERBS_WAIT};
use crate::pod::shaper::{self, Shaper};
use crate::pod::veth::{NoHostEnd, Veth};
use crate::pod::wanted::Wanted;
use crate::settings::in_force::in_force;

const NO_SETTINGS: &str = "find the settings in force (has `sluice boot` run?)";

pub fn add(paths: &Paths, request: &Request) -> Result<String, Error> {
    let records = Records::new(paths);
    let _shared = records.share().map_err(lock_error)?;
    let _held = records.hold(&request.key.container_id, VERBS_WAIT).map_err(lock_error)?;
    let settings = match in_force(paths) {
        Ok(settings) => settings,
        Err(e) => return admit(paths, &records, request, &e.context(NO_SETTINGS)),
    };
    let wanted = new_record(request).wanted(&settings.bandwidth);
    if wanted.is_unlimited() {
        note(paths, &records, request, new_record(request))?;
        return Ok(request.prev_result.get().to_owned());
    }
    let pins = match Pins::open(&paths.pin_dir()) {
        Ok(pins) => pins,
        Err(e) if is_starting(paths, &e) => return Err(pins_error(e)),
        Err(e) => return admit(paths, &records, request, &anyhow::Error::from(e).context(NO_PINS)),
    };
    if request.annotated.has_floor() {
        promise(&records, request, &settings.bandwidth, &wanted)?;
    }
    let Request { namespace, pod, .. } = request;
    let clamped = wanted.clamped(&request.annotated);
    clamped.iter().for_each(|clamp| complain(format!("{namespace}/{pod}: {clamp}")));
    shape(paths, &pins, &records, request, &wanted).or_else(|e| {
        // What the node has for all pods is noted, and the agent reports that it is not enforced.
        match e.source.is::<NoHostEnd>() && !wanted.is_annotated() {
            true => note(paths, &records, request, unenforced(request, &wanted)),
            false => Err(e),
        }
    })?;
    Ok(request.prev_result.get().to_owned())
}

/// Refuses a pod that asks to be promised what others have been promised.
fn promise(
    records: &Records,
    request: &Request,
    bandwidth: &Bandwidth,
    wanted: &Wanted,
) -> Result<(), Error> {
    let claims = records.list().map_err(Error::with(CniCode::Io))?;
    let others = claims.iter().filter(|claim| claim.key.container_id != request.key.container_id);
    let others = others.filter_map(|claim| claim.read().ok());
    let others = others.filter(|record| record.main.is_none());
    let floors = NodeFloors::of(others.map(|record| record.wanted(bandwidth)));
    let refused = floors.refuse(wanted);
    refused.map_or(Ok(()), |why| Err(Error::new(CniCode::Promised, why)))
}

/// The node lacks what a limit needs, and a pod does not: it starts, and has its limits as soon as the
/// agent can see to them. Until then status, metrics and the runtime's journal say so.
fn admit(
    paths: &Paths,
    records: &Records,
    request: &Request,
    why: &anyhow::Error,
) -> Result<String, Error> {
    let Request { namespace, pod, .. } = request;
    eprintln!("sluice: {namespace}/{pod}: started without limits: {why:#}");
    let record = Record { admitted: Some(format!("{why:#}")), ..new_record(request) };
    note(paths, records, request, record)?;
    Ok(request.prev_result.get().to_owned())
}

/// A pod on a macvlan, or on a card of its own, has no end on the host, and no limit can be put on it.
/// That is worth a failure where the pod itself asks for one.
fn unenforced(request: &Request, wanted: &Wanted) -> Record {
    let shaping = |limit: &Option<Limit>| {
        limit.map_or(Shaping::Unlimited, |limit| Shaping::of(&limit, None, Gso::default()))
    };
    let (egress, ingress) = (shaping(&wanted.egress), shaping(&wanted.ingress));
    Record { egress, ingress, ..new_record(request) }
}

/// A pod without a limit, or with one that cannot be enforced, gets a record and nothing else, not
/// even that when all slots are taken: then new settings will not reach it.
fn note(paths: &Paths, records: &Records, request: &Request, record: Record) -> Result<(), Error> {
    forget(paths, None, records, &request.key)?;
    let record = Record { came: request.came(), ..record };
    match records.claim(request.key.clone(), &record) {
        Err(e) if e.is::<NoFreeSlot>() => Ok(()),
        result => result.map(|_| ()).map_err(claim_error),
    }
}

fn shape(
    paths: &Paths,
    pins: &Pins,
    records: &Records,
    request: &Request,
    wanted: &Wanted,
) -> Result<(), Error> {
    let mut veth = find(request)?;
    // Of an ADD that was killed: its record names what may still be attached.
    if forget(paths, Some(pins), records, &request.key)? {
        veth = find(request)?;
    }
    let mut record = new_record(request);
    shaper::prepare(&mut record, &veth, wanted);
    let claim = records.claim(request.key.clone(), &record).map_err(claim_error)?;
    let mut shaper = Shaper { pins, slot: claim.slot, veth: &mut veth };
    let cleared = pins.clear(claim.slot).map_err(anyhow::Error::from);
    let done = cleared
        .and_then(|()| attach(&mut shaper, &mut record, wanted))
        .and_then(|()| shape_others(pins, records, request, &mut veth, wanted))
        .and_then(|()| claim.write(&Record { came: request.came(), ..record.clone() }));
    done.map_err(|first| {
        let mut left = undo(Shaper { pins, slot: claim.slot, veth: &mut veth }, &record);
        match records.find_all(&request.key) {
            Ok(claims) => {
                left.extend(claims.iter().flat_map(|claim| take_off(Some(pins), records, claim)))
            }
            Err(e) => left.push(format!("{e:#}")),
        }
        Error { code: CniCode::Attach, source: and_then(first, &left) }
    })
}

/// Interfaces that the chain made along with this one (of further network cards, of egress-cni)
/// share its slot: the limit is that of all together.
fn shape_others(
    pins: &Pins,
    records: &Records,
    request: &Request,
    main: &mut Veth,
    wanted: &Wanted,
) -> anyhow::Result<()> {
    let on_host = main.host.netlink.links()?;
    for ifname in main.others(&on_host) {
        let key = Key { container_id: request.key.container_id.clone(), ifname };
        // It had an ADD of its own.
        if records.find(&key)?.is_some() {
            continue;
        }
        let mut veth = Veth::find(&request.netns, &key.ifname)?;
        let mut record = new_record(request).for_other(&request.key.ifname);
        shaper::prepare(&mut record, &veth, wanted);
        let claim = records.claim(key, &record)?;
        let mut shaper = Shaper { pins, slot: claim.slot, veth: &mut veth };
        let done = attach(&mut shaper, &mut record, wanted).and_then(|()| claim.write(&record));
        if done.is_err() {
            undo(shaper, &record).iter().for_each(complain);
        }
        done?;
    }
    Ok(())
}

impl Request {
    fn came(&self) -> Arrival {
        Arrival::Added { took_ns: Some(self.began.elapsed().as_nanos() as u64) }
    }
}

fn attach(shaper: &mut Shaper, record: &mut Record, wanted: &Wanted) -> anyhow::Result<()> {
    shaper.egress(record, wanted.egress.as_ref())?;
    shaper.ingress(record, wanted.ingress.as_ref())
}

fn undo(mut shaper: Shaper, record: &Record) -> Vec<String> {
    [shaper.undo(Direction::Egress), shaper.undo_ingress_guard(record)].concat()
}

/// The first error stays on top; what could not be undone is listed after it.
fn and_then(first: anyhow::Error, left: &[String]) -> anyhow::Error {
    if left.is_empty() { first } else { anyhow!("{first:#}; and then: {}", left.join("; ")) }
}

fn claim_error(source: anyhow::Error) -> Error {
    let code = if source.is::<NoFreeSlot>() { CniCode::Full } else { CniCode::Io };
    Error { code, source }
}
