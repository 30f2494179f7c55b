// SPDX-License-Identifier: Apache-2.0
//! The commands that put settings in force, or show what that would change:
//! `sluice boot`, `plan` and `reload`; and the agent's reload.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use log::LevelFilter;

use super::output::print;
use super::report;
use crate::agent::reconcile::once;
use crate::api::Reloaded;
use crate::api::client::Client;
use crate::boot::preview::preview;
use crate::boot::{Boot, lines, unmet};
use crate::host::paths::Paths;
use crate::settings::in_force::InForce;
use crate::settings::layers::{Layers, merge};
use crate::settings::user_data;

#[derive(Args)]
pub struct Asked {
    /// User data with a [settings.sluice] table, instead of the node's own: credential
    /// sluice.user-data, QEMU's opt/sluice/user-data, /var/lib/sluice/user-data.toml, IMDS
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// How long to wait for IMDS
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    imds_budget: u64,
    /// The CNI plugin's binary, installed as `sluice` into cni.bin-dir; the image's own if not given
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
}

#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    asked: Asked,
    /// Exit with status 2 if something would change
    #[arg(long)]
    detailed_exitcode: bool,
}

/// The exit status is of what was asked for, also when something else is in force instead.
pub fn run(paths: &Paths, asked: &Asked) -> Result<u8> {
    if asked.user_data.is_none() {
        // The real run reports what there is to report.
        let level = log::max_level();
        log::set_max_level(LevelFilter::Off);
        let _ = rehearse(paths, asked);
        log::set_max_level(level);
    }
    let done = put(paths, asked);
    print(&done.to_text()).map(|()| done.exit_status)
}

/// A FILE is for this command only; the agent has its own.
pub fn reload(paths: &Paths, asked: &Asked) -> Result<u8> {
    let by_agent = match (&asked.user_data, &asked.plugin) {
        (None, None) => Client::new(paths.socket()).reload()?,
        _ => None,
    };
    let Some(reloaded) = by_agent else {
        let status = run(paths, asked)?;
        once::apply(paths).context("give the node's pods their new limits")?;
        return Ok(status);
    };
    reloaded.problems.iter().for_each(|line| log::error!("{line}"));
    if let (Some(settings), true) = (&reloaded.settings, reloaded.exit_status != 0) {
        log::warn!("in force: {}", settings.to_text());
    }
    print(&reloaded.to_text()).map(|()| reloaded.exit_status)
}

/// What is wrong is logged, and reported to the agent's client.
pub fn put(paths: &Paths, asked: &Asked) -> Reloaded {
    let plugin = asked.plugin.clone().unwrap_or_else(|| paths.shipped_plugin());
    let refused = match (Boot { paths, plugin: &plugin }).run(layers(paths, asked)) {
        Ok(booted) => {
            let unmet = &booted.in_force.unmet;
            return Reloaded {
                exit_status: unmet::exit_status(unmet),
                problems: unmet.iter().map(unmet::line).collect(),
                written: Some(booted.written.len()),
                settings: Some(booted.in_force),
            };
        }
        Err(refused) => refused,
    };
    let (exit_status, mut problems) = (report(&refused.error), lines(&refused.error));
    match refused.instead {
        Some(Ok(in_force)) => {
            let unmet: Vec<_> = in_force.unmet.iter().map(unmet::line).collect();
            unmet.iter().for_each(|line| log::error!("{line}"));
            problems.extend(unmet);
            log::warn!("in force: {}", in_force.to_text());
        }
        Some(Err(error)) => {
            log::error!("{error:#}");
            problems.push(format!("{error:#}"));
        }
        None => {}
    }
    // `status` reports what cannot be read here.
    let settings = InForce::read(&paths.boot_file()).ok().flatten();
    Reloaded { exit_status, problems, settings, written: None }
}

fn rehearse(paths: &Paths, asked: &Asked) -> Result<()> {
    let plugin = asked.plugin.clone().unwrap_or_else(|| paths.shipped_plugin());
    let user_data = user_data::content("rehearsal", b"[settings.sluice]\nversion = 1\n")?;
    let layers = Layers::of_image(paths)?.with_user_data(user_data);
    Boot { paths, plugin: &plugin }.rehearse(&layers)
}

/// Gives the exit status.
pub fn plan(paths: &Paths, Plan { asked, detailed_exitcode }: &Plan) -> Result<u8> {
    let plugin = asked.plugin.clone().unwrap_or_else(|| paths.shipped_plugin());
    let layers = layers(paths, asked)?;
    let settings = merge(&layers.documents())?.settings;
    let plan = Boot { paths, plugin: &plugin }.plan(&settings, layers.node_configs());
    plan.unmet.iter().for_each(|trouble| log::error!("{}", unmet::line(trouble)));
    plan.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let changes = preview(&plan)?;
    let count = match changes.len() {
        0 => "no changes".into(),
        1 => "1 change".into(),
        several => format!("{several} changes"),
    };
    print(&format!("{}{count}\n", changes.concat()))?;
    Ok(match unmet::exit_status(&plan.unmet) {
        0 if *detailed_exitcode && !changes.is_empty() => 2,
        status => status,
    })
}

fn layers(paths: &Paths, asked: &Asked) -> Result<Layers> {
    let user_data = match &asked.user_data {
        Some(path) => user_data::read(path)?,
        None => user_data::find(paths, Duration::from_secs(asked.imds_budget))?,
    };
    Ok(Layers::of_image(paths)?.with_user_data(user_data))
}
