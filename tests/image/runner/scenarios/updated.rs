// SPDX-License-Identifier: Apache-2.0
//! The machine that updates itself while its settings change all the while, and what its volume was at many points of
//! that: what a power cut would have left, for others to boot from.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::command::wait_for;
use tests::imds::Imds;

use super::boot::{USER_DATA, check_node};
use super::slots::{FROM, TO, machine};
use crate::disk::Disk;
use crate::files::Files;
use crate::guest::{BOOT, Guest};
use crate::machine::Machine;
use crate::scenario::{Bench, holds};

const URL: &str = "http://169.254.169.253/";
/// 250 MB through an emulated network.
const FETCH: Duration = Duration::from_secs(300);
pub const CUTS: usize = 20;
const OLDER: &str = "0.9.0";
/// What is offered before the update, in this order, and what is said of it.
const REFUSED: [(&str, &str); 3] =
    [("forged", "BAD signature"), ("expired", "Expired signature"), ("older", "No update needed")];

pub struct Updated {
    /// Of the machine as it was turned off, with the update whole.
    pub disk: PathBuf,
    /// As power cuts would have left it, one after the other.
    pub cuts: Vec<PathBuf>,
    /// Which settings were in force at the end.
    pub in_force: Value,
}

impl Updated {
    /// From the first version to the second. Before, the same is offered with sums that no one signed, with a signature that
    /// does not hold any more, and under a version that is older than what runs.
    pub fn make(bench: &Bench) -> Result<Self> {
        let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
        let served = bench.scratch.path().join("served");
        fs::create_dir(&served)?;
        symlink(bench.site.update(TO), served.join("signed"))?;
        let update = bench.site.update(TO);
        forge(&update, &served.join("forged"))?;
        offer(&update, &served.join("expired"), TO, "seconds=1")?;
        offer(&update, &served.join("older"), OLDER, "1d")?;
        let files = Files::serve(&served)?;
        let refused = REFUSED.map(|(name, _)| format!("update {URL}{name}/")).join(" ");
        let probe = format!("report {refused} settings-and-update {URL}signed/");
        let machine = Machine { files_port: Some(files.port), ..machine(port, &probe) };
        let disk = bench.disk(FROM)?;
        let mut guest = Guest::start(bench, &machine, &disk)?;
        refuse(bench, &mut guest)?;
        guest.probe("update-begins", FETCH)?;
        let cuts = cut_all_the_while(bench, &guest, &disk, &files)?;
        let updated = guest.probe("updated", FETCH)?;
        holds("the update was written", updated["done"] == true, &updated["said"])?;
        let in_force = guest.probe("settings", FETCH)?;
        bench.say(&format!("settings changed until {}", in_force["generation"]));
        guest.cut_power();
        let kept = bench.site.scratch.path().join("updated.qcow2");
        fs::rename(&disk.path, &kept).context("keep the disk")?;
        Ok(Self { disk: kept, cuts, in_force })
    }
}

fn refuse(bench: &Bench, guest: &mut Guest) -> Result<()> {
    let before = guest.probe("report", BOOT)?;
    check_node(&before, FROM)?;
    for (name, because) in REFUSED {
        let offered = guest.probe("updated", FETCH)?;
        holds(
            &format!("{name}: nothing changes"),
            offered["entries"] == before["entries"],
            &offered,
        )?;
        let said = offered["said"].to_string();
        holds(&format!("{name}: said why"), said.contains(because), &offered)?;
        bench.say(&format!("{name}: {because}"));
    }
    Ok(())
}

/// The same files as of this version, with a signature of the image's key that holds so long.
fn offer(update: &Path, to: &Path, version: &str, valid: &str) -> Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(update)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().replace(TO, version);
        if !name.starts_with("SHA256SUMS") {
            symlink(file.path(), to.join(name))?;
        }
    }
    let sums = to.join("SHA256SUMS");
    let text = fs::read_to_string(update.join("SHA256SUMS"))?;
    fs::write(&sums, text.replace(TO, version))?;
    let signed = Command::new("packaging/sign").env("UPDATE_VALID", valid).arg(&sums).output()?;
    ensure!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    Ok(())
}

/// Other sums, beside the signature of the right ones.
fn forge(update: &Path, forged: &Path) -> Result<()> {
    fs::create_dir(forged)?;
    for file in fs::read_dir(update)? {
        let file = file?;
        symlink(file.path(), forged.join(file.file_name()))?;
    }
    let sums = forged.join("SHA256SUMS");
    let text = fs::read_to_string(&sums)?;
    fs::remove_file(&sums)?;
    Ok(fs::write(&sums, text + &format!("{:064x}  sluice-node_9.9.9.efi\n", 0))?)
}

/// Spread over what the update fetches, whose last part is the boot entry; the last one when it is over.
fn cut_all_the_while(
    bench: &Bench,
    guest: &Guest,
    disk: &Disk,
    files: &Files,
) -> Result<Vec<PathBuf>> {
    let (begin, whole) = (files.sent(), size_of_update(bench)?);
    let cut = |number: usize| {
        let enough = begin + whole * number as u64 / (CUTS - 1) as u64;
        wait_for("the point of a power cut", FETCH, || {
            let is_over = guest.serial.count("PROBE updated ") > REFUSED.len();
            (is_over || number < CUTS && files.sent() >= enough).then_some(())
        });
        ensure!(!guest.serial.said("PROBE failed "), "settings could not be put in force");
        let left = bench.site.scratch.path().join(format!("cut-{number}.qcow2"));
        guest.copy_as_if_killed(disk, &left)?;
        Ok(left)
    };
    (1..=CUTS).map(cut).collect()
}

fn size_of_update(bench: &Bench) -> Result<u64> {
    let files = fs::read_dir(bench.site.update(TO)).context("find the update")?;
    files.map(|file| Ok(file?.metadata()?.len())).sum()
}
