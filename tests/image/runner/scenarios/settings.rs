// SPDX-License-Identifier: Apache-2.0
//! User data that cannot be used or cannot be had: the node boots, and says so.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tests::imds::Imds;

use super::boot::{USER_DATA, check_node, first_line, has};
use crate::guest::{BOOT, Guest};
use crate::machine::{Machine, NO_MATTER};
use crate::scenario::{Bench, holds};

pub fn bad_user_data_does_not_stop_the_node(bench: &Bench) -> Result<()> {
    let typo = USER_DATA.replace("default-egress = \"20Mbit\"", "default-egress = \"20Mb\"");
    let (_imds, port) = Imds::on_port(Some(typo.as_bytes()));
    let (guest, facts) = boot(bench, Some(port))?;
    let said = "\"20Mb\"";
    holds("the reason is on the console", guest.serial.said(said), said)?;
    check_node_but(&facts, &["sluice-boot.service"])?;
    holds(
        "the image's defaults are in force",
        facts["in_force"]["reason"] == "defaults",
        &facts["in_force"],
    )?;
    holds("status says why", has(&facts["status"], said), &facts["status"])?;
    bench.say(&format!("in force: {}", first_line(&facts["status"])));
    Ok(())
}

pub fn without_imds_the_node_boots(bench: &Bench) -> Result<()> {
    let (guest, facts) = boot(bench, None)?;
    bench.say(&format!(
        "up after {:.0} s; {}",
        guest.serial.elapsed().as_secs_f64(),
        first_line(&facts["status"])
    ));
    check_node_but(&facts, &["sluice-boot.service"])?;
    holds("it is said", guest.serial.said("169.254.169.254"), ())
}

pub fn imds_may_come_late(bench: &Bench) -> Result<()> {
    let (imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    imds.answer_all(Some(503));
    let machine = Machine { imds_port: Some(port), without: NO_MATTER, ..Machine::new("report") };
    let disk = bench.disk("1.0.0")?;
    let mut guest = Guest::start(bench, &machine, &disk)?;
    tests::command::wait_for("the first question", BOOT, || {
        (!imds.requests().is_empty()).then_some(())
    });
    // What is tested is this time itself.
    thread::sleep(Duration::from_secs(20));
    imds.answer_all(None);
    let facts = guest.probe("report", BOOT)?;
    check_node(&facts, "1.0.0")?;
    holds("its settings are in force", has(&facts["settings"], "20Mbit"), &facts["settings"])
}

pub fn imds_that_is_off_is_said(bench: &Bench) -> Result<()> {
    let (imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    imds.answer_all(Some(403));
    let (guest, facts) = boot(bench, Some(port))?;
    bench.say(&format!(
        "up after {:.0} s; {}",
        guest.serial.elapsed().as_secs_f64(),
        first_line(&facts["status"])
    ));
    check_node_but(&facts, &["sluice-boot.service"])?;
    holds("it is said", guest.serial.said("403"), ())
}

fn boot(bench: &Bench, imds_port: Option<u16>) -> Result<(Guest, Value)> {
    let disk = bench.disk("1.0.0")?;
    let machine = Machine { imds_port, without: NO_MATTER, ..Machine::new("report") };
    let mut guest = Guest::start(bench, &machine, &disk)?;
    let facts = guest.probe("report", BOOT)?;
    Ok((guest, facts))
}

/// The promises of every boot, but these units may tell by their failure what is wrong.
fn check_node_but(facts: &Value, may_fail: &[&str]) -> Result<()> {
    let failed = facts["failed"].as_array().cloned().unwrap_or_default();
    let others = failed.iter().filter_map(Value::as_str).any(|unit| !may_fail.contains(&unit));
    holds("no other unit failed", !others, &failed)?;
    let mut facts = facts.clone();
    facts["failed"] = serde_json::json!([]);
    check_node(&facts, "1.0.0")
}
