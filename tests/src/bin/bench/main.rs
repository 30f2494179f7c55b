// SPDX-License-Identifier: Apache-2.0
//! Measurements of speed and memory, `make bench`: figures against what they
//! must be, in target/report/bench.json and docs/benchmarks.md. What this
//! machine's kernel can show is measured here; what needs time without noise,
//! in a QEMU guest that counts instructions, by this same executable.
//! `bench rows` measures chosen rows only.

mod check_time;
mod choice;
mod figure;
mod guest;
mod jobs;
mod row;
mod setups;
mod site;
mod upstream;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use figure::Figure;
use serde::Serialize;

const REPORT: &str = "target/report/bench.json";

#[derive(Serialize)]
struct Report {
    figures: Vec<Figure>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        None => run(),
        Some((verb, _)) if verb == "guest" => guest::work().map(|()| true),
        Some((verb, rest)) if verb == "rows" => choice::run(rest).map(|()| true),
        Some((verb, _)) => Err(anyhow::anyhow!("{verb}? usage: bench, or {}", choice::USAGE)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False when a figure is not what it must be.
fn run() -> Result<bool> {
    let report = Report { figures: vec![check_time::measure()?] };
    report.figures.iter().for_each(Figure::print);
    let path = Path::new(REPORT);
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
        .with_context(|| format!("write {REPORT}"))?;
    println!("written: {REPORT}");
    Ok(report.figures.iter().all(|figure| figure.ok))
}
