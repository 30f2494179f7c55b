// SPDX-License-Identifier: Apache-2.0
//! Which pods share the node's line in group F, and by what.

use crate::jobs::Job;
use crate::row::Direction;
use crate::share::{Load, SharePlan, Sharer};
use crate::sharing::Sharing;
use crate::site::{MTUS, USUAL_MTU};

const LINE_BPS: u64 = 100_000_000;
/// For round trips: at 100 Mbit/s packets wait for the guest's one processor more than for the line. Each
/// flow's share is more than twice what the probes take, so that these are sparse.
const SLOWER_BPS: u64 = 40_000_000;
const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];
const FLOWS: [usize; 8] = [1, 2, 4, 8, 16, 1, 1, 1];
const PEERS: [Sharing; 4] =
    [Sharing::CakeDualSrchost, Sharing::HtbFqCodel, Sharing::TbfFqCodel, Sharing::Limits];

fn tcp(flows: usize) -> Sharer {
    Sharer { weight: 100, limit_bps: 0, load: Load::Tcp(flows) }
}

fn weighted(weight: u64, load: Load) -> Sharer {
    Sharer { weight, limit_bps: 0, load }
}

fn resting(ms: u64) -> Sharer {
    weighted(100, Load::Resting(ms))
}

/// Egress by cubic in frames of the usual size.
fn plan(figure: &str, case: impl Into<String>, pods: Vec<Sharer>) -> SharePlan {
    SharePlan {
        figure: figure.into(),
        case: case.into(),
        sharing: Sharing::NodeShare,
        direction: Direction::Egress,
        congestion: "cubic".into(),
        mtu: USUAL_MTU,
        line_bps: LINE_BPS,
        pods,
    }
}

fn both(plan: SharePlan) -> impl Iterator<Item = SharePlan> {
    DIRECTIONS.into_iter().map(move |direction| SharePlan { direction, ..plan.clone() })
}

fn peers(plan: SharePlan) -> impl Iterator<Item = SharePlan> {
    PEERS.into_iter().map(move |sharing| SharePlan { sharing, ..plan.clone() })
}

pub fn shares(wanted: impl Fn(&str) -> bool) -> Vec<Job> {
    let mut plans = Vec::new();
    if ["F1", "F4", "F5"].into_iter().any(&wanted) {
        plans.push(idle());
    }
    for (figure, of) in [
        ("F1", flows as fn() -> Vec<SharePlan>),
        ("F5", round_trips),
        ("F2", weights),
        ("F3", small_limits),
        ("F4", floods),
        ("F7", many_pods),
        ("F8", local),
    ] {
        plans.extend(wanted(figure).then(of).into_iter().flatten());
    }
    plans.into_iter().map(Job::Share).collect()
}

/// What a round trip takes by itself.
fn idle() -> SharePlan {
    SharePlan { sharing: Sharing::None, ..plan("F1", "idle", vec![tcp(0)]) }
}

fn flows() -> Vec<SharePlan> {
    let limited = |case: &str, limit_bps| {
        plan("F1", case, FLOWS.map(|flows| Sharer { limit_bps, ..tcp(flows) }).to_vec())
    };
    let free = limited("no limits", 0);
    let bbr = SharePlan { congestion: "bbr".into(), ..free.clone() };
    let mut plans: Vec<SharePlan> = both(free.clone()).collect();
    plans.extend(both(limited("limits of the line", LINE_BPS)));
    plans.extend(both(limited("limits of 10 lines", 10 * LINE_BPS)));
    plans.extend(peers(free.clone()));
    plans.extend(both(bbr.clone()));
    plans.push(SharePlan { sharing: Sharing::CakeDualSrchost, ..bbr });
    plans.extend(both(SharePlan { mtu: MTUS[1], ..free }));
    plans
}

fn round_trips() -> Vec<SharePlan> {
    let pods = FLOWS.map(tcp).to_vec();
    let cubic = SharePlan { line_bps: SLOWER_BPS, ..plan("F5", "a line of 40 Mbit/s", pods) };
    let bbr = SharePlan { congestion: "bbr".into(), ..cubic.clone() };
    let beside_cake = |plan: SharePlan| {
        [Sharing::NodeShare, Sharing::CakeDualSrchost]
            .map(|sharing| SharePlan { sharing, ..plan.clone() })
    };
    [cubic, bbr].into_iter().flat_map(beside_cake).collect()
}

fn weights() -> Vec<SharePlan> {
    let of = |case: &str, weights: &[u64]| {
        let pods = weights.iter().map(|weight| weighted(*weight, Load::Tcp(4)));
        both(plan("F2", case, pods.collect()))
    };
    let mut plans: Vec<SharePlan> = of("weights 1:2:4:8", &[100, 200, 400, 800]).collect();
    plans.extend(of("weights 100:1", &[10_000, 100]));
    for ms in [20, 200, 2000] {
        let one = [vec![resting(ms)], vec![tcp(4); 7]].concat();
        let most = [vec![resting(ms); 7], vec![tcp(4)]].concat();
        for (who, pods) in [("one rests", one), ("all but one rest", most)] {
            let plan = plan("F2", format!("{who} every {ms} ms"), pods);
            plans.extend(both(plan).take(if ms == 200 { 2 } else { 1 }));
        }
    }
    plans
}

fn small_limits() -> Vec<SharePlan> {
    let small = Sharer { limit_bps: LINE_BPS / 50, ..tcp(2) };
    let pods = [vec![small; 4], vec![tcp(1), tcp(4), tcp(8), tcp(1)]].concat();
    both(plan("F3", "four of eight limited to a 50th", pods)).collect()
}

/// The flood is last: the first pod's flows are asked for their round trips.
fn floods() -> Vec<SharePlan> {
    let flood = weighted(100, Load::Udp(3 * LINE_BPS));
    let pods = vec![tcp(2), tcp(1), tcp(1), flood];
    let plan = plan("F4", "a flood of 3 lines", pods);
    both(plan.clone()).chain(peers(plan)).collect()
}

fn many_pods() -> Vec<SharePlan> {
    let pods = (0..64).map(|number| tcp(number % 16 + 1)).collect();
    both(plan("F7", "64 pods", pods)).collect()
}

fn local() -> Vec<SharePlan> {
    let pods = vec![tcp(4), tcp(4), weighted(100, Load::Local(LINE_BPS))];
    vec![plan("F8", "a pod to another one at the line's rate", pods)]
}
