// SPDX-License-Identifier: Apache-2.0
//! The rows of `sluice top`, their order, and how they are printed. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::columns::{self, Column, short};
use crate::host::logging::harmless;
use crate::pod::limit::Origin;
use crate::status::node_share::PodShare;
use crate::status::text::duration;
use crate::status::{Line, PodState, PodStatus, Pods, need_container};

/// One direction of one pod interface. What is counted is of the interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodRow {
    /// For people; so are state, origin and notes.
    #[serde(skip)]
    pub name: String,
    #[serde(skip)]
    pub state: PodState,
    #[serde(skip)]
    pub origin: Option<Origin>,
    #[serde(skip)]
    pub notes: Vec<String>,
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
    /// Of the node's line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<PodShare>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SortOrder {
    #[default]
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

    /// Each with the key that asks for it in brackets.
    pub fn keys() -> String {
        Self::ALL.map(|order| format!("[{}]{}", &order.name()[..1], &order.name()[1..])).join(" ")
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
    /// What `since` makes of a counter.
    pub fn new(
        name: String,
        pod: &PodStatus,
        (direction, line): (&'static str, &Line),
        since: impl Fn(fn(&Line) -> u64) -> u64,
    ) -> Self {
        Self {
            name,
            state: line.state(),
            origin: line.origin,
            notes: line.notes(),
            namespace: pod.namespace.clone(),
            pod: pod.pod.clone(),
            interface: pod.interface.clone(),
            direction,
            rate_bps: line.measured_bps.unwrap_or(0),
            limit_bps: line.limit_bps,
            used_percent: line.used_percent(),
            mean_wait_ns: line.mean_wait_ns,
            marked_packets: since(|line| line.marked_packets),
            dropped_packets: since(|line| line.lost_packets()),
            mode: line.mode.clone(),
            share: line.share.clone(),
        }
    }

    /// Of each direction with a limit: what has none is not counted. `after` has what was measured since
    /// `before`.
    pub fn of(before: &Pods, after: &Pods) -> Vec<Self> {
        let known: HashMap<_, _> =
            before.pods.iter().map(|pod| ((pod.slot, &pod.interface), pod)).collect();
        let mut rows = Vec::new();
        for (pod, name) in after.pods.iter().zip(names(&after.pods, None)) {
            let then =
                known.get(&(pod.slot, &pod.interface)).filter(|then| then.name() == pod.name());
            for (index, (direction, line)) in pod.directions().into_iter().enumerate() {
                let since = |value: fn(&Line) -> u64| {
                    let before = then.map_or(0, |then| value(then.directions()[index].1));
                    value(line).saturating_sub(before)
                };
                if line.limit_bps.is_some() {
                    rows.push(Self::new(name.clone(), pod, (direction, line), since));
                }
            }
        }
        rows
    }

    /// For a column.
    pub fn limit(&self) -> String {
        self.limit_bps.map_or("-".into(), short)
    }

    pub fn wait(&self) -> String {
        self.mean_wait_ns.map_or("-".into(), duration)
    }

    /// Weight, share now and wait for the node, where pods share that.
    pub fn share(&self) -> [String; 3] {
        let Some(share) = &self.share else { return ["-", "-", "-"].map(str::to_owned) };
        let wait = share.mean_wait_ns.map_or("-".into(), duration);
        [share.weight.to_string(), short(share.now_bps), wait]
    }

    pub fn mode(&self) -> &'static str {
        match self.state {
            PodState::Unlimited => "-",
            state => state.name(),
        }
    }
}

/// Of each of these pods: its name, without the namespace where that is given, with its interface where
/// that is another than most pods', with its container where there is another pod of this name.
pub fn names(pods: &[PodStatus], namespace: Option<&str>) -> Vec<String> {
    let name = |(pod, older): (&PodStatus, bool)| {
        let name = match namespace {
            Some(_) if !pod.pod.is_empty() => harmless(&pod.pod),
            _ => pod.name(),
        };
        let interface = match pod.interface.as_str() {
            "eth0" => String::new(),
            other => format!(" {}", harmless(other)),
        };
        match older && !pod.pod.is_empty() {
            true => format!("{name}{interface} (container {})", pod.short_id()),
            false => name + &interface,
        }
    };
    pods.iter().zip(need_container(pods)).map(name).collect()
}

