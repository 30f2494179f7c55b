// SPDX-License-Identifier: Apache-2.0
//! The receiver's rate in each second, over both IP versions and with the very
//! first packet in it: a burst that a limit lets pass is in the first second.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::meter::received_wire_bytes;

const L2_BYTES: u64 = 14;
/// IPv6 and TCP with timestamps: what each further segment of a super-packet repeats.
const SEGMENT_HEADER_BYTES: u64 = 40 + 32;
/// More than what multicast listeners and handshakes say before the data.
const SILENCE_BYTES: u64 = 1000;

/// Bytes of all frames that this thread's namespace has received over IPv6.
fn received_wire_bytes_v6() -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/snmp6").expect("read the IPv6 counters");
    let counter = |name: &str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
        let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("{name} is not in {table}"))
    };
    let kinds = ["Ip6InNoECTPkts", "Ip6InECT0Pkts", "Ip6InECT1Pkts", "Ip6InCEPkts"];
    let segments: u64 = kinds.into_iter().map(counter).sum();
    let super_packets = counter("Ip6InReceives");
    counter("Ip6InOctets")
        + segments * L2_BYTES
        + segments.saturating_sub(super_packets) * SEGMENT_HEADER_BYTES
}

fn received() -> u64 {
    received_wire_bytes() + received_wire_bytes_v6()
}

/// Bit/s on the wire in each whole second from the first packet on.
pub fn rates(seconds: u32) -> Vec<f64> {
    let quiet = received();
    let deadline = Instant::now() + Duration::from_secs(30);
    while received() < quiet + SILENCE_BYTES {
        assert!(Instant::now() < deadline, "no traffic arrived");
        sleep(Duration::from_millis(1));
    }
    let start = Instant::now();
    let mut last = (start, quiet);
    let mut rates = Vec::new();
    for second in 1..=seconds {
        let end = start + Duration::from_secs(second.into());
        sleep(end.saturating_duration_since(Instant::now()));
        let now = (Instant::now(), received());
        rates.push((now.1 - last.1) as f64 * 8.0 / (now.0 - last.0).as_secs_f64());
        last = now;
    }
    rates
}
