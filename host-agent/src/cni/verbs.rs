// SPDX-License-Identifier: Apache-2.0
//! The verbs. ADD shapes or fails whole; DEL succeeds whatever is left to do,
//! because libcni stops the chain at the first plugin whose DEL fails.

use std::path::Path;

use anyhow::{Context, anyhow};
use bpf::{Direction, Pins};
use serde::Deserialize;
use serde_json::json;

use super::CNI_VERSIONS;
use super::error::{Code, Error};
use super::request::{Command, Environment, Request, cni_version};
use crate::attach::Veth;
use crate::live::in_force;
use crate::paths::Paths;
use crate::record::{Came, Claim, NoFreeSlot, Record, Records, Shaping};
use crate::shape::{self, Shaper};
use crate::wanted::Wanted;

/// One call of the plugin: what to print on standard output, and whether it went well.
pub fn run(paths: &Paths, environment: &Environment, stdin: &str) -> Result<String, String> {
    let dispatch = || match environment.command()? {
        Command::Version => Ok(version(stdin)),
        Command::Status => status(paths).map(|()| String::new()),
        Command::Add => add(paths, &Request::decode(environment, stdin)?),
        Command::Del => del(paths, environment).map(|()| String::new()),
    };
    let answered = cni_version(stdin).filter(|v| CNI_VERSIONS.contains(&v.as_str()));
    dispatch().map_err(|e: Error| e.to_json(answered.as_deref().unwrap_or("1.0.0")))
}

fn version(stdin: &str) -> String {
    let asked = cni_version(stdin).unwrap_or_else(|| "1.0.0".into());
    json!({ "cniVersion": asked, "supportedVersions": CNI_VERSIONS }).to_string()
}

/// STATUS (CNI 1.1.0): ready when ADD can find the settings and the pins.
fn status(paths: &Paths) -> Result<(), Error> {
    in_force(paths).map_err(Error::with(Code::NotAvailable))?;
    Pins::open(&paths.pin_dir()).map_err(Error::with(Code::NotAvailable))?;
    Ok(())
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
    if let Some(old) = records.find(&request.key).map_err(Error::with(Code::Io))? {
        let mut veth = Veth::find(&request.netns, &request.key.ifname).ok();
        remove(paths, records, veth.as_mut(), &old);
    }
    match records.claim(request.key.clone(), &new_record(request)) {
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
    let no_interface = Error::with(Code::NoInterface);
    let mut veth = Veth::find(&request.netns, &request.key.ifname)
        .context("find the pod's interface")
        .map_err(&no_interface)?;
    let host = &veth.host.link.name;
    check_host_interface(request.prev_result.get(), host).map_err(&no_interface)?;
    let pins = Pins::open(&paths.pin_dir()).map_err(pins_error)?;
    // Of an ADD that was killed: its record names what may still be attached.
    if let Some(old) = records.find(&request.key).map_err(Error::with(Code::Io))? {
        remove(paths, records, Some(&mut veth), &old);
    }
    let mut record = new_record(request);
    shape::prepare(&mut record, &veth, wanted);
    let claim = records.claim(request.key.clone(), &record).map_err(claim_error)?;
    let mut shaper = Shaper { pins: &pins, slot: claim.slot, veth: &mut veth };
    attach(&mut shaper, &claim, record, wanted).map_err(|first| {
        let source = undo(&mut shaper, records, &claim, first);
        Error { code: Code::Attach, source }
    })
}

fn new_record(request: &Request) -> Record {
    Record {
        namespace: request.namespace.clone(),
        pod: request.pod.clone(),
        netns: request.netns.clone(),
        annotated: request.annotated,
        live: None,
        came: Came::Added { took_ns: None },
        main: None,
        host: None,
        egress: Shaping::Unlimited,
        ingress: Shaping::Unlimited,
        guard: None,
    }
}

fn attach(
    shaper: &mut Shaper,
    claim: &Claim,
    mut record: Record,
    wanted: &Wanted,
) -> anyhow::Result<()> {
    shaper.pins.clear(claim.slot)?;
    shaper.egress(&mut record, wanted.egress.as_ref())?;
    shaper.ingress(&mut record, wanted.ingress.as_ref())?;
    claim.write(&record)
}

/// The first error stays on top; what could not be undone is listed after it.
fn undo(
    shaper: &mut Shaper,
    records: &Records,
    claim: &Claim,
    first: anyhow::Error,
) -> anyhow::Error {
    let mut left = shaper.undo(Direction::Egress);
    left.extend(records.release(claim).err().map(|e| e.to_string()));
    if left.is_empty() { first } else { anyhow!("{first:#}; and then: {}", left.join("; ")) }
}

/// Needs the environment only, so no configuration is too broken to clear up after.
fn del(paths: &Paths, environment: &Environment) -> Result<(), Error> {
    let key = environment.key()?;
    let records = Records::new(paths.pods_dir());
    // Where that cannot be had there is no record either, or none that can be removed.
    let _shared = records.share();
    if let Some(claim) = records.find(&key).map_err(Error::with(Code::Io))? {
        let mut veth = Veth::find(Path::new(&environment.netns), &key.ifname).ok();
        remove(paths, &records, veth.as_mut(), &claim);
    }
    Ok(())
}

/// Detaches what is still there, then frees the slot: no slot is free while it is in use.
fn remove(paths: &Paths, records: &Records, veth: Option<&mut Veth>, claim: &Claim) {
    let pins = Pins::open(&paths.pin_dir()).ok();
    let mut complaints = shape::remove(pins.as_ref(), claim, veth);
    let cleared = pins.map_or(Ok(()), |pins| pins.clear(claim.slot));
    complaints.extend(cleared.err().map(|e| e.to_string()));
    complaints.extend(records.release(claim).err().map(|e| format!("{e:#}")));
    for complaint in complaints {
        eprintln!("sluice: {complaint}");
    }
}

/// As the upstream bandwidth plugin does: the host's end must be an interface of the result that
/// lies in no sandbox, or the chain made something that we do not know.
fn check_host_interface(result: &str, name: &str) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct PrevResult {
        #[serde(default)]
        interfaces: Vec<Interface>,
    }
    #[derive(Deserialize)]
    struct Interface {
        name: String,
        #[serde(default)]
        sandbox: String,
    }
    let result: PrevResult = serde_json::from_str(result).context("decode prevResult")?;
    let mut on_host = result.interfaces.iter().filter(|interface| interface.sandbox.is_empty());
    if on_host.any(|interface| interface.name == name) {
        return Ok(());
    }
    anyhow::bail!("prevResult names no host interface {name}, the other end of the pod's veth")
}

fn pins_error(error: bpf::Error) -> Error {
    let code = if error.is_not_pinned() { Code::TryAgainLater } else { Code::Attach };
    let context = "open the shaper's pins (is sluice.service running?)";
    Error { code, source: anyhow::Error::from(error).context(context) }
}

fn claim_error(source: anyhow::Error) -> Error {
    let code = if source.is::<NoFreeSlot>() { Code::Full } else { Code::Io };
    Error { code, source }
}
