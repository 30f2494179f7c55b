// SPDX-License-Identifier: Apache-2.0
//! What this kernel can do of what shaping needs, found by doing it: in a
//! network namespace that is made for that and goes with its thread. Nothing of
//! the node's is touched, but the kernel may load the modules that it would
//! load for a pod.

use std::{io, thread};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::socket::{Error, Netlink};

const LOOPBACK: i32 = 1;
const HANDLE: TcHandle = TcHandle { major: 0x7e57, minor: 0 };
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0 };
const CLSACT_EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };
/// Priority 1, every protocol.
const INFO: u32 = (1 << 16) | (0x0003u16.to_be() as u32);

/// Kinds that were asked for and that this kernel does not have.
pub fn missing(kinds: &[&'static str]) -> Result<Vec<&'static str>, Error> {
    let try_all = || {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::new("make a network namespace to try things in", e.into()))?;
        let mut netlink = Netlink::open()?;
        let mut missing = Vec::new();
        for kind in kinds {
            if !netlink.try_kind(kind)? {
                missing.push(*kind);
            }
        }
        Ok(missing)
    };
    thread::scope(|scope| scope.spawn(try_all).join()).unwrap_or_else(|_| {
        Err(Error::new("try qdiscs", io::Error::other("the thread ended early")))
    })
}

impl Netlink {
    /// A kind that is not there is ENOENT; whatever else the kernel says of it, it knows it.
    fn try_kind(&mut self, kind: &str) -> Result<bool, Error> {
        let tried = match kind {
            "cls_bpf" => {
                self.try_qdisc("clsact", TcHandle::CLSACT, CLSACT, true)?;
                self.try_filter("bpf")
            }
            "clsact" => self.try_qdisc(kind, TcHandle::CLSACT, CLSACT, false),
            _ => self.try_qdisc(kind, TcHandle::ROOT, HANDLE, false),
        };
        match tried {
            Err(e) if e.errno() == Some(Errno::ENOENT) => Ok(false),
            Err(e) if matches!(e.errno(), Some(Errno::EPERM | Errno::ENODEV)) => Err(e),
            _ => Ok(true),
        }
    }

    fn try_qdisc(
        &mut self,
        kind: &str,
        parent: TcHandle,
        handle: TcHandle,
        keep: bool,
    ) -> Result<(), Error> {
        let mut message = message(parent, handle);
        message.attributes.push(TcAttribute::Kind(kind.into()));
        let what = format!("try the qdisc {kind}");
        let add = RouteNetlinkMessage::NewQueueDiscipline(message.clone());
        match self.request(&what, add, NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) if !keep => {
                let delete = RouteNetlinkMessage::DelQueueDiscipline(message);
                self.request(&what, delete, 0).map(|_| ())
            }
            // Without clsact nothing can be said of filters, and clsact is reported by itself.
            result => {
                if keep {
                    Ok(())
                } else {
                    result.map(|_| ())
                }
            }
        }
    }

    fn try_filter(&mut self, kind: &str) -> Result<(), Error> {
        let mut message = message(CLSACT_EGRESS, TcHandle::UNSPEC);
        message.header.info = INFO;
        message.attributes.push(TcAttribute::Kind(kind.into()));
        let what = format!("try the filter {kind}");
        let add = RouteNetlinkMessage::NewTrafficFilter(message);
        self.request(&what, add, NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
    }
}

fn message(parent: TcHandle, handle: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(LOOPBACK);
    message.header.parent = parent;
    message.header.handle = handle;
    message
}
