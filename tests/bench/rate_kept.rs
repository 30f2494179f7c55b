// SPDX-License-Identifier: Apache-2.0
//! P4 and P5 from the transfers: how exactly limits are kept, from the first
//! second on.

use crate::figure::{Bound, Figure};
use crate::rate::Rate;
use crate::setups::Setup;
use crate::site::MTUS;

pub fn figures(rates: &[Rate]) -> Vec<Figure> {
    MTUS.into_iter().flat_map(|mtu| figures_at(mtu, rates)).collect()
}

fn figures_at(mtu: u32, rates: &[Rate]) -> Vec<Figure> {
    let rates: Vec<&Rate> = rates.iter().filter(|rate| rate.plan.mtu == mtu).collect();
    let own: Vec<&Rate> =
        rates.iter().copied().filter(|rate| rate.plan.setup == Setup::Sluice).collect();
    let figure = |id, name, unit, of: fn(&Rate) -> f64, bounds| {
        let figure = worst(Figure::new(id, name, unit), &own, of, bounds);
        let peers = rates.iter().filter(|rate| rate.plan.setup != Setup::Sluice);
        let figure =
            peers.fold(figure, |figure, rate| figure.peer(rate.plan.setup.name(), of(rate)));
        figure.at_mtu(mtu)
    };
    vec![
        figure("P4-error", "rate, off over 10 s", "%", |r| r.error_percent().abs(), [0.5, 0.5]),
        figure(
            "P4-second",
            "rate, off in any second by more than a frame",
            "%",
            Rate::worst_second_percent,
            [2.0, 2.0],
        ),
        figure(
            "P5",
            "first second, by more than a frame",
            "x limit",
            Rate::first_second,
            [1.05, 1.05],
        ),
    ]
}

/// The same pod from two processors at once.
pub fn processors(rates: &[Rate]) -> Figure {
    let own: Vec<&Rate> = rates.iter().collect();
    let figure =
        Figure::new("P4-processors", "rate, off with two processors sending, median second", "%");
    worst(figure, &own, |rate| rate.median_error_percent().abs(), [1.0, 1.0])
}

fn worst(figure: Figure, rates: &[&Rate], of: fn(&Rate) -> f64, bounds: [f64; 2]) -> Figure {
    let worst = rates.iter().max_by(|a, b| of(a).total_cmp(&of(b))).expect("a transfer");
    figure.judge(of(worst), Bound::AtMost, bounds).detail(worst.plan.to_string())
}
