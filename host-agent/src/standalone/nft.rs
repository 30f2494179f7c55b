// SPDX-License-Identifier: Apache-2.0
//! The program nft, which speaks the kernel's protocol of rules for us.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::network::NAME;

/// Carries out all of it in one transaction, or nothing.
pub fn run(ruleset: &str) -> Result<()> {
    let spawn = || {
        let mut nft = Command::new("nft");
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = nft.spawn()?;
        // Closed at the end of the statement, which is the end of what nft reads.
        child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(ruleset.as_bytes()))?;
        child.wait_with_output()
    };
    let output = spawn().context("run nft (package nftables)")?;
    if !output.status.success() {
        bail!("nft -f -: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Whether our table is there: others may have flushed the whole ruleset.
pub fn has_table() -> Result<bool> {
    let mut nft = Command::new("nft");
    nft.args(["list", "table", "ip", NAME]).stdin(Stdio::null());
    let output = nft.output().context("run nft (package nftables)")?;
    Ok(output.status.success())
}
