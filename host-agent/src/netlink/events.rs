// SPDX-License-Identifier: Apache-2.0
//! What others do to qdiscs and filters of this network namespace: a second
//! socket, in the multicast group RTNLGRP_TC. Only the device of each event is
//! read; what holds there now is asked for anew, so no event can be misread.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::socket::Error;

const RTNLGRP_TC: u32 = 4;
/// struct nlmsghdr, then struct tcmsg: family and padding, then the device.
const HEADER_BYTES: usize = 16;
const IFINDEX_AT: usize = HEADER_BYTES + 4;

/// A socket that hears of every change to a qdisc or filter.
pub struct TcEvents(Socket);

/// Devices that changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    Devices(BTreeSet<u32>),
    /// More happened than the socket could hold.
    Any,
}

impl TcEvents {
    pub fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 1 << (RTNLGRP_TC - 1)))?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        open().map(Self).map_err(|e| Error::new("listen to changes of qdiscs and filters", e))
    }

    /// Everything that is there to read, without waiting for more.
    pub fn read(&self) -> Result<Changed, Error> {
        let mut devices = BTreeSet::new();
        loop {
            match self.0.recv_from_full() {
                Ok((datagram, _)) => devices.extend(changed_devices(&datagram)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {
                    return Ok(Changed::Any);
                }
                Err(e) => return Err(Error::new("read changes of qdiscs and filters", e)),
            }
        }
        Ok(Changed::Devices(devices))
    }
}

impl AsFd for TcEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Changed {
    pub fn has(&self, index: u32) -> bool {
        match self {
            Self::Devices(devices) => devices.contains(&index),
            Self::Any => true,
        }
    }
}

fn changed_devices(mut datagram: &[u8]) -> Vec<u32> {
    let mut devices = Vec::new();
    while let (Some(length), Some(device)) = (word(datagram, 0), word(datagram, IFINDEX_AT)) {
        devices.push(device);
        let step = (length as usize).next_multiple_of(4).max(HEADER_BYTES);
        datagram = datagram.get(step..).unwrap_or_default();
    }
    devices
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(length: u32, device: u32) -> Vec<u8> {
        let mut bytes = vec![0; length.next_multiple_of(4) as usize];
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[IFINDEX_AT..IFINDEX_AT + 4].copy_from_slice(&device.to_ne_bytes());
        bytes
    }

    #[test]
    fn devices_of_all_messages_of_a_datagram_are_read() {
        let datagram = [event(38, 7), event(36, 9)].concat();
        assert_eq!(changed_devices(&datagram), [7, 9]);
    }

    #[test]
    fn what_is_cut_short_or_lies_about_its_length_ends() {
        assert!(changed_devices(&event(36, 7)[..20]).is_empty());
        let mut endless = event(36, 7);
        endless[..4].copy_from_slice(&0u32.to_ne_bytes());
        assert!(changed_devices(&endless).len() <= 3);
    }
}
