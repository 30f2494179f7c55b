// SPDX-License-Identifier: Apache-2.0
//! What several verbs do to a pod's interface: find it, note it, remove what
//! is on it; and which code an error of that has.

use anyhow::Context;
use bpf::Pins;

use super::error::{CniCode, Error};
use super::request::Request;
use crate::host::lock::Busy;
use crate::host::logging::harmless;
use crate::host::paths::Paths;
use crate::pod::record::{Arrival, Claim, Key, Record, Records};
use crate::pod::shaper;
use crate::pod::veth::Veth;

pub const NO_PINS: &str = "open the shaper's pins (is sluice.service running?)";

/// To standard error, which runtimes put into the journal.
pub fn complain(what: impl std::fmt::Display) {
    eprintln!("sluice: {}", harmless(&what.to_string()));
}

/// The pod's veth pair.
pub fn find(request: &Request) -> Result<Veth, Error> {
    Veth::find(&request.netns, &request.key.ifname)
        .context("find the pod's interface")
        .map_err(Error::with(CniCode::NoInterface))
}

pub fn new_record(request: &Request) -> Record {
    Record {
        namespace: request.namespace.clone(),
        pod: request.pod.clone(),
        netns: request.netns.clone(),
        network: request.network.clone(),
        annotated: request.annotated,
        ..Record::blank(Arrival::Added { took_ns: None })
    }
}

/// Detaches what is still there of an interface and of those that came with it, then frees the
/// slot: no slot is free while it is in use. Says whether there was anything.
pub fn forget(
    paths: &Paths,
    pins: Option<&Pins>,
    records: &Records,
    key: &Key,
) -> Result<bool, Error> {
    let claims = records.find_all(key).map_err(Error::with(CniCode::Io))?;
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
pub fn take_off(pins: Option<&Pins>, records: &Records, claim: &Claim) -> Vec<String> {
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

pub fn pins_error(error: bpf::Error) -> Error {
    let code = if error.is_not_pinned() { CniCode::TryAgainLater } else { CniCode::Attach };
    Error { code, source: anyhow::Error::from(error).context(NO_PINS) }
}

pub fn lock_error(source: anyhow::Error) -> Error {
    let code = if source.is::<Busy>() { CniCode::TryAgainLater } else { CniCode::Io };
    Error { code, source }
}
