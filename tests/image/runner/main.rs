// SPDX-License-Identifier: Apache-2.0
//! The node image under test, `make image-test`: it boots in QEMU with UEFI, without KVM, beside a double of
//! IMDS, and is asked from inside by `image_probe`, which comes on a disk of its own. Scenarios run some at a time;
//! what a machine said on its console stays in target/report/image when something did not hold.
//!
//! Usage: image_test TARGET_DIR PROBE [SCENARIO...], with images and packages in that directory. Called again by itself as
//! `relay PORT`, for each connection that a guest makes to an address on the link.

mod disk;
mod files;
mod guest;
mod machine;
mod scenario;
mod scenarios;
mod serial;
mod tools;
mod tree;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["relay", port] => files::relay(port),
        [target, probe, names @ ..] => run(target.as_ref(), probe.as_ref(), names),
        _ => Err(anyhow::anyhow!("usage: image_test TARGET_DIR PROBE [SCENARIO...]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(target: &Path, probe: &Path, names: &[&str]) -> Result<()> {
    let began = Instant::now();
    let all = scenarios::all();
    for name in names {
        ensure!(all.iter().any(|one| one.name == *name), "no scenario is called {name}");
    }
    let chosen = all.into_iter().filter(|one| names.is_empty() || names.contains(&one.name));
    let chosen: Vec<_> = chosen.collect();
    let count = chosen.len();
    let target = fs::canonicalize(target).context("find what was built")?;
    let site = scenario::Site::prepare(&target, probe)?;
    let failed = scenario::run_all(&site, chosen);
    println!("after {} s:", began.elapsed().as_secs());
    println!("{} passed, {} failed", count - failed.len(), failed.len());
    if !failed.is_empty() {
        bail!("did not hold: {}; logs are in {}", failed.join(", "), scenario::LOGS);
    }
    Ok(())
}
