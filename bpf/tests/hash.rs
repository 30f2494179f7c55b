// SPDX-License-Identifier: Apache-2.0
//! The hash of flows (hash.h) against the running kernel's own: which packets it
//! puts together. A program of two instructions gives the kernel's.
#![allow(clippy::expect_used, reason = "clippy's exception for tests leaves out helper functions")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use libbpf_rs::libbpf_sys::{
    BPF_FUNC_get_hash_recalc, BPF_PROG_TYPE_SCHED_CLS, bpf_insn, bpf_prog_load,
    bpf_prog_test_run_opts, bpf_test_run_opts,
};
use proptest::prelude::*;

#[link(name = "pacing_host", kind = "static")]
unsafe extern "C" {
    fn host_ipv4_hash(header: *const u32, key: u64) -> u32;
    fn host_ipv6_hash(header: *const u32, key: u64) -> u32;
}

const KEY: u64 = 0x0123_4567_89ab_cdef;
const ETHERNET: usize = 14;
const BYTES: usize = 128;

/// A frame by what the kernel tells flows apart with, and some that it does not look at.
#[derive(Clone, Debug)]
struct Frame {
    ipv6: bool,
    addresses: [u8; 2],
    ports: [u16; 2],
    protocol: u8,
    /// Offset and flag "more fragments", as in the header; IPv4 only.
    fragment: u16,
    ttl: u8,
    tos: u8,
    payload: u8,
}

impl Frame {
    fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [self.payload; BYTES];
        let [source, destination] = self.addresses;
        bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        let (kind, header) = if self.ipv6 { ([0x86, 0xdd], 40) } else { ([8, 0], 20) };
        bytes[12..14].copy_from_slice(&kind);
        let ip = &mut bytes[ETHERNET..];
        ip[..header].fill(0);
        if self.ipv6 {
            (ip[0], ip[5], ip[6], ip[7]) = (0x60, 60, self.protocol, self.ttl);
            ip[8..10].copy_from_slice(&[0xfd, source]);
            ip[24..26].copy_from_slice(&[0xfd, destination]);
        } else {
            (ip[0], ip[1], ip[3], ip[8], ip[9]) = (0x45, self.tos, 100, self.ttl, self.protocol);
            ip[6..8].copy_from_slice(&self.fragment.to_be_bytes());
            ip[12..20].copy_from_slice(&[10, 0, 0, source, 10, 0, 0, destination]);
        }
        let [from, to] = self.ports.map(u16::to_be_bytes);
        ip[header..header + 4].copy_from_slice(&[from[0], from[1], to[0], to[1]]);
        // An offset where TCP has its length.
        ip[header + 12] = 0x50;
        bytes
    }

    /// Ours; 0 where the kernel's takes its place.
    fn own(&self) -> u32 {
        let bytes = self.bytes();
        let words: Vec<u32> = bytes[ETHERNET..ETHERNET + 44]
            .chunks_exact(4)
            .map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")))
            .collect();
        // SAFETY: both look at 44 bytes at most, and `words` has them.
        unsafe {
            match self.ipv6 {
                true => host_ipv6_hash(words.as_ptr(), KEY),
                false => host_ipv4_hash(words.as_ptr(), KEY),
            }
        }
    }
}

struct Kernel(OwnedFd);

