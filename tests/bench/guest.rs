// SPDX-License-Identifier: Apache-2.0
//! Both sides of a QEMU guest: the host's, which boots guests that count
//! instructions and shares the jobs out among them, and the guest's, which does
//! them. The guest runs this same executable.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use tests::command::executable;
use tests::node::with_node;

use crate::jobs::{Job, Outcome};

const KERNEL: &str = "6.12";
const OUTCOMES: &str = "outcomes.json";
/// In the guest.
const DIR: &str = "/opt/sluice";

/// Time as a guest has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// An instruction takes 2 ns, one processor: the same however busy this machine is.
    Counted,
    /// This machine's, two processors.
    Real,
}

/// Does all jobs in two guests side by side.
pub fn measure(jobs: &[Job]) -> Result<Vec<Outcome>> {
    let lists = share_out(jobs);
    thread::scope(|scope| {
        let guests: Vec<_> = lists
            .iter()
            .filter(|list| !list.is_empty())
            .map(|list| scope.spawn(|| run_guest(list, Time::Counted)))
            .collect();
        let mut outcomes = Vec::new();
        for guest in guests {
            let done = guest.join().map_err(|_| anyhow::anyhow!("a guest's thread panicked"))?;
            outcomes.extend(done?);
        }
        Ok(outcomes)
    })
}

/// The longest first, each to the worker that has least to do; then in the order given.
fn share_out(jobs: &[Job]) -> [Vec<Job>; 2] {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by(|a, b| jobs[*b].weight().total_cmp(&jobs[*a].weight()));
    let mut shares = [const { Vec::new() }; 2];
    let mut load = [0.0; 2];
    for number in order {
        let least = usize::from(load[1] < load[0]);
        load[least] += jobs[number].weight();
        shares[least].push(number);
    }
    shares.map(|mut share| {
        share.sort_unstable();
        share.into_iter().map(|number| jobs[number].clone()).collect()
    })
}

/// Boots one guest, which does these jobs.
pub fn run_guest(jobs: &[Job], time: Time) -> Result<Vec<Outcome>> {
    let overlay = tempfile::tempdir()?;
    let out = tempfile::tempdir()?;
    prepare_overlay(overlay.path(), jobs)?;
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/run");
    let mut command = Command::new(&runner);
    if time == Time::Counted {
        command.envs([("VM_ICOUNT", "1"), ("VM_ICOUNT_SHIFT", "1")]);
    }
    let status = command
        .env("VM_OUT_DIR", out.path())
        .args([KERNEL, &overlay.path().display().to_string()])
        .arg(format!(
            "modprobe tcp_bbr; ulimit -n 20000; SLUICE_BIN={DIR} {DIR}/bench guest 2> >(grep -v '^sluice: info:')"
        ))
        .status()
        .with_context(|| format!("run {}", runner.display()))?;
    ensure!(status.success(), "a guest's part: {status}");
    let text = fs::read(out.path().join(OUTCOMES)).context("read a guest's report")?;
    Ok(serde_json::from_slice(&text)?)
}

fn prepare_overlay(overlay: &Path, jobs: &[Job]) -> Result<()> {
    let bin = PathBuf::from(format!("{}{DIR}", overlay.display()));
    fs::create_dir_all(&bin)?;
    let own = std::env::current_exe()?;
    for file in [own, executable("sluice"), executable("sluice-cni")] {
        let name = file.file_name().context("an executable has a name")?;
        let status = Command::new("strip").arg("-o").arg(bin.join(name)).arg(&file).status()?;
        ensure!(status.success(), "strip {}: {status}", file.display());
    }
    fs::write(bin.join("jobs.json"), serde_json::to_string(jobs)?)?;
    Ok(())
}

/// In the guest: does what jobs.json asks for, one after the other on one node.
pub fn work() -> Result<()> {
    let jobs: Vec<Job> = serde_json::from_slice(&fs::read(format!("{DIR}/jobs.json"))?)?;
    let mut outcomes = Vec::new();
    with_node(|node| {
        node.boot_with("");
        node.start_agent();
        for job in &jobs {
            let outcome = job.run(node);
            println!("{outcome}");
            outcomes.push(outcome);
        }
    });
    fs::write(format!("/out/{OUTCOMES}"), serde_json::to_string(&outcomes)?)?;
    Ok(())
}
