// SPDX-License-Identifier: Apache-2.0
//! Properties of pacing.h, the same text that the BPF programs are made of,
//! compiled for the host: never more than rate and burst allow, never stalled,
//! never out of order, no flow hindered but one that has more than a share.

#[path = "pacing/crowd.rs"]
mod crowd;
#[path = "pacing/histories.rs"]
mod histories;
#[path = "pacing/host.rs"]
mod host;
#[path = "pacing/node.rs"]
mod node;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use proptest::prelude::*;

use host::*;

const SHIFT: u32 = bpf::NS_PER_BYTE_SHIFT;
const MS: u64 = 1_000_000;
const FRAME: u64 = 1514;
const SEND: u32 = 0;
const SIGNAL: u32 = 1;
/// pacing.h's SLUICE_EARLY_NS, SLUICE_EARLY_OF_TIME and SLUICE_PUT_OFF_NS.
const EARLY_NS: u64 = 10 * MS;
const EARLY_OF_TIME: u64 = 40;
const PUT_OFF_NS: u64 = 25 * MS;

fn limit(bits_per_sec: u64, burst_ns: u64, horizon_ns: u64) -> Limit {
    let scaled = (8_000_000_000u128 << SHIFT) / u128::from(bits_per_sec);
    let ns_per_byte = scaled.max(1) as u64;
    let quantum_ns = (FRAME * ns_per_byte) >> SHIFT;
    let (weight, node_only, floor_ns_per_byte) = (100, 0, 0);
    let (target_ns, mode, ecn) = (0, 0, 0);
    Limit {
        ns_per_byte,
        burst_ns,
        quantum_ns,
        horizon_ns,
        target_ns,
        mode,
        ecn,
        weight,
        node_only,
        floor_ns_per_byte,
    }
}

/// 1 kbit/s to 400 Gbit/s, evenly over the magnitudes.
fn any_rate() -> impl Strategy<Value = u64> {
    (3.0f64..11.6).prop_map(|magnitude| 10f64.powf(magnitude) as u64)
}

fn any_limit() -> impl Strategy<Value = (u64, Limit)> {
    (any_rate(), 0..=1000 * MS, 0..=1000 * MS)
        .prop_map(|(rate, burst, horizon)| (rate, limit(rate, burst, horizon)))
}

/// Packets as they come: time since the one before, and length up to a 512 KiB super-packet.
fn any_packets() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let gap = prop_oneof![4 => 0..10_000u64, 2 => 0..100 * MS, 1 => 0..86_400_000 * MS];
    let length = prop_oneof![60..1515u32, 1515..=524_288u32];
    prop::collection::vec((gap, length), 1..200)
}

/// Departure, end and length of every packet that was admitted.
fn send(limit: &Limit, packets: &[(u64, u32)], start_ns: u64) -> Vec<(u64, u64, u32)> {
    let mut clock_ns = 0;
    let mut now_ns = start_ns;
    let mut admitted = Vec::new();
    for (gap_ns, length) in packets {
        now_ns += gap_ns;
        let step = host_pace(clock_ns, now_ns, host_cost_ns(limit, *length), limit);
        if step.admitted != 0 {
            // What is stamped in the past leaves now.
            admitted.push((step.departure_ns.max(now_ns), step.next_ns, *length));
            clock_ns = step.next_ns;
        }
    }
    admitted
}

