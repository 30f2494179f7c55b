// SPDX-License-Identifier: Apache-2.0
//! The node as it should come up, and a pod on it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::imds::Imds;

use crate::guest::{BOOT, Guest};
use crate::machine::{Bus, Machine};
use crate::scenario::{Bench, holds};

/// Of the second boot on: the first one formats the data partition.
pub const USER_DATA: &str = "[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n\
    default-egress = \"20Mbit\"\ndefault-ingress = \"30Mbit\"\n";
pub fn a_node_boots_to_its_agent(bench: &Bench) -> Result<()> {
    boot_on(bench, Bus::Virtio)
}

pub fn a_node_boots_from_nvme(bench: &Bench) -> Result<()> {
    boot_on(bench, Bus::Nvme)
}

fn boot_on(bench: &Bench, bus: Bus) -> Result<()> {
    let (imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let machine = Machine { bus, imds_port: Some(port), ..Machine::new("report") };
    let disk = bench.disk("1.0.0")?;
    let mut guest = Guest::start(bench, &machine, &disk)?;
    let facts = guest.probe("report", BOOT)?;
    bench.say(&format!(
        "READY and reported {:.1} s after power-on",
        guest.serial.elapsed().as_secs_f64()
    ));
    check_node(&facts, "1.0.0")?;
    holds(
        "settings are those of the user data",
        has(&facts["settings"], "20Mbit"),
        &facts["settings"],
    )?;
    let requests = imds.requests();
    let asked = requests.iter().any(|line| line == "GET /latest/user-data 200");
    holds("IMDSv2 was asked for the user data", asked, &requests)?;
    say_times(bench, &facts["times"]);
    Ok(())
}

fn say_times(bench: &Bench, times: &Value) {
    let ms = |key: &str| times[key].as_u64().unwrap_or(0);
    bench.say(&format!(
        "kernel {} ms, initrd {} ms, user space {} ms; sluice boot {} ms of a unit of {} ms (processor {} ms), agent READY in {} ms",
        ms("initrd"),
        ms("userspace").saturating_sub(ms("initrd")),
        ms("finish").saturating_sub(ms("userspace")),
        ms("sluice-boot main"),
        ms("sluice-boot takes"),
        ms("sluice-boot processor"),
        ms("sluice takes"),
    ));
}

pub fn has(value: &Value, text: &str) -> bool {
    value.as_str().is_some_and(|value| value.contains(text))
}

/// What every boot of every image promises.
pub fn check_node(facts: &Value, version: &str) -> Result<()> {
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
    holds("the agent runs", facts["agent"] == "active", &facts["agent"])?;
    let armed = format!("sluice-node_{version}+2.efi");
    let entries = facts["entries"].as_array().context("entries")?;
    holds(
        "the boot is good, and its slot armed again",
        entries.iter().any(|e| e == &*armed),
        entries,
    )
}

/// The time is that of a processor with 1000 million instructions a second, whatever this host does. User data is at
/// hand, so what is left is `sluice boot` itself, in the way of containerd and kubelet.
pub fn settings_take_little_of_the_boot(bench: &Bench) -> Result<()> {
    // What else this host does must not show.
    let machine = Machine { counts_instructions: true, ..Machine::new("report") };
    let machine = machine.credential("sluice.user-data", USER_DATA);
    let disk = bench.disk("1.0.0")?;
    // The first boot formats the data partition, and makes what is there from then on.
    for boot in ["first", "second"] {
        let mut guest = Guest::start(bench, &machine, &disk)?;
        let facts = guest.probe("report", BOOT)?;
        check_node(&facts, "1.0.0")?;
        holds("the settings are in force", has(&facts["settings"], "20Mbit"), &facts["settings"])?;
        bench.say(&format!("{boot} boot:"));
        say_times(bench, &facts["times"]);
        guest.cut_power();
    }
    Ok(())
}

pub fn a_pod_is_shaped_beside_policy(bench: &Bench) -> Result<()> {
    let (_imds, port) = Imds::on_port(Some(USER_DATA.as_bytes()));
    let machine =
        Machine { imds_port: Some(port), counts_instructions: true, ..Machine::new("report pods") };
    let disk = bench.disk("1.0.0")?;
    let mut guest = Guest::start(bench, &machine, &disk)?;
    check_node(&guest.probe("report", BOOT)?, "1.0.0")?;
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
    holds("the pod is paced", pods.to_string().contains("paced"), &pods)
}

fn names(conflist: &Value) -> String {
    let plugins = conflist["plugins"].as_array().into_iter().flatten();
    let names: Vec<_> = plugins.filter_map(|plugin| plugin["type"].as_str()).collect();
    names.join(" + ")
}

/// Every second but the first within 2 % of the limit, none above 5 %.
fn check_rates(bench: &Bench, measured: &Value) -> Result<()> {
    let when = measured["when"].as_str().unwrap_or_default();
    for way in measured["ways"].as_array().context("ways")? {
        let limit = way["limit"].as_u64().context("a limit")?;
        let seconds: Vec<u64> =
            way["seconds"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let mbit: Vec<_> =
            seconds.iter().map(|rate| format!("{:.2}", *rate as f64 / 1e6)).collect();
        let direction = way["direction"].as_str().unwrap_or_default();
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
