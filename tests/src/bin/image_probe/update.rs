// SPDX-License-Identifier: Apache-2.0
//! The next image into the other slot, by the image's own means, and settings that change without pause.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::facts::{entries, image_version, run};
use crate::tell;

const DEFINITIONS: &str = "/run/probe-sysupdate.d";

/// As the image's own definitions say, but from here.
pub fn update(url: &str) -> Result<()> {
    fs::create_dir_all(DEFINITIONS)?;
    for entry in fs::read_dir("/usr/lib/sysupdate.d")? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let line = |line: &str| match line.strip_prefix("Path=https://") {
            Some(_) => format!("Path={url}\n"),
            None => format!("{line}\n"),
        };
        let name = path.file_name().context("a name")?;
        fs::write(Path::new(DEFINITIONS).join(name), text.lines().map(line).collect::<String>())?;
    }
    tell("update-begins", &entries()?)?;
    let definitions = format!("--definitions={DEFINITIONS}");
    let output = Command::new("/usr/lib/systemd/systemd-sysupdate")
        .args([&definitions, "update"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<_> = said.lines().rev().take(6).collect();
    tell(
        "updated",
        &serde_json::json!({
            "done": output.status.success(), "said": last, "entries": entries()?,
        }),
    )
}

/// One generation after the other, until the power goes.
pub fn change_settings_all_the_while() {
    thread::spawn(|| {
        for count in 1_u64.. {
            if let Err(error) = put_in_force(count) {
                println!("PROBE failed {error:#}");
                return;
            }
        }
    });
}

fn put_in_force(count: u64) -> Result<()> {
    let text = format!(
        "[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n\
         default-egress = \"{count}Mbit\"\ndefault-ingress = \"{count}Mbit\"\n"
    );
    fs::write("/var/lib/sluice/user-data.new", text)?;
    fs::rename("/var/lib/sluice/user-data.new", "/var/lib/sluice/user-data.toml")?;
    run("/usr/bin/sluice", &["reload"]).map(drop)
}

/// An agent that never gets READY, in this version of the image only.
pub fn hang_on(version: &str) {
    while image_version().is_ok_and(|own| own == version) {
        thread::sleep(Duration::from_secs(60));
    }
}