impl Kernel {
    fn load() -> Self {
        let call =
            bpf_insn { code: 0x85, imm: BPF_FUNC_get_hash_recalc as i32, ..Default::default() };
        let exit = bpf_insn { code: 0x95, ..Default::default() };
        let instructions = [call, exit];
        // SAFETY: name, licence and instructions outlive the call, and there are two instructions.
        let fd = unsafe {
            bpf_prog_load(
                BPF_PROG_TYPE_SCHED_CLS,
                c"kernel_hash".as_ptr(),
                c"GPL".as_ptr(),
                instructions.as_ptr(),
                2,
                std::ptr::null_mut(),
            )
        };
        assert!(fd >= 0, "load a program: {fd}");
        // SAFETY: the kernel has just made this descriptor for us, and no one else has it.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn hash(&self, frame: &Frame) -> u32 {
        let bytes = frame.bytes();
        let mut options = bpf_test_run_opts {
            sz: size_of::<bpf_test_run_opts>() as u64,
            data_in: bytes.as_ptr().cast(),
            data_size_in: BYTES as u32,
            ..Default::default()
        };
        // SAFETY: every pointer is to a live buffer of the size given beside it.
        let result = unsafe { bpf_prog_test_run_opts(self.0.as_raw_fd(), &raw mut options) };
        assert_eq!(result, 0, "BPF_PROG_TEST_RUN");
        options.retval
    }
}

/// Of what flow_hash in shaper.bpf.c gives.
fn same(kernel: &Kernel, a: &Frame, b: &Frame) -> bool {
    let hash = |frame: &Frame| match frame.own() {
        0 => (false, kernel.hash(frame)),
        own => (true, own),
    };
    hash(a) == hash(b)
}

fn frames() -> impl Strategy<Value = Frame> {
    // Few values, so that frames often have some in common.
    let addresses = [1..4u8, 1..4u8];
    let ports = [1..4u16, 1..4u16];
    let protocol = prop_oneof![3 => Just(6u8), 3 => Just(17u8), 1 => Just(1u8), 1 => Just(47u8)];
    let fragment = prop_oneof![6 => Just(0u16), 1 => Just(0x2000), 1 => Just(0x2001), 1 => Just(8)];
    (any::<bool>(), addresses, ports, protocol, fragment, any::<[u8; 3]>()).prop_map(
        |(ipv6, addresses, ports, protocol, fragment, [ttl, tos, payload])| Frame {
            ipv6,
            addresses,
            ports,
            protocol,
            fragment,
            ttl,
            tos,
            payload,
        },
    )
}

/// The kernel gives both directions of a flow one hash (`__flow_hash_consistentify`); a line sees only one.
fn turned(a: &Frame, b: &Frame) -> bool {
    let [from, to] = b.addresses;
    let [source, destination] = b.ports;
    a.addresses == [to, from] || a.ports == [destination, source]
}

static KERNEL: OnceLock<Kernel> = OnceLock::new();

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_one_flow_where_the_kernel_says_so(a in frames(), b in frames(), share in any::<[bool; 4]>()) {
        let mut b = b;
        if share[0] { b.ipv6 = a.ipv6; }
        if share[1] { b.addresses = a.addresses; }
        if share[2] { b.ports = a.ports; }
        if share[3] { (b.protocol, b.fragment) = (a.protocol, a.fragment); }
        let kernel = KERNEL.get_or_init(Kernel::load);
        prop_assume!(!turned(&a, &b) || same(kernel, &a, &b));
        prop_assert_eq!(same(kernel, &a, &b), kernel.hash(&a) == kernel.hash(&b), "{:?} {:?}", a, b);
    }
}

#[test]
fn what_is_not_plain_tcp_or_udp_is_left_to_the_kernel() {
    let plain = Frame {
        ipv6: false,
        addresses: [1, 2],
        ports: [1, 2],
        protocol: 6,
        fragment: 0,
        ttl: 64,
        tos: 0,
        payload: 0,
    };
    assert_ne!(plain.own(), 0);
    assert_ne!(Frame { ipv6: true, protocol: 17, ..plain.clone() }.own(), 0);
    for fragment in [0x2000, 0x2001, 8] {
        assert_eq!(Frame { fragment, ..plain.clone() }.own(), 0);
    }
    // "Don't fragment" makes none.
    assert_ne!(Frame { fragment: 0x4000, ..plain.clone() }.own(), 0);
    for (ipv6, protocol) in [(false, 1), (false, 47), (true, 0), (true, 44), (true, 58)] {
        assert_eq!(Frame { ipv6, protocol, ..plain.clone() }.own(), 0, "{protocol}");
    }
}