/// Where pods share the node, columns of that stand in place of these.
pub fn with_share<const N: usize>(
    columns: [Column; N],
    replaced: Range<usize>,
    rows: &[PodRow],
    cells: impl Fn(&PodRow) -> Vec<String>,
    width: Option<usize>,
) -> Vec<String> {
    let is_shared = rows.iter().any(|row| row.share.is_some());
    let mut columns = Vec::from(columns);
    let mut lines: Vec<Vec<String>> = rows.iter().map(cells).collect();
    if is_shared {
        columns.splice(replaced.clone(), SHARE);
        for (cells, row) in lines.iter_mut().zip(rows) {
            cells.splice(replaced.clone(), row.share());
        }
    }
    columns::lines(&columns, &lines, width)
}

/// A column of names or words, or of numbers.
pub const fn column(head: &'static str, width: usize, is_number: bool) -> Column {
    Column { head, width, is_number }
}

const COLUMNS: [Column; 9] = [
    column("POD", 12, false),
    column("DIR", 7, false),
    column("RATE", 5, true),
    column("LIMIT", 5, true),
    column("USED", 4, true),
    column("WAIT", 6, true),
    column("MARKS", 5, true),
    column("DROPS", 5, true),
    column("MODE", 7, false),
];

/// Of what pods share; for which MARKS, and in pods DROPS, make room.
pub const SHARE: [Column; 3] =
    [column("WEIGHT", 6, true), column("SHARE", 5, true), column("NODE", 6, true)];

/// Headings, then a line for each row.
pub fn lines(rows: &[PodRow], width: Option<usize>) -> Vec<String> {
    let cells = |row: &PodRow| {
        vec![
            row.name.clone(),
            row.direction.into(),
            short(row.rate_bps),
            row.limit(),
            row.used_percent.map_or("-".into(), |percent| format!("{percent}%")),
            row.wait(),
            short(row.marked_packets),
            short(row.dropped_packets),
            row.mode().into(),
        ]
    };
    with_share(COLUMNS, 6..7, rows, cells, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::node_share::tests::share;
    use crate::status::rates::measure;
    use crate::status::text::tests::pod;

    fn rows() -> Vec<PodRow> {
        let before = Pods {
            at_ns: 0,
            node_share: Default::default(),
            pods: vec![pod()],
            degraded: Vec::new(),
        };
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
        let lines = lines(&rows(), None);
        let egress = "default/web  egress    10M   20M  50% 2.50ms     0     0 paced";
        assert_eq!(lines[1], egress);
        assert!(lines[2].ends_with(" 0%      -     0     3 paced"), "{}", lines[2]);
    }

    #[test]
    fn where_pods_share_the_node_a_row_says_weight_share_and_wait_for_it() {
        let mut rows = rows();
        rows[0].share = Some(share());
        let lines = lines(&rows, Some(80));
        let heads = "POD          DIR      RATE LIMIT USED   WAIT WEIGHT SHARE   NODE DROPS MODE";
        let egress = "default/web  egress    10M   20M  50% 2.50ms    200 13.3M 2.50ms     0 paced";
        assert_eq!((lines[0].as_str(), lines[1].as_str()), (heads, egress));
    }

    #[test]
    fn pods_are_told_apart_by_interface_and_the_older_sandbox_by_its_container() {
        let (mut second, mut older, mut nameless) = (pod(), pod(), pod());
        second.interface = "eth1".into();
        (older.host_ifindex, older.container_id) = (Some(6), "old".into());
        (nameless.namespace, nameless.pod) = (String::new(), String::new());
        let pods = [pod(), second, older, nameless];
        let all = ["default/web", "default/web eth1", "default/web (container old)"];
        assert_eq!(names(&pods, None), [&all[..], &["container 0123456789abc"]].concat());
        assert_eq!(names(&pods, Some("default"))[1], "web eth1");
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
