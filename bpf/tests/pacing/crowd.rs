// SPDX-License-Identifier: Apache-2.0
//! Many flows at once: what a new one waits, what another source gets, what
//! stands in the queue, and the seconds after a flood.

use std::iter;

use crate::histories::{limit_of, longest_wait_ns};
use crate::host::*;
use crate::{MS, PUT_OFF_NS, SEND, send_with_queued};

const RATES: [u64; 3] = [1_000_000, 10_000_000, 100_000_000];
const FLOWS: [usize; 3] = [300, 1000, 10_000];
const START_NS: u64 = 1000 * MS;
const ECHO: usize = 1_000_000;

/// Four times the limit from so many flows of source 0, for so long, beside others.
struct Flood {
    line: Line,
    flows: usize,
    length: u32,
    sent: usize,
    next_ns: u64,
}

impl Flood {
    fn new(limit: Limit, flows: usize, length: u32) -> Self {
        Self { line: Line::new(limit), flows, length, sent: 0, next_ns: START_NS }
    }

    fn until(&mut self, now_ns: u64) -> Vec<Turn> {
        let mut turns = Vec::new();
        while self.next_ns < now_ns {
            turns.push(self.line.send(self.sent % self.flows, self.next_ns, self.length));
            self.sent += 1;
            self.next_ns += host_cost_ns(&self.line.limit, self.length) / 4;
        }
        turns
    }
}

#[test]
fn new_flow_passes_a_flood_of_however_many_flows() {
    for (rate, mtu) in RATES.into_iter().flat_map(|rate| [(rate, 1500), (rate, 9001)]) {
        for flows in FLOWS {
            let mut flood = Flood::new(limit_of(rate, mtu, false), flows, mtu + 14);
            let (mut waits, mut lost) = (Vec::new(), 0);
            for echo in 0..200 {
                let now_ns = START_NS + 1000 * MS + echo as u64 * 20 * MS;
                flood.until(now_ns);
                let turn = flood.line.send(ECHO + echo, now_ns, 60);
                match turn.action {
                    SEND => waits.push(turn.departure_ns - now_ns),
                    _ => lost += 1,
                }
            }
            waits.sort_unstable();
            assert!(lost <= 6, "{rate} bit/s, {mtu}, {flows} flows: {lost} of 200 lost");
            assert_eq!(waits[waits.len() * 95 / 100], 0, "{rate} bit/s, {mtu}, {flows} flows");
        }
    }
}

#[test]
fn source_that_floods_by_many_flows_leaves_half_to_another() {
    for (rate, mtu) in RATES.into_iter().flat_map(|rate| [(rate, 1500), (rate, 9001)]) {
        for flows in FLOWS {
            let limit = limit_of(rate, mtu, false);
            let mut flood = Flood::new(limit, flows, mtu + 14);
            let (cost_ns, mut sent_ns) = (host_cost_ns(&limit, 1514), 0);
            for packet in 0.. {
                let now_ns = START_NS + packet * cost_ns;
                if now_ns > START_NS + 10_000 * MS {
                    break;
                }
                flood.until(now_ns);
                let turn = flood.line.send_from(1, ECHO, now_ns, 1514);
                let is_late = now_ns > START_NS + 2000 * MS;
                sent_ns += if turn.action == SEND && is_late { cost_ns } else { 0 };
            }
            let percent = sent_ns / (80 * MS);
            assert!(percent >= 45, "{rate} bit/s, {mtu}, {flows} flows: {percent} %");
        }
    }
}

#[test]
fn what_a_pod_receives_never_stands_longer_than_the_bound() {
    for (rate, mtu) in RATES.into_iter().flat_map(|rate| [(rate, 1500), (rate, 9001)]) {
        for flows in [1, 32, 256, 10_000] {
            let limit = limit_of(rate, mtu, false);
            let mut flood = Flood::new(limit, flows, 1442);
            for second in 1..20 {
                let (then_ns, now_ns) = (flood.next_ns, START_NS + second * 1000 * MS);
                let turns = flood.until(now_ns);
                let sent = turns.iter().filter(|turn| turn.action == SEND);
                let latest_ns = sent.map(|turn| turn.departure_ns).max().expect("some are sent");
                let bound_ns = longest_wait_ns(&limit, flows);
                assert!(latest_ns <= now_ns + bound_ns, "{rate} bit/s, {mtu}, {flows}");
                assert!(latest_ns > then_ns, "{rate} bit/s, {mtu}, {flows} flows: a stall");
            }
        }
    }
}

#[test]
fn tcp_of_a_pod_loses_nothing_of_what_small_queues_leaves_in_the_queue() {
    for (rate, mtu) in [(20_000_000, 1500), (20_000_000, 9001), (1_000_000_000, 1500)] {
        let limit = limit_of(rate, mtu, true);
        let mut line = Line::new(limit);
        let length = (u64::from(mtu) * 2).max(rate / 8000).min(65_536) as u32;
        let bytes = send_with_queued(&mut line, 32, 3, length, START_NS, 3000);
        assert!(bytes >= rate / 8 * 3 * 97 / 100, "{rate} bit/s, {mtu}: {bytes}");
    }
}

