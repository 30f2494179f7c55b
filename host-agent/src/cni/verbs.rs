// SPDX-License-Identifier: Apache-2.0
//! The verbs. ADD shapes or fails whole; DEL succeeds whatever is left to do,
//! because libcni stops the chain at the first plugin whose DEL fails.

use anyhow::{Context, anyhow};
use bpf::{Direction, Pins};
use serde::Deserialize;
use serde_json::json;

use super::error::{Code, Error};
use super::request::{Command, Environment, Request, cni_version};
use super::{CNI_VERSIONS, check, gc};
use crate::attach::Veth;
use crate::live::in_force;
use crate::paths::Paths;
use crate::record::{Came, Claim, Key, NoFreeSlot, Record, Records, Shaping};
use crate::shape::{self, Shaper};
use crate::wanted::Wanted;

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

/// Ready when ADD can find the settings, the pins and a slot. The runtime says nothing here of a
/// container, and neither it nor we need a configuration.
fn status(paths: &Paths) -> Result<(), Error> {
    let unavailable = Error::with(Code::NotAvailable);
    in_force(paths).map_err(&unavailable)?;
    Pins::open(&paths.pin_dir()).map_err(Error::with(Code::NotAvailable))?;
    Records::new(paths.pods_dir()).has_room().map_err(&unavailable)
}

fn add(paths: &Paths, request: &Request) -> Result<String, Error> {
    let records = Records::new(paths.pods_dir());
    let _shared = records.share().map_err(Error::with(Code::Io))?;
    let settings = in_force(paths)
        .context("find the settings in force (has `sluice boot` run?)")
        .map_err(Error::with(Code::TryAgainLater))?;
    let wanted = new_record(request).wanted(&settings.bandwidth);
    match wanted.is_unlimited() {
        true => note(paths, &records, request)?,
        false => shape(paths, &records, request, &wanted)?,
    }
    Ok(request.prev_result.get().to_owned())
}

/// A pod without a limit gets a record and nothing else, not even that when all slots are taken:
/// then new settings will not reach it.
fn note(paths: &Paths, records: &Records, request: &Request) -> Result<(), Error> {
    forget(paths, None, records, &request.key)?;
    let record = Record { came: request.came(), ..new_record(request) };
    match records.claim(request.key.clone(), &record) {
        Err(e) if e.is::<NoFreeSlot>() => Ok(()),
        result => result.map(|_| ()).map_err(claim_error),
    }
}

fn shape(
    paths: &Paths,
    records: &Records,
    request: &Request,
    wanted: &Wanted,
) -> Result<(), Error> {
    let mut veth = find(request)?;
    let host = &veth.host.link.name;
    check_host_interface(request.prev_result.get(), host)
        .map_err(Error::with(Code::NoInterface))?;
    let pins = Pins::open(&paths.pin_dir()).map_err(pins_error)?;
    // Of an ADD that was killed: its record names what may still be attached.
    if forget(paths, Some(&pins), records, &request.key)? {
        veth = find(request)?;
    }
    let mut record = new_record(request);
    shape::prepare(&mut record, &veth, wanted);
    let claim = records.claim(request.key.clone(), &record).map_err(claim_error)?;
    let mut shaper = Shaper { pins: &pins, slot: claim.slot, veth: &mut veth };
    let cleared = pins.clear(claim.slot).map_err(anyhow::Error::from);
    let done = cleared
        .and_then(|()| attach(&mut shaper, &mut record, wanted))
        .and_then(|()| shape_others(&pins, records, request, &mut veth, wanted))
        .and_then(|()| claim.write(&Record { came: request.came(), ..record }));
    done.map_err(|first| {
        let mut left =
            Shaper { pins: &pins, slot: claim.slot, veth: &mut veth }.undo(Direction::Egress);
        match records.find_all(&request.key) {
            Ok(claims) => {
                left.extend(claims.iter().flat_map(|claim| take_off(Some(&pins), records, claim)))
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
    for ifname in main.others()? {
        let key = Key { container_id: request.key.container_id.clone(), ifname };
        // It had an ADD of its own.
        if records.find(&key)?.is_some() {
            continue;
        }
        let mut veth = Veth::find(&request.netns, &key.ifname)?;
        let mut record = new_record(request).for_other(&request.key.ifname);
        shape::prepare(&mut record, &veth, wanted);
        let claim = records.claim(key, &record)?;
        let mut shaper = Shaper { pins, slot: claim.slot, veth: &mut veth };
        let done = attach(&mut shaper, &mut record, wanted).and_then(|()| claim.write(&record));
        if done.is_err() {
            shaper.undo(Direction::Egress).iter().for_each(|left| eprintln!("sluice: {left}"));
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
    let records = Records::new(paths.pods_dir());
    // After the node has started anew nothing is attached, and there is nothing to make for that.
    if !records.is_there() {
        return Ok(());
    }
    // Where that cannot be had there is no record either, or none that can be removed.
    let _shared = records.share();
    forget(paths, None, &records, &key)?;
    // A file too many is no reason to keep a pod from going.
    if let Err(e) = records.tidy(&key) {
        eprintln!("sluice: {e:#}");
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
        complaints.iter().for_each(|complaint| eprintln!("sluice: {complaint}"));
    }
    Ok(true)
}

/// The slot is cleared with the interface that has it by right.
pub(super) fn take_off(pins: Option<&Pins>, records: &Records, claim: &Claim) -> Vec<String> {
    let record = claim.read().ok();
    let mut veth = record.as_ref().and_then(|r| Veth::find(&r.netns, &claim.key.ifname).ok());
    let mut complaints = shape::remove(pins, claim, veth.as_mut());
    if record.is_none_or(|record| record.main.is_none()) {
        let cleared = pins.map_or(Ok(()), |pins| pins.clear(claim.slot));
        complaints.extend(cleared.err().map(|e| e.to_string()));
    }
    complaints.extend(records.release(claim).err().map(|e| format!("{e:#}")));
    complaints
}

/// As the upstream bandwidth plugin does: the host's end must be an interface of the result that
/// lies in no sandbox, or the chain made something that we do not know.
pub(super) fn check_host_interface(result: &str, name: &str) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct PrevResult {
        #[serde(default)]
        interfaces: Vec<Interface>,
        #[serde(default, rename = "cniVersion")]
        cni_version: String,
    }
    #[derive(Deserialize)]
    struct Interface {
        name: String,
        #[serde(default)]
        sandbox: String,
    }
    let result: PrevResult = serde_json::from_str(result).context("decode prevResult")?;
    // What plugins give where the list has no cniVersion: these know of no interfaces.
    if ["0.1.0", "0.2.0"].contains(&result.cni_version.as_str()) {
        return Ok(());
    }
    let mut on_host = result.interfaces.iter().filter(|interface| interface.sandbox.is_empty());
    if on_host.any(|interface| interface.name == name) {
        return Ok(());
    }
    anyhow::bail!("prevResult names no host interface {name}, the other end of the pod's veth")
}

pub(super) fn pins_error(error: bpf::Error) -> Error {
    let code = if error.is_not_pinned() { Code::TryAgainLater } else { Code::Attach };
    let context = "open the shaper's pins (is sluice.service running?)";
    Error { code, source: anyhow::Error::from(error).context(context) }
}

fn claim_error(source: anyhow::Error) -> Error {
    let code = if source.is::<NoFreeSlot>() { Code::Full } else { Code::Io };
    Error { code, source }
}
