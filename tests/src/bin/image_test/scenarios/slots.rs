// SPDX-License-Identifier: Apache-2.0
//! The next image: fetched, tried, kept, or left for the one before.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tests::imds::Imds;

use super::boot::{USER_DATA, check_node, has};
use crate::disk::Disk;
use crate::guest::{BOOT, Guest};
use crate::machine::Machine;
use crate::scenario::{Bench, holds};

pub const FROM: &str = "1.0.0";
pub const TO: &str = "1.1.0";
pub const URL: &str = "http://169.254.169.253/";
/// 230 MB through an emulated network.
pub const FETCH: Duration = Duration::from_secs(240);
const MIB: u64 = 1 << 20;
/// Where the second slot's data begins: after what partitions need, ESP, first slot and its verity tree.
pub const SLOT_B: u64 = (1 + 288 + 512 + 16) * MIB;
/// Some file's block, in the first slot and in the second.
const INTO_SLOT: u64 = 40 * MIB;

pub fn machine(bench: &Bench, port: u16, probe: &str) -> Machine {
    let files = Some(bench.site.update(TO));
    Machine { imds_port: Some(port), files, ..Machine::new(probe) }
}

/// From the first version to the second; the machine that did it is off at the end.
fn update(bench: &Bench, disk: &Disk, port: u16) -> Result<()> {
    let machine = machine(bench, port, &format!("report update {URL}"));
    let mut guest = Guest::start(bench, &machine, disk)?;
    check_node(&guest.probe("report", BOOT)?, FROM)?;
    let updated = guest.probe("updated", FETCH)?;
    holds("the update was written", updated["done"] == true, &updated["said"])?;
    guest.cut_power();
    Ok(())
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

/// What is offered with sums that nobody signed is refused, and changes nothing.
fn forged_update_is_refused(bench: &Bench, disk: &Disk, port: u16) -> Result<()> {
    let served = bench.scratch.path().join("served");
    fs::create_dir(&served)?;
    for file in fs::read_dir(bench.site.update(TO))? {
        let file = file?;
        symlink(file.path(), served.join(file.file_name()))?;
    }
    let sums = served.join("SHA256SUMS");
    let text = fs::read_to_string(&sums)?;
    fs::remove_file(&sums)?;
    fs::write(&sums, text + &format!("{:064x}  sluice-node_9.9.9.efi\n", 0))?;
    let probe = format!("report update {URL}");
    let machine = Machine { files: Some(served), ..machine(bench, port, &probe) };
    let mut guest = Guest::start(bench, &machine, disk)?;
    let before = guest.probe("report", BOOT)?;
    let updated = guest.probe("updated", FETCH)?;
    holds("it is refused", updated["done"] == false, &updated)?;
    holds("nothing is changed", updated["entries"] == before["entries"], &updated)?;
    bench.say(&format!("a forged one: {}", updated["said"]));
    guest.cut_power();
    Ok(())
}

pub fn an_update_keeps_the_data_and_is_blessed(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let disk = bench.disk(FROM)?;
    forged_update_is_refused(bench, &disk, port)?;
    update(bench, &disk, port)?;
    let (_guest, facts) = next_boot(bench, &disk, &machine(bench, port, "report"), BOOT)?;
    check_node(&facts, TO)?;
    holds("the data is kept", facts["boots"] == 3, &facts["boots"])?;
    holds("so are the settings", facts["in_force"]["generation"] == 1, &facts["in_force"])?;
    holds("and they are in force", has(&facts["settings"], "20Mbit"), &facts["settings"])?;
    bench.say(&format!("entries: {}", facts["entries"]));
    Ok(())
}

pub fn a_corrupt_update_falls_back(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let disk = bench.disk(FROM)?;
    update(bench, &disk, port)?;
    corrupt(&disk, SLOT_B)?;
    let (guest, facts) = next_boot(bench, &disk, &machine(bench, port, "report"), 3 * BOOT)?;
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

/// The slot's superblock: whatever else is read, that is.
fn corrupt(disk: &Disk, slot: u64) -> Result<()> {
    disk.corrupt(slot + 1024)?;
    disk.corrupt(slot + INTO_SLOT)
}

pub fn a_slot_that_turns_corrupt_later_falls_back(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let disk = bench.disk(FROM)?;
    update(bench, &disk, port)?;
    let (guest, facts) = next_boot(bench, &disk, &machine(bench, port, "report"), BOOT)?;
    check_node(&facts, TO)?;
    guest.cut_power();
    corrupt(&disk, SLOT_B)?;
    let (guest, facts) = next_boot(bench, &disk, &machine(bench, port, "report"), 3 * BOOT)?;
    let panics = guest.serial.count("Kernel panic");
    bench.say(&format!("{panics} panics; entries: {}", facts["entries"]));
    was_given_up(&facts)?;
    check_node(&facts, FROM)
}

pub fn an_agent_that_is_never_ready_falls_back(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let disk = bench.disk(FROM)?;
    update(bench, &disk, port)?;
    let hangs = format!(
        "[Unit]\nRequiresMountsFor=/run/probe\n[Service]\nExecStartPre=+/run/probe/image_probe hang-on {TO}\n"
    );
    let machine =
        machine(bench, port, "report").credential("systemd.unit-dropin.sluice.service", &hangs);
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
