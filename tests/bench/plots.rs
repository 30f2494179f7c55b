// SPDX-License-Identifier: Apache-2.0
//! The page's plots: round trips under load, rate in each second, cost.

use crate::figure::Figure;
use crate::rate::{Path, Protocol, Rate};
use crate::row::{Direction, Row};
use crate::setups::Setup;
use crate::site::USUAL_MTU;
use crate::svg::{Anchor, GREY, LogAxis, OWN, PEERS, Svg};

const LABELS: f64 = 150.0;
const WIDTH: f64 = 720.0;
const STEP: f64 = 22.0;

/// Sluice stands out from its peers.
fn colour(setup: Setup, peer: usize) -> &'static str {
    if setup == Setup::Sluice { OWN } else { PEERS[peer % PEERS.len()] }
}

/// Median and p99 of the UDP echo beside 8 flows of cubic, a line for each set-up.
pub fn latency(rows: &[Row], direction: Direction) -> String {
    let mut rows: Vec<&Row> = rows.iter().filter(|row| is_compared(row, direction)).collect();
    rows.sort_by(|a, b| a.probed.echo.p99_ms.total_cmp(&b.probed.echo.p99_ms));
    let values = rows.iter().flat_map(|row| [row.probed.echo.median_ms, row.probed.echo.p99_ms]);
    let axis = LogAxis::around(values, [LABELS, WIDTH - 40.0]);
    let bottom = 20.0 + STEP * rows.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + 44.0);
    for tick in axis.ticks() {
        svg.line([axis.at(tick), 10.0], [axis.at(tick), bottom], GREY, 0.5);
        svg.text([axis.at(tick), bottom + 16.0], Anchor::Middle, GREY, &format!("{tick} ms"));
    }
    for (number, row) in rows.iter().enumerate() {
        let (y, colour) = (24.0 + STEP * number as f64, colour(row.plan.setup, 1));
        let [median, p99] = [row.probed.echo.median_ms, row.probed.echo.p99_ms];
        svg.text([LABELS - 10.0, y + 4.0], Anchor::End, colour, &label(row));
        svg.line([axis.at(median), y], [axis.at(p99), y], colour, 2.0);
        svg.dot([axis.at(median), y], colour, true);
        svg.dot([axis.at(p99), y], colour, false);
    }
    let key = "UDP echo, full: median, ring: p99";
    svg.text([WIDTH - 20.0, bottom + 36.0], Anchor::End, GREY, key);
    svg.finish()
}

fn is_compared(row: &Row, direction: Direction) -> bool {
    let plan = &row.plan;
    let is_loaded = plan.direction == direction && plan.flows == 8 && plan.congestion == "cubic";
    plan.mtu == USUAL_MTU && (plan.flows == 0 || is_loaded)
}

fn label(row: &Row) -> String {
    match row.plan.flows {
        0 => "idle, no limit".into(),
        _ => row.plan.setup.name(),
    }
}

/// A TCP transfer from a pod, by set-up; the first second is what a burst lets pass.
pub fn rate(rates: &[Rate]) -> String {
    let mut rates: Vec<&Rate> = rates.iter().filter(|rate| is_plain(rate)).collect();
    // Lines that meet: ours is on top.
    rates.sort_by_key(|rate| std::cmp::Reverse(rate.plan.setup));
    rates.sort_by_key(|rate| rate.plan.setup == Setup::Sluice);
    let all = rates.iter().flat_map(|rate| rate.seconds_bps.iter().map(|bps| bps / 1e6));
    let bottom = 250.0;
    let axis = LogAxis::around(all, [bottom, 20.0]);
    let seconds = rates.iter().map(|rate| rate.seconds_bps.len()).max().unwrap_or_default();
    let x = |second: usize| 105.0 + second as f64 * 460.0 / seconds as f64;
    let mut svg = Svg::new(WIDTH, bottom + 44.0);
    for tick in axis.ticks() {
        svg.line([95.0, axis.at(tick)], [560.0, axis.at(tick)], GREY, 0.5);
        svg.text([89.0, axis.at(tick) + 4.0], Anchor::End, GREY, &format!("{tick} Mbit/s"));
    }
    for second in 0..seconds {
        svg.text([x(second), bottom + 16.0], Anchor::Middle, GREY, &(second + 1).to_string());
    }
    svg.text([x(seconds / 2), bottom + 36.0], Anchor::Middle, GREY, "second of the transfer");
    for (number, rate) in rates.iter().enumerate() {
        let colour = colour(rate.plan.setup, number);
        let points = rate.seconds_bps.iter().enumerate();
        let points: Vec<_> = points.map(|(second, bps)| [x(second), axis.at(bps / 1e6)]).collect();
        svg.path(&points, colour);
        let y = 40.0 + STEP * number as f64;
        svg.line([575.0, y], [595.0, y], colour, 2.0);
        svg.text([602.0, y + 4.0], Anchor::Start, colour, &rate.plan.setup.name());
    }
    svg.finish()
}

fn is_plain(rate: &Rate) -> bool {
    let plan = &rate.plan;
    plan.mtu == USUAL_MTU
        && plan.path == Path::PodToRemote
        && plan.protocol == Protocol::Tcp
        && !plan.ipv6
        && plan.rate_bps == crate::plan::RATE_BPS
}

/// Bars of what a packet costs: P1's programs, or what P2's set-ups add.
pub fn cost(figure: &Figure, unit: &str, is_shown: fn(&str) -> bool) -> String {
    let mut bars: Vec<(String, f64, bool)> = Vec::new();
    if figure.id == "P2" {
        bars.push(("sluice".into(), figure.value, true));
    }
    let peers = figure.peers.iter().filter(|(name, _)| is_shown(name));
    bars.extend(peers.map(|(name, value)| {
        (name.clone(), value.as_f64().unwrap_or_default(), name.starts_with("shape_"))
    }));
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    let longest = bars.iter().map(|bar| bar.1).fold(1.0, f64::max);
    let mut svg = Svg::new(WIDTH, 20.0 + STEP * bars.len() as f64);
    for (number, (name, value, is_own)) in bars.iter().enumerate() {
        let y = 10.0 + STEP * number as f64;
        let width = value.max(0.0) / longest * (WIDTH - LABELS - 130.0);
        svg.text([LABELS - 10.0, y + 12.0], Anchor::End, GREY, name);
        svg.bar([LABELS, y], [width, STEP - 6.0], if *is_own { OWN } else { PEERS[1] });
        let end = [LABELS + width + 8.0, y + 12.0];
        svg.text(end, Anchor::Start, GREY, &format!("{value:.0} {unit}"));
    }
    svg.finish()
}
