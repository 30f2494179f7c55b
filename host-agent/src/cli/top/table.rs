// SPDX-License-Identifier: Apache-2.0
//! The rows of `sluice top`, their order, and how they are printed. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;

use clap::ValueEnum;
use serde::Serialize;

use crate::host::logging::harmless;
use crate::status::Line;
use crate::status::Pods;
use crate::status::text::{duration, short};

/// One direction of one pod interface. What is counted is of the interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodRow {
    /// For people.
    #[serde(skip)]
    pub name: String,
    pub namespace: String,
    pub pod: String,
    pub interface: String,
    pub direction: &'static str,
    pub rate_bps: u64,
    pub limit_bps: Option<u64>,
    /// Rate by limit in percent; None without a limit.
    pub used_percent: Option<u64>,
    pub mean_wait_ns: Option<u64>,
    pub marked_packets: u64,
    pub dropped_packets: u64,
    pub mode: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortOrder {
    Used,
    Rate,
    Limit,
    Wait,
    Marked,
    Dropped,
    Name,
}

impl SortOrder {
    const ALL: [Self; 7] =
        [Self::Used, Self::Rate, Self::Limit, Self::Wait, Self::Marked, Self::Dropped, Self::Name];

    pub fn name(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Rate => "rate",
            Self::Limit => "limit",
            Self::Wait => "wait",
            Self::Marked => "marked",
            Self::Dropped => "dropped",
            Self::Name => "name",
        }
    }

    /// The order whose name begins so.
    pub fn by_key(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.name().starts_with(letter))
    }

    pub fn keys() -> String {
        Self::ALL.map(Self::name).join(", ") + " by their first letter"
    }

    /// Most first; by name where that is the same, so that rows do not dance.
    pub fn sort(self, rows: &mut [PodRow]) {
        let name = |row: &PodRow| (row.namespace.clone(), row.pod.clone(), row.interface.clone());
        rows.sort_by_cached_key(|row| (Reverse(self.value(row)), name(row), row.direction));
    }

    fn value(self, row: &PodRow) -> Option<u64> {
        match self {
            Self::Used => row.used_percent,
            Self::Rate => Some(row.rate_bps),
            Self::Limit => row.limit_bps,
            Self::Wait => row.mean_wait_ns,
            Self::Marked => Some(row.marked_packets),
            Self::Dropped => Some(row.dropped_packets),
            Self::Name => None,
        }
    }
}

impl PodRow {
    /// Of each direction with a limit: what has none is not counted. `after` has what was measured since
    /// `before`.
    pub fn of(before: &Pods, after: &Pods) -> Vec<Self> {
        let known: HashMap<_, _> =
            before.pods.iter().map(|pod| ((pod.slot, &pod.interface), pod)).collect();
        let mut rows = Vec::new();
        for pod in &after.pods {
            let then =
                known.get(&(pod.slot, &pod.interface)).filter(|then| then.name() == pod.name());
            for (index, (direction, line)) in pod.directions().into_iter().enumerate() {
                if line.limit_bps.is_none() {
                    continue;
                }
                let since = |value: fn(&Line) -> u64| {
                    let before = then.map_or(0, |then| value(then.directions()[index].1));
                    value(line).saturating_sub(before)
                };
                let rate_bps = line.measured_bps.unwrap_or(0);
                let used = |limit| u128::from(rate_bps) * 100 / u128::from(u64::max(limit, 1));
                rows.push(Self {
                    name: pod.name(),
                    namespace: pod.namespace.clone(),
                    pod: pod.pod.clone(),
                    interface: pod.interface.clone(),
                    direction,
                    rate_bps,
                    limit_bps: line.limit_bps,
                    used_percent: line.limit_bps.map(|limit| used(limit) as u64),
                    mean_wait_ns: line.mean_wait_ns,
                    marked_packets: since(|line| line.marked_packets),
                    dropped_packets: since(|line| line.lost_packets()),
                    mode: line.mode.clone(),
                });
            }
        }
        rows
    }

    fn line(&self) -> String {
        format!(
            "{:<40} {:<6} {:<7} {:>10} {:>10} {:>5} {:>8} {:>7} {:>7} {}",
            self.name,
            harmless(&self.interface),
            self.direction,
            short(self.rate_bps),
            self.limit_bps.map_or("-".into(), short),
            self.used_percent.map_or("-".into(), |percent| format!("{percent}%")),
            self.mean_wait_ns.map_or("-".into(), duration),
            self.marked_packets,
            self.dropped_packets,
            self.mode.as_deref().unwrap_or("broken"),
        )
    }
}

/// Headings, then a line for each row.
pub fn lines(rows: &[PodRow]) -> Vec<String> {
    let head = format!(
        "{:<40} {:<6} {:<7} {:>10} {:>10} {:>5} {:>8} {:>7} {:>7} {}",
        "POD", "IF", "WAY", "RATE", "LIMIT", "USED", "WAIT", "MARKED", "DROPPED", "MODE"
    );
    std::iter::once(head).chain(rows.iter().map(PodRow::line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::rates::measure;
    use crate::status::text::tests::pod;

    fn rows() -> Vec<PodRow> {
        let before = Pods { at_ns: 0, pods: vec![pod()], degraded: Vec::new() };
        let mut after = Pods { at_ns: 1_000_000_000, ..before.clone() };
        after.pods[0].egress.sent_bytes = 1_250_000;
        after.pods[0].egress.sent_packets = 10;
        after.pods[0].egress.wait_ns = 25_000_000;
        after.pods[0].ingress.dropped_packets = 3;
        measure(&before, after.at_ns, &mut after.pods);
        PodRow::of(&before, &after)
    }

    #[test]
    fn row_says_rate_against_limit_and_what_was_lost_meanwhile() {
        let lines = lines(&rows());
        let egress = "default/web                              eth0   egress      10Mbit     20Mbit   50% \
                      \x20 2.50ms       0       0 paced";
        assert_eq!(lines[1], egress);
        assert!(lines[2].ends_with("0%        -       0       3 paced"), "{}", lines[2]);
    }

    #[test]
    fn rows_are_sorted_by_what_was_asked_for_most_first() {
        let mut rows = rows();
        for (order, first) in [
            (SortOrder::Used, "egress"),
            (SortOrder::Dropped, "ingress"),
            (SortOrder::Name, "egress"),
        ] {
            order.sort(&mut rows);
            assert_eq!(rows[0].direction, first, "{order:?}");
        }
    }

    #[test]
    fn every_order_has_a_key_of_its_own() {
        for order in SortOrder::ALL {
            assert_eq!(order.name().chars().next().and_then(SortOrder::by_key), Some(order));
        }
        assert_eq!(SortOrder::by_key('q'), None);
    }
}
