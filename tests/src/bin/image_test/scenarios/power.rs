// SPDX-License-Identifier: Apache-2.0
//! Power that goes while an update or settings are written.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::imds::Imds;

use super::boot::{USER_DATA, check_node};
use super::slots::{FROM, TO, URL, machine};
use crate::disk::Disk;
use crate::guest::{BOOT, Guest};
use crate::scenario::{Bench, holds};

const CUTS: u64 = 20;

/// Each boot does what the next power cut falls into: the update, and settings that change all the while.
pub fn cut_at_many_points(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let disk = bench.disk(FROM)?;
    let mut versions = Vec::new();
    for cut in 0..=CUTS {
        let (mut guest, facts) = boot(bench, &disk, port)?;
        let version = facts["image"].as_str().context("a version")?.to_owned();
        check_node(&facts, &version)?;
        holds("it is a version there is", [FROM, TO].contains(&&*version), &version)?;
        check_settings(&facts)?;
        versions.push(version);
        if cut < CUTS {
            guest.probe("update-begins", Duration::from_secs(120))?;
            // The point of the cut: another one each time, over what the work takes.
            thread::sleep(Duration::from_millis(700 * cut));
        }
        guest.cut_power();
    }
    bench.say(&format!("{CUTS} cuts; images: {}", versions.join(" ")));
    Ok(())
}

fn boot(bench: &Bench, disk: &Disk, port: u16) -> Result<(Guest, Value)> {
    let work = format!("report settings-and-update {URL}");
    let mut guest = Guest::start(bench, &machine(bench, port, &work), disk)?;
    let facts = guest.probe("report", 3 * BOOT)?;
    Ok((guest, facts))
}

/// Both rates are one generation's.
fn check_settings(facts: &Value) -> Result<()> {
    let settings = facts["settings"].as_str().context("settings")?;
    let rate = |key: &str| {
        let line = settings.lines().find(|line| line.contains(key));
        line.and_then(|line| line.split('"').nth(1)).map(str::to_owned)
    };
    let (egress, ingress) = (rate("default-egress"), rate("default-ingress"));
    let whole = match (egress.as_deref(), ingress.as_deref()) {
        (Some("20Mbit"), Some("30Mbit")) => true,
        (egress, ingress) => egress.is_some() && egress == ingress,
    };
    holds("the settings are one generation's", whole, settings)
}
