// SPDX-License-Identifier: Apache-2.0
//! The next image: fetched, tried, kept, or left for the one before.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tests::imds::Imds;

use super::boot::{USER_DATA, check_kubelet, check_node};
use crate::disk::Disk;
use crate::guest::{BOOT, Guest};
use crate::machine::{Machine, NO_MATTER};
use crate::scenario::{Bench, holds};

pub const FROM: &str = "1.0.0";
pub const TO: &str = "1.1.0";
const MIB: u64 = 1 << 20;
/// Where the second slot's data begins: after what partitions need, ESP, first slot and its verity tree.
const SLOT_B: u64 = (1 + 288 + 512 + 16) * MIB;
/// In it: whatever else is read of erofs, that is.
const SUPERBLOCK: u64 = 1024;

pub fn machine(imds_port: u16, probe: &str) -> Machine {
    Machine { imds_port: Some(imds_port), without: NO_MATTER, ..Machine::new(probe) }
}

/// What the machine is after it has come up, by whatever way.
fn next_boot(
    bench: &Bench,
    disk: &Disk,
    machine: &Machine,
    limit: Duration,
) -> Result<(Guest, Value)> {
    let mut guest = Guest::start(bench, machine, disk)?;
    let facts = guest.probe("report", limit)?;
    bench.say(&format!("{} after {:.0} s", facts["image"], guest.serial.elapsed().as_secs_f64()));
    Ok((guest, facts))
}

pub fn an_update_keeps_the_data_and_is_blessed(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let updated = bench.updated()?;
    let disk = bench.disk_over_disk(&updated.disk)?;
    let (guest, facts) = next_boot(bench, &disk, &machine(port, "report"), BOOT)?;
    check_node(&facts, TO)?;
    let pods = &facts["kubelet"]["says"]["maxPods"];
    holds("kubelet takes its number of pods", pods == 58, pods)?;
    holds("the data is kept", facts["boots"] == 2, &facts["boots"])?;
    holds("so are the settings", facts["in_force"] == updated.in_force, &facts["in_force"])?;
    bench.say(&format!("entries: {}", facts["entries"]));
    guest.cut_power();
    turn_corrupt(bench, &disk, port)
}

/// The slot was good, and is not the day after.
fn turn_corrupt(bench: &Bench, disk: &Disk, port: u16) -> Result<()> {
    disk.flip_bit(SLOT_B + SUPERBLOCK)?;
    let (guest, facts) = next_boot(bench, disk, &machine(port, "report"), 3 * BOOT)?;
    let panics = guest.serial.count("Kernel panic");
    bench.say(&format!(
        "corrupted when it was good: {panics} panics; entries: {}",
        facts["entries"]
    ));
    was_given_up(&facts)?;
    check_node(&facts, FROM)
}

pub fn a_corrupt_update_falls_back(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let disk = bench.disk_over_disk(&bench.updated()?.disk)?;
    disk.flip_bit(SLOT_B + SUPERBLOCK)?;
    let (guest, facts) = next_boot(bench, &disk, &machine(port, "report"), 3 * BOOT)?;
    let panics = guest.serial.count("Kernel panic");
    bench.say(&format!("{panics} panics; entries: {}", facts["entries"]));
    holds("verity found it", guest.serial.said("is corrupted"), ())?;
    was_given_up(&facts)?;
    check_node(&facts, FROM)
}

/// All tries of the newer image were used up.
fn was_given_up(facts: &Value) -> Result<()> {
    let entry = format!("sluice-node_{TO}+0-2.efi");
    let entries = facts["entries"].as_array().into_iter().flatten();
    holds("it was tried twice", entries.into_iter().any(|e| e == &*entry), &facts["entries"])
}

/// As on a new instance: one slot has an image, and the other none. The agent refuses to start in both tries, and hangs then.
pub fn a_node_with_one_image_stays_up_after_its_tries(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let without_tries = format!("sluice-node_{FROM}+0-3.efi");
    let refuses = format!(
        "[Unit]\nRequiresMountsFor=/run/probe /boot\nAssertPathExists=/boot/EFI/Linux/{without_tries}\n\
         [Service]\nExecStartPre=+/run/probe/image_probe hang-on {FROM}\n"
    );
    let machine =
        machine(port, "report").credential("systemd.unit-dropin.sluice.service", &refuses);
    let disk = bench.disk(FROM)?;
    let mut guest = Guest::start(bench, &machine, &disk)?;
    let facts = loop {
        let facts = guest.probe("report", 3 * BOOT)?;
        if facts["stays"] == "yes" {
            break facts;
        }
    };
    bench.say(&format!("stays, after {:.0} s", guest.serial.elapsed().as_secs_f64()));
    bench.say(&format!("entries: {}", facts["entries"]));
    let reboots = guest.serial.count("sluice-node: the agent did not get READY, rebooting");
    holds("both tries were taken", reboots == 2, reboots)?;
    holds(
        "the third boot has none left",
        facts["entries"] == json!([without_tries]),
        &facts["entries"],
    )?;
    // Nothing is left to do, so nothing is left that could reboot.
    holds("the boot is over", facts["state"] == "degraded", &facts["state"])?;
    holds("there is no agent", facts["agent"] != "active", &facts["agent"])?;
    for said in ["the node stays up", "Active: activating ("] {
        holds("the console says so, and why", guest.serial.said(said), said)?;
    }
    check_kubelet(&facts)
}

pub fn an_agent_that_is_never_ready_falls_back(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let disk = bench.disk_over_disk(&bench.updated()?.disk)?;
    let hangs = format!(
        "[Unit]\nRequiresMountsFor=/run/probe\n[Service]\nExecStartPre=+/run/probe/image_probe hang-on {TO}\n"
    );
    let machine = machine(port, "report").credential("systemd.unit-dropin.sluice.service", &hangs);
    let mut guest = Guest::start(bench, &machine, &disk)?;
    let facts = loop {
        let facts = guest.probe("report", 4 * BOOT)?;
        if facts["image"] == FROM {
            break facts;
        }
    };
    bench.say(&format!("{} after {:.0} s", facts["image"], guest.serial.elapsed().as_secs_f64()));
    bench.say(&format!("entries: {}", facts["entries"]));
    was_given_up(&facts)?;
    check_node(&facts, FROM)
}
