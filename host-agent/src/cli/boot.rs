// SPDX-License-Identifier: Apache-2.0
//! The commands that put settings in force, or show what that would change:
//! `sluice boot`, `plan` and `reload`; and the agent's reload.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use log::LevelFilter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::output::{print, report, show};
use super::settings;
use crate::agent::reconcile::once;
use crate::api::Reloaded;
use crate::api::client::Client;
use crate::boot::preview::preview;
use crate::boot::{Boot, lines, unmet};
use crate::host::paths::Paths;
use crate::pod::time_to_live::TimeToLive;
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

#[derive(Args)]
pub struct Reload {
    #[command(flatten)]
    asked: Asked,
    /// Try the FILE for this time, from 1s to 7d, and put back what was in force before; at once on Ctrl-C or
    /// when the terminal is closed
    #[arg(long = "for", value_name = "TIME", requires = "user_data")]
    time_to_live: Option<TimeToLive>,
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
    let began = Instant::now();
    let layers = layers(paths, asked);
    let done = put_layers(paths, asked, layers, began.elapsed());
    show(&done.to_text()).map(|()| done.exit_status)
}

/// A FILE is for this command only; the agent has its own.
pub fn reload(paths: &Paths, Reload { asked, time_to_live }: &Reload) -> Result<u8> {
    let by_agent = match (&asked.user_data, &asked.plugin) {
        (None, None) => Client::new(paths.socket()).reload()?,
        _ => None,
    };
    let Some(reloaded) = by_agent else {
        return match time_to_live {
            Some(time) => try_out(paths, asked, *time),
            None => {
                let done = put_again(paths, asked);
                once::apply(paths).context("give the node's pods their new limits")?;
                show(&done.to_text()).map(|()| done.exit_status)
            }
        };
    };
    reloaded.problems.iter().for_each(|line| log::error!("{line}"));
    if let (Some(settings), true) = (&reloaded.settings, reloaded.exit_status != 0) {
        log::warn!("in force: {}", settings.to_text());
    }
    show(&reloaded.to_text()).map(|()| reloaded.exit_status)
}

/// Seconds within which an IMDS that is there answers.
const QUICK: u64 = 2;

/// Puts the FILE in force, and after this time what was before, if nothing else is by then. A restart of
/// the node ends it too: the FILE is none of the node's own sources.
fn try_out(paths: &Paths, asked: &Asked, time: TimeToLive) -> Result<u8> {
    let before = settings::documents(paths, None).context("know what to put back")?;
    let record = InForce::read(&paths.boot_file())?;
    let own = user_data::find(paths, Duration::from_secs(asked.imds_budget.min(QUICK)));
    let own = own.map_or_else(|e| user_data::node_configs_beside(&e), |it| it.node_configs);
    let tried = layers(paths, asked)?;
    merge(&tried.documents())?;
    let end = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, end.clone()).context("wait for signals")?;
    }
    let done = put_layers(paths, asked, Ok(tried), Duration::ZERO);
    once::apply(paths).context("give the node's pods their new limits")?;
    show(&format!("{}for {time}; Ctrl-C puts back at once what was before\n", done.to_text()))?;
    let until = Instant::now() + Duration::from_secs(time.seconds());
    while Instant::now() < until && !end.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(100));
    }
    // How long it took is not written for its own sake.
    let untimed = |it: Option<InForce>| it.map(|it| InForce { took: None, ..it });
    if untimed(InForce::read(&paths.boot_file())?) != untimed(done.settings) {
        return show("other settings were put in force meanwhile; they stay\n").map(|()| 0);
    }
    let before = Layers::of(before).with_node_configs(own);
    let back = put_layers(paths, asked, Ok(before), Duration::ZERO);
    // Under its own number and for its own reason.
    if let (0, Some(record)) = (back.exit_status, &record) {
        record.write(&paths.boot_file())?;
    }
    once::apply(paths).context("give the node's pods their limits of before")?;
    let text = record.map_or("what was before".into(), |record| record.to_text());
    show(&format!("in force again: {text}\n")).map(|()| back.exit_status)
}

/// For a node where settings are in force: they stay if the new ones cannot even be read, which says nothing
/// about what they are. What is wrong is logged, and reported to the agent's client.
pub fn put_again(paths: &Paths, asked: &Asked) -> Reloaded {
    let began = Instant::now();
    let layers = layers(paths, asked);
    let in_force = InForce::read(&paths.boot_file()).ok().flatten();
    match (layers, in_force) {
        (Err(error), Some(in_force)) if user_data::is_unreadable(&error) => {
            let error = error.context("nothing is changed");
            let (exit_status, problems) = (report(&error), lines(&error));
            Reloaded { exit_status, problems, settings: Some(in_force), written: None }
        }
        (layers, _) => put_layers(paths, asked, layers, began.elapsed()),
    }
}

/// `waited` is how long it took to get the layers.
fn put_layers(paths: &Paths, asked: &Asked, layers: Result<Layers>, waited: Duration) -> Reloaded {
    let plugin = asked.plugin.clone().unwrap_or_else(|| paths.shipped_plugin());
    let refused = match (Boot { paths, plugin: &plugin }).run(layers, waited) {
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
