// SPDX-License-Identifier: Apache-2.0
//! Group F: node share's worst cases against what they must be, beside the peers' same ones.

use crate::figure::{Bound, Figure};
use crate::row::Direction;
use crate::share::{Load, Share};
use crate::sharing::Sharing;

/// One figure: node share's worst value over the rows that have one, every peer's worst beside it.
struct Rule<'a> {
    id: &'a str,
    name: &'a str,
    unit: &'static str,
    bound: Bound,
    bounds: [f64; 2],
    value: &'a dyn Fn(&Share) -> Option<f64>,
}

pub fn figures(shares: &[Share]) -> Vec<Figure> {
    let idle = shares.iter().find(|share| share.plan.sharing == Sharing::None);
    let idle = idle
        .map_or([f64::NAN; 2], |share| [share.quiet.echo.median_ms, share.quiet.request.median_ms]);
    let cake = |of: &Share| {
        let is_cake = |share: &&Share| {
            let (plan, own) = (&share.plan, &of.plan);
            plan.sharing == Sharing::CakeDualSrchost
                && (&plan.case, &plan.congestion) == (&own.case, &own.congestion)
                && plan.direction == own.direction
                && plan.mtu == own.mtu
        };
        shares.iter().find(is_cake)
    };
    let in_figure = |share: &Share, figures: &[&str]| {
        share.plan.sharing != Sharing::None && figures.contains(&share.plan.figure.as_str())
    };
    let of = |share: &Share, figure: &str, value: f64| in_figure(share, &[figure]).then_some(value);
    let rests = |share: &Share| share.plan.case.contains("rest");
    let above_idle = |share: &Share| {
        let of = |probed: &tests::probes::Probed| {
            (probed.echo.median_ms - idle[0]).max(probed.request.median_ms - idle[1])
        };
        of(&share.quiet).max(of(&share.busy))
    };
    let p99 = |share: &Share| {
        let other = cake(share)?;
        let ratio = |own: &tests::probes::Probed, other: &tests::probes::Probed| {
            (own.echo.p99_ms / other.echo.p99_ms).max(own.request.p99_ms / other.request.p99_ms)
        };
        Some(ratio(&share.quiet, &other.quiet).max(ratio(&share.busy, &other.busy)))
    };
    let off_percent = |share: &Share| {
        share.of_part().iter().map(|part| (part - 1.0).abs() * 100.0).fold(0.0, f64::max)
    };
    let least_of = |share: &Share, is_meant: fn(&Load) -> bool| {
        let parts = share.of_part();
        let meant = (0..parts.len()).filter(|number| is_meant(&share.plan.pods[*number].load));
        meant.map(|number| parts[number] * 100.0).fold(f64::INFINITY, f64::min)
    };
    let local = |share: &Share| {
        let rates = share.rates();
        share.plan.pods.iter().enumerate().find_map(|(number, pod)| match pod.load {
            Load::Local(bps) => {
                Some(rates[number] * 100.0 / (bps as f64 * share.plan.frames(number)))
            }
            _ => None,
        })
    };
    let (most, least) = (Bound::AtMost, Bound::AtLeast);
    let retransmitted = |share: &Share| share.sent.retransmissions as f64;
    let rules = [
        Rule {
            id: "F1-jain",
            name: "node share: Jain over pods of 1 to 16 flows",
            unit: "",
            bound: least,
            bounds: [0.99, 0.999],
            value: &|s| of(s, "F1", s.jain()),
        },
        Rule {
            id: "F1-second",
            name: "node share: the same, the worst second",
            unit: "",
            bound: least,
            bounds: [0.98, 0.98],
            value: &|s| of(s, "F1", s.worst_jain()),
        },
        Rule {
            id: "F1-used",
            name: "node share: line used",
            unit: "%",
            bound: least,
            bounds: [97.0, 99.0],
            value: &|s| of(s, "F1", s.used_percent()),
        },
        Rule {
            id: "F1-median",
            name: "node share: round trip of a quiet pod, and inside the heaviest, median above idle",
            unit: "ms",
            bound: most,
            bounds: [0.1, 0.1],
            value: &|s| of(s, "F1", above_idle(s)),
        },
        Rule {
            id: "F1-p99",
            name: "node share: the same, p99 against CAKE's",
            unit: "x CAKE",
            bound: most,
            bounds: [0.5, 0.5],
            value: &|s| of(s, "F1", p99(s)?),
        },
        Rule {
            id: "F2-weights",
            name: "node share: a pod's part by weight, off",
            unit: "%",
            bound: most,
            bounds: [3.0, 1.0],
            value: &|s| of(s, "F2", off_percent(s)).filter(|_| !rests(s)),
        },
        Rule {
            id: "F2-used",
            name: "node share: line used while pods come and go",
            unit: "%",
            bound: least,
            bounds: [95.0, 97.0],
            value: &|s| of(s, "F2", s.used_percent()).filter(|_| rests(s)),
        },
        Rule {
            id: "F2-back",
            name: "node share: of its part, 100 ms after a pod came back",
            unit: "%",
            bound: least,
            bounds: [95.0, 97.0],
            value: &|s| of(s, "F2", mean(&s.back)?),
        },
        Rule {
            id: "F3-used",
            name: "node share: line used beside pods of small limits",
            unit: "%",
            bound: least,
            bounds: [97.0, 99.0],
            value: &|s| of(s, "F3", s.used_percent()),
        },
        Rule {
            id: "F4-part",
            name: "node share: of their part, pods beside a flood",
            unit: "%",
            bound: least,
            bounds: [98.0, 99.0],
            value: &|s| of(s, "F4", least_of(s, |load| matches!(load, Load::Tcp(_)))),
        },
        Rule {
            id: "F4-echo",
            name: "node share: echo beside a flood, p99",
            unit: "ms",
            bound: most,
            bounds: [1.0 + idle[0], 1.0 + idle[0]],
            value: &|s| of(s, "F4", s.quiet.echo.p99_ms.max(s.busy.echo.p99_ms)),
        },
        Rule {
            id: "F5-median",
            name: "node share: round trip of a quiet pod, and inside the heaviest, median above idle",
            unit: "ms",
            bound: most,
            bounds: [0.1, 0.1],
            value: &|s| of(s, "F5", above_idle(s)),
        },
        Rule {
            id: "F5-p99",
            name: "node share: the same, p99 against CAKE's",
            unit: "x CAKE",
            bound: most,
            bounds: [0.5, 0.5],
            value: &|s| of(s, "F5", p99(s)?),
        },
        Rule {
            id: "F5-retransmissions",
            name: "node share: retransmissions on egress",
            unit: "",
            bound: most,
            bounds: [0.0, 0.0],
            value: &|s| {
                let value = in_figure(s, &["F1", "F5"]).then_some(retransmitted(s));
                value.filter(|_| s.plan.direction == Direction::Egress)
            },
        },
        Rule {
            id: "F7-jain",
            name: "node share: Jain over 64 pods of 1 to 16 flows",
            unit: "",
            bound: least,
            bounds: [0.99, 0.999],
            value: &|s| of(s, "F7", s.jain()),
        },
        Rule {
            id: "F7-second",
            name: "node share: the same, the worst second",
            unit: "",
            bound: least,
            bounds: [0.98, 0.98],
            value: &|s| of(s, "F7", s.worst_jain()),
        },
        Rule {
            id: "F7-used",
            name: "node share: line used by 64 pods",
            unit: "%",
            bound: least,
            bounds: [97.0, 99.0],
            value: &|s| of(s, "F7", s.used_percent()),
        },
        Rule {
            id: "F8-local",
            name: "node share: of what stays on the node, arrived while the line is full",
            unit: "%",
            bound: least,
            bounds: [99.0, 99.0],
            value: &|s| of(s, "F8", local(s)?),
        },
    ];
    rules.iter().filter_map(|rule| rule.figure(shares)).collect()
}

/// In percent.
fn mean(parts: &[f64]) -> Option<f64> {
    (!parts.is_empty()).then(|| parts.iter().sum::<f64>() * 100.0 / parts.len() as f64)
}

impl Rule<'_> {
    fn figure(&self, shares: &[Share]) -> Option<Figure> {
        let worst = |sharing: Sharing| {
            let badness = |value: f64| if self.bound == Bound::AtMost { value } else { -value };
            let cases = shares.iter().filter(|share| share.plan.sharing == sharing);
            let cases = cases.filter_map(|share| Some((share, (self.value)(share)?)));
            cases.max_by(|a, b| badness(a.1).total_cmp(&badness(b.1)))
        };
        let (share, value) = worst(Sharing::NodeShare)?;
        let figure = Figure::new(self.id, self.name, self.unit)
            .judge(value, self.bound, self.bounds)
            .detail(share.plan.to_string());
        let peers =
            [Sharing::CakeDualSrchost, Sharing::HtbFqCodel, Sharing::TbfFqCodel, Sharing::Limits];
        Some(peers.into_iter().fold(figure, |figure, peer| match worst(peer) {
            Some((_, value)) => figure.peer(peer.name(), value),
            None => figure,
        }))
    }
}
