// SPDX-License-Identifier: Apache-2.0
//! What a device says of its super-packets. `ip` of Debian bookworm does not
//! know IFLA_GSO_IPV4_MAX_SIZE, so the kernel is asked directly.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::meter::in_netns;

const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
/// struct nlmsghdr and struct ifinfomsg.
const HEADERS: usize = 16 + 16;

/// IFLA_GSO_MAX_SIZE and, where the kernel has it, IFLA_GSO_IPV4_MAX_SIZE.
pub type Gso = (u32, Option<u32>);

/// Of a device of this namespace, by its index.
pub fn gso(index: u32) -> Gso {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    );
    let answer = ask(&socket.expect("a netlink socket"), index);
    let max_size = attribute(&answer, IFLA_GSO_MAX_SIZE).expect("gso_max_size");
    (max_size, attribute(&answer, IFLA_GSO_IPV4_MAX_SIZE))
}

/// Of a device of another namespace, by its name.
pub fn gso_in(netns: &Path, name: &str) -> Gso {
    thread::scope(|scope| {
        let name = name.to_owned();
        let ask = in_netns(scope, netns, move || gso(index(&name)));
        ask.join().expect("ask for the device")
    })
}

pub fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap_or_else(|e| panic!("find {name}: {e}"))
}

fn ask(socket: &OwnedFd, index: u32) -> Vec<u8> {
    let mut request = vec![0; HEADERS];
    request[..4].copy_from_slice(&(HEADERS as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[20..24].copy_from_slice(&index.to_ne_bytes());
    send(socket.as_raw_fd(), &request, MsgFlags::empty()).expect("ask for a device");
    let mut answer = vec![0; 1 << 16];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
    answer.truncate(length);
    answer
}

fn attribute(answer: &[u8], wanted: u16) -> Option<u32> {
    let mut rest = answer.get(HEADERS..)?;
    while rest.len() >= 4 {
        let [length, kind] = [0, 2].map(|at| u16::from_ne_bytes([rest[at], rest[at + 1]]));
        if kind == wanted {
            return Some(u32::from_ne_bytes(rest.get(4..8)?.try_into().ok()?));
        }
        rest = rest.get((length as usize).next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    None
}
