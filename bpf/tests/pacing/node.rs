// SPDX-License-Identifier: Apache-2.0
//! The node's line: every pod its part by weight, nothing left unused, and a
//! pod's own limit always holds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::histories::limit_of;
use crate::host::*;
use crate::{MS, SEND};

const START_NS: u64 = 1000 * MS;
const WINDOW_MS: u64 = 20;
/// Until all pods are known for what they are, and who keeps much queued owes all that it may.
const WARM: usize = 100;
const RATES: [u64; 3] = [100_000_000, 1_000_000_000, 10_000_000_000];

/// A pod whose flows each keep two packets queued, as TCP small queues does.
#[derive(Clone, Copy)]
struct Greedy {
    flows: usize,
    weight: u32,
    /// What it is promised, as a part of the node's capacity.
    floor: f64,
    /// Its own, as a part of the node's capacity.
    limit: f64,
    /// Sends for so many ms and rests as long; 0: sends always.
    period_ms: u64,
    /// Sends this many times the node's capacity, whatever becomes of it; 0: as above.
    flood: u64,
}

const GREEDY: Greedy =
    Greedy { flows: 1, weight: 100, floor: 0.0, limit: 1.0, period_ms: 0, flood: 0 };

/// Bytes of each pod that left in each window.
struct Run {
    capacity: u64,
    windows: Vec<Vec<u64>>,
}

impl Run {
    fn of(capacity: u64, mtu: u32, pods: &[Greedy]) -> Self {
        let windows = if capacity > 1_000_000_000 { 150 } else { 300 };
        let mut run = Self { capacity, windows: vec![vec![0; pods.len()]; windows] };
        let length = (capacity / 8000).clamp(2 * u64::from(mtu), 65_536) as u32;
        run.fill(mtu, length, pods);
        run
    }

    fn fill(&mut self, mtu: u32, length: u32, pods: &[Greedy]) {
        let mut capacity = limit_of(self.capacity, mtu, true);
        let promised: f64 = pods.iter().map(|pod| pod.floor).sum();
        if promised > 0.0 {
            capacity.floor_ns_per_byte = (capacity.ns_per_byte as f64 / promised) as u64;
        }
        let limits = pods.iter().map(|pod| {
            let rate = (self.capacity as f64 * pod.limit.min(1.0)) as u64;
            let floor_ns_per_byte = match pod.floor {
                0.0 => 0,
                floor => (capacity.ns_per_byte as f64 / floor) as u64,
            };
            Limit { weight: pod.weight, floor_ns_per_byte, ..limit_of(rate, mtu, true) }
        });
        let mut node = Node::new(capacity, &limits.collect::<Vec<_>>());
        let mut due = BinaryHeap::new();
        for (pod, Greedy { flows, flood, .. }) in pods.iter().enumerate() {
            for packet in 0..if *flood > 0 { 1 } else { 2 * flows } {
                let at_ns = START_NS + (pod * 7 + packet) as u64 * 1000;
                due.push(Reverse((at_ns, pod, packet % flows)));
            }
        }
        let end_ns = START_NS + self.windows.len() as u64 * WINDOW_MS * MS;
        while let Some(Reverse((now_ns, pod, flow))) = due.pop().filter(|next| next.0.0 < end_ns) {
            let Greedy { period_ms, flood, flows, .. } = pods[pod];
            let period = ((now_ns - START_NS) / MS).checked_div(period_ms).unwrap_or(0);
            if period % 2 == 1 {
                due.push(Reverse((START_NS + (period + 1) * period_ms * MS, pod, flow)));
                continue;
            }
            let turn = node.send(pod, flow, now_ns, length);
            let sent = turn.action == SEND;
            let window = ((turn.departure_ns - START_NS) / (WINDOW_MS * MS)) as usize;
            if let Some(window) = self.windows.get_mut(window).filter(|_| sent) {
                window[pod] += u64::from(length);
            }
            let again_ns = match (flood, sent) {
                (0, true) => turn.departure_ns.max(now_ns + 1000),
                (0, false) => now_ns + MS,
                (times, _) => now_ns + host_cost_ns(&capacity, length) / times,
            };
            due.push(Reverse((again_ns, pod, if flood > 0 { (flow + 1) % flows } else { flow })));
        }
    }

    /// Of the capacity, in the windows after the warm-up.
    fn part(&self, pod: usize) -> f64 {
        let windows = &self.windows[WARM..];
        let bytes: u64 = windows.iter().map(|window| window[pod]).sum();
        bytes as f64 * 8000.0 / (self.capacity as f64 * (windows.len() as u64 * WINDOW_MS) as f64)
    }

