// SPDX-License-Identifier: Apache-2.0
//! The programs' verdicts, by BPF_PROG_TEST_RUN in the running kernel. The
//! kernel lets no test set tc_classid, so these use slot 0, which no pod has.
//! Prints what the verifier needed for each program on this kernel.
#![allow(clippy::expect_used, reason = "clippy's exception for tests leaves out helper functions")]

mod bpffs;

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, Program};

const TC_ACT_UNSPEC: i32 = -1;
/// A guard's.
const TC_ACT_SHOT: i32 = 2;
/// A shaper's: into the class that takes no packet.
const DROPPED: i32 = 0;
/// No time that a packet could leave at: it is stamped with the one that it has.
const NO_TIME: u64 = u64::MAX;
const SECOND_NS: u64 = 1_000_000_000;
const PACED: u32 = 0;
const POLICED: u32 = 1;
/// In struct sluice_line.
const CLOCK: usize = 64;
const DELAYS: usize = 192;

/// struct __sk_buff up to the fields that a test run reads or writes.
#[repr(C)]
#[derive(Clone, Copy)]
struct SkBuff {
    words: [u32; 38],
    tstamp: u64,
    wire_len: u32,
    gso_segs: u32,
    rest: [u64; 3],
}

struct Shaper {
    dir: PathBuf,
}

impl Shaper {
    /// Loads into a BPF file system of this thread alone.
    fn load() -> Self {
        Self { dir: bpffs::load() }
    }

    /// The same, where slot 0's ingress is idle and tells the time.
    fn load_with_clock() -> Self {
        let shaper = Self::load();
        shaper.limit(1, 1, SECOND_NS, PACED);
        shaper
    }

    /// Slot 0's limit: rate, burst, quantum, horizon, no AQM, mode; index 0 is egress, 1 ingress. And a
    /// table of flows for it.
    fn limit(&self, index: u32, ns_per_byte: u64, horizon_ns: u64, mode: u32) {
        self.limit_with_aqm(index, ns_per_byte, horizon_ns, mode, [0, 0]);
    }

