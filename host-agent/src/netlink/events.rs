// SPDX-License-Identifier: Apache-2.0
//! What others do to links, qdiscs and filters, on the host and in the pods, and to the host's routes: two
//! sockets in the multicast groups of both. One receives from the host alone, the other
//! also of every network namespace which has an id here, as that of each veth's
//! other end has (net/netlink/af_netlink.c, do_one_broadcast). Only the place of
//! each event is read; what applies there now is asked for again, so no event can be
//! misread.
//!
//! A pod makes as many events as it likes. They fill the second socket only, which
//! the kernel bounds; each is read a bounded number of times a second; and what
//! was lost of other pods is looked for (agent/reconcile/).

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, NetlinkAddr, recvmsg, setsockopt};

use super::socket::Error;

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_TC: u32 = 4;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const OF_PODS: [u32; 2] = [RTNLGRP_LINK, RTNLGRP_TC];
const OF_HOST: [u32; 4] = [RTNLGRP_LINK, RTNLGRP_TC, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE];
/// include/linux/socket.h and include/uapi/linux/netlink.h
const SOL_NETLINK: i32 = 270;
const NETLINK_LISTEN_ALL_NSID: i32 = 8;
/// struct nlmsghdr, then struct tcmsg or ifinfomsg: four bytes, then the device.
const HEADER_BYTES: usize = 16;
const IFINDEX_AT: usize = HEADER_BYTES + 4;
/// nlmsg_type, and the flags behind it.
const KIND_AT: usize = 4;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
/// An event of a link with all its attributes has about two thousand.
const DATAGRAM_BYTES: usize = 32 << 10;
/// After events a socket is left alone so long, and then so many are read: less than a tenth of a
/// processor, however many there are.
const PAUSE: Duration = Duration::from_millis(50);
const AT_ONCE: usize = 512;

/// Receives every change to a link, qdisc or filter.
pub struct Events {
    host: Ear,
    pods: Ear,
    hears_pods: bool,
}

/// A socket, and when it is read again.
struct Ear {
    socket: Socket,
    next: Instant,
}

/// Where something changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Devices of this namespace.
    pub host: BTreeSet<u32>,
    /// Whether one of them is new, has gone or is another one now.
    pub host_links: bool,
    /// Whether there is another way to somewhere.
    pub routes: bool,
    /// Namespaces, by the id that this one has for them.
    pub inside: BTreeSet<i32>,
    /// More happened than the socket could hold.
    pub lost: bool,
}

impl Events {
    pub fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Self> {
            let (host, pods) = (Ear::open(&OF_HOST)?, Ear::open(&OF_PODS)?);
            let hears_pods = pods.socket.set_listen_all_namespaces(true).is_ok();
            Ok(Self { host, pods, hears_pods })
        };
        open().map_err(|e| Error::new("listen to changes of links, qdiscs and filters", e))
    }

    /// False without CAP_NET_BROADCAST: then only what happens on the host is heard.
    pub fn hears_pods(&self) -> bool {
        self.hears_pods
    }

    /// Those to be waited for; the others are left alone until [`Self::next`].
    pub fn poll_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let now = Instant::now();
        self.ears().into_iter().filter(move |ear| ear.next <= now).map(|ear| ear.socket.as_fd())
    }

    /// When there may be something to read again.
    pub fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        self.ears().into_iter().map(|ear| ear.next).filter(|next| *next > now).min()
    }

    fn ears(&self) -> [&Ear; 2] {
        [&self.host, &self.pods]
    }

    /// What is there to read, without waiting for more.
    pub fn read(&mut self) -> Result<Changed, Error> {
        let mut changed = Changed::default();
        let now = Instant::now();
        for (ear, of_pods) in [(&mut self.host, false), (&mut self.pods, true)] {
            if ear.next <= now && ear.read(&mut changed, of_pods)? {
                ear.next = now + PAUSE;
            }
        }
        Ok(changed)
    }
}

/// Of the kernel's memory, while it is needed: the start beside 500 pods makes more events than the usual
/// 208 KiB hold, and what gets lost costs a look at every pod.
const HELD_BYTES: usize = 4 << 20;

