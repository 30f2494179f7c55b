// SPDX-License-Identifier: Apache-2.0
//! Power that goes while an update or settings are written.

use anyhow::{Context, Result};
use serde_json::Value;

use super::boot::check_node;
use super::slots::{FROM, TO};
use super::updated::CUTS;
use crate::guest::{BOOT, Guest};
use crate::machine::{Machine, NO_MATTER};
use crate::scenario::{Bench, holds};

/// So many scenarios have the cuts among them, for these are most of all boots.
const SHARES: usize = 4;

pub fn after_a_cut_there_is_a_whole_image_1(bench: &Bench) -> Result<()> {
    boot_after_cuts(bench, 0)
}

pub fn after_a_cut_there_is_a_whole_image_2(bench: &Bench) -> Result<()> {
    boot_after_cuts(bench, 1)
}

pub fn after_a_cut_there_is_a_whole_image_3(bench: &Bench) -> Result<()> {
    boot_after_cuts(bench, 2)
}

pub fn after_a_cut_there_is_a_whole_image_4(bench: &Bench) -> Result<()> {
    boot_after_cuts(bench, 3)
}

fn boot_after_cuts(bench: &Bench, share: usize) -> Result<()> {
    let machine = Machine { without: NO_MATTER, ..Machine::new("report") };
    let mut versions = Vec::new();
    for cut in bench.updated()?.cuts.iter().skip(share).step_by(SHARES) {
        let disk = bench.disk_over_disk(cut)?;
        let mut guest = Guest::start(bench, &machine, &disk)?;
        let facts = guest.probe("report", 3 * BOOT)?;
        let version = facts["image"].as_str().context("a version")?.to_owned();
        check_node(&facts, &version)?;
        holds("it is a version there is", [FROM, TO].contains(&&*version), &version)?;
        check_settings(&facts)?;
        versions.push(version);
    }
    holds("so many cuts", versions.len() == CUTS / SHARES, &versions)?;
    bench.say(&format!("{} cuts; images: {}", versions.len(), versions.join(" ")));
    Ok(())
}

/// Both rates are one generation's.
fn check_settings(facts: &Value) -> Result<()> {
    let settings = facts["settings"].as_str().context("settings")?;
    let rate = |key: &str| {
        let line = settings.lines().find(|line| line.contains(key));
        line.and_then(|line| line.split('"').nth(1)).map(str::to_owned)
    };
    let (egress, ingress) = (rate("default-egress"), rate("default-ingress"));
    holds("the settings are one generation's", egress.is_some() && egress == ingress, settings)
}