    /// The same with AQM: its target, and 1 to mark what can be marked.
    fn limit_with_aqm(
        &self,
        index: u32,
        ns_per_byte: u64,
        horizon_ns: u64,
        mode: u32,
        [target_ns, ecn]: [u64; 2],
    ) {
        let mut value = Vec::new();
        let quantum_ns = 64 * ns_per_byte;
        let shifted = ns_per_byte << bpf::NS_PER_BYTE_SHIFT;
        let flags = u64::from(mode) | ecn << 32;
        for word in [shifted, 0, quantum_ns, horizon_ns, target_ns, flags] {
            value.extend(word.to_ne_bytes());
        }
        self.write(index, 0, &value);
        let flows = MapHandle::from_pinned_path(self.dir.join("flows")).expect("flows");
        let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as u64,
            ..Default::default()
        };
        let table = MapHandle::create(MapType::Array, Some("table"), 4, 256 * 48, 1, &options);
        let table = table.expect("make a table of flows");
        let fd = table.as_fd().as_raw_fd().to_ne_bytes();
        flows.update(&index.to_ne_bytes(), &fd, MapFlags::ANY).expect("set the table");
    }

    fn sent_and_dropped(&self, index: u32) -> [u64; 4] {
        let counters = self.counters(index);
        [counters[0], counters[1], counters[2], counters[3]]
    }

    fn counters(&self, index: u32) -> [u64; 10] {
        self.counted("counters", index)
    }

    /// struct sluice_counters, the sum over all CPUs; of times too, but all is sent on this one.
    fn counted(&self, map: &str, index: u32) -> [u64; 10] {
        let map = MapHandle::from_pinned_path(self.dir.join(map)).expect("the map");
        let copies = map.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY).expect("read");
        let mut sum = [0; 10];
        for copy in copies.expect("an entry") {
            for (total, word) in sum.iter_mut().zip(copy.chunks_exact(8)) {
                *total += u64::from_ne_bytes(word.try_into().expect("8 bytes"));
            }
        }
        sum
    }

    /// The programs' time: what a packet is stamped with on an idle line.
    fn now_ns(&self) -> u64 {
        self.run("shape_ingress", 64, NO_TIME).1
    }

    /// Makes the line of slot 0's egress free at this time.
    fn set_clock(&self, next_ns: u64) {
        let mut clock = [0; 64];
        clock[..8].copy_from_slice(&next_ns.to_ne_bytes());
        self.write(0, CLOCK, &clock);
    }

    /// Part of slot 0's line, which is given back as it was.
    fn write(&self, index: u32, at: usize, bytes: &[u8]) -> Vec<u8> {
        let lines = MapHandle::from_pinned_path(self.dir.join("lines")).expect("lines");
        let key = index.to_ne_bytes();
        let before = lines.lookup(&key, MapFlags::ANY).expect("read").expect("an entry");
        let mut line = before.clone();
        line[at..at + bytes.len()].copy_from_slice(bytes);
        lines.update(&key, &line, MapFlags::ANY).expect("write");
        before
    }

    /// Has the guard of test runs' device, lo, be slot 0's.
    fn guard_device(&self) {
        let guards = MapHandle::from_pinned_path(self.dir.join("guards")).expect("guards");
        let (device, slot) = (1u32.to_ne_bytes(), 0u32.to_ne_bytes());
        guards.update(&device, &slot, MapFlags::ANY).expect("set the guard's slot");
    }

    /// Slot 0's delays on egress by bucket, which are set to zero.
    fn take_delays(&self) -> Vec<u64> {
        let line = self.write(0, DELAYS, &[0; 64]);
        let words =
            line[DELAYS..DELAYS + 64].chunks_exact(8).map(|word| word.try_into().expect("8 bytes"));
        words.map(u64::from_ne_bytes).collect()
    }

    /// One frame through a program; its verdict and the stamp it carries afterwards.
    fn run(&self, program: &str, wire_len: u32, tstamp: u64) -> (i32, u64) {
        self.run_frame(program, &mut udp(1, 0), wire_len, tstamp)
    }

    /// The same with this frame, which is what the program made of it afterwards.
    fn run_frame(
        &self,
        program: &str,
        frame: &mut [u8; 64],
        wire_len: u32,
        tstamp: u64,
    ) -> (i32, u64) {
        let fd = Program::fd_from_pinned_path(self.dir.join(program)).expect("program");
        let mut context = SkBuff { words: [0; 38], tstamp, wire_len, gso_segs: 1, rest: [0; 3] };
        let mut out = context;
        let verdict = test_run(&fd, frame, &mut context, &mut out);
        (verdict, out.tstamp)
    }
}

/// UDP over IPv4 from this port, with these ECN bits.
fn udp(port: u8, ecn: u8) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[12..24].copy_from_slice(&[0x08, 0, 0x45, ecn, 0, 50, 0, 0, 0x40, 0, 64, 17]);
    frame[26..34].copy_from_slice(&[10, 1, 0, 1, 10, 1, 0, 2]);
    frame[34..40].copy_from_slice(&[0x80, port, 0x13, 0x88, 0, 30]);
    frame
}

const ECN_CAPABLE: u8 = 2;
const CONGESTION_EXPERIENCED: u8 = 3;

fn test_run(
    fd: &std::os::fd::OwnedFd,
    frame: &mut [u8],
    context: &mut SkBuff,
    out: &mut SkBuff,
) -> i32 {
    let size = size_of::<SkBuff>() as u32;
    let mut options = libbpf_rs::libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_test_run_opts>() as u64,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        data_out: frame.as_mut_ptr().cast(),
        data_size_out: frame.len() as u32,
        ctx_in: (context as *mut SkBuff).cast(),
        ctx_size_in: size,
        ctx_out: (out as *mut SkBuff).cast(),
        ctx_size_out: size,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: every pointer is to a live buffer of the size given beside it.
    let result =
        unsafe { libbpf_rs::libbpf_sys::bpf_prog_test_run_opts(fd.as_raw_fd(), &mut options) };
    assert_eq!(result, 0, "BPF_PROG_TEST_RUN");
    options.retval as i32
}

#[test]
fn slot_without_limit_passes_untouched_and_uncounted() {
    let shaper = Shaper::load();
    assert_eq!(shaper.run("shape_egress", 1500, 7), (TC_ACT_UNSPEC, 7));
    assert_eq!(shaper.sent_and_dropped(0), [0; 4]);
}

