// SPDX-License-Identifier: Apache-2.0
//! `sluice limit`: overrides of the limits of running pods, for a while.

use anyhow::Result;
use clap::Subcommand;

use super::node::{PodName, Source};
use super::output::{print, to_json};
use crate::api::LimitAsked;
use crate::pod::time_to_live::TimeToLive;

#[derive(Subcommand)]
pub enum LimitCommand {
    /// Give a pod other limits for a while, above annotation, class and default
    Set {
        /// NAMESPACE/POD
        pod: PodName,
        /// What the pod may send: a rate, or "unlimited"; as before if not given
        #[arg(long, value_name = "RATE", required_unless_present = "ingress")]
        egress: Option<String>,
        /// What the pod may receive
        #[arg(long, value_name = "RATE")]
        ingress: Option<String>,
        /// How long the override lasts, from 1s to 7d; it replaces any earlier override
        #[arg(long = "for", value_name = "TIME")]
        time_to_live: TimeToLive,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// End the override at once
    Clear {
        /// NAMESPACE/POD
        pod: PodName,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
}

pub fn run(source: &Source, command: LimitCommand) -> Result<()> {
    let (done, json, outcome) = match command {
        LimitCommand::Set { pod, egress, ingress, time_to_live, json } => {
            let time = time_to_live.to_string();
            let asked = LimitAsked { egress, ingress, time_to_live: Some(seconds(time_to_live)) };
            let done = source.agent(|client| client.set_limit(&pod.namespace, &pod.pod, &asked))?;
            (done, json, format!("set for {time}"))
        }
        LimitCommand::Clear { pod, json } => {
            let done = source.agent(|client| client.clear_limit(&pod.namespace, &pod.pod))?;
            (done, json, "cleared".into())
        }
    };
    print(&match (json, done.interfaces) {
        (true, _) => to_json(&done)?,
        (false, 0) => "no limit was set by hand\n".into(),
        (false, 1) => format!("{outcome} on 1 interface\n"),
        (false, many) => format!("{outcome} on {many} interfaces\n"),
    })
}

fn seconds(time: TimeToLive) -> String {
    format!("{}s", time.seconds())
}
