// SPDX-License-Identifier: Apache-2.0
//! The executable `sluice`: arguments, logging, run, error chain, exit status.
//! Exit 0 fine, 1 trouble, 2 wrong usage, 78 settings that cannot be used
//! (sysexits EX_CONFIG, which the unit does not restart on).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use host_agent::{agent, boot, logging, paths::Paths, status};

/// Shares a Kubernetes node's bandwidth fairly among its pods, beside network policy.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put the settings of the user data in force: CNI entry, plugin, limits for new pods
    Boot {
        /// TOML document with a [settings.sluice] table
        #[arg(long, value_name = "FILE")]
        user_data: PathBuf,
        /// The CNI plugin's binary, installed as `sluice` into cni.bin-dir
        #[arg(long, value_name = "FILE", default_value_os_t = Paths::default().shipped_plugin())]
        plugin: PathBuf,
    },
    /// Load the shaper, keep it pinned, and wait for SIGTERM
    Agent,
    /// Show each pod's limits, measured rates, drops and mode
    Status {
        #[arg(long)]
        json: bool,
        /// Time over which rates are measured
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
        interval: u64,
    },
}

fn main() -> ExitCode {
    match logging::init().and_then(|()| run(Arguments::parse().command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(report(&error)),
    }
}

/// Logs the error, or each problem of the settings as an entry of its own; gives the exit status.
fn report(error: &anyhow::Error) -> u8 {
    let Some(problems) = error.downcast_ref::<settings_model::Problems>() else {
        log::error!("{error:#}");
        return 1;
    };
    problems.iter().for_each(|problem| log::error!("{problem}"));
    78
}

fn run(command: Command) -> Result<()> {
    let paths = Paths::default();
    match command {
        Command::Boot { user_data, plugin } => {
            let changed = boot::boot(&paths, &user_data, &plugin)?;
            changed.iter().for_each(|path| log::info!("wrote {}", path.display()));
            Ok(())
        }
        Command::Agent => agent::run(&paths),
        Command::Status { json, interval } => {
            let status = status::status(&paths, Duration::from_millis(interval))?;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&status)?),
                false => print!("{}", status.to_text()),
            }
            Ok(())
        }
    }
}
