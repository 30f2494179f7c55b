// SPDX-License-Identifier: Apache-2.0
//! What `image_test` runs inside the node image, from a disk of its own: the image has no shell. It waits until the
//! boot is over, tells in lines of `PROBE name {json}` on the console what it sees, and does what its words say:
//! `report`, then any of `times`, `pods`, `extension`, `update URL`, `settings-and-update URL`.

mod extension;
mod facts;
mod pods;
mod update;

use std::io::Write;
use std::panic;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Serialize;

fn main() -> ExitCode {
    // One line, whatever happens: the runner waits for it.
    let result = panic::catch_unwind(work).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        bail!("{}", text.unwrap_or_else(|| "a panic".into()))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("PROBE failed {}", format!("{error:#}").replace('\n', " | "));
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "report" => tell("report", &facts::after_boot()?)?,
            "times" => tell("times", &facts::times()?)?,
            "pods" => pods::shape()?,
            "extension" => extension::merge()?,
            "update" => update::update(words.next().context("a URL")?)?,
            "settings-and-update" => {
                update::update_while_settings_change(words.next().context("a URL")?)?;
            }
            "hang-on" => update::hang_on(words.next().context("a version")?),
            _ => bail!("{word}?"),
        }
    }
    Ok(())
}

/// One line for the runner.
pub fn tell(name: &str, what: &impl Serialize) -> Result<()> {
    let line = format!("\nPROBE {name} {}\n", serde_json::to_string(what)?);
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}
