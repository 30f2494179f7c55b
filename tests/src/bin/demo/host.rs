// SPDX-License-Identifier: Apache-2.0
//! The part on this machine's own kernel: a real containerd makes the pods, and
//! its conflist is ptp + host-local with the entry that `sluice boot` adds.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::command::{executable, wait_for};
use tests::containerd::{Containerd, ContainerdNode, NodeLayout, Pod, PodSpec};

use crate::traffic::{End, Measurement, Plan, print_head, transfer};

/// What both parts use: the limits, and the user data that sets the defaults.
pub const USER_DATA: &str = r#"[settings.sluice]
version = 1

[settings.sluice.bandwidth]
default-egress = "80Mbit"
default-ingress = "60Mbit"
"#;
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
    let node = ContainerdNode::start(Containerd::Bookworm16, &NodeLayout::default())?;
    boot(&node)?;
    let _agent = start_agent(&node)?;
    node.wait_for_status(|status| status.ready && status.cni_config.contains("sluice"))?;
    let remote = make_remote(&node)?;
    let annotated = PodSpec::new("default", "annotated")
        .annotation("kubernetes.io/egress-bandwidth", "40M")
        .annotation("kubernetes.io/ingress-bandwidth", "50M");
    let annotated = node.run_pod(&annotated)?;
    let default = node.run_pod(&PodSpec::new("default", "default"))?;
    let mode = mode(&node)?;
    let ends = (end(&node, "annotated", &annotated)?, end(&node, "default", &default)?);
    let measurements = measure(&ends.0, &ends.1, &remote, &mode);
    print_status(&node)?;
    for pod in [&annotated, &default] {
        node.stop_pod(&pod.id)?;
        node.remove_pod(&pod.id)?;
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

/// User data as the instance would get it; `sluice boot` does the rest.
fn boot(node: &ContainerdNode) -> Result<()> {
    let user_data = "/run/node/user-data.toml";
    fs::write(node.host_path(user_data), USER_DATA)?;
    let mut command = node.command(executable("sluice"));
    command.args(["boot", "--user-data", user_data, "--plugin"]).arg(executable("sluice-cni"));
    let status = command.status()?;
    ensure!(status.success(), "sluice boot: {status}");
    Ok(())
}

fn start_agent(node: &ContainerdNode) -> Result<Child> {
    let agent = node.command(executable("sluice")).arg("agent").spawn()?;
    let pin = node.host_path("/sys/fs/bpf/sluice/v1/shape_ingress");
    wait_for("the agent's pins", Duration::from_secs(20), || pin.exists().then_some(()));
    Ok(agent)
}

/// A machine beyond the node: a namespace behind a veth, as behind an ENI.
fn make_remote(node: &ContainerdNode) -> Result<End> {
    for line in [
        "netns add remote",
        "link add up0 type veth peer name eth0 netns remote",
        "addr add 10.200.0.1/24 dev up0",
        "link set up0 up",
        "-n remote addr add 10.200.0.2/24 dev eth0",
        "-n remote link set eth0 up",
        "-n remote route add default via 10.200.0.1",
    ] {
        let status = node.command("ip").args(line.split_whitespace()).status()?;
        ensure!(status.success(), "ip {line}: {status}");
    }
    Ok(End { netns: node.host_path("/run/netns/remote"), address: Ipv4Addr::new(10, 200, 0, 2) })
}

fn end(node: &ContainerdNode, name: &str, pod: &Pod) -> Result<End> {
    let IpAddr::V4(address) = pod.ip else { bail!("{name} has no IPv4 address: {}", pod.ip) };
    Ok(End { netns: node.host_path(&pod.netns), address })
}

fn mode(node: &ContainerdNode) -> Result<String> {
    let mut command = node.command(executable("sluice"));
    let output = command.args(["status", "--json", "--interval", "1"]).output()?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    let mode = status["pods"][0]["egress"]["mode"].as_str();
    Ok(mode.with_context(|| format!("no mode in {status}"))?.into())
}

fn print_status(node: &ContainerdNode) -> Result<()> {
    println!();
    for command in ["status", "pods"] {
        let status = node.command(executable("sluice")).arg(command).status()?;
        ensure!(status.success(), "sluice {command}: {status}");
    }
    Ok(())
}
