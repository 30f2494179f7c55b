// SPDX-License-Identifier: Apache-2.0
//! The signed extension, put on a node as docs/packages.md says, with a foreign certificate first.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tests::command::wait_for;

use crate::facts::{property, said, settings};
use crate::tell;

const PROGRAM: &str = "/usr/bin/sluice";

pub fn merge() -> Result<()> {
    fs::create_dir_all("/var/lib/extensions")?;
    fs::copy("/run/probe/sluice.raw", "/var/lib/extensions/sluice.raw")?;
    let (merged, text) = refresh("other.crt")?;
    tell("refused", &json!({"merged": merged, "said": text}))?;
    let (merged, text) = refresh("sluice.crt")?;
    if !merged {
        return tell("merged", &json!({"merged": false, "said": text}));
    }
    // The extension has it started.
    let agent = wait_for("the agent", Duration::from_secs(60), || {
        let state = property("sluice.service", "ActiveState").ok()?;
        ["active", "failed"].contains(&state.as_str()).then_some(state)
    });
    tell(
        "merged",
        &json!({
            "merged": true, "agent": agent, "settings": settings(), "status": said(PROGRAM, &["status"]),
        }),
    )
}

/// With this certificate alone; whether Sluice is there afterwards, and what was said.
fn refresh(certificate: &str) -> Result<(bool, String)> {
    let known = "/run/verity.d";
    fs::create_dir_all(known)?;
    for old in fs::read_dir(known)? {
        fs::remove_file(old?.path())?;
    }
    fs::copy(format!("/run/probe/{certificate}"), format!("{known}/{certificate}"))
        .context("take the certificate")?;
    let output = Command::new("systemd-sysext").arg("refresh").output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((fs::exists(PROGRAM)?, said))
}
