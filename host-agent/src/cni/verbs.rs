// SPDX-License-Identifier: Apache-2.0
//! The verbs. ADD shapes or fails whole; DEL succeeds whatever is left to do,
//! because libcni stops the chain at the first plugin whose DEL fails.

use std::path::Path;

use anyhow::{Context, anyhow};
use bpf::{Direction, Mode, Pins};
use serde::Deserialize;
use serde_json::json;
use settings_model::{Bandwidth, Burst, Rate, Settings};

use super::CNI_VERSIONS;
use super::error::{Code, Error};
use super::request::{Command, Environment, Request, cni_version};
use crate::attach::{Veth, detach_host_end};
use crate::limit::{Limit, Origin};
use crate::paths::Paths;
use crate::record::{Claim, NoFreeSlot, Record, Records, Shaping};

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
    let settings = in_force(paths)
        .context("find the settings in force (has `sluice boot` run?)")
        .map_err(Error::with(Code::TryAgainLater))?;
    let wanted = Wanted::of(&settings.bandwidth, request);
    if wanted.egress.is_some() || wanted.ingress.is_some() {
        shape(paths, request, &wanted)?;
    }
    Ok(request.prev_result.get().to_owned())
}

/// The settings in force; `sluice boot` replaces the file whole.
fn in_force(paths: &Paths) -> anyhow::Result<Settings> {
    let path = paths.settings_in_force();
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(settings_model::parse(&path.display().to_string(), &text)?)
}

/// Which limits hold, highest first: annotation, class, node default, none.
struct Wanted {
    egress: Option<Limit>,
    ingress: Option<Limit>,
}

impl Wanted {
    fn of(bandwidth: &Bandwidth, request: &Request) -> Self {
        let class = bandwidth.classes.class_for(&request.namespace, &request.pod);
        let (egress, ingress) = class.map_or((None, None), |class| (class.egress, class.ingress));
        let annotated = request.bandwidth;
        let choose = |annotation: Option<Rate>, burst: Option<Burst>, class, default| {
            let (limit, origin) = match (annotation, class) {
                (Some(rate), _) => (settings_model::Limit::Rate(rate), Origin::PodAnnotation),
                (None, Some(limit)) => (limit, Origin::Class),
                (None, None) => (default, Origin::NodeDefault),
            };
            match limit {
                settings_model::Limit::Rate(rate) if bandwidth.enabled => {
                    Some(Limit { rate, burst: burst.unwrap_or(bandwidth.burst), origin })
                }
                _ => None,
            }
        };
        let default = (bandwidth.default_egress, bandwidth.default_ingress);
        Self {
            egress: choose(annotated.egress, annotated.egress_burst, egress, default.0),
            ingress: choose(annotated.ingress, annotated.ingress_burst, ingress, default.1),
        }
    }
}

fn shape(paths: &Paths, request: &Request, wanted: &Wanted) -> Result<(), Error> {
    let no_interface = Error::with(Code::NoInterface);
    let mut veth = Veth::find(&request.netns, &request.key.ifname)
        .context("find the pod's interface")
        .map_err(&no_interface)?;
    check_host_interface(request.prev_result.get(), &veth.host.name).map_err(&no_interface)?;
    let pins = Pins::open(&paths.pin_dir()).map_err(pins_error)?;
    let records = Records::new(paths.pods_dir());
    // Of an ADD that was killed: its record names what may still be attached.
    if let Some(old) = records.find(&request.key).map_err(Error::with(Code::Io))? {
        remove(paths, Some(&mut veth), &old);
    }
    let record = new_record(request, &veth, wanted);
    let claim = records.claim(request.key.clone(), &record).map_err(claim_error)?;
    attach(&pins, &mut veth, &claim, record, wanted).map_err(|first| {
        let source = undo(&mut veth, &claim, first);
        Error { code: Code::Attach, source }
    })
}

fn new_record(request: &Request, veth: &Veth, wanted: &Wanted) -> Record {
    Record {
        namespace: request.namespace.clone(),
        pod: request.pod.clone(),
        netns: request.netns.clone(),
        host_ifname: veth.host.name.clone(),
        host_ifindex: veth.host.index,
        egress: Shaping::of(wanted.egress.as_ref(), None),
        ingress: Shaping::of(wanted.ingress.as_ref(), None),
    }
}

fn attach(
    pins: &Pins,
    veth: &mut Veth,
    claim: &Claim,
    mut record: Record,
    wanted: &Wanted,
) -> anyhow::Result<()> {
    pins.clear(claim.slot)?;
    let mut shape = |direction, limit: Option<&Limit>| -> anyhow::Result<Option<Mode>> {
        limit.map(|limit| veth.attach(pins, claim.slot, direction, limit)).transpose()
    };
    let egress = shape(Direction::Egress, wanted.egress.as_ref()).context("shape pod egress")?;
    let ingress =
        shape(Direction::Ingress, wanted.ingress.as_ref()).context("shape pod ingress")?;
    record.egress = Shaping::of(wanted.egress.as_ref(), egress);
    record.ingress = Shaping::of(wanted.ingress.as_ref(), ingress);
    claim.write(&record)
}

/// The first error stays on top; what could not be undone is listed after it.
fn undo(veth: &mut Veth, claim: &Claim, first: anyhow::Error) -> anyhow::Error {
    let mut left: Vec<String> = veth.undo().iter().map(ToString::to_string).collect();
    left.extend(claim.release().err().map(|e| e.to_string()));
    if left.is_empty() { first } else { anyhow!("{first:#}; and then: {}", left.join("; ")) }
}

/// Needs the environment only, so no configuration is too broken to clear up after.
fn del(paths: &Paths, environment: &Environment) -> Result<(), Error> {
    let key = environment.key()?;
    let claim = Records::new(paths.pods_dir()).find(&key).map_err(Error::with(Code::Io))?;
    if let Some(claim) = claim {
        let mut veth = Veth::find(Path::new(&environment.netns), &key.ifname).ok();
        remove(paths, veth.as_mut(), &claim);
    }
    Ok(())
}

/// Detaches what is still there, then frees the slot: no slot is free while it is in use.
fn remove(paths: &Paths, veth: Option<&mut Veth>, claim: &Claim) {
    let mut complaints: Vec<String> = match veth {
        Some(veth) => veth.detach().iter().map(ToString::to_string).collect(),
        None => detach_recorded(claim).err().map(|e| format!("{e:#}")).into_iter().collect(),
    };
    if let Ok(pins) = Pins::open(&paths.pin_dir()) {
        complaints.extend(pins.clear(claim.slot).err().map(|e| e.to_string()));
    }
    complaints.extend(claim.release().err().map(|e| format!("{e:#}")));
    for complaint in complaints {
        eprintln!("sluice: {complaint}");
    }
}

/// The namespace is gone, or has no name any more and lives on: then the veth does too.
fn detach_recorded(claim: &Claim) -> anyhow::Result<()> {
    let record = claim.read()?;
    match detach_host_end(record.host_ifindex, &record.host_ifname) {
        Err(e) if !e.is_not_found() => Err(e.into()),
        _ => Ok(()),
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