#[test]
fn paced_packets_are_stamped_one_after_the_other_exactly() {
    let shaper = Shaper::load();
    // A frame of 1000 bytes takes a second.
    shaper.limit(0, 1_000_000, 60 * SECOND_NS, PACED);
    let stamps: Vec<u64> = (0..5).map(|_| shaper.run("shape_egress", 1000, NO_TIME).1).collect();
    for pair in stamps.windows(2) {
        assert_eq!(pair[1] - pair[0], SECOND_NS, "{stamps:?}");
    }
    assert_eq!(shaper.sent_and_dropped(0), [5, 5000, 0, 0]);
}

#[test]
fn packet_that_need_not_wait_keeps_its_stamp_of_the_past_or_none() {
    let shaper = Shaper::load();
    shaper.limit(0, 1, SECOND_NS, PACED);
    assert_eq!(shaper.run("shape_egress", 64, 0), (TC_ACT_UNSPEC, 0));
    assert_eq!(shaper.run("shape_egress", 64, 7), (TC_ACT_UNSPEC, 7));
}

#[test]
fn packet_beyond_the_horizon_is_dropped_and_counted() {
    let shaper = Shaper::load();
    // A frame takes ten seconds: the second one would leave at 10 s, beyond 5 s.
    shaper.limit(1, 10_000_000, 5 * SECOND_NS, PACED);
    assert_eq!(shaper.run("shape_ingress", 1000, 0).0, TC_ACT_UNSPEC);
    assert_eq!(shaper.run("shape_ingress", 1000, 0).0, DROPPED);
    assert_eq!(shaper.sent_and_dropped(1), [1, 1000, 1, 1000]);
    // The other direction is a world of its own.
    assert_eq!(shaper.sent_and_dropped(0), [0; 4]);
    assert_eq!(shaper.run("shape_egress", 1000, 0).0, TC_ACT_UNSPEC);
}

#[test]
fn last_drop_beyond_the_horizon_is_timed() {
    let shaper = Shaper::load_with_clock();
    shaper.limit(0, 10_000_000, 5 * SECOND_NS, PACED);
    shaper.guard_device();
    let before = shaper.now_ns();
    for (program, map, dropped) in
        [("guard", "unshaped", TC_ACT_SHOT), ("shape_egress", "counters", DROPPED)]
    {
        shaper.set_clock(0);
        assert_eq!(shaper.run(program, 1000, 0).0, TC_ACT_UNSPEC);
        assert_eq!(shaper.counted(map, 0)[8..], [0, 0]);
        assert_eq!(shaper.run(program, 1000, 0).0, dropped);
        let [.., last_aqm_ns, last_horizon_ns] = shaper.counted(map, 0);
        assert_eq!(last_aqm_ns, 0);
        assert!(before < last_horizon_ns && last_horizon_ns < shaper.now_ns(), "{program}");
    }
}

#[test]
fn policed_packets_keep_their_stamp() {
    let shaper = Shaper::load();
    shaper.limit(0, 1000, SECOND_NS, POLICED);
    assert_eq!(shaper.run("shape_egress", 1000, 0), (TC_ACT_UNSPEC, 0));
    assert_eq!(shaper.run("shape_egress", 1000, 123), (TC_ACT_UNSPEC, 123));
}

#[test]
fn stamp_of_the_pod_counts_within_the_horizon_only() {
    let shaper = Shaper::load();
    shaper.limit(0, 1, SECOND_NS, PACED);
    let now = shaper.run("shape_egress", 64, NO_TIME).1;
    let soon = now + SECOND_NS / 2;
    assert_eq!(shaper.run("shape_egress", 64, soon).1, soon);
    let far = now + 3600 * SECOND_NS;
    assert!(shaper.run("shape_egress", 64, far).1 < now + SECOND_NS);
}

