// SPDX-License-Identifier: Apache-2.0
//! Plots of node share: what each pod has by several ways to share a line, and what
//! the others make of a pod's rests.

use crate::row::Direction;
use crate::share::{Load, Share};
use crate::sharing::Sharing;
use crate::site::USUAL_MTU;
use crate::svg::{Anchor, GREY, LogAxis, OWN, PEERS, Svg};

const LABELS: f64 = 150.0;
const WIDTH: f64 = 720.0;
const STEP: f64 = 22.0;

/// Names, titles and pictures of those that were measured.
pub fn all(shares: &[Share]) -> Vec<(&'static str, &'static str, String)> {
    let mut plots = Vec::new();
    let compared: Vec<&Share> = shares.iter().filter(|share| is_compared(share)).collect();
    if compared.len() > 1 {
        plots.push(("share-parts", "Eight pods of 1 to 16 flows on a full line", parts(compared)));
    }
    if let Some(share) = shares.iter().find(|share| rests(share)) {
        plots.push(("share-rests", "A pod that rests every two seconds", over_time(share)));
    }
    plots
}

fn is_compared(share: &Share) -> bool {
    let plan = &share.plan;
    (plan.figure == "F1" && plan.case == "no limits" && plan.congestion == "cubic")
        && (plan.direction, plan.mtu) == (Direction::Egress, USUAL_MTU)
}

fn rests(share: &Share) -> bool {
    let plan = &share.plan;
    plan.sharing == Sharing::NodeShare
        && plan.direction == Direction::Egress
        && matches!(plan.pods[0].load, Load::Resting(2000))
        && matches!(plan.pods[1].load, Load::Tcp(_))
}

/// Each pod's rate in parts of the line, a row for each way to share it.
fn parts(mut shares: Vec<&Share>) -> String {
    shares.sort_by(|a, b| b.jain().total_cmp(&a.jain()));
    shares.sort_by_key(|share| share.plan.sharing != Sharing::NodeShare);
    let axis =
        LogAxis::around(shares.iter().flat_map(|share| share.of_part()), [LABELS, WIDTH - 40.0]);
    let bottom = 20.0 + STEP * shares.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + 44.0);
    for tick in axis.ticks() {
        svg.line([axis.at(tick), 10.0], [axis.at(tick), bottom], GREY, 0.5);
        svg.text([axis.at(tick), bottom + 16.0], Anchor::Middle, GREY, &tick.to_string());
    }
    for (number, share) in shares.iter().enumerate() {
        let is_own = share.plan.sharing == Sharing::NodeShare;
        let (y, colour) = (24.0 + STEP * number as f64, if is_own { OWN } else { PEERS[1] });
        svg.text([LABELS - 10.0, y + 4.0], Anchor::End, colour, &share.plan.sharing.name());
        share.of_part().into_iter().for_each(|part| svg.dot([axis.at(part), y], colour, true));
    }
    let key = "a dot for each pod: its rate, in equal parts of the line";
    svg.text([WIDTH - 20.0, bottom + 36.0], Anchor::End, GREY, key);
    svg.finish()
}

/// In each second: the pod that rests, one of the others, and all together.
fn over_time(share: &Share) -> String {
    let (bottom, top) = (250.0, 20.0);
    let seconds = &share.seconds_bps;
    let line = share.plan.line_bps as f64;
    let x = |second: usize| 105.0 + second as f64 * 440.0 / seconds.len() as f64;
    let y = |bps: f64| bottom - bps / line * (bottom - top) / 1.1;
    let mut svg = Svg::new(WIDTH, bottom + 44.0);
    for tick in 0..=4 {
        let bps = line * f64::from(tick) / 4.0;
        svg.line([95.0, y(bps)], [540.0, y(bps)], GREY, 0.5);
        let label = format!("{} Mbit/s", bps / 1e6);
        svg.text([89.0, y(bps) + 4.0], Anchor::End, GREY, &label);
    }
    svg.text([320.0, bottom + 30.0], Anchor::Middle, GREY, "seconds");
    let curve = |value: fn(&[f64]) -> f64| -> Vec<[f64; 2]> {
        let points = seconds.iter().enumerate();
        points.map(|(at, second)| [x(at), y(value(second))]).collect()
    };
    let curves = [
        ("all eight pods", GREY, curve(|second| second.iter().sum())),
        ("the pod that rests", OWN, curve(|second| second[0])),
        ("one of the others", PEERS[1], curve(|second| second[1])),
    ];
    for (number, (name, colour, points)) in curves.into_iter().enumerate() {
        svg.path(&points, colour);
        let at = 40.0 + STEP * number as f64;
        svg.line([555.0, at], [575.0, at], colour, 2.0);
        svg.text([582.0, at + 4.0], Anchor::Start, colour, name);
    }
    svg.finish()
}
