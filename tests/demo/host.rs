// SPDX-License-Identifier: Apache-2.0
//! The part on this machine's own kernel: a real containerd makes the pods, and
//! its conflist is ptp + host-local with the entry that `sluice boot` adds.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tests::command::executable;
use tests::containerd::{Containerd, Pod, PodSpec};
use tests::sluice_node::{EGRESS, INGRESS, PORTMAP, SluiceNode, conflist};

use crate::traffic::{End, Measurement, Plan, print_head, transfer};

/// What both parts use: the limits, and the settings of the defaults.
pub const BANDWIDTH: &str = "default-egress = \"80Mbit\"\ndefault-ingress = \"60Mbit\"";
pub const ANNOTATED_EGRESS: u64 = 40_000_000;
pub const ANNOTATED_INGRESS: u64 = 50_000_000;
pub const DEFAULT_EGRESS: u64 = 80_000_000;
pub const DEFAULT_INGRESS: u64 = 60_000_000;

/// The transfers of the demonstration, the same on the host and in the guest.
pub fn measure(annotated: &End, default: &End, remote: &End, mode: &str) -> Vec<Measurement> {
    print_head();
    let plan = |pod, direction, from, to, limit_bps| {
        transfer(&Plan { pod, direction, from, to, limit_bps, mode })
    };
    vec![
        plan("annotated", "egress", annotated, remote, ANNOTATED_EGRESS),
        plan("annotated", "ingress", remote, annotated, ANNOTATED_INGRESS),
        plan("default", "egress", default, remote, DEFAULT_EGRESS),
        plan("default", "ingress", remote, default, DEFAULT_INGRESS),
        plan("annotated", "to pod default", annotated, default, ANNOTATED_EGRESS),
        plan("annotated", "from pod default", default, annotated, ANNOTATED_INGRESS),
    ]
}

pub fn run() -> Result<Vec<Measurement>> {
    println!("node: containerd from Debian bookworm, chain ptp + portmap + sluice");
    let node = SluiceNode::start(
        Containerd::Bookworm16,
        &conflist("1.0.0", "node", &[PORTMAP]),
        BANDWIDTH,
    );
    let (netns, address) = node.make_remote();
    let remote = End { netns, address };
    let annotated =
        PodSpec::new("default", "annotated").annotation(EGRESS, "40M").annotation(INGRESS, "50M");
    let annotated = node.runtime.run_pod(&annotated)?;
    let default = node.runtime.run_pod(&PodSpec::new("default", "default"))?;
    let mode = node.pod("annotated")["egress"]["mode"].clone();
    let mode = mode.as_str().context("the limited pod has a mode")?;
    let ends = (end(&node, "annotated", &annotated)?, end(&node, "default", &default)?);
    let measurements = measure(&ends.0, &ends.1, &remote, mode);
    print_status(&node)?;
    for pod in [&annotated, &default] {
        node.runtime.stop_pod(&pod.id)?;
        node.runtime.remove_pod(&pod.id)?;
    }
    Ok(measurements)
}

/// The same traffic in a guest whose kernel has sch_fq, by this same executable.
pub fn run_guest() -> Result<Vec<Measurement>> {
    let overlay = tempfile::tempdir()?;
    let out = tempfile::tempdir()?;
    let bin = overlay.path().join("opt/sluice");
    fs::create_dir_all(&bin)?;
    let own = std::env::current_exe()?;
    for file in [own, executable("sluice"), executable("sluice-cni")] {
        let name = file.file_name().context("an executable has a name")?;
        let status = Command::new("strip").arg("-o").arg(bin.join(name)).arg(&file).status()?;
        ensure!(status.success(), "strip {}: {status}", file.display());
    }
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/run");
    let status = Command::new(&runner)
        .env("VM_OUT_DIR", out.path())
        // Time by instructions, so that the figures do not depend on how busy this machine is.
        .envs([("VM_ICOUNT", "1"), ("VM_ICOUNT_SHIFT", "1")])
        .args(["6.12", &overlay.path().display().to_string()])
        .arg("SLUICE_BIN=/opt/sluice /opt/sluice/demo guest")
        .status()
        .with_context(|| format!("run {}", runner.display()))?;
    ensure!(status.success(), "the guest's part: {status}");
    let text = fs::read(out.path().join("demo.json")).context("read the guest's report")?;
    Ok(serde_json::from_slice(&text)?)
}

fn end(node: &SluiceNode, name: &str, pod: &Pod) -> Result<End> {
    let IpAddr::V4(address) = pod.ip else { bail!("{name} has no IPv4 address: {}", pod.ip) };
    Ok(End { netns: node.netns(pod), address })
}

fn print_status(node: &SluiceNode) -> Result<()> {
    println!();
    for command in ["status", "pods"] {
        let output = node.sluice(&[command]);
        ensure!(
            tests::command::has_looked(&output),
            "sluice {command}: {}",
            tests::command::text(&output)
        );
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}
