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
use crate::record::{Came, Claim, Key, NoFreeSlot, Record, Records, Shaping};
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
    let mut veth = Veth::find(&request.netns, &request.key.ifname).ok();
    forget(paths, records, &request.key, veth.as_mut())?;
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
    let no_interface = Error::with(Code::NoInterface);
    let mut veth = Veth::find(&request.netns, &request.key.ifname)
        .context("find the pod's interface")
        .map_err(&no_interface)?;
    let host = &veth.host.link.name;
    check_host_interface(request.prev_result.get(), host).map_err(&no_interface)?;
    let pins = Pins::open(&paths.pin_dir()).map_err(pins_error)?;
    // Of an ADD that was killed: its record names what may still be attached.
    forget(paths, records, &request.key, Some(&mut veth))?;
    let mut record = new_record(request);
    shape::prepare(&mut record, &veth, wanted);
    let claim = records.claim(request.key.clone(), &record).map_err(claim_error)?;
    let mut shaper = Shaper { pins: &pins, slot: claim.slot, veth: &mut veth };
    let cleared = pins.clear(claim.slot).map_err(anyhow::Error::from);
    let done = cleared
        .and_then(|()| attach(&mut shaper, &claim, &mut record, wanted))
        .and_then(|()| shape_others(&pins, records, request, &mut veth, wanted))
        .and_then(|()| claim.write(&Record { came: request.came(), ..record }));
    done.map_err(|first| {
        let mut left =
            Shaper { pins: &pins, slot: claim.slot, veth: &mut veth }.undo(Direction::Egress);
        match records.find_all(&request.key) {
            Ok(claims) => left.extend(
                claims.iter().flat_map(|claim| take_off(Some(&pins), records, None, claim)),
            ),
            Err(e) => left.push(format!("{e:#}")),
        }
        Error { code: Code::Attach, source: and_then(first, &left) }
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
        let done = attach(&mut shaper, &claim, &mut record, wanted);
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
    record: &mut Record,
    wanted: &Wanted,
) -> anyhow::Result<()> {
    shaper.egress(record, wanted.egress.as_ref())?;
    shaper.ingress(record, wanted.ingress.as_ref())?;
    claim.write(record)
}

/// The first error stays on top; what could not be undone is listed after it.
fn and_then(first: anyhow::Error, left: &[String]) -> anyhow::Error {
    if left.is_empty() { first } else { anyhow!("{first:#}; and then: {}", left.join("; ")) }
}

/// Needs the environment only, so no configuration is too broken to clear up after.
fn del(paths: &Paths, environment: &Environment) -> Result<(), Error> {
    let key = environment.key()?;
    let records = Records::new(paths.pods_dir());
    // Where that cannot be had there is no record either, or none that can be removed.
    let _shared = records.share();
    let mut veth = Veth::find(Path::new(&environment.netns), &key.ifname).ok();
    forget(paths, &records, &key, veth.as_mut())
}

/// Detaches what is still there of an interface and of those that came with it, then frees the
/// slot: no slot is free while it is in use.
fn forget(
    paths: &Paths,
    records: &Records,
    key: &Key,
    mut veth: Option<&mut Veth>,
) -> Result<(), Error> {
    let pins = Pins::open(&paths.pin_dir()).ok();
    for claim in records.find_all(key).map_err(Error::with(Code::Io))? {
        let own = veth.take_if(|_| claim.key == *key);
        let complaints = take_off(pins.as_ref(), records, own, &claim);
        complaints.iter().for_each(|complaint| eprintln!("sluice: {complaint}"));
    }
    // A file too many is no reason to keep a pod from going; without a directory there is none.
    if let Err(e) = records.tidy(key) {
        eprintln!("sluice: {e:#}");
    }
    Ok(())
}

/// The slot is cleared with the interface that has it by right. Without `veth` it is looked for.
fn take_off(
    pins: Option<&Pins>,
    records: &Records,
    veth: Option<&mut Veth>,
    claim: &Claim,
) -> Vec<String> {
    let record = claim.read().ok();
    let mut found = match &record {
        Some(record) if veth.is_none() => Veth::find(&record.netns, &claim.key.ifname).ok(),
        _ => None,
    };
    let mut complaints = shape::remove(pins, claim, veth.or(found.as_mut()));
    if record.is_none_or(|record| record.main.is_none()) {
        let cleared = pins.map_or(Ok(()), |pins| pins.clear(claim.slot));
        complaints.extend(cleared.err().map(|e| e.to_string()));
    }
    complaints.extend(records.release(claim).err().map(|e| format!("{e:#}")));
    complaints
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
