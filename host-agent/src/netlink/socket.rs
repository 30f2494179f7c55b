// SPDX-License-Identifier: Apache-2.0
//! One blocking rtnetlink socket: a request goes out, its answers and the
//! kernel's verdict come back. The socket belongs to the network namespace in
//! which it was made, so a pod's namespace is entered only to make it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use caps::Capability;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sched::{CloneFlags, setns};

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
struct Heard {
    answers: Vec<RouteNetlinkMessage>,
    /// Whether there is more.
    cut: bool,
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
        let heard = self.send(message, flags).and_then(|()| self.receive(usize::MAX));
        heard.map(|heard| heard.answers).map_err(|e| Error::new(what, e))
    }

    /// The first answers to a request for a list, and no others: how long it is may be up to a pod.
    pub(super) fn first_of_list(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        at_most: usize,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let heard = self.send(message, NLM_F_DUMP).and_then(|()| self.receive(at_most));
        let heard = heard.map_err(|e| Error::new(what, e))?;
        if heard.cut {
            // The kernel goes on with the list at each read, and begins no other one before that.
            self.socket = match &self.netns {
                Some(netns) => inside(netns, Self::socket)??,
                None => Self::socket()?,
            };
        }
        Ok(heard.answers)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    fn receive(&mut self, at_most: usize) -> io::Result<Heard> {
        let mut answers = Vec::new();
        loop {
            self.datagram.clear();
            self.socket.recv(&mut self.datagram, 0)?;
            let mut rest = self.datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
                let step = (message.header.length as usize).next_multiple_of(4).max(16);
                rest = rest.get(step..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(io::Error::from_raw_os_error(error.raw_code().abs()));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => {
                        return Ok(Heard { answers, cut: false });
                    }
                    _ => {}
                }
                if answers.len() >= at_most {
                    return Ok(Heard { answers, cut: true });
                }
            }
        }
    }
}
