// SPDX-License-Identifier: Apache-2.0
//! P6 and P7 from the rows: Sluice's worst case against idle, CAKE or a bound.
//! A ratio compares the same direction, flows and congestion control.

use std::collections::BTreeMap;

use crate::figure::{Bound, Figure};
use crate::row::{Direction, Row, RowPlan};
use crate::setups::Setup;
use crate::site::MTUS;

pub struct UnderLoad<'a> {
    rows: Vec<&'a Row>,
}

/// A value of one row; larger is worse where `worst` looks for the largest.
struct Case<'a> {
    row: &'a Row,
    value: f64,
    what: &'static str,
}

pub fn figures(rows: &[Row]) -> Vec<Figure> {
    MTUS.into_iter().flat_map(|mtu| figures_at(mtu, rows)).collect()
}

fn figures_at(mtu: u32, rows: &[Row]) -> Vec<Figure> {
    let all = UnderLoad { rows: rows.iter().filter(|row| row.plan.mtu == mtu).collect() };
    let directions = [Direction::Egress, Direction::Ingress];
    let mut figures = Vec::new();
    figures.extend(
        directions.into_iter().flat_map(|direction| [all.median(direction), all.p99(direction)]),
    );
    figures.push(all.lost());
    figures.push(all.goodput());
    figures.push(all.retransmissions_egress());
    figures.push(all.retransmissions_ingress());
    figures.extend(directions.map(|direction| all.jain(direction)));
    figures.into_iter().map(|figure| figure.at_mtu(mtu)).collect()
}

impl<'a> UnderLoad<'a> {
    fn loaded(&self) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().copied().filter(|row| row.plan.flows > 0)
    }

    fn of(&self, direction: Direction) -> impl Iterator<Item = &'a Row> {
        self.loaded().filter(move |row| row.plan.direction == direction)
    }

    fn idle(&self) -> &'a Row {
        self.rows.iter().find(|row| row.plan.flows == 0).expect("an idle row")
    }

    /// The row of another set-up with the same traffic.
    fn same_by(&self, setup: Setup, plan: &RowPlan) -> Option<&'a Row> {
        let key = |plan: &RowPlan| (plan.direction, plan.flows, plan.congestion.clone());
        self.loaded().find(|row| row.plan.setup == setup && key(&row.plan) == key(plan))
    }

    fn median(&self, direction: Direction) -> Figure {
        let (id, idle) = (by(direction, ["P6-median-egress", "P6-median-ingress"]), self.idle());
        let name = format!("round trip above idle under load, median, pod {}", direction.name());
        let idle = [idle.probed.echo.median_ms, idle.probed.request.median_ms];
        let cases = self.of(direction).flat_map(|row| {
            let probed = &row.probed;
            let above = [probed.echo.median_ms - idle[0], probed.request.median_ms - idle[1]];
            probes(row, above)
        });
        worst_of(Figure::new(id, name, "ms"), cases, Bound::AtMost, [0.5, 0.1])
            .peer("idle, no limit", idle[0])
    }

    fn p99(&self, direction: Direction) -> Figure {
        let id = by(direction, ["P6-p99-egress", "P6-p99-ingress"]);
        let name = format!("round trip under load, p99 against CAKE's, pod {}", direction.name());
        let cases = self.of(direction).filter_map(|row| {
            let cake = self.same_by(Setup::Cake, &row.plan)?.probed;
            let (echo, request) = (row.probed.echo, row.probed.request);
            let ratios = [echo.p99_ms / cake.echo.p99_ms, request.p99_ms / cake.request.p99_ms];
            Some(probes(row, ratios))
        });
        worst_of(Figure::new(id, name, "x CAKE"), cases.flatten(), Bound::AtMost, [1.0, 0.5])
    }

    /// Over all rows of a set-up, which have too few echoes to tell 0.1 % each.
    fn lost(&self) -> Figure {
        let mut shares: BTreeMap<Setup, [usize; 2]> = BTreeMap::new();
        for row in self.loaded() {
            let share = shares.entry(row.plan.setup).or_default();
            *share = [share[0] + row.probed.echo.lost, share[1] + row.probed.echo.asked];
        }
        let percent = |[lost, asked]: [usize; 2]| lost as f64 * 100.0 / asked as f64;
        let own = self.loaded().filter(|row| row.plan.setup == Setup::Sluice);
        let worst = own.max_by_key(|row| row.probed.echo.lost).expect("a row");
        let figure = Figure::new("P6-lost", "echoes lost under load", "%")
            .judge(percent(shares[&Setup::Sluice]), Bound::AtMost, [0.1, 0.0])
            .detail(format!("most: {}, {}", worst.plan, worst.probed.echo.lost));
        shares
            .into_iter()
            .filter(|(setup, _)| *setup != Setup::Sluice)
            .fold(figure, |f, (s, n)| f.peer(s.name(), percent(n)))
    }

    /// A peer that is far ahead of its limit would be no measure; at P6's rows none is.
    fn goodput(&self) -> Figure {
        let peers =
            [Setup::Cake, Setup::TbfFqCodel, Setup::Upstream32Kb, Setup::CiliumEdt, Setup::Sluice];
        let cases = self.loaded().map(|row| {
            let others = peers.iter().filter(|peer| **peer != row.plan.setup);
            let rates = others.filter_map(|peer| self.same_by(*peer, &row.plan));
            let best = rates.map(Row::goodput_mbps).fold(0.0, f64::max);
            Case { row, value: row.goodput_mbps() / best * 100.0, what: "" }
        });
        let figure = Figure::new("P7-goodput", "goodput against the best peer's", "%");
        worst_of(figure, cases, Bound::AtLeast, [99.0, 99.0])
    }

    fn retransmissions_egress(&self) -> Figure {
        let cases = self.of(Direction::Egress).map(|row| {
            let value = per_thousand(row, row.sent.retransmissions);
            Case { row, value, what: "" }
        });
        let name = "retransmissions for 1000 segments, pod egress";
        let figure = Figure::new("P7-retransmissions-egress", name, "");
        worst_of(figure, cases, Bound::AtMost, [1.0, 0.0])
    }

    /// Where CAKE needs none, as if it had needed one.
    fn retransmissions_ingress(&self) -> Figure {
        let cases = self.of(Direction::Ingress).filter_map(|row| {
            let cake = self.same_by(Setup::Cake, &row.plan)?;
            let of_cake = per_thousand(cake, cake.sent.retransmissions.max(1));
            let value = per_thousand(row, row.sent.retransmissions) / of_cake;
            Some(Case { row, value, what: "" })
        });
        let name = "retransmissions for 1000 segments against CAKE's, pod ingress";
        let figure = Figure::new("P7-retransmissions-ingress", name, "x CAKE");
        worst_of(figure, cases, Bound::AtMost, [1.0, 0.5])
    }

    fn jain(&self, direction: Direction) -> Figure {
        let id = by(direction, ["P7-jain-egress", "P7-jain-ingress"]);
        let bounds = by(direction, [[0.98, 0.999], [0.95, 0.99]]);
        let name = format!("Jain's index of 8 and of 32 flows, pod {}", direction.name());
        let cases = self.of(direction).filter(|row| row.plan.flows > 1);
        let cases = cases.map(|row| Case { row, value: row.jain(), what: "" });
        worst_of(Figure::new(id, name, ""), cases, Bound::AtLeast, bounds)
    }
}

