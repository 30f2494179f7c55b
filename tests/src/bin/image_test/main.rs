// SPDX-License-Identifier: Apache-2.0
//! The node image under test, `make image-test`: it boots in QEMU with UEFI, without KVM, beside a double of
//! IMDS, and is asked from inside by `image_probe`, which comes on a disk of its own. Scenarios run two at a time;
//! what a machine said on its console stays in target/report/image when something did not hold.
//!
//! Usage: image_test IMAGE_DIR PROBE [SCENARIO...]. Called again by itself as `relay PORT` and `files DIR`, for each
//! connection that a guest makes to an address on the link.

mod disk;
mod files;
mod guest;
mod machine;
mod scenario;
mod scenarios;
mod serial;
mod tools;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["relay", port] => files::relay(port),
        ["files", directory] => files::serve(directory.as_ref()),
        [images, probe, names @ ..] => run(images.as_ref(), probe.as_ref(), names),
        _ => Err(anyhow::anyhow!("usage: image_test IMAGE_DIR PROBE [SCENARIO...]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(images: &Path, probe: &Path, names: &[&str]) -> Result<()> {
    let all = scenarios::all();
    for name in names {
        ensure!(all.iter().any(|one| one.name == *name), "no scenario is called {name}");
    }
    let chosen = all.into_iter().filter(|one| names.is_empty() || names.contains(&one.name));
    let images = fs::canonicalize(images).context("find the images")?;
    let site = scenario::Site::prepare(&images, probe)?;
    let failed = scenario::run_all(&site, chosen.collect());
    if !failed.is_empty() {
        bail!("did not hold: {}; logs are in {}", failed.join(", "), scenario::LOGS);
    }
    println!("every scenario held");
    Ok(())
}
