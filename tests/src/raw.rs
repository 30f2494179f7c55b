// SPDX-License-Identifier: Apache-2.0
//! What a pod with CAP_NET_RAW can do: frames that go from an AF_PACKET socket
//! straight to the driver (PACKET_QDISC_BYPASS), past clsact and past every qdisc,
//! and frames that say they are of another protocol than they are.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::libc::{self, c_int, c_void, sockaddr_ll, socklen_t};
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::link::index;

const PACKET_QDISC_BYPASS: c_int = 20;
const ETH_P_IP: u16 = 0x0800;
/// What the payload leaves of the MTU.
const ROOM: usize = 100;
const HEADERS: usize = 20 + 8;

pub struct Flood {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub gateway: [u8; 6],
    pub mtu: u32,
    /// Bit/s of payload.
    pub offer_bps: u64,
}

/// UDP datagrams from this namespace's eth0 to its gateway's MAC address, until stopped.
pub fn flood(plan: &Flood, stop: &AtomicBool) {
    let payload = plan.mtu as usize - ROOM;
    let packet = datagram(plan.from, plan.to, payload);
    let (socket, address) = (bypassing(), address(plan.gateway, ETH_P_IP));
    let (start, mut sent_bits) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due_bits = (start.elapsed().as_secs_f64() * plan.offer_bps as f64) as u64;
        while sent_bits < due_bits {
            send(&socket, &address, &packet);
            sent_bits += 8 * payload as u64;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Datagrams to the discard port, by the qdisc. The socket says that they are of that protocol; in the
/// frame this stands between the addresses and the IP header.
pub fn send_as(protocol: u16, before_ip: &[u8], plan: &Flood, count: usize) {
    let kind = (AddressFamily::Packet, SockType::Raw);
    let socket = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, None).expect("a packet socket");
    let packet = datagram(plan.from, plan.to, plan.mtu as usize - HEADERS);
    let frame = [&plan.gateway, &[2, 0, 0, 0, 0, 1], before_ip, &packet[..]].concat();
    let address = address(plan.gateway, protocol);
    (0..count).for_each(|_| send(&socket, &address, &frame));
}

/// Bytes of all frames that arrive at this namespace's devices, as a packet socket gets them, until stopped.
pub fn count_all(opened: &mpsc::Sender<()>, stop: &AtomicBool) -> u64 {
    let kind = (AddressFamily::Packet, SockType::Raw);
    let socket = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
    let socket = socket.expect("a packet socket");
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(100)).expect("a timeout");
    setsockopt(&socket, RcvBufForce, &(1 << 24)).expect("room");
    opened.send(()).expect("someone who waits");
    let (mut frame, mut bytes) = (vec![0; 1 << 16], 0);
    while !stop.load(Ordering::Relaxed) {
        // A timeout only lets us look at `stop`.
        bytes += recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()).unwrap_or(0) as u64;
    }
    bytes
}

fn bypassing() -> OwnedFd {
    let socket = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .expect("a packet socket");
    let on: c_int = 1;
    // SAFETY: the option's value is an int, and its address and size are those of `on`.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_QDISC_BYPASS,
            (&raw const on).cast::<c_void>(),
            size_of::<c_int>() as socklen_t,
        )
    };
    assert_eq!(set, 0, "bypass the qdisc: {}", std::io::Error::last_os_error());
    socket
}

fn address(mac: [u8; 6], protocol: u16) -> sockaddr_ll {
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&mac);
    sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index("eth0") as c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: bytes,
    }
}

fn send(socket: &OwnedFd, address: &sockaddr_ll, packet: &[u8]) {
    // SAFETY: both pointers are to live values of the sizes given. A refusal is part of the offer.
    unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast::<c_void>(),
            packet.len(),
            0,
            (&raw const *address).cast::<libc::sockaddr>(),
            size_of::<sockaddr_ll>() as socklen_t,
        )
    };
}

/// IPv4 and UDP without checksum, to the discard port.
fn datagram(from: Ipv4Addr, to: Ipv4Addr, payload: usize) -> Vec<u8> {
    let total = (HEADERS + payload) as u16;
    let mut packet = vec![0; HEADERS + payload];
    packet[..4].copy_from_slice(&[0x45, 0, (total >> 8) as u8, total as u8]);
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..24].copy_from_slice(&[0, 9, 0, 9]);
    packet[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    packet
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}