impl Ear {
    fn open(groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        let groups = groups.iter().fold(0, |all, group| all | 1 << (group - 1));
        socket.bind(&SocketAddr::new(0, groups))?;
        socket.set_non_blocking(true)?;
        // Without the right to it events get lost sooner, and that is noticed.
        let _ = setsockopt(&socket, RcvBufForce, &HELD_BYTES);
        Ok(Self { socket, next: Instant::now() })
    }

    /// Whether there was anything.
    fn read(&self, changed: &mut Changed, of_pods: bool) -> Result<bool, Error> {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        for count in 0..AT_ONCE {
            match self.receive(&mut buffer) {
                Ok((length, Some(netns))) if length > 0 => {
                    changed.inside.insert(netns);
                }
                Ok(_) if of_pods => {}
                Ok((length, _)) => changed.hear(&buffer[..length]),
                Err(Errno::EAGAIN) => return Ok(count > 0),
                Err(Errno::ENOBUFS) => changed.lost = true,
                Err(e) => return Err(Error::new("read changes of links and filters", e.into())),
            }
        }
        Ok(true)
    }

    /// One datagram, and the namespace that it is from if it is another one.
    fn receive(&self, buffer: &mut [u8]) -> nix::Result<(usize, Option<i32>)> {
        let mut slices = [IoSliceMut::new(buffer)];
        let mut control = nix::cmsg_space!(i32);
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<NetlinkAddr>(fd, &mut slices, Some(&mut control), flags)?;
        let netns = message.cmsgs()?.find_map(|message| netns_of(&message));
        Ok((message.bytes, netns))
    }
}

fn netns_of(message: &ControlMessageOwned) -> Option<i32> {
    let ControlMessageOwned::Unknown(unknown) = message else { return None };
    let header = &unknown.cmsg_header;
    let ours = (header.cmsg_level, header.cmsg_type) == (SOL_NETLINK, NETLINK_LISTEN_ALL_NSID);
    let bytes = unknown.data_bytes.get(..4).filter(|_| ours)?;
    Some(i32::from_ne_bytes(bytes.try_into().ok()?))
}

impl Changed {
    fn hear(&mut self, mut datagram: &[u8]) {
        while let (Some(length), Some(device)) = (word(datagram, 0), word(datagram, IFINDEX_AT)) {
            match word(datagram, KIND_AT).unwrap_or(0) as u16 {
                RTM_NEWROUTE | RTM_DELROUTE => self.routes = true,
                kind => {
                    self.host.insert(device);
                    self.host_links |= [RTM_NEWLINK, RTM_DELLINK].contains(&kind);
                }
            }
            let step = (length as usize).next_multiple_of(4).max(HEADER_BYTES);
            datagram = datagram.get(step..).unwrap_or_default();
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(length: u32, kind: u16, device: u32) -> Vec<u8> {
        let mut bytes = vec![0; length.next_multiple_of(4) as usize];
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[KIND_AT..KIND_AT + 2].copy_from_slice(&kind.to_ne_bytes());
        bytes[IFINDEX_AT..IFINDEX_AT + 4].copy_from_slice(&device.to_ne_bytes());
        bytes
    }

    fn heard(datagram: &[u8]) -> Changed {
        let mut changed = Changed::default();
        changed.hear(datagram);
        changed
    }

    #[test]
    fn devices_of_all_messages_of_a_datagram_are_read() {
        // RTM_NEWQDISC and RTM_NEWTFILTER
        let changed = heard(&[event(38, 36, 7), event(36, 44, 9)].concat());
        assert_eq!((changed.host, changed.host_links), (BTreeSet::from([7, 9]), false));
        assert!(heard(&[event(36, 44, 9), event(36, RTM_DELLINK, 9)].concat()).host_links);
        let changed = heard(&event(60, RTM_NEWROUTE, 7));
        assert!(changed.routes && changed.host.is_empty());
    }

    #[test]
    fn what_is_cut_short_or_lies_about_its_length_ends() {
        assert!(heard(&event(36, 16, 7)[..20]).host.is_empty());
        let mut endless = event(36, 16, 7);
        endless[..4].copy_from_slice(&0u32.to_ne_bytes());
        assert!(heard(&endless).host.len() <= 3);
    }
}
