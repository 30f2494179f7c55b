// SPDX-License-Identifier: Apache-2.0
//! The programs' verdicts, by BPF_PROG_TEST_RUN in the running kernel. The
//! kernel lets no test set tc_classid, so these use slot 0, which no pod has.
//! Prints what the verifier needed for each program on this kernel.
#![allow(clippy::expect_used, reason = "clippy's exception for tests leaves out helper functions")]

use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore, MapFlags, MapHandle, Program};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const SECOND_NS: u64 = 1_000_000_000;
const PACED: u32 = 0;
const POLICED: u32 = 1;

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
        unshare(CloneFlags::CLONE_NEWNS).expect("make a mount namespace (needs root)");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private");
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).expect("bpffs");
        let dir = bpf::pin_dir(Path::new("/sys/fs/bpf"));
        bpf::load_and_pin(&dir).expect("load");
        Self { dir }
    }

    /// Slot 0's limit: rate, burst, horizon, no AQM, mode; index 0 is egress, 1 ingress, 2 guard.
    fn limit(&self, index: u32, ns_per_byte: u64, horizon_ns: u64, mode: u32) {
        let map = MapHandle::from_pinned_path(self.dir.join("limits")).expect("limits");
        let mut value = Vec::new();
        for word in [ns_per_byte << bpf::NS_PER_BYTE_SHIFT, 0, horizon_ns, 0, u64::from(mode)] {
            value.extend(word.to_ne_bytes());
        }
        map.update(&index.to_ne_bytes(), &value, MapFlags::ANY).expect("set the limit");
    }

    fn sent_and_dropped(&self, index: u32) -> [u64; 4] {
        let map = MapHandle::from_pinned_path(self.dir.join("counters")).expect("counters");
        let copies = map.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY).expect("read");
        let mut sum = [0; 4];
        for copy in copies.expect("an entry") {
            for (total, word) in sum.iter_mut().zip(copy.chunks_exact(8)) {
                *total += u64::from_ne_bytes(word.try_into().expect("8 bytes"));
            }
        }
        sum
    }

    /// One frame through a program; its verdict and the stamp it carries afterwards.
    fn run(&self, program: &str, wire_len: u32, tstamp: u64) -> (i32, u64) {
        let fd = Program::fd_from_pinned_path(self.dir.join(program)).expect("program");
        let mut frame = [0u8; 64];
        frame[12] = 0x08;
        let mut context = SkBuff { words: [0; 38], tstamp, wire_len, gso_segs: 1, rest: [0; 3] };
        let mut out = context;
        let verdict = test_run(&fd, &frame, &mut context, &mut out);
        (verdict, out.tstamp)
    }
}

fn test_run(
    fd: &std::os::fd::OwnedFd,
    frame: &[u8],
    context: &mut SkBuff,
    out: &mut SkBuff,
) -> i32 {
    use std::os::fd::AsRawFd;
    let size = size_of::<SkBuff>() as u32;
    let mut options = libbpf_rs::libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_test_run_opts>() as u64,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
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
    let stamps: Vec<u64> = (0..5).map(|_| shaper.run("shape_egress", 1000, 0).1).collect();
    for pair in stamps.windows(2) {
        assert_eq!(pair[1] - pair[0], SECOND_NS, "{stamps:?}");
    }
    assert_eq!(shaper.sent_and_dropped(0), [5, 5000, 0, 0]);
}

#[test]
fn packet_beyond_the_horizon_is_dropped_and_counted() {
    let shaper = Shaper::load();
    // A frame takes ten seconds: the second one would leave at 10 s, beyond 5 s.
    shaper.limit(1, 10_000_000, 5 * SECOND_NS, PACED);
    assert_eq!(shaper.run("shape_ingress", 1000, 0).0, TC_ACT_UNSPEC);
    assert_eq!(shaper.run("shape_ingress", 1000, 0).0, TC_ACT_SHOT);
    assert_eq!(shaper.sent_and_dropped(1), [1, 1000, 1, 1000]);
    // The other direction is a world of its own.
    assert_eq!(shaper.sent_and_dropped(0), [0; 4]);
    assert_eq!(shaper.run("shape_egress", 1000, 0).0, TC_ACT_UNSPEC);
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
    let now = shaper.run("shape_egress", 64, 0).1;
    let soon = now + SECOND_NS / 2;
    assert_eq!(shaper.run("shape_egress", 64, soon).1, soon);
    let far = now + 3600 * SECOND_NS;
    assert!(shaper.run("shape_egress", 64, far).1 < now + SECOND_NS);
}

#[test]
fn maps_and_what_they_hold_survive_a_second_load() {
    let shaper = Shaper::load();
    // A frame takes ten seconds, longer than loading does anywhere.
    shaper.limit(0, 10_000_000, 60 * SECOND_NS, PACED);
    let before = shaper.run("shape_egress", 1000, 0).1;
    bpf::load_and_pin(&shaper.dir).expect("load again");
    assert_eq!(shaper.run("shape_egress", 1000, 0).1 - before, 10 * SECOND_NS);
}

#[test]
fn verifier_needs_few_instructions() {
    let shaper = Shaper::load();
    for program in ["shape_egress", "shape_ingress", "guard"] {
        let path = shaper.dir.join(program);
        let fd = Program::fd_from_pinned_path(&path).expect("program");
        let verified = verified_instructions(&fd);
        println!("verifier: {program} {verified} instructions");
        assert!((1..2000).contains(&verified), "{program}: {verified}");
    }
}

fn verified_instructions(fd: &std::os::fd::OwnedFd) -> u32 {
    use std::os::fd::AsRawFd;
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