#[test]
fn sparse_flow_departs_before_the_queue_of_another() {
    let shaper = Shaper::load();
    // A frame of 64 bytes takes 0.96 ms, a full one 22.5 ms.
    shaper.limit(0, 15_000, SECOND_NS, PACED);
    let bulk: Vec<u64> = (0..20).map(|_| shaper.run("shape_egress", 1500, 0).1).collect();
    let (_, sparse) = shaper.run_frame("shape_egress", &mut udp(2, 0), 64, 0);
    assert!(sparse < bulk[19], "{sparse} among {bulk:?}");
    // It is charged to the line: who queues next waits for it too.
    let (_, next) = shaper.run("shape_egress", 1500, 0);
    assert_eq!(next - bulk[19], 1_564 * 15_000);
}

#[test]
fn fragments_of_one_datagram_stay_in_order() {
    let shaper = Shaper::load();
    shaper.limit(0, 1000, SECOND_NS, PACED);
    // The first fragment has ports, the later ones have none.
    let (mut first, mut later) = (udp(1, 0), udp(9, 0));
    first[20] = 0x20;
    (later[20], later[21]) = (0x20, 100);
    for _ in 0..10 {
        let (_, before) = shaper.run_frame("shape_egress", &mut first, 1500, 0);
        let (_, after) = shaper.run_frame("shape_egress", &mut later, 64, 0);
        assert!(after >= before, "{after} before {before}");
    }
}

#[test]
fn what_is_no_udp_over_ipv4_has_its_turn_as_well() {
    let shaper = Shaper::load();
    shaper.limit(0, 5_000, SECOND_NS, PACED);
    let stamps: Vec<u64> = (0..20).map(|_| shaper.run("shape_egress", 1500, 0).1).collect();
    let last = stamps[19];
    let mut arp = [0; 64];
    arp[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    let mut icmp = udp(0, 0);
    icmp[23] = 1;
    let mut tcp_over_ipv6 = [0; 64];
    tcp_over_ipv6[12..21].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 10, 6]);
    tcp_over_ipv6[22..24].copy_from_slice(&[0xfd, 1]);
    tcp_over_ipv6[38..40].copy_from_slice(&[0xfd, 2]);
    for (name, mut frame) in [("ARP", arp), ("ICMP", icmp), ("IPv6", tcp_over_ipv6)] {
        let (verdict, stamp) = shaper.run_frame("shape_egress", &mut frame, 64, 0);
        assert_eq!(verdict, TC_ACT_UNSPEC, "{name}");
        assert!(stamp < last, "{name} waits behind a flow of UDP");
    }
    assert_eq!(shaper.sent_and_dropped(0), [23, 20 * 1500 + 3 * 64, 0, 0]);
}

#[test]
fn queue_above_the_target_is_marked_where_that_is_possible_and_dropped_else() {
    let shaper = Shaper::load();
    for (ecn, offered, verdict, left) in [
        (1, ECN_CAPABLE, TC_ACT_UNSPEC, CONGESTION_EXPERIENCED),
        (1, 0, DROPPED, 0),
        (0, ECN_CAPABLE, DROPPED, ECN_CAPABLE),
    ] {
        // A frame takes 1 ms; the interval of a 0.1 ms target is 2 ms.
        shaper.limit_with_aqm(0, 1000, 60 * SECOND_NS, PACED, [100_000, ecn]);
        let signalled = (0..50_000).any(|_| {
            let mut frame = udp(1, offered);
            let (found, _) = shaper.run_frame("shape_egress", &mut frame, 1000, 0);
            found != TC_ACT_UNSPEC || frame[15] != offered
        });
        assert!(signalled, "ecn {ecn}, offered {offered}: never signalled");
        let [.., aqm, _, _, _, last_aqm_ns, last_horizon_ns] = shaper.counters(0);
        let is_drop = verdict == DROPPED;
        assert_eq!([aqm > 0, last_aqm_ns > 0, last_horizon_ns > 0], [is_drop, is_drop, false]);
        let mut outcomes = Vec::new();
        for _ in 0..50_000 {
            let mut frame = udp(1, offered);
            let (found, _) = shaper.run_frame("shape_egress", &mut frame, 1000, 0);
            if found != TC_ACT_UNSPEC || frame[15] != offered {
                outcomes.push((found, frame[15]));
                break;
            }
        }
        assert_eq!(outcomes, [(verdict, left)], "ecn {ecn}, offered {offered}");
    }
}

