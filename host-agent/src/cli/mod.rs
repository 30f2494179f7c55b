// SPDX-License-Identifier: Apache-2.0
//! The command line: what can be asked for, and what does it. The man page and
//! the shells' completion are made from the same description.

mod boot;
mod cluster_config;
mod detach;
mod limit;
mod max_pods;
mod node;
mod output;
mod settings;
mod status;
mod top;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::agent;
use crate::agent::aide;
use crate::api::LimitRefused;
use crate::boot::{kubelet, lines};
use crate::doctor;
use crate::host::paths::Paths;
use crate::settings::layers::merge;
use crate::settings::user_data::carrier::CarrierError;
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
    Boot(boot::Asked),
    /// Show what `boot` would change, and change nothing
    Plan(boot::Plan),
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
    Agent(boot::Asked),
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
    Reload(boot::Asked),
    /// Show on one screen whether the node is well: settings, agent, kernel, pods, what is degraded. Exit
    /// status 0 if it is, 1 with a fault, 3 if it is degraded only
    Status(status::StatusOptions),
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
    /// Explain the node: what sits on which hook, what clashes, what to do; changes nothing (root). Exit
    /// status as of `status`
    Doctor {
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
        /// Also every device with its hooks, in order
        #[arg(long, conflicts_with = "json")]
        all: bool,
    },
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
    /// The man page
    Man,
    /// The completion of a shell
    Completion { shell: Shell },
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
        Command::Boot(asked) => boot::run(&paths, &asked),
        Command::Detach { plugin } => {
            let pods = detach::detach(&paths)?;
            if plugin {
                detach::remove_plugin(&paths)?;
            }
            print(&format!("detached {pods} pod interfaces; nothing of Sluice shapes here now\n"))?;
            Ok(0)
        }
        Command::Reload(asked) => boot::reload(&paths, &asked),
        Command::Plan(asked) => boot::plan(&paths, &asked),
        Command::Check(asked) => settings::check(&asked),
        Command::Settings(command) => settings::run(&paths, command).map(|()| 0),
        Command::ClusterConfig(asked) => cluster_config::run(&paths, &asked),
        Command::Generate(what) => generate(what).map(|()| 0),
        Command::Agent(asked) => {
            // What is wrong is logged, and the agent goes on with what is in force.
            let reload = || boot::put(&paths, &asked);
            agent::run(&paths, reload).map(|()| 0)
        }
        Command::Aide => aide::serve().map(|()| 0),
        Command::Status(asked) => status::run(&paths, &asked),
        Command::Pods(shown) => show(&paths, &shown, text::table).map(|()| 0),
        Command::Top(asked) => top::run(&Source::new(&paths), &asked).map(|()| 0),
        Command::Limit(command) => limit::run(&Source::new(&paths), command).map(|()| 0),
        Command::MaxPods(asked) => max_pods::run(&paths, &asked).map(|()| 0),
        Command::Trace { pod, json } => explain(&paths, &pod, json).map(|()| 0),
        Command::Doctor { json, all } => {
            let diagnosis = doctor::diagnose(&paths)?;
            print(&match json {
                true => output::to_json(&diagnosis.to_json())?,
                false => diagnosis.to_text(all),
            })?;
            Ok(diagnosis.exit_status())
        }
    }
}

fn show(paths: &Paths, shown: &Shown, to_text: impl Fn(&Status) -> String) -> Result<()> {
    let status = Source::new(paths).measured(Duration::from_millis(shown.interval))?;
    print(&match shown.json {
        true => output::to_json(&status)?,
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
        true => output::to_json(&traces)?,
        false => trace::text(&traces),
    })
}

fn generate(what: Generated) -> Result<()> {
    let (mut command, mut out) = (Arguments::command(), Vec::new());
    match what {
        Generated::Man => clap_mangen::Man::new(command).render(&mut out)?,
        Generated::Completion { shell } => {
            clap_complete::generate(shell, &mut command, "sluice", &mut out);
        }
    }
    print(str::from_utf8(&out)?)
}
