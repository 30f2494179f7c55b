// SPDX-License-Identifier: Apache-2.0
//! Measurements of speed and memory, `make bench`: figures against what they
//! must be, in target/report/bench.json and docs/benchmarks.md. What this
//! machine's kernel can show is measured here; what needs time without noise,
//! in a QEMU guest that counts instructions, by this same executable.
//! `bench only P1 P6` measures chosen groups, `bench rows` chosen rows.

mod boot_time;
mod chain_time;
mod check_time;
mod choice;
mod crowd;
mod figure;
mod frames;
mod guest;
mod jobs;
mod many_pods;
mod packets;
mod page;
mod peak_memory;
mod plan;
mod plots;
mod program_cost;
mod rate;
mod rate_kept;
mod report;
mod row;
mod setups;
mod share;
mod share_figures;
mod share_plan;
mod sharing;
mod site;
mod svg;
mod throughput;
mod under_load;
mod upstream;

use std::process::ExitCode;

use anyhow::{Result, bail};
use guest::Time;
use report::Report;

/// P6 and P7, like P4 and P5, come from the same measurements; F5 from those of F1.
const GROUPS: [&str; 20] = [
    "S1", "M", "C", "N", "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "F1", "F2", "F3", "F4",
    "F5", "F6", "F7", "F8",
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        None => measure_all(),
        Some((verb, groups)) if verb == "only" => measure_some(groups),
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
fn measure_all() -> Result<bool> {
    let report = measure(|_| true)?;
    page::write(&report)?;
    report.finish()
}

fn measure_some(groups: &[String]) -> Result<bool> {
    for group in groups {
        if !GROUPS.contains(&group.as_str()) {
            bail!("{group}? there are {}", GROUPS.join(", "));
        }
    }
    measure(|group| groups.iter().any(|g| g == group))?.finish()
}

fn measure(wanted: impl Fn(&str) -> bool) -> Result<Report> {
    let either = |groups: [&str; 2]| groups.into_iter().any(&wanted);
    let mut report = Report::default();
    if wanted("S1") {
        report.figures.push(check_time::measure()?);
    }
    if wanted("M") {
        report.figures.extend(boot_time::measure()?);
    }
    if wanted("C") {
        report.figures.extend(chain_time::measure()?);
    }
    if wanted("N") {
        report.figures.extend(many_pods::measure()?);
    }
    if wanted("P1") {
        report.figures.push(program_cost::measure());
    }
    if wanted("F6") {
        report.figures.extend(program_cost::measure_node_share());
    }
    if wanted("P3") {
        report.figures.push(throughput::measure());
    }
    let mut jobs = Vec::new();
    jobs.extend(wanted("P2").then(plan::packets).into_iter().flatten());
    jobs.extend(either(["P4", "P5"]).then(plan::rates).into_iter().flatten());
    jobs.extend(either(["P6", "P7"]).then(plan::rows).into_iter().flatten());
    jobs.extend(wanted("P8").then(plan::crowds).into_iter().flatten());
    jobs.extend(share_plan::shares(&wanted));
    report.take(guest::measure(&jobs)?);
    if wanted("P4") {
        report.take_processors(&guest::run_guest(&plan::processors(), Time::Real)?);
    }
    Ok(report)
}
