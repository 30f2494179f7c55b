// SPDX-License-Identifier: Apache-2.0
//! Firmware with the image's own `uefi-data` in its variables starts the image, and nothing that was changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::command::wait_for;
use tests::imds::Imds;

use super::boot::USER_DATA;
use super::slots::FROM;
use crate::guest::{BOOT, Guest};
use crate::machine::{Machine, SecureBoot};
use crate::scenario::{Bench, holds};
use crate::tools::in_tools;

/// What firmware and ESP want to add to the signed command line.
const NOT_SIGNED: [&str; 2] = ["test.unsigned-addon", "test.entry-options"];

/// In one boot: the firmware goes from one changed disk to the next, and in the end to the image.
pub fn only_what_is_signed_starts(bench: &Bench) -> Result<()> {
    let place = bench.scratch.path().join("disks");
    let first = make_disks(bench, &place)?;
    let changed = first.len();
    let (imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let machine = Machine {
        imds_port: Some(port),
        secure_boot: Some(SecureBoot { variables: place.join("variables"), first }),
        ..Machine::new("times")
    }
    // Whoever took the firmware's credentials would run the probe, which speaks at once, long before the network is up.
    .credential("systemd.unit-dropin.sysinit.target~probe", "[Unit]\nWants=probe.service\n");
    let disk = bench.disk_over(&place.join("image.raw"), "raw")?;
    let mut guest = Guest::start(bench, &machine, &disk)?;
    // The entry is signed; what starts it is the firmware for the last of the disks, systemd-boot for the others.
    for number in 1..=changed {
        let failed = format!("Boot{number:04X} ");
        let (_, _, line) = guest.serial.wait_for_any(&[&failed], BOOT)?;
        let (_, _, end) =
            guest.serial.wait_for_any(&["BdsDxe: failed to ", "Linux version"], BOOT)?;
        holds("it is refused", end.contains("Access Denied"), (line, end))?;
    }
    let command_line = guest.serial.wait_for_any(&["Kernel command line:"], BOOT)?.2;
    let words: Vec<_> = command_line.split(' ').collect();
    holds("a signed addon counts", words.contains(&"test.signed-addon"), &command_line)?;
    let others = NOT_SIGNED.iter().any(|word| words.contains(word));
    holds("what no one signed does not", !others, &command_line)?;
    wait_for("the agent's question for user data", BOOT, || {
        let requests = imds.requests();
        requests.iter().any(|line| line == "GET /latest/user-data 200").then_some(())
    });
    holds("Secure Boot is on", guest.serial.said("secureboot: Secure boot enabled"), ())?;
    holds("no credential of firmware or ESP is used", !guest.serial.said("PROBE"), ())?;
    bench.say(&format!("{changed} changed disks refused; the image starts"));
    guest.cut_power();
    Ok(())
}

/// The changed ones, in the order of their names; beside them the image and the firmware's variables.
fn make_disks(bench: &Bench, place: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir(place)?;
    let image = bench.site.image(FROM);
    let copy = Command::new("cp")
        .arg("--sparse=always")
        .arg(&image)
        .arg(place.join("image.raw"))
        .status()?;
    ensure!(copy.success(), "copy {}", image.display());
    let output = Command::new("image-build/secure-boot").output()?;
    let pair = String::from_utf8(output.stdout)?;
    let (certificate, key) = pair.trim_end().split_once('\n').context("certificate and key")?;
    fs::copy(certificate, place.join("certificate.pem"))?;
    fs::copy(key, place.join("key.pem"))?;
    fs::copy("tests/image/secure-boot-disks", place.join("make"))?;
    in_tools(place, &["./make"])?;
    enroll(&image.with_file_name("uefi-data"), place)?;
    let mut disks: Vec<_> = fs::read_dir(place)?.flatten().map(|entry| entry.path()).collect();
    disks.retain(|path| path.extension().is_some_and(|ending| ending == "changed"));
    disks.sort();
    Ok(disks)
}

/// What is read back of the blob, and nothing else, is in the variables of the firmware.
fn enroll(uefi_data: &Path, place: &Path) -> Result<()> {
    fs::copy(uefi_data, place.join("uefi-data")).context("copy the uefi-data")?;
    in_tools(place, &["virt-fw-vars", "--input", "uefi-data", "--output-json", "variables.json"])?;
    let empty = "/usr/share/OVMF/OVMF_VARS_4M.fd";
    let set = ["--set-json", "variables.json", "--output", "variables"];
    in_tools(place, &[&["virt-fw-vars", "--input", empty][..], &set].concat()).map(drop)
}