    fn used(&self) -> f64 {
        (0..self.windows[0].len()).map(|pod| self.part(pod)).sum()
    }

    /// The most that left in so many windows on end, as a part of what the capacity allows.
    fn most_in(&self, windows: usize) -> f64 {
        let sums = self.windows[WARM..].windows(windows);
        let most = sums.map(|some| some.iter().flatten().sum::<u64>()).max().unwrap_or(0);
        most as f64 * 8000.0 / (self.capacity as f64 * (windows as u64 * WINDOW_MS) as f64)
    }
}

fn each_rate(check: impl Fn(u64, u32)) {
    RATES.into_iter().for_each(|rate| [1500, 9001].into_iter().for_each(|mtu| check(rate, mtu)));
}

fn assert_parts(run: &Run, parts: &[f64], within: f64, what: &str) {
    for (pod, part) in parts.iter().enumerate() {
        let got = run.part(pod) / part;
        assert!((got - 1.0).abs() <= within, "{what}: pod {pod}: {got} of its part");
    }
}

#[test]
fn pods_have_equal_parts_however_many_flows_they_open() {
    each_rate(|capacity, mtu| {
        let pods = [1, 2, 4, 8, 16, 1, 1, 1].map(|flows| Greedy { flows, ..GREEDY });
        let (run, what) = (Run::of(capacity, mtu, &pods), format!("{capacity} bit/s, {mtu}"));
        assert!((0.98..=1.02).contains(&run.used()), "{what}: used {}", run.used());
        assert_parts(&run, &[0.125; 8], 0.05, &what);
        assert!(run.most_in(5) <= 1.1, "{what}: {} in 100 ms", run.most_in(5));
    });
}

#[test]
fn parts_follow_weights() {
    each_rate(|capacity, mtu| {
        let what = format!("{capacity} bit/s, {mtu}");
        let pods = [100, 200, 400, 800].map(|weight| Greedy { weight, ..GREEDY });
        let parts = [1.0, 2.0, 4.0, 8.0].map(|weight| weight / 15.0);
        assert_parts(&Run::of(capacity, mtu, &pods), &parts, 0.03, &what);
        let pods = [10_000, 100].map(|weight| Greedy { weight, flows: 4, ..GREEDY });
        let run = Run::of(capacity, mtu, &pods);
        assert_parts(&run, &[100.0 / 101.0], 0.03, &what);
        assert!(run.part(1) * 101.0 <= 1.2, "{what}: {}", run.part(1) * 101.0);
    });
}

#[test]
fn own_limit_holds_and_others_use_what_it_leaves() {
    each_rate(|capacity, mtu| {
        let what = format!("{capacity} bit/s, {mtu}");
        let pods = [1.0, 1.0, 1.0, 0.05, 0.05].map(|limit| Greedy { limit, ..GREEDY });
        let run = Run::of(capacity, mtu, &pods);
        assert_parts(&run, &[0.3, 0.3, 0.3], 0.06, &what);
        assert!((0.98..=1.02).contains(&run.used()), "{what}: used {}", run.used());
        assert!(run.part(3) <= 0.0515 && run.part(4) <= 0.0515, "{what}: over its limit");
    });
}

#[test]
fn nothing_is_left_unused_while_pods_come_and_go() {
    each_rate(|capacity, mtu| {
        for period_ms in [20, 200, 500] {
            let pods = [period_ms, 0, 0, 0].map(|period_ms| Greedy { period_ms, ..GREEDY });
            let used = Run::of(capacity, mtu, &pods).used();
            assert!((0.95..=1.02).contains(&used), "{capacity} bit/s, {mtu}, {period_ms}: {used}");
        }
    });
}

#[test]
fn who_comes_back_has_its_part_within_a_tenth_of_a_second() {
    each_rate(|capacity, mtu| {
        let pods = [500, 0, 0, 0].map(|period_ms| Greedy { period_ms, flows: 4, ..GREEDY });
        let run = Run::of(capacity, mtu, &pods);
        // From 2.1 to 2.5 s; it came back at 2 s.
        let bytes: u64 = run.windows[105..125].iter().map(|window| window[0]).sum();
        let part = bytes as f64 * 8.0 / (capacity as f64 * 0.4);
        assert!(part >= 0.25 * 0.95, "{capacity} bit/s, {mtu}: {part}");
    });
}

