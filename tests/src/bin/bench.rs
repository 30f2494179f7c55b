// SPDX-License-Identifier: Apache-2.0
//! Measurements of speed and memory, `make bench`: figures against what they
//! must be, in target/report/bench.json. Times are medians of whole runs of
//! the release executables.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use tests::command::executable;

const REPORT: &str = "target/report/bench.json";
const RUNS: usize = 41;
/// EC2's limit for user data.
const USER_DATA_BYTES: usize = 16 << 10;

#[derive(Serialize)]
struct Figure {
    id: &'static str,
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// At most this, or the figure is not good enough.
    must: f64,
    aim: f64,
    ok: bool,
    aim_ok: bool,
    peers: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct Report {
    figures: Vec<Figure>,
}

impl Figure {
    fn at_most(
        id: &'static str,
        name: &'static str,
        value: f64,
        unit: &'static str,
        [must, aim]: [f64; 2],
    ) -> Self {
        let (ok, aim_ok) = (value <= must, value <= aim);
        Self { id, name, value, unit, must, aim, ok, aim_ok, peers: serde_json::Map::new() }
    }
}

fn main() -> ExitCode {
    match run() {
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
    let report = Report { figures: vec![check_time()?] };
    for figure in &report.figures {
        let Figure { id, name, value, unit, must, aim, ok, .. } = figure;
        let verdict = if *ok { "ok" } else { "NOT OK" };
        println!("{id:<4} {name:<50} {value:>8.3} {unit:<3} must {must} aim {aim}  {verdict}");
    }
    let path = Path::new(REPORT);
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
        .with_context(|| format!("write {REPORT}"))?;
    println!("written: {REPORT}");
    Ok(report.figures.iter().all(|figure| figure.ok))
}

/// `sluice check` on a document as large as user data can be: start, read, judge, end.
fn check_time() -> Result<Figure> {
    let dir = tempfile::tempdir()?;
    let document = dir.path().join("user-data.toml");
    std::fs::write(&document, large_document())?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let mut command = Command::new(executable("sluice"));
        command.arg("check").arg(&document).stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        anyhow::ensure!(status.success(), "sluice check: {status}");
    }
    times.sort_by(f64::total_cmp);
    let name = "sluice check, 16 KiB document, median";
    Ok(Figure::at_most("S1", name, times[RUNS / 2], "ms", [5.0, 2.5]))
}

fn large_document() -> String {
    let mut text = String::from("[settings.sluice]\nversion = 1\n");
    for number in 0.. {
        let class = format!(
            "[[settings.sluice.bandwidth.class]]\nname = \"class-{number}\"\n\
             namespaces = [\"tenant-{number}-*\"]\npods = [\"worker-*\"]\negress = \"100Mbit\"\ningress = \"100Mbit\"\n"
        );
        if text.len() + class.len() > USER_DATA_BYTES {
            break;
        }
        text += &class;
    }
    text
}
