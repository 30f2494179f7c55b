// SPDX-License-Identifier: Apache-2.0
//! Changes pods that are already there: to new settings, and the guard's place
//! when somebody else moves about on clsact. It holds off CNI's verbs meanwhile.

use std::ffi::OsString;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bpf::{Direction, Pins};
use log::{info, warn};
use settings_model::{Bandwidth, Settings};

use crate::attach::{End, Veth};
use crate::guard;
use crate::limit::PACED_HORIZON_NS;
use crate::netlink::Changed;
use crate::paths::Paths;
use crate::record::{Claim, Guard, Record, Records};
use crate::shape::{self, Later, Shaper};
use crate::wanted::Wanted;

/// The settings in force; `sluice boot` replaces the file whole.
pub fn in_force(paths: &Paths) -> Result<Settings> {
    let path = paths.settings_in_force();
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(settings_model::parse(&path.display().to_string(), &text)?)
}

/// Gives every pod the limits that the settings in force ask for. A pod that cannot be changed is
/// told of and keeps what it has; the others go on.
pub fn apply(paths: &Paths) -> Result<()> {
    let records = Records::new(paths.pods_dir());
    let _seized = records.seize()?;
    let claims = records.list()?;
    if claims.is_empty() {
        return Ok(());
    }
    let settings = in_force(paths)?;
    let pins = Pins::open(&paths.pin_dir())?;
    let mut later = Vec::new();
    for claim in claims {
        match change(&pins, &claim, &settings.bandwidth) {
            Ok(guard) => later.extend(guard),
            Err(e) => warn!("change {} of {}: {e:#}", claim.key.ifname, claim.key.container_id),
        }
    }
    if !later.is_empty() {
        thread::sleep(Duration::from_nanos(PACED_HORIZON_NS));
    }
    for Later { slot, guard } in later {
        pins.set_limit(slot, Direction::Guard, guard)?;
    }
    Ok(())
}

fn change(pins: &Pins, claim: &Claim, bandwidth: &Bandwidth) -> Result<Option<Later>> {
    let mut record = claim.read()?;
    let wanted = record.wanted(bandwidth);
    if record.is_unlimited() && wanted.is_unlimited() {
        return Ok(None);
    }
    if record.is_unlimited() {
        pins.clear(claim.slot)?;
    } else if shape::holds(pins, claim.slot, &record, &wanted)? {
        return Ok(None);
    }
    let mut veth = Veth::find(&record.netns, &claim.key.ifname)?;
    shape::prepare(&mut record, &veth, &wanted);
    claim.write(&record)?;
    let mut shaper = Shaper { pins, slot: claim.slot, veth: &mut veth };
    let changed = change_ways(&mut shaper, &mut record, &wanted);
    claim.write(&record)?;
    info!("{}/{}: limits changed", record.namespace, record.pod);
    changed
}

/// One way failing leaves the other as it is wanted.
fn change_ways(shaper: &mut Shaper, record: &mut Record, wanted: &Wanted) -> Result<Option<Later>> {
    let egress = shaper.egress(record, wanted.egress.as_ref());
    settle(shaper, Direction::Egress, &egress);
    let ingress = shaper.ingress(record, wanted.ingress.as_ref());
    settle(shaper, Direction::Ingress, &ingress);
    ingress.and(egress)
}

fn settle<T>(shaper: &mut Shaper, way: Direction, result: &Result<T>) {
    if result.is_ok() {
        return shaper.veth.keep();
    }
    for complaint in shaper.undo(way) {
        warn!("{complaint}");
    }
}

/// Attaches the guard where ADD has left that to us. Verbs go on meanwhile, so a pod may have gone
/// before its guard is there; then that is taken off again.
pub fn attach_guards(paths: &Paths, touched: &Touched) -> Result<()> {
    let records = Records::new(paths.pods_dir());
    let _shared = records.share()?;
    let pins = Pins::open(&paths.pin_dir())?;
    for claim in records.list()?.iter().filter(|claim| touched.has(claim)) {
        let Ok(record) = claim.read() else { continue };
        if record.guard == Some(Guard::Pending) {
            attach_guard(&records, &pins, claim, record)
                .with_context(|| format!("guard {}", claim.key.container_id))?;
        }
    }
    Ok(())
}

fn attach_guard(records: &Records, pins: &Pins, claim: &Claim, mut record: Record) -> Result<()> {
    let Some(host) = record.host.clone() else { return Ok(()) };
    let Some(mut end) = End::on_host(host.ifindex, &host.ifname)? else { return Ok(()) };
    let guard = guard::attach(pins, claim.slot, &mut end)?;
    record.guard = Some(guard.clone());
    if !records.rewrite(claim, &record)? {
        let errors = guard::detach(pins, claim.slot, &mut end, &guard);
        errors.iter().for_each(|e| warn!("{e:#}"));
    }
    Ok(())
}

/// Records that may have changed.
#[derive(Debug)]
pub enum Touched {
    Files(Vec<OsString>),
    Any,
}

impl Touched {
    fn has(&self, claim: &Claim) -> bool {
        match self {
            Self::Files(names) => names.iter().any(|name| claim.is_called(name)),
            Self::Any => true,
        }
    }
}

/// Puts the guard back in front, or in place at last, on devices whose filters have changed.
pub fn keep_guards_in_front(paths: &Paths, changed: &Changed) -> Result<()> {
    let records = Records::new(paths.pods_dir());
    let _seized = records.seize()?;
    let pins = Pins::open(&paths.pin_dir())?;
    for claim in records.list()? {
        let Ok(mut record) = claim.read() else { continue };
        let Some(host) = record.host.as_ref().filter(|host| changed.has(host.ifindex)) else {
            continue;
        };
        let end = match record.guard {
            Some(Guard::Clsact | Guard::Off(_)) => End::on_host(host.ifindex, &host.ifname)?,
            Some(Guard::Tcx | Guard::Pending) | None => None,
        };
        let Some(mut end) = end else { continue };
        let guard = Some(guard::bring_to_front(&pins, claim.slot, &mut end)?);
        if guard != record.guard {
            record.guard = guard;
            claim.write(&record)?;
        }
    }
    Ok(())
}