#[test]
fn wait_of_a_packet_is_counted_between_two_bounds() {
    let shaper = Shaper::load_with_clock();
    for (index, bound_ns) in bpf::DELAY_BOUNDS_NS.into_iter().enumerate() {
        // Again when this thread was kept from running between looking at the clock and the run.
        let next_ns = bpf::DELAY_BOUNDS_NS.get(index + 1).map_or(2 * bound_ns, |next| *next);
        let attempts = std::iter::repeat_with(|| {
            // A frame takes 1 ms, and no flow is there.
            shaper.limit(0, 1000, 60 * SECOND_NS, PACED);
            shaper.set_clock(shaper.now_ns() + next_ns);
            let departure = shaper.run("shape_egress", 1000, 0).1;
            (shaper.take_delays(), departure.saturating_sub(shaper.now_ns()))
        });
        let in_time = attempts.take(1000).find(|(_, at_least)| *at_least > bound_ns);
        let (delays, _) = in_time.expect("a run soon after looking at the clock");
        let mut expected = vec![0; 8];
        expected[index] = 1;
        assert_eq!(delays, expected, "longer than {bound_ns} ns");
    }
}

#[test]
fn packet_that_need_not_wait_and_one_that_is_policed_are_no_delay() {
    let shaper = Shaper::load();
    shaper.limit(0, 1, SECOND_NS, PACED);
    shaper.run("shape_egress", 64, 0);
    shaper.limit(0, 1000, SECOND_NS, POLICED);
    (0..10).for_each(|_| _ = shaper.run("shape_egress", 1000, 0));
    assert_eq!(shaper.sent_and_dropped(0)[0], 11);
    assert_eq!(shaper.take_delays(), [0; 8]);
}

#[test]
fn packet_without_proof_is_charged_to_the_pods_own_line() {
    for (guard, shape, index) in
        [("guard", "shape_egress", 0), ("ingress_guard", "shape_ingress", 1)]
    {
        let shaper = Shaper::load();
        shaper.guard_device();
        shaper.limit(index, 10_000_000, SECOND_NS / 2, POLICED);
        assert_eq!(shaper.run(guard, 1000, 0).0, TC_ACT_UNSPEC);
        // 64 bytes of frame, whatever wire_len says: 0.64 s, for the guard and for the shaper.
        assert_eq!(shaper.run(guard, 1000, 0).0, TC_ACT_SHOT);
        assert_eq!(shaper.run(shape, 1000, 0).0, DROPPED);
        assert_eq!(shaper.counted("unshaped", index)[..4], [1, 64, 1, 64]);
        assert_eq!(shaper.sent_and_dropped(index), [0, 0, 1, 1000]);
    }
}

/// The shaper of a paced pod would have it wait for its turn; the guard cannot.
#[test]
fn unshaped_packet_of_a_paced_pod_passes_only_where_the_line_is_free() {
    let shaper = Shaper::load();
    shaper.guard_device();
    // A frame of 64 bytes takes 6.4 s.
    shaper.limit(0, 100_000_000, 60 * SECOND_NS, PACED);
    assert_eq!(shaper.run("shape_egress", 64, 0).0, TC_ACT_UNSPEC);
    assert_eq!(shaper.run("guard", 64, 0).0, TC_ACT_SHOT);
    shaper.set_clock(0);
    assert_eq!(shaper.run("guard", 64, 0).0, TC_ACT_UNSPEC);
    assert_eq!(shaper.run("guard", 64, 0).0, TC_ACT_SHOT);
}

#[test]
fn device_that_is_no_pods_passes_the_guard_uncounted() {
    let shaper = Shaper::load();
    shaper.limit(0, 100_000_000, SECOND_NS, POLICED);
    (0..3).for_each(|_| assert_eq!(shaper.run("guard", 64, 0).0, TC_ACT_UNSPEC));
    assert_eq!(shaper.counted("unshaped", 0), [0; 10]);
}

