// SPDX-License-Identifier: Apache-2.0
//! What the kernel has attached, asked for without a process: often enough to
//! see what is gone for a few milliseconds. Netlink and bpf(2) directly; nothing
//! of the code under test has a part in it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::thread;

use nix::libc::{self, c_long};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::link::index;
use crate::meter::in_netns;

const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// struct nlmsghdr and struct tcmsg.
const HEADERS: usize = 16 + 20;

pub const CLSACT_INGRESS: u32 = 0xffff_fff2;
pub const OUR_ROOT: u32 = 0x51ce_0000;
pub const OUR_CLASS: u32 = 0x51ce_0001;
pub const OUR_LEAF: u32 = 0x51cf_0000;
pub const OUR_FILTER: u32 = 0x51ce;

const BPF_MAP_LOOKUP_ELEM: c_long = 1;
const BPF_OBJ_GET: c_long = 7;
const BPF_PROG_QUERY: c_long = 16;
const BPF_LINK_DETACH: c_long = 34;
const BPF_TCX_INGRESS: u64 = 46;
/// struct sluice_limit has 48 bytes; its first eight are the cost of a byte, 0 without a limit.
/// Of struct sluice_line, which begins with the limit.
const LINE_BYTES: usize = 320;

/// A device, and a socket of the namespace that it is in.
pub struct Device {
    socket: OwnedFd,
    pub index: u32,
}

/// A qdisc or a filter.
struct Listed {
    index: u32,
    handle: u32,
    parent: u32,
}

impl Device {
    /// Of this thread's namespace.
    pub fn here(name: &str) -> Self {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        );
        Self { socket: socket.expect("a netlink socket"), index: index(name) }
    }

    pub fn in_netns(netns: &Path, name: &str) -> Self {
        thread::scope(|scope| {
            let name = name.to_owned();
            in_netns(scope, netns, move || Self::here(&name)).join().expect("enter a pod")
        })
    }

    /// Whether a qdisc with this handle is at this place. All of the namespace are listed: a question
    /// for a single one is answered to every listener for changes (net/sched/sch_api.c,
    /// qdisc_get_notify), the agent too.
    pub fn has_qdisc(&self, parent: u32, handle: u32) -> bool {
        let all = self.list(RTM_GETQDISC, 0);
        all.iter().any(|tc| (tc.index, tc.parent, tc.handle) == (self.index, parent, handle))
    }

    /// Handles of the filters at this place, in the order in which they run.
    pub fn filters(&self, parent: u32) -> Vec<u32> {
        let all = self.list(RTM_GETTFILTER, parent);
        // There is one for each priority, which is no filter.
        all.iter().map(|tc| tc.handle).filter(|handle| *handle != 0).collect()
    }

    fn list(&self, kind: u16, parent: u32) -> Vec<Listed> {
        let mut request = vec![0; HEADERS];
        let mut put =
            |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(HEADERS as u32).to_ne_bytes());
        put(4, &kind.to_ne_bytes());
        put(6, &(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        put(20, &self.index.to_ne_bytes());
        put(28, &parent.to_ne_bytes());
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty()).expect("ask the kernel");
        let mut all = Vec::new();
        while !self.receive(&mut all) {}
        all
    }

    /// Whether that was the end.
    fn receive(&self, all: &mut Vec<Listed>) -> bool {
        let mut answer = vec![0; 1 << 16];
        let fd = self.socket.as_raw_fd();
        let length = recv(fd, &mut answer, MsgFlags::empty()).expect("an answer");
        let mut rest = &answer[..length];
        while rest.len() >= 16 {
            let size = u32::from_ne_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            if kind == NLMSG_ERROR || kind == NLMSG_DONE {
                return true;
            }
            let word = |at: usize| {
                let bytes = rest.get(at..at + 4).expect("a whole tcmsg");
                u32::from_ne_bytes(bytes.try_into().expect("four bytes"))
            };
            all.push(Listed { index: word(20), handle: word(24), parent: word(28) });
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        false
    }
}

/// Programs on tcx ingress of a device of this namespace.
pub fn tcx_programs(index: u32) -> u32 {
    let mut attr = [0u64; 16];
    attr[0] = u64::from(index) | BPF_TCX_INGRESS << 32;
    match bpf(BPF_PROG_QUERY, &mut attr) {
        Ok(_) => attr[3] as u32,
        // Nothing was ever on tcx of that device.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => 0,
        Err(e) => panic!("query tcx of {index}: {e}"),
    }
}

/// What `bpftool link detach` does: the pin stays, with a link that is dead.
pub fn detach_link(pin: &Path) -> io::Result<()> {
    let link = open_pin(pin)?;
    bpf(BPF_LINK_DETACH, &mut with_first(link.as_raw_fd())).map(|_| ())
}

/// The map of limits.
pub struct Limits(OwnedFd);

impl Limits {
    pub fn open(pin: &str) -> Self {
        Self(open_pin(pin.as_ref()).unwrap_or_else(|e| panic!("open {pin}: {e}")))
    }

    /// Cost of a byte in fixed point, 0 without a limit.
    pub fn ns_per_byte(&self, entry: u32) -> u64 {
        let mut value = [0u64; LINE_BYTES / 8];
        let mut attr = with_first(self.0.as_raw_fd());
        attr[1] = (&raw const entry) as u64;
        attr[2] = (&raw mut value) as u64;
        bpf(BPF_MAP_LOOKUP_ELEM, &mut attr).unwrap_or_else(|e| panic!("look up {entry}: {e}"));
        std::hint::black_box(&mut value)[0]
    }
}

fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_encoded_bytes()).expect("a path");
    let mut attr = [0u64; 16];
    attr[0] = path.as_ptr() as u64;
    let fd = bpf(BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just made the descriptor for us, and no one else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn with_first(fd: i32) -> [u64; 16] {
    let mut attr = [0u64; 16];
    attr[0] = fd as u64;
    attr
}

fn bpf(command: c_long, attr: &mut [u64; 16]) -> io::Result<i32> {
    // SAFETY: `attr` is a live buffer of the size given; what it points to outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
