// SPDX-License-Identifier: Apache-2.0
//! The verbs. ADD shapes or fails whole, but where the node itself has no settings
//! or no programs it lets the pod start, for the agent to shape. DEL succeeds whatever is left to do,
//! because libcni stops the chain at the first plugin whose DEL fails.

use std::fs;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bpf::{Direction, Pins};
use serde_json::json;

use super::error::{Code, Error};
use super::request::{Command, Environment, Request, cni_version};
use super::{CNI_VERSIONS, check, complain, gc};
use crate::host::lock::Busy;
use crate::host::paths::Paths;
use crate::netlink::Gso;
use crate::pod::limit::Limit;
use crate::pod::record::{Came, Claim, Key, NoFreeSlot, Record, Records, Shaping, VERBS_WAIT};
use crate::pod::shaper::{self, Shaper};
use crate::pod::veth::{NoHostEnd, Veth};
use crate::pod::wanted::Wanted;
use crate::settings::in_force::in_force;

/// From settings in force to pins: longer than any agent takes that comes at all.
const AGENT_STARTS_WITHIN: Duration = Duration::from_secs(60);
const NO_SETTINGS: &str = "find the settings in force (has `sluice boot` run?)";
const NO_PINS: &str = "open the shaper's pins (is sluice.service running?)";

/// One call of the plugin: what to print on standard output, and whether it went well.
pub fn run(paths: &Paths, environment: &Environment, stdin: &str) -> Result<String, String> {
    // What is no JSON has no version; the verbs that need a configuration will say so.
    let version = cni_version(stdin).unwrap_or_default();
    let dispatch = || -> Result<String, Error> {
        let command = environment.command()?;
        command.check_version(&version)?;
        let nothing = |()| String::new();
        match command {
            Command::Add => add(paths, &Request::decode(environment, stdin)?),
            Command::Del => del(paths, environment).map(nothing),
            Command::Check => {
                check::check(paths, &Request::decode(environment, stdin)?).map(nothing)
            }
            Command::Gc => gc::gc(paths, &gc::Valid::decode(stdin)?).map(nothing),
            Command::Status => status(paths).map(nothing),
            Command::Version => Ok(supported(&version)),
        }
    };
    dispatch()
        .map_err(|e| e.to_json(CNI_VERSIONS.iter().find(|v| **v == version).unwrap_or(&"1.0.0")))
}

fn supported(asked: &str) -> String {
    let answered = if asked.is_empty() { "1.0.0" } else { asked };
    json!({ "cniVersion": answered, "supportedVersions": CNI_VERSIONS }).to_string()
}

/// Ready when ADD can find a slot, and the pins or no agent that could still make them: a node whose
/// agent never comes is to be Ready, too. The runtime says nothing here of a container, and neither
/// it nor we need a configuration.
fn status(paths: &Paths) -> Result<(), Error> {
    match Pins::open(&paths.pin_dir()) {
        Err(e) if is_starting(paths, &e) => Err(Error::with(Code::NotAvailable)(e)),
        _ => Records::new(paths).has_room().map_err(Error::with(Code::NotAvailable)),
    }
}

/// Whether the agent may be about to pin: settings have just been put in force.
fn is_starting(paths: &Paths, error: &bpf::Error) -> bool {
    let written = fs::metadata(paths.settings_in_force()).and_then(|found| found.modified());
    let age = written.ok().and_then(|written| written.elapsed().ok());
    error.is_not_pinned() && age.is_some_and(|age| age < AGENT_STARTS_WITHIN)
}

fn add(paths: &Paths, request: &Request) -> Result<String, Error> {
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
    let Request { namespace, pod, .. } = request;
    let clamped = wanted.clamped(&request.annotated);
    clamped.iter().for_each(|told| complain(format!("{namespace}/{pod}: {told}")));
    shape(paths, &pins, &records, request, &wanted).or_else(|e| {
        // What the node has for all pods is noted, and the agent reports that it is not enforced.
        match e.source.is::<NoHostEnd>() && !wanted.is_annotated() {
            true => note(paths, &records, request, unenforced(request, &wanted)),
            false => Err(e),
        }
    })?;
    Ok(request.prev_result.get().to_owned())
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
        .and_then(|()| claim.write(&Record { came: request.came(), ..record }));
    done.map_err(|first| {
        let mut left = Shaper { pins, slot: claim.slot, veth: &mut veth }.undo(Direction::Egress);
        match records.find_all(&request.key) {
            Ok(claims) => {
                left.extend(claims.iter().flat_map(|claim| take_off(Some(pins), records, claim)))
            }
            Err(e) => left.push(format!("{e:#}")),
        }
        Error { code: Code::Attach, source: and_then(first, &left) }
    })
}

