// SPDX-License-Identifier: Apache-2.0
//! `sluice top`: what each pod does against its limit, again every second; the
//! busiest first, or as a key says. The same table once, without a terminal,
//! with `--once`.

pub mod table;
mod terminal;
mod view;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::node::Source;
use super::output::{print, show, to_json, width};
use crate::status::Pods;
use crate::status::node_share::NodeLines;
use crate::status::rates::measure;
use crate::status::text::node_line;
use table::{PodRow, SortOrder};
use terminal::Terminal;
use view::View;

#[derive(Args)]
pub struct Top {
    /// Print one table and end
    #[arg(long)]
    once: bool,
    /// Print one table as JSON
    #[arg(long)]
    json: bool,
    /// Time over which rates are measured
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=60_000))]
    interval: u64,
    /// What to sort by
    #[arg(long, value_enum, default_value_t = SortOrder::Used)]
    sort: SortOrder,
}

/// As JSON.
#[derive(Serialize)]
struct Rows<'r> {
    node_share: &'r NodeLines,
    directions: &'r [PodRow],
}

pub fn run(source: &Source, top: &Top) -> Result<()> {
    let interval = Duration::from_millis(top.interval);
    let before = source.counters()?;
    if !top.once && !top.json {
        return live(source, before, interval, top.sort);
    }
    if !before.pods.is_empty() {
        std::thread::sleep(interval);
    }
    let mut after = source.counters()?;
    let rows = rows(&before, &mut after, top.sort);
    match top.json {
        true => print(&to_json(&Rows { node_share: &after.node_share, directions: &rows })?),
        false => {
            let node = node_line(&after.node_share, |direction| after.node_rate(direction))
                .map(|line| format!("node: {line}"));
            let lines = node.into_iter().chain(table::lines(&rows, width()));
            show(&(lines.collect::<Vec<_>>().join("\n") + "\n"))
        }
    }
}

/// What has happened between two pictures; the later one keeps what was measured.
fn rows(before: &Pods, after: &mut Pods, order: SortOrder) -> Vec<PodRow> {
    measure(before, after.at_ns, &mut after.pods);
    let mut rows = PodRow::of(before, after);
    order.sort(&mut rows);
    rows
}

/// Until the operator says that it is enough.
fn live(source: &Source, mut before: Pods, interval: Duration, order: SortOrder) -> Result<()> {
    let terminal = Terminal::open()?;
    let mut view = View::new(order);
    view.found(PodRow::of(&before, &before), &before);
    let mut due = Instant::now() + interval;
    loop {
        let (width, height) = terminal.size();
        terminal.show(&view.lines(width, height), view.head())?;
        for key in terminal.keys(due.saturating_duration_since(Instant::now()))? {
            if view.press(key, height) {
                return Ok(());
            }
        }
        if Instant::now() >= due {
            match source.counters() {
                Ok(mut after) => {
                    view.found(rows(&before, &mut after, view.order), &after);
                    before = after;
                }
                // What was there last stays to be seen.
                Err(error) => view.lost(&error),
            }
            due = Instant::now() + interval;
        }
    }
}
