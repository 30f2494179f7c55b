// SPDX-License-Identifier: Apache-2.0
//! Properties of pacing.h, the same text that the BPF programs are made of,
//! compiled for the host: never more than rate and burst allow, never stalled,
//! never out of order.

use proptest::prelude::*;

/// contract.h's struct sluice_limit.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Limit {
    ns_per_byte: u64,
    burst_ns: u64,
    horizon_ns: u64,
    target_ns: u64,
    mode: u32,
    ecn: u32,
}

/// pacing.h's struct sluice_step.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Step {
    departure_ns: u64,
    next_ns: u64,
    admitted: u32,
    pad: u32,
}

#[link(name = "pacing_host", kind = "static")]
unsafe extern "C" {
    safe fn host_cost_ns(limit: &Limit, wire_len: u32) -> u64;
    safe fn host_pace(clock_ns: u64, now_ns: u64, cost_ns: u64, limit: &Limit) -> Step;
    safe fn host_stamp(departure_ns: u64, own_ns: u64, now_ns: u64, limit: &Limit) -> u64;
}

const SHIFT: u32 = bpf::NS_PER_BYTE_SHIFT;
const MS: u64 = 1_000_000;

fn limit(bits_per_sec: u64, burst_ns: u64, horizon_ns: u64) -> Limit {
    let scaled = (8_000_000_000u128 << SHIFT) / u128::from(bits_per_sec);
    let ns_per_byte = scaled.max(1) as u64;
    Limit { ns_per_byte, burst_ns, horizon_ns, target_ns: 0, mode: 0, ecn: 0 }
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