/// The pod's veth pair.
pub(super) fn find(request: &Request) -> Result<Veth, Error> {
    Veth::find(&request.netns, &request.key.ifname)
        .context("find the pod's interface")
        .map_err(Error::with(Code::NoInterface))
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
            shaper.undo(Direction::Egress).iter().for_each(complain);
        }
        done?;
    }
    Ok(())
}

impl Request {
    fn came(&self) -> Came {
        Came::Added { took_ns: Some(self.began.elapsed().as_nanos() as u64) }
    }
}

pub(super) fn new_record(request: &Request) -> Record {
    Record {
        namespace: request.namespace.clone(),
        pod: request.pod.clone(),
        netns: request.netns.clone(),
        network: request.network.clone(),
        annotated: request.annotated,
        live: None,
        came: Came::Added { took_ns: None },
        main: None,
        host: None,
        egress: Shaping::Unlimited,
        ingress: Shaping::Unlimited,
        guard: None,
        admitted: None,
        ingress_guard: None,
    }
}

fn attach(shaper: &mut Shaper, record: &mut Record, wanted: &Wanted) -> anyhow::Result<()> {
    shaper.egress(record, wanted.egress.as_ref())?;
    shaper.ingress(record, wanted.ingress.as_ref())
}

/// The first error stays on top; what could not be undone is listed after it.
fn and_then(first: anyhow::Error, left: &[String]) -> anyhow::Error {
    if left.is_empty() { first } else { anyhow!("{first:#}; and then: {}", left.join("; ")) }
}

/// Needs the environment only, so no configuration is too broken to clear up after.
fn del(paths: &Paths, environment: &Environment) -> Result<(), Error> {
    let key = environment.key()?;
    let records = Records::new(paths);
    // After the node has started anew nothing is attached, and there is nothing to make for that.
    if !records.is_there() {
        return Ok(());
    }
    // Without it there is no record either, or none that can be removed; or somebody hangs, and a record that
    // is written again behind us is collected by the agent.
    let _shared = records.share().inspect_err(|e| complain(format!("{e:#}")));
    let _held =
        records.hold(&key.container_id, VERBS_WAIT).inspect_err(|e| complain(format!("{e:#}")));
    forget(paths, None, &records, &key)?;
    // A file too many is no reason to keep a pod from going.
    if let Err(e) = records.tidy(&key) {
        complain(format!("{e:#}"));
    }
    Ok(())
}

/// Detaches what is still there of an interface and of those that came with it, then frees the
/// slot: no slot is free while it is in use. Says whether there was anything.
fn forget(paths: &Paths, pins: Option<&Pins>, records: &Records, key: &Key) -> Result<bool, Error> {
    let claims = records.find_all(key).map_err(Error::with(Code::Io))?;
    if claims.is_empty() {
        return Ok(false);
    }
    let opened = if pins.is_none() { Pins::open(&paths.pin_dir()).ok() } else { None };
    for claim in claims {
        let complaints = take_off(pins.or(opened.as_ref()), records, &claim);
        complaints.iter().for_each(complain);
    }
    Ok(true)
}

/// The slot is cleared with the interface that has it by right.
pub(super) fn take_off(pins: Option<&Pins>, records: &Records, claim: &Claim) -> Vec<String> {
    let record = claim.read().ok();
    let mut veth = record.as_ref().and_then(|r| Veth::find(&r.netns, &claim.key.ifname).ok());
    let mut complaints = shaper::remove(pins, claim, veth.as_mut());
    if record.is_none_or(|record| record.main.is_none()) {
        let cleared = pins.map_or(Ok(()), |pins| pins.clear(claim.slot));
        complaints.extend(cleared.err().map(|e| e.to_string()));
    }
    complaints.extend(records.release(claim).err().map(|e| format!("{e:#}")));
    complaints
}

pub(super) fn pins_error(error: bpf::Error) -> Error {
    let code = if error.is_not_pinned() { Code::TryAgainLater } else { Code::Attach };
    Error { code, source: anyhow::Error::from(error).context(NO_PINS) }
}

pub(super) fn lock_error(source: anyhow::Error) -> Error {
    let code = if source.is::<Busy>() { Code::TryAgainLater } else { Code::Io };
    Error { code, source }
}

fn claim_error(source: anyhow::Error) -> Error {
    let code = if source.is::<NoFreeSlot>() { Code::Full } else { Code::Io };
    Error { code, source }
}
