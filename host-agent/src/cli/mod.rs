// SPDX-License-Identifier: Apache-2.0
//! The command line: what can be asked for, and what does it. The man page and
//! the shells' completion are made from the same description.

mod boot;
mod cluster_config;
mod columns;
mod detach;
mod limit;
mod max_pods;
mod node;
mod output;
mod pods;
mod settings;
mod settings_extension;
mod status;
mod support;
mod top;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::agent;
use crate::agent::aide;
use crate::api::LimitRefused;
use crate::doctor;
use crate::host::paths::Paths;
use crate::settings::in_force::with_found_capacity;
use crate::settings::layers::merge;
use crate::status::trace;
use node::{PodName, Source};
pub use output::report;
use output::{print, show};

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
    /// Answer Bottlerocket as the extension for `settings.sluice`: `proto1 COMMAND`
    #[command(disable_help_flag = true, hide = true)]
    SettingsExtension {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _arguments: Vec<OsString>,
    },
    /// The same, as Bottlerocket calls it: by a link that is called `sluice`
    #[command(disable_help_flag = true, hide = true)]
    Proto1 {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _arguments: Vec<OsString>,
    },
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
    Reload(boot::Reload),
    /// Show on one screen whether the node is well: settings, agent, kernel, pods, what is degraded. Exit
    /// status 0 if it is, 1 with a fault, 3 if it is degraded only
    Status(status::StatusOptions),
    /// Show each pod's limits, where they come from, measured rates, waits, drops and mode
    Pods(pods::PodsOptions),
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
    /// Write what a report of a problem needs into one archive: status, doctor, settings, conflists, journal
    /// and more, without secrets (root)
    Support(support::Support),
}

#[derive(Subcommand)]
enum Generated {
    /// The man pages, one for each command, into a directory
    Man { dir: PathBuf },
    /// The completion of a shell
    Completion { shell: Shell },
}

/// The program's arguments; help is shown as any other screen.
pub fn parse() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| {
        let is_help = error.kind() == ErrorKind::DisplayHelp;
        // What cannot be written is no one's to read.
        let shown = is_help.then(|| show(&error.render().to_string()));
        if shown.is_some() { std::process::exit(0) } else { error.exit() }
    })
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
        Command::SettingsExtension { .. } | Command::Proto1 { .. } => settings_extension::run(),
        Command::Generate(what) => generate(what).map(|()| 0),
        Command::Agent(asked) => {
            // What is wrong is logged, and the agent goes on with what is in force.
            let reload = || boot::put_again(&paths, &asked);
            agent::run(&paths, reload).map(|()| 0)
        }
        Command::Aide => aide::serve().map(|()| 0),
        Command::Status(asked) => status::run(&paths, &asked),
        Command::Pods(asked) => pods::run(&Source::new(&paths), &asked).map(|()| 0),
        Command::Top(asked) => top::run(&Source::new(&paths), &asked).map(|()| 0),
        Command::Limit(command) => limit::run(&Source::new(&paths), command).map(|()| 0),
        Command::MaxPods(asked) => max_pods::run(&paths, &asked).map(|()| 0),
        Command::Trace { pod, json } => explain(&paths, &pod, json).map(|()| 0),
        Command::Support(asked) => support::run(&paths, &asked).map(|()| 0),
        Command::Doctor { json, all } => {
            let diagnosis = doctor::diagnose(&paths)?;
            match json {
                true => print(&output::to_json(&diagnosis.to_json())?)?,
                false => show(&diagnosis.to_text(all))?,
            }
            Ok(diagnosis.exit_status())
        }
    }
}

fn explain(paths: &Paths, pod: &PodName, json: bool) -> Result<()> {
    let status = Source::new(paths).status()?;
    let mut settings = merge(&settings::documents(paths, None)?)?;
    with_found_capacity(paths, &mut settings.settings.bandwidth);
    let PodName { namespace, pod } = pod;
    let traces = trace::trace(&status, &settings, namespace, pod);
    if traces.is_empty() {
        return Err(LimitRefused::NoPod { namespace: namespace.clone(), pod: pod.clone() }.into());
    }
    match json {
        true => print(&output::to_json(&serde_json::json!({ "interfaces": traces }))?),
        false => show(&trace::text(&traces)),
    }
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