fn by<T: Copy>(direction: Direction, [egress, ingress]: [T; 2]) -> T {
    match direction {
        Direction::Egress => egress,
        Direction::Ingress => ingress,
    }
}

fn per_thousand(row: &Row, retransmissions: u64) -> f64 {
    retransmissions as f64 * 1000.0 / row.sent.segments as f64
}

fn probes(row: &Row, [echo, request]: [f64; 2]) -> [Case<'_>; 2] {
    [Case { row, value: echo, what: "UDP echo, " }, Case { row, value: request, what: "TCP, " }]
}

/// Sluice's worst case is the figure, every other set-up's worst one a peer.
fn worst_of<'a>(
    figure: Figure,
    cases: impl Iterator<Item = Case<'a>>,
    bound: Bound,
    bounds: [f64; 2],
) -> Figure {
    let mut worst: BTreeMap<Setup, Case> = BTreeMap::new();
    for case in cases {
        let setup = case.row.plan.setup;
        let is_worse = |than: &Case| match bound {
            Bound::AtMost => case.value > than.value,
            Bound::AtLeast => case.value < than.value,
        };
        if worst.get(&setup).is_none_or(is_worse) {
            worst.insert(setup, case);
        }
    }
    let own = worst.remove(&Setup::Sluice).expect("a row of Sluice");
    let figure =
        figure.judge(own.value, bound, bounds).detail(format!("{}{}", own.what, own.row.plan));
    worst.iter().fold(figure, |figure, (setup, case)| figure.peer(setup.name(), case.value))
}
