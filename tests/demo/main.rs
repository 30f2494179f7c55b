// SPDX-License-Identifier: Apache-2.0
//! The demonstration, `make demo`: pods on a private node, each with a limit,
//! and iperf3 between them; what arrives in each second against the limit.
//!
//! First on this machine's kernel with a real containerd; where that kernel has
//! no sch_fq, also in a QEMU guest whose kernel has. Called again by itself: as
//! `worker`, so that Ctrl-C can end the work and its parent clean up, and as
//! `guest` inside the guest.

mod guest;
mod host;
mod traffic;

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::{env, fs, path::Path};

use anyhow::{Context, Result, ensure};
use tests::containerd::remove_stale_cgroups;
use traffic::Measurement;

const REPORT: &str = "target/report/demo.json";

fn main() -> ExitCode {
    let result = match env::args().nth(1).as_deref() {
        Some("worker") => work(),
        Some("guest") => guest::run(),
        _ => supervise(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The worker shares our terminal, so Ctrl-C reaches it too and ends it, and with it the node.
fn supervise() -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let mut command = Command::new(env::current_exe()?);
    command.arg("worker");
    tests::node::die_with_parent(&mut command);
    let status = command.status().context("run the demonstration")?;
    remove_stale_cgroups()?;
    ensure!(status.success(), "the demonstration ended early: {status}");
    Ok(())
}

fn work() -> Result<()> {
    let mut all = host::run()?;
    if all.iter().any(|measurement| measurement.mode == "policed") {
        println!(
            "\nThis kernel has no sch_fq, so the limits above are policed; in a guest that has:"
        );
        all.extend(host::run_guest()?);
    }
    let report = Path::new(REPORT);
    fs::create_dir_all(report.parent().unwrap_or(Path::new(".")))?;
    fs::write(report, serde_json::to_string_pretty(&all)? + "\n")
        .with_context(|| format!("write {REPORT}"))?;
    println!("\nwritten: {REPORT}");
    Measurement::check(&all)
}