proptest! {
    #[test]
    fn no_window_carries_more_than_rate_burst_and_one_packet(
        (rate, limit) in any_limit(),
        packets in any_packets(),
        start_ns in 0..u64::from(u32::MAX) * 1000,
    ) {
        let admitted = send(&limit, &packets, start_ns);
        for (index, (from_ns, _, first)) in admitted.iter().enumerate() {
            let mut bytes = 0u64;
            let mut largest = u64::from(*first);
            for (until_ns, _, length) in &admitted[index..] {
                bytes += u64::from(*length);
                largest = largest.max(u64::from(*length));
                let span_ns = u128::from(until_ns - from_ns) + u128::from(limit.burst_ns);
                let earned = span_ns * u128::from(rate) / 8_000_000_000;
                // A nanosecond of rounding for each packet, at the rate.
                let rounding = packets.len() as u128 * (u128::from(rate) / 8_000_000_000 + 1);
                let allowed = earned + u128::from(largest) + rounding;
                prop_assert!(u128::from(bytes) <= allowed, "{bytes} bytes, allowed {allowed}");
            }
        }
    }

    #[test]
    fn clock_never_stalls_an_idle_pod(
        (_, limit) in any_limit(),
        packets in any_packets(),
        length in 60..1515u32,
    ) {
        let admitted = send(&limit, &packets, 0);
        let clock_ns = admitted.last().map_or(0, |(_, next_ns, _)| *next_ns);
        let total_ns: u64 = packets.iter().map(|(gap, _)| gap).sum();
        let idle_ns = total_ns.max(clock_ns) + 1;
        let step = host_pace(clock_ns, idle_ns, host_cost_ns(&limit, length), &limit);
        prop_assert_eq!(step.admitted, 1);
        prop_assert!(step.departure_ns <= idle_ns);
    }

    #[test]
    fn departures_never_go_back(
        (_, limit) in any_limit(),
        packets in any_packets(),
    ) {
        let admitted = send(&limit, &packets, 1);
        prop_assert!(admitted.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    #[test]
    fn refused_packet_costs_nothing_and_admitted_one_is_within_the_horizon(
        (_, limit) in any_limit(),
        clock_ns in any::<u32>(),
        now_ns in any::<u32>(),
        length in 60..=524_288u32,
    ) {
        let (clock_ns, now_ns) = (u64::from(clock_ns), u64::from(now_ns));
        let cost_ns = host_cost_ns(&limit, length);
        let step = host_pace(clock_ns, now_ns, cost_ns, &limit);
        if step.admitted == 0 {
            prop_assert_eq!(step.next_ns, clock_ns);
            prop_assert!(clock_ns > now_ns + limit.horizon_ns);
        } else {
            prop_assert_eq!(step.next_ns, step.departure_ns + cost_ns);
            prop_assert!(step.departure_ns <= now_ns + limit.horizon_ns);
        }
    }

    #[test]
    fn stamp_is_the_later_one_but_never_beyond_the_horizon(
        (_, limit) in any_limit(),
        ahead_ns in 0..=1000 * MS,
        own_ns in any::<u64>(),
    ) {
        let now_ns = 1 << 50;
        let departure_ns = now_ns + ahead_ns.min(limit.horizon_ns);
        let stamp = host_stamp(departure_ns, own_ns, now_ns, &limit);
        prop_assert!((departure_ns..=now_ns + limit.horizon_ns).contains(&stamp));
        if (departure_ns..=now_ns + limit.horizon_ns).contains(&own_ns) {
            prop_assert_eq!(stamp, own_ns);
        }
    }
}

#[test]
fn idle_pod_gets_its_burst_and_not_a_byte_more() {
    let limit = limit(8_000_000, 5 * MS, 0);
    // 1 byte is 1 us; a day of idling leaves 5000 bytes of credit, and the sixth packet starts
    // with none.
    let packets: Vec<_> =
        (0..10).map(|i| (if i == 0 { 86_400_000 * MS } else { 0 }, 1000)).collect();
    assert_eq!(send(&limit, &packets, 0).len(), 6);
}

/// Flow, time since the packet before, length.
fn any_mix() -> impl Strategy<Value = Vec<(usize, u64, u32)>> {
    let gap = prop_oneof![6 => 0..100_000u64, 3 => 0..10 * MS, 1 => 0..1000 * MS];
    let length = prop_oneof![60..1515u32, 1515..=65_536u32];
    prop::collection::vec((0..6usize, gap, length), 1..300)
}

proptest! {
    #[test]
    fn flow_is_never_reordered_and_every_byte_is_charged(
        (_, mut limit) in any_limit(),
        target_ns in prop_oneof![Just(0), MS..20 * MS],
        mix in any_mix(),
        start_ns in 0..u64::from(u32::MAX) * 10_000,
    ) {
        limit.target_ns = target_ns;
        let mut line = Line::new(limit);
        let (mut now_ns, mut last) = (start_ns, [0; 6]);
        for (flow, gap_ns, length) in mix {
            now_ns += gap_ns;
            let before_ns = line.clock.next_ns;
            let turn = line.send(flow, now_ns, length);
            let credit_ns = now_ns.saturating_sub(limit.burst_ns);
            if turn.action == SEND {
                let cost_ns = host_cost_ns(&limit, length);
                prop_assert_eq!(line.clock.next_ns, before_ns.max(credit_ns) + cost_ns);
                prop_assert!(turn.departure_ns >= now_ns);
                prop_assert!(turn.departure_ns >= last[flow], "reordered");
                last[flow] = turn.departure_ns;
            } else {
                prop_assert_eq!(line.clock.next_ns, before_ns);
            }
        }
    }

    #[test]
    fn flow_is_not_reordered_when_others_come_and_go(
        horizon_ns in 0..5 * MS,
        bursts in prop::collection::vec((1..40usize, 0..6usize, 0..2 * MS), 1..40),
    ) {
        let mut line = Line::new(limit(20_000_000, 0, horizon_ns));
        let (mut now_ns, mut last) = (1000 * MS, [0; 6]);
        for (packets, flows, gap_ns) in bursts {
            for packet in 0..packets {
                now_ns += gap_ns;
                let flow = packet % (flows + 1);
                let turn = line.send(flow, now_ns, FRAME as u32);
                if turn.action == SEND {
                    prop_assert!(turn.departure_ns >= last[flow], "reordered");
                    last[flow] = turn.departure_ns;
                }
            }
        }
    }

    #[test]
    fn line_that_was_left_alone_serves_at_once(
        (_, limit) in any_limit(),
        mix in any_mix(),
        flow in 0..6usize,
        length in 60..1515u32,
    ) {
        let mut line = Line::new(limit);
        let (mut now_ns, mut until_ns) = (0, 0);
        for (flow, gap_ns, length) in mix {
            now_ns += gap_ns;
            let turn = line.send(flow, now_ns, length);
            until_ns = line.clock.next_ns.max(until_ns).max(turn.departure_ns);
        }
        let idle_ns = until_ns.max(now_ns) + 4096;
        let turn = line.send(flow, idle_ns, length);
        prop_assert_eq!((turn.action, turn.departure_ns), (SEND, idle_ns));
    }
}

const BYTES_PER_SEC: u64 = 2_500_000;

fn twenty_mbit() -> Limit {
    let mut limit = limit(8 * BYTES_PER_SEC, 5 * MS, 100 * MS);
    limit.target_ns = 5 * MS;
    limit
}

/// Constant senders for so many seconds: bytes offered a second of each → bytes sent of each.
fn contend(limit: Limit, offers: &[u64], seconds: u64) -> Vec<u64> {
    let mut line = Line::new(limit);
    let mut next: Vec<u64> = (0..offers.len() as u64).map(|flow| flow * 1000).collect();
    let mut sent = vec![0; offers.len()];
    while let Some((flow, now_ns)) = next.iter().copied().enumerate().min_by_key(|(_, at)| *at) {
        if now_ns >= seconds * 1000 * MS {
            break;
        }
        next[flow] += FRAME * 1000 * MS / offers[flow];
        if line.send(flow, now_ns + 1000 * MS, FRAME as u32).action == SEND {
            sent[flow] += FRAME;
        }
    }
    sent
}

#[test]
fn flow_within_its_share_loses_nothing_to_one_that_floods() {
    let within = BYTES_PER_SEC * 2 / 5;
    let sent = contend(twenty_mbit(), &[within, 3 * BYTES_PER_SEC], 10);
    assert!(sent[0] >= within * 10 - 2 * FRAME, "{sent:?}");
    let total: u64 = sent.iter().sum();
    let allowed = BYTES_PER_SEC * 10;
    assert!((allowed..=allowed * 102 / 100).contains(&total), "{sent:?}");
}

#[test]
fn flows_that_all_flood_share_equally() {
    let offers = [BYTES_PER_SEC, 2 * BYTES_PER_SEC, BYTES_PER_SEC / 2, 4 * BYTES_PER_SEC];
    let sent = contend(twenty_mbit(), &offers, 10);
    let share = BYTES_PER_SEC * 10 / 4;
    for bytes in &sent {
        assert!(bytes.abs_diff(share) < share / 20, "{sent:?}, share {share}");
    }
}

/// Senders that TCP small queues holds back: so many packets of each queued, the next when one has
/// left. Gives the bytes that they get through in so many milliseconds.
fn send_with_queued(
    line: &mut Line,
    flows: usize,
    queued: usize,
    length: u32,
    start_ns: u64,
    span_ms: u64,
) -> u64 {
    let mut due: BinaryHeap<_> =
        (0..flows * queued).map(|packet| Reverse((start_ns, packet % flows))).collect();
    let mut bytes = 0;
    while let Some(Reverse((now_ns, flow))) = due.pop() {
        if now_ns >= start_ns + span_ms * MS {
            break;
        }
        let turn = line.send(flow, now_ns, length);
        assert_eq!(turn.action, SEND, "flow {flow} after {} ms", (now_ns - start_ns) / MS);
        bytes += u64::from(length);
        due.push(Reverse((turn.departure_ns, flow)));
    }
    bytes
}

fn send_with_two_queued(line: &mut Line, flow: usize, start_ns: u64, span_ms: u64) -> u64 {
    let (mut queue, mut now_ns, mut bytes) = (VecDeque::new(), start_ns, 0);
    while now_ns < start_ns + span_ms * MS {
        let turn = line.send(flow, now_ns, FRAME as u32);
        assert_eq!(turn.action, SEND);
        bytes += FRAME;
        queue.push_back(turn.departure_ns);
        if queue.len() == 2 {
            now_ns = now_ns.max(queue.pop_front().unwrap_or(now_ns));
        }
    }
    bytes
}

#[test]
fn flow_that_is_left_alone_soon_has_the_whole_line() {
    let mut line = Line::new(twenty_mbit());
    let mut now_ns = 1000 * MS;
    for packet in 0..1000 {
        now_ns += MS / 2;
        line.send(packet % 8, now_ns, FRAME as u32);
    }
    for flow in [0, 1] {
        now_ns = now_ns.max(line.clock.next_ns);
        let bytes = send_with_two_queued(&mut line, flow, now_ns, 1000);
        assert!(bytes > BYTES_PER_SEC * 97 / 100, "flow {flow}: {bytes}");
        now_ns += 1000 * MS;
    }
}

#[test]
fn flow_that_left_is_not_counted_any_more() {
    let mut line = Line::new(twenty_mbit());
    let mut now_ns = 1000 * MS;
    // Two flows for a while, then one: what was counted must not stay counted.
    for packet in 0..400 {
        now_ns += MS / 2;
        line.send(packet % 2, now_ns, FRAME as u32);
    }
    let drained_ns = line.clock.next_ns;
    let bytes = send_with_two_queued(&mut line, 0, drained_ns, 1000);
    assert!(bytes > BYTES_PER_SEC * 97 / 100, "{bytes}");
    assert!(line.clock.active <= 1, "{:?}", line.clock);
}

#[test]
fn sparse_flow_departs_at_once_however_long_the_queue() {
    let mut limit = twenty_mbit();
    limit.target_ns = 0;
    let mut line = Line::new(limit);
    let mut now_ns = 1000 * MS;
    for packet in 0..20_000 {
        now_ns += MS / 4;
        line.send(0, now_ns, FRAME as u32);
        if packet % 80 == 0 {
            let turn = line.send(1, now_ns, 100);
            assert_eq!((turn.action, turn.departure_ns), (SEND, now_ns), "packet {packet}");
        }
    }
    assert!(line.clock.next_ns > now_ns + 90 * MS, "there is a queue");
}

#[test]
fn spray_of_new_flows_does_not_starve_a_bulk_flow() {
    let mut line = Line::new(twenty_mbit());
    let (mut now_ns, mut bulk, mut spray) = (1000 * MS, 0, 0);
    for packet in 0..40_000u64 {
        now_ns += MS / 4;
        bulk += u64::from(line.send(0, now_ns, FRAME as u32).action == SEND);
        // Each bucket comes round again after 64 ms.
        let bucket = 1 + (packet % 256) as usize;
        spray += u64::from(line.send(bucket, now_ns, FRAME as u32).action == SEND);
    }
    let total = (bulk + spray) * FRAME;
    assert!(total <= (BYTES_PER_SEC * 10) * 102 / 100 + BYTES_PER_SEC, "{bulk} + {spray}");
    assert!(bulk > 0 && bulk * 300 > spray, "bulk {bulk}, spray {spray}");
}

#[test]
fn codel_signals_faster_and_faster_and_stops_below_the_target() {
    let mut line = Line::new(twenty_mbit());
    let mut signals = Vec::new();
    let mut now_ns = 1000 * MS;
    // A sender that keeps about 30 ms queued.
    while signals.len() < 20 && now_ns < 20_000 * MS {
        now_ns += MS / 10;
        if line.clock.next_ns < now_ns + 30 * MS
            && line.send(0, now_ns, FRAME as u32).action == SIGNAL
        {
            signals.push(now_ns);
        }
    }
    assert_eq!(signals.len(), 20);
    let first_ns = signals[0] - 1000 * MS;
    assert!((100 * MS..130 * MS).contains(&first_ns), "after an interval: {first_ns}");
    let gap_ms = |index: usize| (signals[index + 1] - signals[index]) as f64 / 1e6;
    // RFC 8289: interval / sqrt(count).
    for count in [1, 4, 9, 16] {
        let expected = 100.0 / f64::from(count as u32).sqrt();
        assert!((gap_ms(count - 1) - expected).abs() < 3.0, "{count}: {}", gap_ms(count - 1));
    }
    now_ns = line.clock.next_ns;
    for _ in 0..1000 {
        now_ns += MS;
        assert_eq!(line.send(0, now_ns, FRAME as u32).action, SEND);
    }
}

#[test]
fn inverse_square_root_is_within_a_hundredth() {
    for n in 1..=u32::from(u16::MAX) {
        let exact = 65536.0 / f64::from(n).sqrt();
        let found = f64::from(host_inv_sqrt(n));
        assert!((found - exact).abs() < exact * 0.01 + 2.0, "{n}: {found}, {exact}");
    }
}

#[test]
fn wait_is_counted_by_the_bounds_that_it_is_longer_than() {
    for (index, bound_ns) in bpf::DELAY_BOUNDS_NS.into_iter().enumerate() {
        assert_eq!(host_bounds_passed(bound_ns), index as u32);
        assert_eq!(host_bounds_passed(bound_ns + 1), index as u32 + 1);
    }
    assert_eq!(host_bounds_passed(0), 0);
    assert_eq!(host_bounds_passed(u64::MAX / 2), bpf::DELAY_BOUNDS_NS.len() as u32);
}