#[test]
fn flood_of_one_pod_takes_its_part_and_no_more() {
    each_rate(|capacity, mtu| {
        for flows in [1, 1000] {
            let what = format!("{capacity} bit/s, {mtu}, {flows} flows");
            let flood = Greedy { flood: 3, flows, ..GREEDY };
            let run = Run::of(capacity, mtu, &[flood, GREEDY, GREEDY, GREEDY]);
            for pod in 1..4 {
                assert!(run.part(pod) >= 0.25 * 0.97, "{what}: {} for pod {pod}", run.part(pod));
            }
            assert!(run.used() <= 1.02, "{what}: used {}", run.used());
        }
    });
}

#[test]
fn hundreds_of_pods_have_their_parts_too() {
    let pods: Vec<_> = (0..250).map(|n| Greedy { flows: 1 + n % 4, ..GREEDY }).collect();
    let run = Run::of(1_000_000_000, 1500, &pods);
    assert!((0.97..=1.02).contains(&run.used()), "used {}", run.used());
    let parts: Vec<f64> = (0..250).map(|pod| run.part(pod)).collect();
    let (sum, squares) =
        parts.iter().fold((0.0, 0.0), |(sum, squares), it| (sum + it, squares + it * it));
    assert!(sum * sum / (250.0 * squares) >= 0.99, "{parts:?}");
}

#[test]
fn floors_hold_against_thirty_greedy_pods_and_nothing_is_left_unused() {
    each_rate(|capacity, mtu| {
        let floor = |floor, weight| Greedy { floor, weight, flows: 2, ..GREEDY };
        let mut pods = vec![floor(0.2, 100), floor(0.1, 1), floor(0.3, 10_000)];
        pods.extend([Greedy { flows: 2, ..GREEDY }; 30]);
        let (run, what) = (Run::of(capacity, mtu, &pods), format!("{capacity} bit/s, {mtu}"));
        for (pod, floor) in [0.2, 0.1].into_iter().enumerate() {
            let got = run.part(pod) / floor;
            assert!((0.98..=1.05).contains(&got), "{what}: pod {pod}: {got} of its floor");
        }
        // Its weight gives it more.
        assert!(run.part(2) >= 0.5, "{what}: {}", run.part(2));
        assert!((0.97..=1.02).contains(&run.used()), "{what}: used {}", run.used());
    });
}

#[test]
fn floors_of_all_the_line_hold_and_the_line_too() {
    each_rate(|capacity, mtu| {
        let mut pods = vec![Greedy { floor: 0.25, ..GREEDY }; 4];
        pods.extend([GREEDY; 8]);
        let (run, what) = (Run::of(capacity, mtu, &pods), format!("{capacity} bit/s, {mtu}"));
        for pod in 0..4 {
            let got = run.part(pod) / 0.25;
            assert!(got >= 0.98, "{what}: pod {pod}: {got} of its floor");
        }
        assert!(run.used() <= 1.02, "{what}: used {}", run.used());
    });
}

/// The line may get slower after they were promised.
#[test]
fn floors_that_are_more_than_the_line_are_lowered_alike() {
    each_rate(|capacity, mtu| {
        let floor = |floor| Greedy { floor, ..GREEDY };
        let run = Run::of(capacity, mtu, &[floor(0.8), floor(1.2), GREEDY]);
        let what = format!("{capacity} bit/s, {mtu}");
        assert_parts(&run, &[0.4, 0.6], 0.05, &what);
        assert!(run.used() <= 1.02, "{what}: used {}", run.used());
    });
}

#[test]
fn who_does_not_use_its_floor_leaves_it_to_others() {
    each_rate(|capacity, mtu| {
        let idle = Greedy { floor: 0.5, limit: 0.02, ..GREEDY };
        let run = Run::of(capacity, mtu, &[idle, GREEDY, GREEDY]);
        assert_parts(&run, &[0.02, 0.49, 0.49], 0.05, &format!("{capacity} bit/s, {mtu}"));
    });
}

/// Pods that come and go at different times make W wrong again and again; it must not add up.
#[test]
fn node_never_sends_more_than_its_line_for_long() {
    each_rate(|capacity, mtu| {
        for count in [4, 40] {
            let periods = [20, 30, 50, 70, 110].into_iter().cycle();
            let pods: Vec<_> = periods
                .take(count)
                .enumerate()
                .map(|(n, period_ms)| Greedy { period_ms, flows: 1 + n % 5, ..GREEDY })
                .collect();
            let (run, what) =
                (Run::of(capacity, mtu, &pods), format!("{capacity}, {mtu}, {count}"));
            assert!(run.used() <= 1.01, "{what}: used {}", run.used());
            assert!(run.most_in(25) <= 1.06, "{what}: {} in 500 ms", run.most_in(25));
            assert!(run.most_in(5) <= 1.25, "{what}: {} in 100 ms", run.most_in(5));
        }
    });
}
