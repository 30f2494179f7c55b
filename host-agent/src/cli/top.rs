// SPDX-License-Identifier: Apache-2.0
//! `sluice top`: what each pod does against its limit, again every second; the
//! busiest first, or as a key says. The same table once, without a terminal,
//! with `--once`.

mod table;
mod terminal;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::node::Source;
use super::output::{print, to_json};
use crate::status::Pods;
use crate::status::rates::measure;
use table::{PodRow, SortOrder};
use terminal::{Key, Terminal};

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

pub fn run(source: &Source, top: &Top) -> Result<()> {
    let interval = Duration::from_millis(top.interval);
    let before = source.counters()?;
    if !top.once && !top.json {
        return live(source, before, interval, top.sort);
    }
    if !before.pods.is_empty() {
        std::thread::sleep(interval);
    }
    let rows = rows(&before, &mut source.counters()?, top.sort);
    print(&match top.json {
        true => to_json(&rows)?,
        false => table::lines(&rows).into_iter().map(|line| line + "\n").collect(),
    })
}

/// What has happened between two pictures; the later one keeps what was measured.
fn rows(before: &Pods, after: &mut Pods, order: SortOrder) -> Vec<PodRow> {
    measure(before, after.at_ns, &mut after.pods);
    let mut rows = PodRow::of(before, after);
    order.sort(&mut rows);
    rows
}

/// Until the operator says that it is enough.
fn live(source: &Source, mut before: Pods, interval: Duration, mut order: SortOrder) -> Result<()> {
    let terminal = Terminal::open().context("use the terminal; --once needs none")?;
    let (mut shown, mut first) = (Vec::new(), 0usize);
    let mut due = Instant::now() + interval;
    loop {
        terminal.show(&screen(&shown, order), first)?;
        match terminal.key(due.saturating_duration_since(Instant::now()))? {
            Some(Key::Quit) => return Ok(()),
            Some(Key::Up) => first = first.saturating_sub(1),
            Some(Key::Down) => first = (first + 1).min(shown.len().saturating_sub(1)),
            Some(Key::Letter(letter)) => order = SortOrder::by_key(letter).unwrap_or(order),
            None => {}
        }
        if Instant::now() >= due {
            let mut after = source.counters()?;
            shown = rows(&before, &mut after, order);
            (before, due) = (after, Instant::now() + interval);
        }
        order.sort(&mut shown);
    }
}

fn screen(rows: &[PodRow], order: SortOrder) -> Vec<String> {
    let keys = format!("sorted by {}; keys: {}, up, down, q ends", order.name(), SortOrder::keys());
    let mut lines = vec![keys];
    lines.extend(table::lines(rows));
    lines
}