#[test]
fn first_second_after_any_flood_is_the_limit() {
    for (rate, mtu) in RATES.into_iter().flat_map(|rate| [(rate, 1500), (rate, 9001)]) {
        for flows in [1, 16, 256, 10_000] {
            for rest_ms in [0, 50, 1000, 60_000] {
                let part = first_second(limit_of(rate, mtu, false), flows, rest_ms);
                let what = format!("{rate} bit/s, {mtu}, {flows} flows, {rest_ms} ms");
                assert!((0.95..=1.05).contains(&part), "{what}: {part}");
            }
        }
    }
}

/// What leaves in the second after a flood of three and a rest, by one flow at twice the limit, as a
/// part of the limit.
fn first_second(limit: Limit, flows: usize, rest_ms: u64) -> f64 {
    let mut flood = Flood::new(limit, flows, 1442);
    let start_ns = START_NS + (3000 + rest_ms) * MS;
    let mut turns = flood.until(START_NS + 3000 * MS);
    let cost_ns = host_cost_ns(&limit, 1442);
    for now_ns in (start_ns..start_ns + 1000 * MS).step_by(cost_ns as usize / 2) {
        turns.push(flood.line.send(ECHO, now_ns, 1442));
    }
    let second = start_ns..start_ns + 1000 * MS;
    let left = turns.iter().filter(|t| t.action == SEND && second.contains(&t.departure_ns));
    left.count() as f64 * cost_ns as f64 / 1e9
}

#[test]
fn departure_is_never_far_behind_the_line() {
    let limit = limit_of(10_000_000, 1500, false);
    let mut flood = Flood::new(limit, 1, 1514);
    for packet in 0..1000 {
        let now_ns = START_NS + packet * MS;
        flood.until(now_ns);
        let line_ns = flood.line.clock.next_ns.max(now_ns);
        let turn = flood.line.send(ECHO + packet as usize % 3, now_ns, 1514);
        assert!(turn.action != SEND || turn.departure_ns <= line_ns + PUT_OFF_NS);
    }
}

#[test]
fn new_flow_finds_a_bucket_beside_dozens_of_bulk_flows() {
    for flows in [32, 48, 64] {
        let mut flood = Flood::new(limit_of(10_000_000, 1500, false), flows, 1442);
        let mut late = 0;
        for echo in 0..500 {
            let now_ns = START_NS + 1000 * MS + echo as u64 * 20 * MS;
            flood.until(now_ns);
            let turn = flood.line.send(ECHO + echo, now_ns, 60);
            late += usize::from(turn.action != SEND || turn.departure_ns > now_ns + MS);
        }
        assert!(late <= 3, "{flows} flows: {late} of 500");
    }
}

#[test]
fn flow_with_nothing_queued_finds_room_in_a_queue_that_others_keep_full() {
    let mut flood = Flood::new(limit_of(20_000_000, 9001, false), 8, 9015);
    for frame in 0..20 {
        let now_ns = START_NS + (1000 + frame as u64 * 300) * MS;
        flood.until(now_ns);
        assert_eq!(flood.line.send(ECHO + frame, now_ns, 9015).action, SEND, "frame {frame}");
    }
}

#[test]
fn flow_alone_after_a_crowd_is_not_put_off() {
    let limit = limit_of(36_000_000, 1500, false);
    let mut flood = Flood::new(limit, 3411, 1514);
    flood.until(START_NS + 1000 * MS);
    let (cost_ns, start_ns) = (host_cost_ns(&limit, 1514), flood.line.clock.next_ns);
    for packet in 0.. {
        let now_ns = start_ns + packet * cost_ns / 2;
        let line_ns = flood.line.clock.next_ns.max(now_ns);
        let turn = flood.line.send(ECHO, now_ns, 1514);
        if now_ns > start_ns + 900 * MS {
            assert!(
                turn.departure_ns <= line_ns + cost_ns,
                "put off by {}",
                turn.departure_ns - line_ns
            );
        }
        if now_ns > start_ns + 1000 * MS {
            break;
        }
    }
}

/// The sets of buckets of a flow, as pacing.h's sluice_find has them.
fn sets(flow: usize) -> [u64; 2] {
    let hash = hash(flow + 1);
    [hash, hash.wrapping_mul(0x9e37_79b1)].map(|hash| (u64::from(hash) * (224 / 4)) >> 32)
}

#[test]
fn guest_neither_frees_its_owner_of_its_share_nor_pays_from_it() {
    let mut alike = (1..).filter(|flow| sets(*flow) == sets(0));
    let owners: Vec<usize> = iter::once(0).chain(alike.by_ref().take(7)).collect();
    let guest = alike.next().expect("there is no end of flows");
    let mut line = Line::new(limit_of(20_000_000, 1500, false));
    let cost_ns = host_cost_ns(&line.limit, 1514);
    let (mut now_ns, mut next_share_ns) = (START_NS, [0; 8]);
    for round in 0..14 {
        for (owner, next_share_ns) in owners.iter().zip(&mut next_share_ns) {
            let turn = line.send(*owner, now_ns, 1514);
            // Who has used less than its share keeps no more of it than this.
            let least_ns = now_ns - line.limit.quantum_ns * u64::from(turn.parts);
            let owes_ns = least_ns.max(*next_share_ns);
            assert!(round < 5 || turn.share_ns == owes_ns, "owner {owner}: {turn:?}");
            *next_share_ns = turn.share_ns + cost_ns * u64::from(turn.parts);
            now_ns += if round < 4 { cost_ns / 4 } else { cost_ns };
        }
        if round >= 4 {
            let turn = line.send(guest, now_ns, 1514);
            assert!(turn.share_ns <= now_ns, "the guest owes: {turn:?}");
        }
    }
}