/// Routing of the VPC CNI and kube-proxy hangs on marks, and both wipe those of others.
#[test]
fn no_program_changes_a_packets_mark_or_priority() {
    const MARK: usize = 2;
    const PRIORITY: usize = 8;
    let shaper = Shaper::load();
    shaper.guard_device();
    for (program, index, map) in [
        ("shape_egress", 0, "counters"),
        ("shape_ingress", 1, "counters"),
        ("guard", 0, "unshaped"),
    ] {
        shaper.limit(index, 1000, SECOND_NS, if program == "guard" { POLICED } else { PACED });
        let fd = Program::fd_from_pinned_path(shaper.dir.join(program)).expect("program");
        for mark in [0, 0xc080] {
            let mut context =
                SkBuff { words: [0; 38], tstamp: 0, wire_len: 1000, gso_segs: 1, rest: [0; 3] };
            (context.words[MARK], context.words[PRIORITY]) = (mark, 7);
            let mut out = context;
            assert_eq!(test_run(&fd, &mut udp(1, 0), &mut context, &mut out), TC_ACT_UNSPEC);
            assert_eq!((out.words[MARK], out.words[PRIORITY]), (mark, 7), "{program}");
        }
        // It was no packet that passed unseen.
        assert_eq!(shaper.counted(map, index)[0], 2, "{program}");
    }
}

#[test]
fn limit_without_a_table_of_flows_lets_nothing_wait() {
    let shaper = Shaper::load();
    // A frame takes ten seconds.
    shaper.limit(0, 10_000_000, 60 * SECOND_NS, PACED);
    let flows = MapHandle::from_pinned_path(shaper.dir.join("flows")).expect("flows");
    flows.delete(&0u32.to_ne_bytes()).expect("take the table out");
    assert_eq!(shaper.run("shape_egress", 1000, 0).0, TC_ACT_UNSPEC);
    assert_eq!(shaper.run("shape_egress", 1000, 0).0, DROPPED);
    assert_eq!(shaper.counters(0), [1, 1000, 1, 1000, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn pod_finds_no_flows_of_the_pod_that_had_its_slot_before() {
    let shaper = Shaper::load();
    // A frame takes ten seconds.
    shaper.limit(0, 10_000_000, 60 * SECOND_NS, PACED);
    let stamps: Vec<u64> = (0..5).map(|_| shaper.run("shape_egress", 1000, NO_TIME).1).collect();
    // As Pins::clear does.
    shaper.set_clock(0);
    let (verdict, stamp) = shaper.run("shape_egress", 1000, NO_TIME);
    assert_eq!(verdict, TC_ACT_UNSPEC);
    assert!(stamp < stamps[1], "{stamp} waits for the queue of {stamps:?}");
    let next = shaper.run("shape_egress", 1000, 0).1;
    assert_eq!(next - stamp, 10 * SECOND_NS);
}

#[test]
fn maps_and_what_they_hold_survive_a_second_load() {
    let shaper = Shaper::load();
    // A frame takes ten seconds, longer than loading does anywhere.
    shaper.limit(0, 10_000_000, 60 * SECOND_NS, PACED);
    let before = shaper.run("shape_egress", 1000, NO_TIME).1;
    bpf::load_and_pin(&shaper.dir).expect("load again");
    assert_eq!(shaper.run("shape_egress", 1000, 0).1 - before, 10 * SECOND_NS);
}

#[test]
fn verifier_needs_few_instructions() {
    let shaper = Shaper::load();
    for program in ["shape_egress", "shape_ingress", "guard", "ingress_guard", "ingress_guard_tcx"]
    {
        let path = shaper.dir.join(program);
        let fd = Program::fd_from_pinned_path(&path).expect("program");
        let verified = verified_instructions(&fd);
        println!("verifier: {program} {verified} instructions");
        assert!((1..20_000).contains(&verified), "{program}: {verified}");
    }
}

fn verified_instructions(fd: &std::os::fd::OwnedFd) -> u32 {
    let mut info = libbpf_rs::libbpf_sys::bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: `info` is a live buffer of `size` bytes, and the kernel writes no more than that.
    let result = unsafe {
        libbpf_rs::libbpf_sys::bpf_obj_get_info_by_fd(
            fd.as_raw_fd(),
            (&raw mut info).cast(),
            &raw mut size,
        )
    };
    assert_eq!(result, 0, "BPF_OBJ_GET_INFO_BY_FD");
    info.verified_insns
}
