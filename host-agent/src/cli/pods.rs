// SPDX-License-Identifier: Apache-2.0
//! `sluice pods`: each direction of each pod in one line, and below them what
//! numbers do not say.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::columns::{Column, short};
use super::node::Source;
use super::output::{print, show, to_json, width};
use super::top::table::{PodRow, SortOrder, column, names, with_share};
use crate::api::LimitRefused;
use crate::host::logging::harmless;
use crate::pod::limit::Origin;
use crate::status::{PodState, PodStatus, Pods, few};

#[derive(Args)]
pub struct PodsOptions {
    /// Only this pod: POD or NAMESPACE/POD
    pod: Option<String>,
    /// Only pods of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only what is not paced as it should be
    #[arg(long)]
    degraded: bool,
    /// What to sort by
    #[arg(long, value_enum, default_value_t = SortOrder::Name)]
    sort: SortOrder,
    /// Print JSON instead of text, as GET /v1/pods of the agent's API, with rates
    #[arg(long)]
    json: bool,
    /// Time over which rates are measured
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    interval: u64,
}

pub fn run(source: &Source, asked: &PodsOptions) -> Result<()> {
    let status = source.measured(Duration::from_millis(asked.interval))?;
    let mut pods = Pods::of(status);
    pods.pods.retain(|pod| asked.is_for(pod));
    if let (Some(name), true) = (&asked.pod, pods.pods.is_empty()) {
        let (namespace, pod) = match (name.split_once('/'), &asked.namespace) {
            (Some((namespace, pod)), _) => (namespace, pod),
            (None, namespace) => (namespace.as_deref().unwrap_or("*"), name.as_str()),
        };
        return Err(LimitRefused::NoPod { namespace: namespace.into(), pod: pod.into() }.into());
    }
    match asked.json {
        true => print(&to_json(&pods)?),
        false => show(&text(&pods, asked, width())),
    }
}

impl PodsOptions {
    fn is_for(&self, pod: &PodStatus) -> bool {
        let is_named = self.pod.as_ref().is_none_or(|name| match name.split_once('/') {
            Some((namespace, name)) => (namespace, name) == (&*pod.namespace, &*pod.pod),
            None => *name == pod.pod,
        });
        is_named
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == pod.namespace)
            && (!self.degraded || !notes(pod).is_empty())
    }
}

/// Below the table: what is to be said of each direction.
fn notes(pod: &PodStatus) -> Vec<(&'static str, String)> {
    let mut notes: Vec<_> = pod
        .directions()
        .iter()
        .flat_map(|(direction, line)| line.notes().into_iter().map(|note| (*direction, note)))
        .collect();
    let guards = [
        ("egress", pod.guard.as_ref().map(|guard| (&guard.state, &guard.reason))),
        ("ingress", pod.bypassed.as_ref().map(|guard| (&guard.guard, &guard.reason))),
    ];
    for (direction, guard) in guards {
        if let Some((state, reason)) =
            guard.filter(|(state, _)| *state == "off" || *state == "pending")
        {
            notes.push((direction, format!("guard {state}: {reason}")));
        }
    }
    notes
}

const COLUMNS: [Column; 9] = [
    column("POD", 12, false),
    column("DIR", 7, false),
    column("LIMIT", 5, true),
    column("ORIGIN", 10, false),
    column("RATE", 5, true),
    column("WAIT", 6, true),
    column("MARKS", 5, true),
    column("DROPS", 5, true),
    column("MODE", 7, false),
];

fn text(pods: &Pods, asked: &PodsOptions, width: Option<usize>) -> String {
    if pods.pods.is_empty() {
        let of = asked.namespace.as_ref().map(|name| format!(" in namespace {}", harmless(name)));
        let which = if asked.degraded { "degraded pods" } else { "pods" };
        return format!("no {which}{}\n", of.unwrap_or_default()) + &pods.not_adopted();
    }
    let names = names(&pods.pods, asked.namespace.as_deref());
    let mut rows = Vec::new();
    for (pod, name) in pods.pods.iter().zip(&names) {
        for direction in pod.directions() {
            rows.push(PodRow::new(name.clone(), pod, direction, |value| value(direction.1)));
        }
    }
    asked.sort.sort(&mut rows);
    let lines = with_share(COLUMNS, 6..8, &rows, cells, width);
    lines.join("\n") + "\n" + &said(pods, &names) + &pods.not_adopted()
}

