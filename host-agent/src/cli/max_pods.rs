// SPDX-License-Identifier: Apache-2.0
//! `sluice max-pods`: the number, for this node or for any type anywhere, and
//! the arithmetic behind it.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use settings_model::Settings;

use super::output::{WrongUsage, print, show, to_json};
use super::settings;
use crate::addresses::instance::Instance;
use crate::addresses::max_pods::{Machine, MaxPods, max_pods};
use crate::boot::machine;
use crate::host::paths::Paths;
use crate::settings::in_force::InForce;
use crate::settings::layers::{Layers, merge};

#[derive(Args)]
pub struct MaxPodsOptions {
    /// Of this instance type, instead of the node's own
    #[arg(long, value_name = "TYPE")]
    instance_type: Option<String>,
    /// User data, above the image's own settings, instead of the settings in force; `-` is standard
    /// input
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// As if prefix-delegation.enabled were true
    #[arg(long)]
    prefix_delegation: bool,
    /// Show each step with its numbers, and where they come from
    #[arg(long, conflicts_with_all = ["json", "all"])]
    explain: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Every instance type, whatever the settings are
    #[arg(long, conflicts_with_all = ["instance_type", "user_data", "prefix_delegation"])]
    all: bool,
}

pub fn run(paths: &Paths, asked: &MaxPodsOptions) -> Result<()> {
    if asked.all {
        let rows: Vec<InstanceRow> = Instance::all().map(InstanceRow::of).collect();
        return print(&match asked.json {
            true => to_json(&serde_json::json!({ "types": rows }))?,
            false => table(&rows),
        });
    }
    let mut settings = settings_asked(paths, asked)?;
    settings.prefix_delegation.enabled |= asked.prefix_delegation;
    let answer = max_pods(&settings, &machine_asked(paths, asked)?);
    if !asked.json {
        answer.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    }
    match (asked.json, asked.explain) {
        (true, _) => print(&to_json(&answer)?),
        (false, true) => show(&explained(&answer)),
        (false, false) => print(&format!("{}\n", answer.max_pods)),
    }
}

/// The image's own where nothing is in force: on a workstation, that is the defaults.
fn settings_asked(paths: &Paths, asked: &MaxPodsOptions) -> Result<Settings> {
    let in_force = InForce::read(&paths.boot_file())?.is_some();
    let documents = match &asked.user_data {
        None if !in_force => Layers::of_image(paths)?.documents(),
        file => settings::documents(paths, file.as_deref())?,
    };
    Ok(merge(&documents)?.settings)
}

fn machine_asked(paths: &Paths, asked: &MaxPodsOptions) -> Result<Machine> {
    match &asked.instance_type {
        Some(name) => {
            // A type that is newer than the table has a number all the same.
            let meant = Instance::meant(name).filter(|_| Instance::find(name).is_none());
            if let Some(Instance { name: meant, .. }) = meant {
                let what = format!("--instance-type {name}: no such type; did you mean {meant}?");
                return Err(WrongUsage(what).into());
            }
            Ok(Machine { instance_type: Some(name.clone()), ..Machine::default() })
        }
        None => machine::probe(paths).context("not an EC2 instance: give --instance-type TYPE"),
    }
}

/// The number alone in the first line, as without `--explain`.
fn explained(answer: &MaxPods) -> String {
    let name = ("instance type", answer.instance_type.clone().unwrap_or("unknown".into()));
    let source = ("source", answer.source.clone());
    let steps = answer.steps.iter().cloned();
    let lines = std::iter::once(name).chain(steps).chain([source]);
    let lines = lines.map(|(what, text)| format!("{what:<18} {text}\n"));
    format!("{}\n\n{}", answer.max_pods, lines.collect::<String>())
}

/// One type with default settings, and with prefixes.
#[derive(Serialize)]
struct InstanceRow {
    instance_type: &'static str,
    standard: u64,
    /// The standard number where the type cannot have prefixes.
    prefix_delegation: u64,
    /// What a node of this type takes with prefix delegation.
    capped: u16,
    vcpus: Option<u16>,
    prefix_delegation_supported: bool,
}

impl InstanceRow {
    fn of(instance: Instance) -> Self {
        let machine = Machine { instance_type: Some(instance.name.into()), ..Machine::default() };
        let mut settings = Settings::default();
        settings.prefix_delegation.enabled = true;
        let answer = max_pods(&settings, &machine);
        Self {
            instance_type: instance.name,
            standard: answer.standard.unwrap_or_default(),
            prefix_delegation: answer.prefix_delegation.unwrap_or_default(),
            capped: answer.max_pods,
            vcpus: answer.vcpus,
            prefix_delegation_supported: instance.delegates_prefixes(),
        }
    }
}

fn table(rows: &[InstanceRow]) -> String {
    let mut text = format!(
        "{:<20}{:>9}{:>18}{:>8}{:>7}\n",
        "INSTANCE TYPE", "STANDARD", "PREFIX DELEGATION", "CAPPED", "VCPUS"
    );
    for row in rows {
        let prefixes = match row.prefix_delegation_supported {
            true => row.prefix_delegation.to_string(),
            false => "-".into(),
        };
        let vcpus = row.vcpus.map_or("-".into(), |count| count.to_string());
        let (name, standard, capped) = (row.instance_type, row.standard, row.capped);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<20}{standard:>9}{prefixes:>18}{capped:>8}{vcpus:>7}");
    }
    text
}
