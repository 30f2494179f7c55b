// SPDX-License-Identifier: Apache-2.0
//! What EC2 needs of an image, as far as it can be checked without a cloud. Nothing is booted.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::Result;

use super::slots::FROM;
use crate::scenario::{Bench, holds};

const SIGNED: &str = "boot loader and boot entry are signed by what uefi-data names";

pub fn what_ec2_needs_is_checked(bench: &Bench) -> Result<()> {
    let image = bench.site.image(FROM);
    let image = image.parent().unwrap_or(&image);
    let (output, said) = plan(image)?;
    holds("nothing is missing", output.status.success() && !said.contains("# NO:"), &said)?;
    for word in ["--uefi-data", "--boot-mode uefi", "--ena-support", "--imds-support v2.0"] {
        holds("the AMI has it", said.contains(word), word)?;
    }
    // The same image with another key's blob.
    let other = bench.scratch.path().join("other");
    copy(image, &other)?;
    let foreign = ["SECURE_BOOT_KEY", "SECURE_BOOT_CERTIFICATE"]
        .map(|name| (name, bench.site.scratch.path().join("probe/other.crt")));
    let made = Command::new("image-build/secure-boot")
        .args(["--uefi-data", &other.join("uefi-data").to_string_lossy()])
        .envs(foreign)
        .output()?;
    holds("a blob is made", made.status.success(), String::from_utf8_lossy(&made.stderr))?;
    let (output, said) = plan(&other)?;
    let missed = said.matches("# NO:").count() == 1 && said.contains(&format!("# NO:  {SIGNED}"));
    holds("another key is seen", missed && output.status.code() == Some(1), &said)?;
    bench.say(&format!("{} checks", said.matches("\n# yes:").count() + 2));
    Ok(())
}

fn plan(image: &Path) -> Result<(Output, String)> {
    let output = Command::new("image-build/ami-plan").arg(image).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output, said))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").args(["-r", "--sparse=always"]).args([from, to]).status()?;
    holds("the image is copied", copied.success(), copied)?;
    Ok(fs::remove_file(to.join("uefi-data"))?)
}