fn cells(row: &PodRow) -> Vec<String> {
    let is_limited = row.state != PodState::Unlimited;
    vec![
        row.name.clone(),
        row.direction.into(),
        row.limit(),
        row.origin.map_or("-", Origin::word).into(),
        if is_limited { short(row.rate_bps) } else { "-".into() },
        row.wait(),
        short(row.marked_packets),
        short(row.dropped_packets),
        row.mode().into(),
    ]
}

/// What is the same for many is said once.
fn said(pods: &Pods, names: &[String]) -> String {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (pod, name) in pods.pods.iter().zip(names) {
        for (direction, note) in notes(pod) {
            let of = format!("{name} {direction}");
            match groups.iter_mut().find(|(other, _)| *other == note) {
                Some((_, all)) => all.push(of),
                None => groups.push((note, vec![of])),
            }
        }
    }
    groups.iter().map(|(note, all)| format!("{}: {note}\n", few(all))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::text::tests::pod;
    use crate::trouble::Trouble;
    use crate::trouble::code::NOT_ADOPTED;

    fn asked(degraded: bool) -> PodsOptions {
        let (pod, namespace, sort) = (None, None, SortOrder::Name);
        PodsOptions { pod, namespace, degraded, sort, json: false, interval: 0 }
    }

    fn pods(pods: Vec<PodStatus>) -> Pods {
        Pods { at_ns: 0, node_share: Default::default(), pods, degraded: Vec::new() }
    }

    #[test]
    fn each_direction_has_one_line_and_reasons_stand_below() {
        let (mut first, mut second) = (pod(), pod());
        first.ingress.reason = "a tbf is there".into();
        first.ingress.broken = true;
        (second.pod, second.egress.asked) = ("web-2".into(), "1Gbit".parse().ok());
        (second.ingress.limit_bps, second.ingress.origin, second.ingress.mode) = (None, None, None);
        let all = pods(vec![first, second]);
        assert_eq!(
            text(&all, &asked(false), Some(80)),
            "POD           DIR     LIMIT ORIGIN      RATE   WAIT MARKS DROPS MODE\n\
             default/web   egress    20M default        0      -     0     0 paced\n\
             default/web   ingress   20M default        0      -     0     0 broken\n\
             default/web-2 egress    20M default        0      -     0     0 paced\n\
             default/web-2 ingress     - -              -      -     0     0 -\n\
             default/web ingress: a tbf is there\n\
             default/web-2 egress: asked: 1Gbit, lowered by the maximum\n"
        );
        let chosen = all.pods.iter().filter(|pod| asked(true).is_for(pod)).count();
        assert_eq!((chosen, asked(true).is_for(&pod())), (2, false));
    }

    #[test]
    fn pod_is_chosen_by_name_and_namespace() {
        let is_for = |name: Option<&str>, namespace: Option<&str>| {
            let (name, namespace) = (name.map(str::to_owned), namespace.map(str::to_owned));
            PodsOptions { pod: name, namespace, ..asked(false) }.is_for(&pod())
        };
        assert!(is_for(Some("web"), None) && is_for(Some("default/web"), None));
        assert!(is_for(None, Some("default")) && !is_for(None, Some("other")));
        assert!(!is_for(Some("other/web"), None) && !is_for(Some("we"), None));
    }

    #[test]
    fn pod_that_could_not_be_adopted_is_listed_with_the_others() {
        let mut none = pods(Vec::new());
        none.degraded = vec![Trouble::new(NOT_ADOPTED, "default/web eth0", "why")];
        let text = text(&none, &asked(false), None);
        assert_eq!(text, "no pods\ndefault/web eth0: not-adopted: why\n");
    }
}
