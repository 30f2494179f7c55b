// SPDX-License-Identifier: Apache-2.0
//! A foreign program on tcx or netkit. No tool of Debian bookworm can put one there.

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc::{self, c_long};

const BPF_OBJ_GET: c_long = 7;
const BPF_LINK_CREATE: c_long = 28;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_NETKIT_PRIMARY: u32 = 54;
const BPF_NETKIT_PEER: u32 = 55;

/// Without a relative program this is the head.
const BPF_F_BEFORE: u32 = 8;

/// Attaches a pinned program behind all that is on tcx ingress of the device; gone when dropped.
pub fn append_ingress(pinned: &str, device: u32) -> OwnedFd {
    attach(pinned, device, BPF_TCX_INGRESS, 0)
}

/// The same of tcx egress.
pub fn append_egress(pinned: &str, device: u32) -> OwnedFd {
    attach(pinned, device, BPF_TCX_EGRESS, 0)
}

/// Attaches it to a netkit device, whose index is that of the host's end: to what that end sends.
pub fn append_primary(pinned: &str, device: u32) -> OwnedFd {
    attach(pinned, device, BPF_NETKIT_PRIMARY, 0)
}

/// The same, to what the pod's end sends.
pub fn append_peer(pinned: &str, device: u32) -> OwnedFd {
    attach(pinned, device, BPF_NETKIT_PEER, 0)
}

/// The same as [`append_ingress`], in front of all.
pub fn prepend_ingress(pinned: &str, device: u32) -> OwnedFd {
    attach(pinned, device, BPF_TCX_INGRESS, BPF_F_BEFORE)
}

/// The same on tcx egress.
pub fn prepend_egress(pinned: &str, device: u32) -> OwnedFd {
    attach(pinned, device, BPF_TCX_EGRESS, BPF_F_BEFORE)
}

fn attach(pinned: &str, device: u32, hook: u32, flags: u32) -> OwnedFd {
    let path = CString::new(pinned).expect("a path");
    let pointer = path.as_ptr() as u64;
    let halves = [pointer as u32, (pointer >> 32) as u32];
    let program = bpf(BPF_OBJ_GET, &[halves[0], halves[1], 0, 0]);
    // prog_fd, target_ifindex, attach_type, flags
    let link = bpf(BPF_LINK_CREATE, &[program as u32, device, hook, flags]);
    // SAFETY: the kernel has just made both descriptors for us, and no one else has them.
    unsafe {
        drop(OwnedFd::from_raw_fd(program));
        OwnedFd::from_raw_fd(link)
    }
}

fn bpf(command: c_long, words: &[u32; 4]) -> i32 {
    let mut attr = [0u32; 32];
    attr[..4].copy_from_slice(words);
    // SAFETY: `attr` is a live buffer of the size given; what it points to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(&attr)) };
    assert!(fd >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    fd as i32
}
