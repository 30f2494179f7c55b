// SPDX-License-Identifier: Apache-2.0
//! The signed extension on a node whose root knows nothing of Sluice.

use std::time::Duration;

use anyhow::Result;
use tests::imds::Imds;

use super::boot::{USER_DATA, check_root, first_line, has};
use crate::guest::{BOOT, Guest};
use crate::machine::{Machine, NO_MATTER};
use crate::scenario::{Bench, holds};

pub fn an_extension_is_merged_over_another_root(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let machine =
        Machine { imds_port: Some(port), without: NO_MATTER, ..Machine::new("report extension") };
    let disk = bench.disk("bare")?;
    let mut guest = Guest::start(bench, &machine, &disk)?;
    let facts = guest.probe("report", BOOT)?;
    check_root(&facts, "bare")?;
    holds("there is no agent", facts["agent"] == "inactive", &facts["agent"])?;

    let limit = Duration::from_secs(120);
    let refused = guest.probe("refused", limit)?;
    holds("a foreign key is refused", refused["merged"] == false, &refused)?;
    holds("with the reason", has(&refused["said"], "key"), &refused)?;
    bench.say(&format!("another key: {}", refused["said"]));

    let merged = guest.probe("merged", 2 * limit)?;
    holds("its own key is not", merged["merged"] == true, &merged)?;
    holds("the agent runs", merged["agent"] == "active", &merged)?;
    holds("settings are those of the user data", has(&merged["settings"], "20Mbit"), &merged)?;
    bench.say(&format!("its own: {}", first_line(&merged["status"])));
    Ok(())
}
