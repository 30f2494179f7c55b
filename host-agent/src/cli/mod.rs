// SPDX-License-Identifier: Apache-2.0
//! The command line: what can be asked for, and what does it. The man page and
//! the shells' completion are made from the same description.

mod cluster_config;
mod detach;
mod limit;
mod max_pods;
mod node;
mod output;
mod settings;
mod support;
mod top;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use log::LevelFilter;

use crate::agent;
use crate::agent::aide;
use crate::agent::reconcile::once;
use crate::api::client::Client;
use crate::api::{LimitRefused, Reloaded};
use crate::boot::preview::preview;
use crate::boot::{Boot, kubelet, lines, unmet};
use crate::doctor;
use crate::host::paths::Paths;
use crate::settings::in_force::{InForce, in_force};
use crate::settings::layers::{Layers, merge};
use crate::settings::user_data::{self, carrier::CarrierError};
use crate::status::{Status, text, trace};
use node::{PodName, Source};
use output::print;

/// Shares a Kubernetes node's bandwidth fairly among its pods, beside network policy.
#[derive(Parser)]
#[command(name = "sluice", version)]
pub struct Arguments {
    /// Directory with the node's file system, to look at an image that is not running
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Apply the settings: CNI entry, plugin, limits for new pods, max-pods of kubelet
    Boot(Asked),
    /// Show what `boot` would change, and change nothing
    Plan(Asked),
    /// Check a document of settings, on any machine
    Check(settings::Check),
    /// Show and explain settings
    #[command(subcommand)]
    Settings(settings::SettingsCommand),
    /// Print what the cluster must have to match the settings: aws-node's variables, user data, launch
    /// templates
    ClusterConfig(cluster_config::ClusterConfig),
    /// Print what packages ship beside the executable
    #[command(subcommand, hide = true)]
    Generate(Generated),
    /// Load the shaper, keep it pinned, and wait: for SIGHUP to read the settings again, or SIGTERM
    Agent(Asked),
    /// Does what the agent's unit does not let it do; sluice-aide.service
    #[command(hide = true)]
    Aide,
    /// Remove everything of Sluice's from the node; the agent must have been stopped
    Detach {
        /// Also remove the plugin's binary from cni.bin-dir, as when the package is removed
        #[arg(long)]
        plugin: bool,
    },
    /// Reload the settings and apply new limits to running pods (through the agent, if one runs and no
    /// FILE is given)
    Reload(Asked),
    /// Show on one screen whether the node is well: settings, agent, kernel, pods, what is degraded
    Status(Shown),
    /// Show each pod's limits, where they come from, measured rates, waits, drops and mode
    Pods(Shown),
    /// Show live how much of its limit each pod uses
    Top(top::Top),
    /// Override a pod's limits for a while
    #[command(subcommand)]
    Limit(limit::LimitCommand),
    /// Explain why a pod has the limits it has, and how they are enforced
    Trace {
        /// NAMESPACE/POD
        pod: PodName,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Show how many pods this node, or any instance type, takes, and why
    MaxPods(max_pods::MaxPodsOptions),
    /// Explain the node: what sits on which hook, what clashes, what to do; changes nothing (root)
    Doctor {
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
        /// Also every device with its hooks, in order
        #[arg(long, conflicts_with = "json")]
        all: bool,
    },
    /// Write what a report of a problem needs into one archive: status, doctor, settings, conflists, journal
    /// and more, without secrets (root)
    Support(support::Support),
}

#[derive(Args)]
struct Shown {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Time over which rates are measured
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    interval: u64,
}

#[derive(Subcommand)]
enum Generated {
    /// The man pages, one for each command, into a directory
    Man { dir: PathBuf },
    /// The completion of a shell
    Completion { shell: Shell },
}

#[derive(Args)]
struct Asked {
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

/// Logs the error, or each problem of the settings as an entry of its own; gives the exit status.
pub fn report(error: &anyhow::Error) -> u8 {
    lines(error).iter().for_each(|line| log::error!("{line}"));
    let settings = error.is::<settings_model::Problems>() || error.is::<CarrierError>();
    let kubelet = error.is::<kubelet::NotForKubelet>();
    let newer = matches!(error.downcast_ref(), Some(bpf::Error::NewerLayout { .. }));
    if settings || kubelet || newer { 78 } else { 1 }
}

/// Does what was asked for; gives the exit status.
pub fn run(arguments: Arguments) -> Result<u8> {
    let paths = Paths::below(arguments.root);
    match arguments.command {
        Command::Boot(asked) => Ok(boot(&paths, &asked)),
        Command::Detach { plugin } => {
            let pods = detach::detach(&paths)?;
            if plugin {
                detach::remove_plugin(&paths)?;
            }
            print(&format!("detached {pods} pod interfaces; nothing of Sluice shapes here now\n"))?;
            Ok(0)
        }
        Command::Reload(asked) => reload(&paths, &asked),
        Command::Plan(asked) => plan(&paths, &asked),
        Command::Check(asked) => settings::check(&asked),
        Command::Settings(command) => settings::run(&paths, command).map(|()| 0),
        Command::ClusterConfig(asked) => cluster_config::run(&paths, &asked),
        Command::Generate(what) => generate(what).map(|()| 0),
        Command::Agent(asked) => {
            // What is wrong is logged, and the agent goes on with what is in force.
            let reload = || booted(&paths, &asked);
            agent::run(&paths, reload).map(|()| 0)
        }
        Command::Aide => aide::serve().map(|()| 0),
        Command::Status(shown) => {
            // Without them the screen still says which document they are from.
            let values = in_force(&paths).ok();
            show(&paths, &shown, |status| text::screen(status, values.as_ref())).map(|()| 0)
        }
        Command::Pods(shown) => show(&paths, &shown, text::table).map(|()| 0),
        Command::Top(asked) => top::run(&Source::new(&paths), &asked).map(|()| 0),
        Command::Limit(command) => limit::run(&Source::new(&paths), command).map(|()| 0),
        Command::MaxPods(asked) => max_pods::run(&paths, &asked).map(|()| 0),
        Command::Trace { pod, json } => explain(&paths, &pod, json).map(|()| 0),
        Command::Support(asked) => support::run(&paths, &asked).map(|()| 0),
        Command::Doctor { json, all } => {
            let diagnosis = doctor::diagnose(&paths)?;
            print(&match json {
                true => format!("{:#}\n", diagnosis.to_json()),
                false => diagnosis.to_text(all),
            })?;
            Ok(diagnosis.exit_status())
        }
    }
}

fn show(paths: &Paths, shown: &Shown, to_text: impl Fn(&Status) -> String) -> Result<()> {
    let status = Source::new(paths).measured(Duration::from_millis(shown.interval))?;
    print(&match shown.json {
        true => serde_json::to_string_pretty(&status)? + "\n",
        false => to_text(&status),
    })
}

fn explain(paths: &Paths, pod: &PodName, json: bool) -> Result<()> {
    let status = Source::new(paths).status()?;
    let settings = merge(&settings::documents(paths, None)?)?;
    let PodName { namespace, pod } = pod;
    let traces = trace::trace(&status, &settings, namespace, pod);
    if traces.is_empty() {
        return Err(LimitRefused::NoPod { namespace: namespace.clone(), pod: pod.clone() }.into());
    }
    print(&match json {
        true => serde_json::to_string_pretty(&traces)? + "\n",
        false => trace::text(&traces),
    })
}

/// A FILE is for this command only; the agent has its own.
fn reload(paths: &Paths, asked: &Asked) -> Result<u8> {
    let by_agent = match (&asked.user_data, &asked.plugin) {
        (None, None) => Client::new(paths.socket()).reload()?,
        _ => None,
    };
    let Some(reloaded) = by_agent else {
        let status = boot(paths, asked);
        once::apply(paths).context("give the node's pods their new limits")?;
        return Ok(status);
    };
    reloaded.problems.iter().for_each(|line| log::error!("{line}"));
    if let (Some(settings), true) = (&reloaded.settings, reloaded.exit_status != 0) {
        log::warn!("in force: {}", settings.to_text());
    }
    Ok(reloaded.exit_status)
}

/// For the agent: what is wrong is logged, and reported to the client.
fn booted(paths: &Paths, asked: &Asked) -> Reloaded {
    let (exit_status, problems) = try_boot(paths, asked);
    // `status` reports what cannot be read here.
    let settings = InForce::read(&paths.boot_file()).ok().flatten();
    Reloaded { exit_status, problems, settings }
}

/// The exit status is of what was asked for, also when something else is in force instead.
fn boot(paths: &Paths, asked: &Asked) -> u8 {
    if asked.user_data.is_none() {
        // The real run reports what there is to report.
        let level = log::max_level();
        log::set_max_level(LevelFilter::Off);
        let _ = rehearse(paths, asked);
        log::set_max_level(level);
    }
    try_boot(paths, asked).0
}

/// With the lines that were logged.
fn try_boot(paths: &Paths, asked: &Asked) -> (u8, Vec<String>) {
    let plugin = asked.plugin.clone().unwrap_or_else(|| paths.shipped_plugin());
    let began = Instant::now();
    let layers = layers(paths, asked);
    let refused = match (Boot { paths, plugin: &plugin }).run(layers, began.elapsed()) {
        Ok(in_force) => {
            let lines = in_force.unmet.iter().map(unmet::line).collect();
            return (unmet::exit_status(&in_force.unmet), lines);
        }
        Err(refused) => refused,
    };
    let (status, mut problems) = (report(&refused.error), lines(&refused.error));
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
    (status, problems)
}

fn rehearse(paths: &Paths, asked: &Asked) -> Result<()> {
    let plugin = asked.plugin.clone().unwrap_or_else(|| paths.shipped_plugin());
    let user_data = user_data::content("rehearsal", b"[settings.sluice]\nversion = 1\n")?;
    let layers = Layers::of_image(paths)?.with_user_data(user_data);
    Boot { paths, plugin: &plugin }.rehearse(&layers)
}

fn plan(paths: &Paths, asked: &Asked) -> Result<u8> {
    let plugin = asked.plugin.clone().unwrap_or_else(|| paths.shipped_plugin());
    let layers = layers(paths, asked)?;
    let settings = merge(&layers.documents())?.settings;
    let plan = Boot { paths, plugin: &plugin }.plan(&settings, layers.node_configs());
    plan.unmet.iter().for_each(|trouble| log::error!("{}", unmet::line(trouble)));
    plan.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    print(&preview(&plan)?)?;
    Ok(unmet::exit_status(&plan.unmet))
}

fn layers(paths: &Paths, asked: &Asked) -> Result<Layers> {
    let user_data = match &asked.user_data {
        Some(path) => user_data::read(path)?,
        None => user_data::find(paths, Duration::from_secs(asked.imds_budget))?,
    };
    Ok(Layers::of_image(paths)?.with_user_data(user_data))
}

fn generate(what: Generated) -> Result<()> {
    let (mut command, mut out) = (Arguments::command(), Vec::new());
    match what {
        Generated::Man { dir } => clap_mangen::generate_to(command, dir)?,
        Generated::Completion { shell } => {
            clap_complete::generate(shell, &mut command, "sluice", &mut out);
        }
    }
    print(str::from_utf8(&out)?)
}
