// SPDX-License-Identifier: Apache-2.0
//! Bounds that hold after any history: limits from 64 kbit/s to 100 Gbit/s, frames of 1500 and 9001
//! bytes and super-packets, one to 10,000 flows of one to ten sources, floods and rests.
//! PROPTEST_CASES says how many (`make properties`).

use std::collections::HashMap;

use proptest::prelude::*;

use crate::host::*;
use crate::{EARLY_NS, EARLY_OF_TIME, MS, PUT_OFF_NS, SEND, limit};

/// pacing.h's SLUICE_STANDING_NS.
const STANDING_NS: u64 = 1000 * MS;

/// The longest that a packet of so many flows ever waits: the horizon, or six quanta for each flow (at
/// least ten, and no more than for 64), and a quarter more for who has nothing queued.
pub fn longest_wait_ns(limit: &Limit, flows: usize) -> u64 {
    let quanta = (6 * flows.min(64) as u64).max(10);
    limit.horizon_ns.max(STANDING_NS.min(quanta * limit.quantum_ns)) * 5 / 4
}

/// As limit.rs has it for a device with this MTU.
pub fn limit_of(bits_per_sec: u64, mtu: u32, sends: bool) -> Limit {
    let mut limit = limit(bits_per_sec, 5 * MS, 100 * MS);
    let a_millisecond = (bits_per_sec / 8000).clamp(2 * u64::from(mtu), 65_536) as u32;
    limit.quantum_ns = host_cost_ns(&limit, if sends { a_millisecond } else { mtu } + 14);
    limit.horizon_ns = limit.horizon_ns.max(host_cost_ns(&limit, 2 * (mtu + 14)));
    limit.target_ns = 5 * MS;
    limit
}

/// Packets of one length, from flows in turn, at so many percent of the limit, some at once.
#[derive(Clone, Debug)]
struct Phase {
    rest_ns: u64,
    flows: usize,
    sources: usize,
    percent: u64,
    at_once: usize,
    length: u32,
    packets: usize,
}

#[derive(Clone, Debug)]
struct History {
    limit: Limit,
    phases: Vec<Phase>,
}

fn any_magnitude(of: std::ops::Range<f64>) -> impl Strategy<Value = u64> {
    of.prop_map(|magnitude| 10f64.powf(magnitude) as u64)
}

fn any_phase(mtu: u32) -> impl Strategy<Value = Phase> {
    let rest = prop_oneof![4 => Just(0), 3 => 0..200 * MS, 1 => 0..100_000 * MS];
    let length = prop_oneof![3 => Just(mtu + 14), 3 => 42..mtu + 15, 1 => 42..65_551u32];
    let flows = any_magnitude(0.0..4.0);
    let load = (any_magnitude(1.0..3.3), 1..40usize);
    (rest, flows, 1..=10usize, load, length, 1..250usize).prop_map(
        |(rest_ns, flows, sources, (percent, at_once), length, packets)| {
            let flows = flows as usize;
            Phase { rest_ns, flows, sources, percent, at_once, length, packets }
        },
    )
}

fn any_history() -> impl Strategy<Value = History> {
    let limit = (any_magnitude(4.806..11.0), prop_oneof![Just(1500), Just(9001)], any::<bool>());
    limit.prop_flat_map(|(rate, mtu, sends)| {
        let limit = limit_of(rate, mtu, sends);
        prop::collection::vec(any_phase(mtu), 1..6)
            .prop_map(move |phases| History { limit, phases })
    })
}

/// A packet that was sent.
struct Left {
    flow: (usize, usize),
    came_ns: u64,
    at_ns: u64,
    cost_ns: u64,
}

/// A line after a history.
struct After {
    line: Line,
    now_ns: u64,
    sent: Vec<Left>,
    /// The longest that the line was ever taken for.
    backlog_ns: u64,
}

impl History {
    fn play(&self) -> After {
        let line = Line::new(self.limit);
        let mut after = After { line, now_ns: 1000 * MS, sent: Vec::new(), backlog_ns: 0 };
        for phase in &self.phases {
            after.now_ns += phase.rest_ns;
            after.play(phase);
        }
        after
    }
}

