// SPDX-License-Identifier: Apache-2.0
//! `sluice limit`: overrides of the limits of running pods, for a while.

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use settings_model::Limit as Choice;

use super::columns::{self, Column, short};
use super::node::{PodName, Source};
use super::output::{or_json, print, show, to_json, width};
use super::top::table::{column, names};
use crate::api::LimitAsked;
use crate::host::clock::utc;
use crate::pod::limit::Origin;
use crate::pod::time_to_live::TimeToLive;
use crate::status::{PodStatus, Status};

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
    /// List the overrides, and when each ends
    List {
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
}

pub fn run(source: &Source, command: LimitCommand) -> Result<()> {
    let (LimitCommand::Set { json, .. }
    | LimitCommand::Clear { json, .. }
    | LimitCommand::List { json }) = command;
    or_json(answer(source, command), json)
}

fn answer(source: &Source, command: LimitCommand) -> Result<()> {
    match command {
        LimitCommand::Set { pod, egress, ingress, time_to_live, json } => {
            let time = Some(format!("{}s", time_to_live.seconds()));
            let asked = LimitAsked { egress, ingress, time_to_live: time };
            let before = source.counters()?.pods;
            let done = source.agent(|client| client.set_limit(&pod.namespace, &pod.pod, &asked))?;
            if json {
                return print(&to_json(&done)?);
            }
            let until = done.until.map_or(String::new(), |until| format!(" until {}", utc(until)));
            let end = format!("{until} (for {time_to_live})");
            show(&changes(&before, &source.counters()?.pods, &pod, &end))
        }
        LimitCommand::Clear { pod, json } => {
            let before = source.counters()?.pods;
            let done = source.agent(|client| client.clear_limit(&pod.namespace, &pod.pod))?;
            match (json, done.interfaces) {
                (true, _) => print(&to_json(&done)?),
                (false, 0) => show("there was no override\n"),
                (false, _) => show(&changes(&before, &source.counters()?.pods, &pod, "")),
            }
        }
        LimitCommand::List { json } => {
            let mut status = source.status()?;
            status.pods.retain(|pod| pod.live.is_some());
            match json {
                true => print(&to_json(&listed(&status))?),
                false => show(&list(&status, width())),
            }
        }
    }
}

/// A line for each direction: what applied before, what applies now and until when.
fn changes(before: &[PodStatus], now: &[PodStatus], of: &PodName, end: &str) -> String {
    let is_it = |pod: &&PodStatus| (&pod.namespace, &pod.pod) == (&of.namespace, &of.pod);
    let limit = |limit: Option<u64>| limit.map_or("unlimited".into(), short);
    let mut text = String::new();
    for pod in now.iter().filter(is_it) {
        let same =
            |other: &&PodStatus| (other.slot, &other.interface) == (pod.slot, &pod.interface);
        let Some(then) = before.iter().filter(is_it).find(same) else { continue };
        for (before, (direction, line)) in then.directions().iter().zip(pod.directions()) {
            let (then, now) = (before.1, line);
            let is_override = [then, now].iter().any(|it| it.origin == Some(Origin::LiveOverride));
            if is_override || then.limit_bps != now.limit_bps {
                let (then, now) = (limit(then.limit_bps), limit(now.limit_bps));
                text += &format!(
                    "{} {} {direction}: {then} -> {now}{end}\n",
                    pod.name(),
                    pod.interface
                );
            }
        }
    }
    text
}

/// The overrides, as their records have them.
fn listed(status: &Status) -> serde_json::Value {
    let one = |pod: &PodStatus| {
        json!({
            "namespace": pod.namespace, "pod": pod.pod, "interface": pod.interface, "override": pod.live,
        })
    };
    json!({ "overrides": status.pods.iter().map(one).collect::<Vec<_>>() })
}

const COLUMNS: [Column; 5] = [
    column("POD", 12, false),
    column("EGRESS", 9, true),
    column("INGRESS", 9, true),
    column("ENDS IN", 7, true),
    column("UNTIL", 19, false),
];

fn list(status: &Status, width: Option<usize>) -> String {
    let cells = |(pod, name): (&PodStatus, String)| {
        let limits = pod.live?;
        let choice = |choice: Option<Choice>| choice.map_or("-".into(), |it| it.to_string());
        let left = TimeToLive::left(limits.until.saturating_sub(status.time));
        Some(vec![
            name,
            choice(limits.egress),
            choice(limits.ingress),
            left.map_or("now".into(), |left| left.to_string()),
            utc(limits.until),
        ])
    };
    let rows: Vec<_> =
        status.pods.iter().zip(names(&status.pods, None)).filter_map(cells).collect();
    match rows.is_empty() {
        true => "no overrides\n".into(),
        false => columns::lines(&COLUMNS, &rows, width).join("\n") + "\n",
    }
}
