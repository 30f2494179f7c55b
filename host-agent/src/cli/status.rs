// SPDX-License-Identifier: Apache-2.0
//! `sluice status`: the node on one screen, in one line or as JSON, and an exit
//! status that says the same.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::node::Source;
use super::output::{print, show, to_json};
use crate::host::paths::Paths;
use crate::settings::in_force::in_force;
use crate::status::{Status, text};

/// Between two looks of `--wait`.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Args)]
pub struct StatusOptions {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Print one line
    #[arg(long, conflicts_with = "json")]
    brief: bool,
    /// Wait until the node is well, for so long at most
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=86_400), hide_default_value = true)]
    wait: u64,
    /// Time over which rates are measured
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    interval: u64,
}

/// Gives the exit status.
pub fn run(paths: &Paths, asked: &StatusOptions) -> Result<u8> {
    let status = looked(&Source::new(paths), asked)?;
    match (asked.json, asked.brief) {
        (true, _) => print(&to_json(&status)?)?,
        (false, true) => show(&text::brief(&status))?,
        // Without them the screen still says which document they are from.
        (false, false) => show(&text::screen(&status, in_force(paths).ok().as_ref()))?,
    }
    Ok(status.exit_status())
}

/// Again and again as long as the node is not well, which it need not even be able to say yet.
fn looked(source: &Source, asked: &StatusOptions) -> Result<Status> {
    let end = Instant::now() + Duration::from_secs(asked.wait);
    loop {
        let found = match asked.brief {
            true => source.status(),
            false => source.measured(Duration::from_millis(asked.interval)),
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || found.as_ref().is_ok_and(|status| status.exit_status() == 0) {
            return found;
        }
        sleep(PAUSE.min(left));
    }
}