impl After {
    fn play(&mut self, phase: &Phase) {
        let cost_ns = host_cost_ns(&self.line.limit, phase.length);
        for packet in 0..phase.packets {
            if packet % phase.at_once == 0 {
                self.now_ns += cost_ns * phase.at_once as u64 * 100 / phase.percent;
            }
            let flow = (packet % phase.sources, packet % phase.flows);
            self.send(flow, phase.length);
        }
    }

    fn send(&mut self, flow: (usize, usize), length: u32) -> bool {
        let came_ns = self.now_ns;
        let turn = self.line.send_from(flow.0, flow.1 * 10 + flow.0, came_ns, length);
        let is_sent = turn.action == SEND;
        if is_sent {
            let (at_ns, cost_ns) = (turn.departure_ns, host_cost_ns(&self.line.limit, length));
            self.sent.push(Left { flow, came_ns, at_ns, cost_ns });
        }
        self.backlog_ns = self.backlog_ns.max(self.line.clock.next_ns.saturating_sub(came_ns));
        is_sent
    }
}

/// PROPTEST_CASES, or what CI has time for.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(10_000),
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_window_carries_more_than_rate_burst_a_packet_and_what_was_early_or_put_off(
        history in any_history(),
    ) {
        let mut after = history.play();
        after.sent.sort_by_key(|left| left.at_ns);
        let largest_ns = after.sent.iter().map(|left| left.cost_ns).max().unwrap_or(0);
        // What is early is paid for when all that was queued has left.
        let early_ns = EARLY_NS.max(history.limit.quantum_ns / 4);
        let early_ns = early_ns + after.backlog_ns / EARLY_OF_TIME;
        let credit_ns = history.limit.burst_ns + early_ns + PUT_OFF_NS + largest_ns;
        // The window that is fullest so far, by what has left less what has been earned.
        let (mut full_ns, mut last_ns) = (0u64, 0);
        for left in &after.sent {
            full_ns = full_ns.saturating_sub(left.at_ns - last_ns) + left.cost_ns;
            last_ns = left.at_ns;
            prop_assert!(full_ns <= credit_ns, "{full_ns} ns too much, {credit_ns} allowed");
        }
    }

    #[test]
    fn flow_keeps_its_order_and_nothing_waits_longer_than_the_bound(history in any_history()) {
        // A flow that comes back to another bucket counts once more.
        let bound_ns = longest_wait_ns(&history.limit, 64);
        let mut last: HashMap<(usize, usize), u64> = HashMap::new();
        for left in history.play().sent {
            prop_assert!(left.at_ns >= left.came_ns);
            prop_assert!(left.at_ns - left.came_ns <= bound_ns, "{} ns", left.at_ns - left.came_ns);
            let last_ns = last.insert(left.flow, left.at_ns).unwrap_or(0);
            prop_assert!(left.at_ns >= last_ns, "reordered");
        }
    }

    #[test]
    fn one_flow_has_the_whole_line_at_once_after_any_history(
        history in any_history(),
        rest_ns in prop_oneof![Just(0), 0..100_000 * MS],
        percent in prop_oneof![Just(200u64), 110..2000u64],
    ) {
        let mut after = history.play();
        // What has been charged leaves first.
        let start_ns = after.now_ns.max(after.line.clock.next_ns) + rest_ns;
        let cost_ns = host_cost_ns(&history.limit, 1514);
        let span_ns = (400 * MS).max(40 * cost_ns).min(3000 * cost_ns);
        after.now_ns = start_ns;
        let (mut sent_ns, mut packet) = (0, 0);
        while after.now_ns < start_ns + span_ns {
            if after.send((11, 1), 1514) && after.sent.last().is_some_and(|l| l.at_ns < start_ns + span_ns) {
                sent_ns += cost_ns;
            }
            packet += 1;
            after.now_ns = start_ns + packet * cost_ns * 100 / percent;
        }
        let least_ns = span_ns.saturating_sub(PUT_OFF_NS + 2 * cost_ns);
        prop_assert!(sent_ns >= least_ns, "{sent_ns} of {span_ns} ns");
    }
}
