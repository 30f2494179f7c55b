// SPDX-License-Identifier: Apache-2.0
//! One blocking rtnetlink socket: a request goes out, its answers and the
//! kernel's verdict come back. The socket belongs to the network namespace in
//! which it was made, so a pod's namespace is entered only to make it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use caps::Capability;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sched::{CloneFlags, setns};

use super::attributes::{i32_at, u16_at, u32_at};
use crate::host::capability;

/// Runs `call` in another network namespace. The calling thread goes there and back: a thread made for
/// that would have to wait for a processor first, on a busy node longer than all the rest takes.
pub fn inside<T>(netns: impl AsFd, call: impl FnOnce() -> T) -> Result<T, Error> {
    let error = |e: io::Error| Error::new("enter the network namespace", e);
    let own = File::open(OWN_NAMESPACE).map_err(error)?;
    capability::with(Capability::CAP_SYS_ADMIN, || {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| error(e.into()))?;
        let result = call();
        if let Err(e) = setns(&own, CloneFlags::CLONE_NEWNET) {
            // All that this thread would do from now on, it would do to the pod.
            log::error!("leave the pod's network namespace: {e}");
            std::process::abort();
        }
        Ok(result)
    })
}

/// A request that failed; `what` is the attempt, in words.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}", hint(source))]
pub struct Error {
    what: String,
    source: io::Error,
}

impl Error {
    pub(super) fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self { what: what.into(), source }
    }

    /// The kernel's errno.
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        self.source.raw_os_error().map(nix::errno::Errno::from_raw)
    }

    /// The object is not there: no such device, qdisc or filter, or no such qdisc kind.
    pub fn is_not_found(&self) -> bool {
        use nix::errno::Errno::{EINVAL, ENODEV, ENOENT};
        matches!(self.errno(), Some(ENOENT | ENODEV | EINVAL))
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (needs CAP_NET_ADMIN)",
        _ => "",
    }
}

/// More than any datagram: the kernel makes those of a list 32 KiB at most (net/netlink/af_netlink.c,
/// netlink_dump), and a pod may give a device other names of 64 KiB (rtnetlink.c, rtnl_alt_ifname).
const DATAGRAM_BYTES: usize = 128 << 10;

/// struct nlmsghdr.
const HEADER_BYTES: usize = 16;
/// include/uapi/linux/netlink.h
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The calling thread's own namespace.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// An rtnetlink socket of one network namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    /// Of the last datagram; pages of it that were never written are no memory.
    datagram: Vec<u8>,
    /// The namespace, where that is not the caller's.
    netns: Option<OwnedFd>,
}

/// What the kernel has said to one request.
pub(super) struct Heard<T> {
    pub answers: Vec<T>,
    /// Whether nothing of a list changed while it was read.
    pub whole: bool,
    /// Whether there is more.
    pub cut: bool,
}

/// A request by its number, its flags and what stands behind the header.
pub(super) struct Ask<'a> {
    pub kind: u16,
    pub flags: u16,
    pub body: &'a [u8],
}

/// One message of a datagram.
struct RawMessage<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Netlink {
    /// A socket of the caller's network namespace.
    pub fn open() -> Result<Self, Error> {
        let datagram = Vec::with_capacity(DATAGRAM_BYTES);
        Ok(Self { socket: Self::socket()?, sequence: 0, datagram, netns: None })
    }

    fn socket() -> Result<Socket, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Errors then carry the header of the request only, not all of it.
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        open().map_err(|e| Error::new("open a netlink socket", e))
    }

    /// A socket of another namespace.
    pub fn open_in(netns: impl AsFd) -> Result<Self, Error> {
        let opened = inside(&netns, Self::open)??;
        let netns = netns.as_fd().try_clone_to_owned();
        let netns = netns.map_err(|e| Error::new("keep the network namespace", e))?;
        Ok(Self { netns: Some(netns), ..opened })
    }

    /// Sends one request and gives back what the kernel answers, in order, without the final
    /// acknowledgement. `what` says in words what was attempted.
    pub(super) fn request(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        Ok(self.heard(what, &message, flags, usize::MAX)?.answers)
    }

    /// The first answers to a request for a list, and no others: how long it is may be up to a pod.
    pub(super) fn first_of_list(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        at_most: usize,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        Ok(self.heard(what, &message, NLM_F_DUMP, at_most)?.answers)
    }

    fn heard(
        &mut self,
        what: &str,
        message: &RouteNetlinkMessage,
        flags: u16,
        at_most: usize,
    ) -> Result<Heard<RouteNetlinkMessage>, Error> {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        let request = Ask { kind: message.message_type(), flags, body: &body };
        self.ask(what, &request, at_most, |kind, body| {
            let mut header = NetlinkHeader::default();
            header.message_type = kind;
            RouteNetlinkMessage::deserialize(&header, body)
                .map(Some)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
        })
    }

    /// Sends one request, and keeps of each answer what `read` makes of its number and body.
    pub(super) fn ask<T>(
        &mut self,
        what: &str,
        request: &Ask,
        at_most: usize,
        read: impl FnMut(u16, &[u8]) -> io::Result<Option<T>>,
    ) -> Result<Heard<T>, Error> {
        let heard = self.send(request).and_then(|()| self.receive(at_most, read));
        let heard = heard.map_err(|e| Error::new(what, e))?;
        if heard.cut {
            // The kernel goes on with the list at each read, and begins no other one before that.
            self.socket = match &self.netns {
                Some(netns) => inside(netns, Self::socket)??,
                None => Self::socket()?,
            };
        }
        Ok(heard)
    }

    fn send(&mut self, request: &Ask) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = (HEADER_BYTES + request.body.len()) as u32;
        let header = [
            &length.to_ne_bytes()[..],
            &request.kind.to_ne_bytes(),
            &(NLM_F_REQUEST | NLM_F_ACK | request.flags).to_ne_bytes(),
            &self.sequence.to_ne_bytes(),
            &[0; 4],
            request.body,
        ];
        self.socket.send(&header.concat(), 0).map(|_| ())
    }

    fn receive<T>(
        &mut self,
        at_most: usize,
        mut read: impl FnMut(u16, &[u8]) -> io::Result<Option<T>>,
    ) -> io::Result<Heard<T>> {
        let mut heard = Heard { answers: Vec::new(), whole: true, cut: false };
        loop {
            self.datagram.clear();
            self.socket.recv(&mut self.datagram, 0)?;
            for message in messages(&self.datagram) {
                if message.sequence != self.sequence {
                    continue;
                }
                heard.whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(heard),
                    NLMSG_ERROR => match i32_at(message.body, 0).unwrap_or(0).abs() {
                        0 => return Ok(heard),
                        errno => return Err(io::Error::from_raw_os_error(errno)),
                    },
                    _ => heard.answers.extend(read(message.kind, message.body)?),
                }
                if heard.answers.len() >= at_most {
                    return Ok(Heard { cut: true, ..heard });
                }
            }
        }
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = RawMessage<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let message = RawMessage {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            body: bytes.get(HEADER_BYTES..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_that_lies_about_its_length_ends_the_datagram() {
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(messages(&[0xff; 64]).count(), 0);
    }
}
