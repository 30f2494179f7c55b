// SPDX-License-Identifier: Apache-2.0
//! The next image into the other slot, by the image's own means, and settings that change without pause.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::facts::{entries, image_version, in_force, run};
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

/// With one generation of settings after the other, until the update is over.
pub fn update_while_settings_change(url: &str) -> Result<()> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let changes = (1..).take_while(|_| !is_over.load(Ordering::Relaxed));
            for result in changes.map(put_in_force) {
                if let Err(error) = result {
                    println!("PROBE failed {error:#}");
                    return;
                }
            }
        });
        let result = update(url);
        is_over.store(true, Ordering::Relaxed);
        result
    })?;
    tell("settings", &in_force())
}

fn put_in_force(count: u64) -> Result<()> {
    let text = format!(
        "[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n\
         default-egress = \"{count}Mbit\"\ndefault-ingress = \"{count}Mbit\"\n\
         [settings.sluice.max-pods]\nvalue = 58\n"
    );
    // What is tested is what `sluice` does, not what becomes of a file that no one has synced.
    let mut file = fs::File::create("/var/lib/sluice/user-data.new")?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename("/var/lib/sluice/user-data.new", "/var/lib/sluice/user-data.toml")?;
    run("/usr/bin/sluice", &["reload"]).map(drop)
}

/// An agent that never gets READY, in this version of the image only.
pub fn hang_on(version: &str) {
    while image_version().is_ok_and(|own| own == version) {
        thread::sleep(Duration::from_secs(60));
    }
}
