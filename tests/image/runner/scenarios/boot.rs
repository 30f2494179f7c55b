// SPDX-License-Identifier: Apache-2.0
//! The node as it should come up, and a pod on it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::imds::Imds;

use crate::guest::{BOOT, Guest};
use crate::machine::{Bus, Machine};
use crate::scenario::{Bench, holds};

/// What IMDS has for a node.
pub const USER_DATA: &str = "[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n\
    default-egress = \"20Mbit\"\ndefault-ingress = \"30Mbit\"\n[settings.sluice.max-pods]\nvalue = 58\n";

/// From NVMe, as on EC2; all others boot from virtio.
pub fn a_node_boots_to_its_agent(bench: &Bench) -> Result<()> {
    let (imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let machine = Machine {
        bus: Bus::Nvme,
        imds_port: Some(port),
        goes_first: true,
        ..Machine::new("report times")
    };
    let disk = bench.disk("1.0.0")?;
    let mut guest = Guest::start(bench, &machine, &disk)?;
    let facts = guest.probe("report", BOOT)?;
    bench.say(&format!(
        "READY and reported {:.1} s after power-on",
        guest.serial.elapsed().as_secs_f64()
    ));
    check_node(&facts, "1.0.0")?;
    check_kernel(&facts)?;
    holds(
        "settings are those of the user data",
        has(&facts["settings"], "20Mbit"),
        &facts["settings"],
    )?;
    let kubelet = &facts["kubelet"]["says"];
    holds("kubelet takes its number of pods", kubelet["maxPods"] == 58, kubelet)?;
    let reserved = json!({"cpu": "70m", "ephemeral-storage": "1Gi", "memory": "893Mi"});
    holds("and keeps memory for them", kubelet["kubeReserved"] == reserved, kubelet)?;
    let requests = imds.requests();
    let asked = requests.iter().any(|line| line == "GET /latest/user-data 200");
    holds("IMDSv2 was asked for the user data", asked, &requests)?;
    say_times(bench, &guest.probe("times", BOOT)?);
    Ok(())
}

/// How long kubelet waits for `sluice boot` alone: once there is user data, and nothing else is waited for. No bound here:
/// how fast a processor is emulated is this host's matter.
fn say_times(bench: &Bench, times: &Value) {
    let ms = |key: &str| times[key].as_u64().unwrap_or(0);
    let others = ms("user data").max(ms("basic"));
    let share = ms("sluice-boot ends").saturating_sub(others);
    bench.say(&format!(
        "kernel {} ms, initrd {} ms, user space {} ms; sluice-boot's unit {} ms, of which {share} ms when all \
         else was there; agent READY in {} ms",
        ms("initrd"),
        ms("userspace").saturating_sub(ms("initrd")),
        ms("finish").saturating_sub(ms("userspace")),
        ms("sluice-boot ends").saturating_sub(ms("sluice-boot starts")),
        ms("sluice ends").saturating_sub(ms("sluice starts")),
    ));
}

pub fn has(value: &Value, text: &str) -> bool {
    value.as_str().is_some_and(|value| value.contains(text))
}

pub fn first_line(text: &Value) -> &str {
    text.as_str().and_then(|text| text.lines().next()).unwrap_or_default()
}

/// What every boot of every image promises.
pub fn check_node(facts: &Value, version: &str) -> Result<()> {
    holds("the agent runs", facts["agent"] == "active", &facts["agent"])?;
    check_root(facts, version)
}

/// And of one without Sluice.
pub fn check_root(facts: &Value, version: &str) -> Result<()> {
    holds("the image is the expected one", facts["image"] == version, &facts["image"])?;
    let refused = facts["root_write"].as_str().context("an answer")?;
    holds("nothing can be written", refused.contains("Read-only file system"), refused)?;
    holds("the root is erofs", has(&facts["root"], " erofs ro"), &facts["root"])?;
    let verity = facts["verity"].as_str().unwrap_or_default();
    holds("the root is checked", verity.starts_with("CRYPT-VERITY-"), verity)?;
    let var = facts["var"].as_str().unwrap_or_default();
    holds("/var is the data partition", var.contains(" ext4 rw"), var)?;
    holds("there is no shell", facts["shells"] == serde_json::json!([]), &facts["shells"])?;
    holds("no unit failed", facts["failed"] == serde_json::json!([]), &facts["failed"])?;
    check_kubelet(facts)?;
    let armed = format!("sluice-node_{version}+2.efi");
    let entries = facts["entries"].as_array().context("entries")?;
    holds(
        "the boot is good, and its slot armed again",
        entries.iter().any(|e| e == &*armed),
        entries,
    )
}

/// What hardens it is in force, and code that no one has signed does not get in.
fn check_kernel(facts: &Value) -> Result<()> {
    let hardening = facts["hardening"].as_object().context("hardening")?;
    for (file, values) in hardening {
        holds(&format!("{file} is as the image has it"), values[0] == values[1], values)?;
    }
    let refuses = &facts["kernel_refuses"];
    let module = has(&refuses["module"], "Key was rejected by service");
    holds("an unsigned module is refused", module, refuses)?;
    holds("memory cannot be read", has(&refuses["memory"], "not permitted"), refuses)
}

/// It runs, whatever is wrong with Sluice, and has checked the kernel.
pub fn check_kubelet(facts: &Value) -> Result<()> {
    let kubelet = &facts["kubelet"];
    let runs = kubelet["state"] == "active" && kubelet["says"]["protectKernelDefaults"] == true;
    holds("kubelet runs, and the kernel is as it requires", runs, kubelet)
}

/// More than what 58 pods need, so it is not for anyone to lower.
const RESERVES_2_GIB: &str = r#"{"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "protectKernelDefaults": true, "kubeReserved": {"cpu": "70m", "memory": "2Gi"}}"#;

pub fn a_pod_is_shaped_beside_policy(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    // What else this host does must not show in the rates.
    let machine = Machine {
        imds_port: Some(port),
        goes_first: true,
        kubelet: RESERVES_2_GIB,
        ..Machine::new("report pods")
    };
    let disk = bench.disk("1.0.0")?;
    let mut guest = Guest::start(bench, &machine, &disk)?;
    let facts = guest.probe("report", BOOT)?;
    check_node(&facts, "1.0.0")?;
    let kubelet = &facts["kubelet"]["says"];
    holds("kubelet takes its number of pods", kubelet["maxPods"] == 58, kubelet)?;
    let limit = Duration::from_secs(300);
    let conflist = guest.probe("conflist", limit)?;
    bench.say(&format!("chain: {}", names(&conflist)));
    let qdiscs = guest.probe("qdiscs", limit)?;
    bench.say(&format!("qdiscs: {qdiscs}"));
    holds(
        "the pod's egress is paced by fq",
        qdiscs["pod"].to_string().contains("\"fq\""),
        &qdiscs,
    )?;
    holds("what it receives too", qdiscs["host"].to_string().contains("\"fq\""), &qdiscs)?;
    for _ in ["before policy", "beside policy"] {
        let measured = guest.probe("measured", limit)?;
        check_rates(bench, &measured)?;
    }
    let denied = guest.probe("denied", limit)?;
    holds("what policy denies does not pass", denied == "timed out", &denied)?;
    let pods = guest.probe("pods", limit)?;
    holds("the pod is paced", pods.to_string().contains("paced"), &pods)?;
    let memory = &kubelet["kubeReserved"]["memory"];
    holds("memory of kubelet's own configuration stays", memory == "2Gi", kubelet)
}

fn names(conflist: &Value) -> String {
    let plugins = conflist["plugins"].as_array().into_iter().flatten();
    let names: Vec<_> = plugins.filter_map(|plugin| plugin["type"].as_str()).collect();
    names.join(" + ")
}

/// Every second but the first within 2 % of the limit, none above 5 %.
fn check_rates(bench: &Bench, measured: &Value) -> Result<()> {
    let when = measured["when"].as_str().unwrap_or_default();
    for direction in measured["directions"].as_array().context("directions")? {
        let limit = direction["limit"].as_u64().context("a limit")?;
        let seconds: Vec<u64> = direction["seconds"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect();
        let mbit: Vec<_> =
            seconds.iter().map(|rate| format!("{:.2}", *rate as f64 / 1e6)).collect();
        let direction = direction["direction"].as_str().unwrap_or_default();
        bench.say(&format!(
            "{when}: {direction} limit {} Mbit/s: {}",
            limit / 1_000_000,
            mbit.join(" ")
        ));
        let sum: u64 = seconds.iter().skip(1).sum();
        let mean = sum / (seconds.len() as u64 - 1).max(1);
        let near = mean.abs_diff(limit) <= limit / 50;
        holds(&format!("{direction} {when} is within 2 % of {limit}"), near, &seconds)?;
    }
    Ok(())
}
