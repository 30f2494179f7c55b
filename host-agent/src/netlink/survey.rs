// SPDX-License-Identifier: Apache-2.0
//! Everything that is on the devices of a network namespace, whoever put it
//! there: dumps of devices, qdiscs and filters, and nothing that changes any. In
//! a pod's namespace one device is asked for, and what is on that.
//! The attributes are read here, not by the message crate: a kind of device
//! that it does not know must not hide all others.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use serde::Serialize;

use super::link::Gso;
use super::socket::Error;
use super::tc::ROOT_HANDLE;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_ECHO: u16 = 0x8;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_GETLINK: u16 = 18;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;

/// include/uapi/linux/if_link.h
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;

/// include/uapi/linux/rtnetlink.h, pkt_cls.h, tc_act/tc_mirred.h
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_CLASSID: u16 = 3;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TCA_U32_ACT: u16 = 7;
const TCA_MATCHALL_ACT: u16 = 2;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
/// Where struct tc_mirred has the device: behind struct tc_gen (20 bytes) and the action.
const MIRRED_IFINDEX_AT: usize = 24;

const HEADER_BYTES: usize = 16;
const IFINFOMSG_BYTES: usize = 16;
const TCMSG_BYTES: usize = 20;
/// A dump during which something changed is asked for again, so often.
const TRIES: usize = 5;
/// Of one list of filters, which may be a pod's, no more is read.
const FILTERS: usize = 1024;

/// Parents of filters: the two sides of clsact. An ingress qdisc takes both for its only one.
pub const CLSACT_INGRESS: u32 = 0xffff_fff2;
pub const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// Parent of the root qdisc.
pub const ROOT_PARENT: u32 = 0xffff_ffff;
/// Parents of the qdiscs of a device that matter: root, clsact or ingress, and the two leaves of ours.
const PARENTS: [u32; 4] =
    [ROOT_PARENT, 0xffff_fff1, (ROOT_HANDLE as u32) << 16 | 1, (ROOT_HANDLE as u32) << 16 | 2];

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    pub index: u32,
    pub name: String,
    /// veth, vlan, netkit…; None for hardware.
    pub kind: Option<String>,
    pub mtu: u32,
    /// Of a veth the other end, of a vlan the device below.
    pub peer_index: Option<u32>,
    /// That lies in another namespace, which has this number here.
    pub peer_netns: Option<i32>,
    pub gso_max_size: Option<u32>,
    pub gso_ipv4_max_size: Option<u32>,
    /// Number of the XDP program.
    pub xdp: Option<u32>,
}

impl Device {
    pub fn is_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// Default of a kernel that does not say.
    pub fn gso(&self) -> Gso {
        Gso { max_size: self.gso_max_size.unwrap_or(65536), ipv4_max_size: self.gso_ipv4_max_size }
    }
}

/// A qdisc on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Qdisc {
    pub device: u32,
    pub kind: String,
    pub handle: u32,
    pub parent: u32,
}

impl Qdisc {
    pub fn major(&self) -> u16 {
        (self.handle >> 16) as u16
    }

    pub fn is_root(&self) -> bool {
        self.parent == ROOT_PARENT
    }
}

/// A filter, in the order in which the kernel asks them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListedFilter {
    pub kind: String,
    pub priority: u16,
    /// 3 is every protocol.
    pub protocol: u16,
    pub handle: u32,
    pub name: Option<String>,
    /// Number of the BPF program.
    pub program: Option<u32>,
    /// Whether the program's value is the verdict.
    pub direct_action: bool,
    pub classid: Option<u32>,
    /// The device that its mirred action sends to.
    pub redirects_to: Option<u32>,
}

impl ListedFilter {
    /// The kernel also lists each priority, without a handle, and u32's tables, whose handle has
    /// nothing in its lower 20 bits.
    fn is_one(&self) -> bool {
        self.handle != 0 && !(self.kind == "u32" && self.handle & 0xf_ffff == 0)
    }
}

/// A socket of one network namespace that asks for dumps.
pub struct Survey {
    socket: Socket,
    sequence: u32,
}

impl Survey {
    /// Of the caller's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Self::socket()?, sequence: 0 })
    }

    fn socket() -> Result<Socket, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        open().map_err(|e| Error::new("open a netlink socket", e))
    }

    /// The device of this name; None without one.
    pub fn device(&mut self, name: &str) -> Result<Option<Device>, Error> {
        let value = [name.as_bytes(), &[0]].concat();
        let length = (4 + value.len()) as u16;
        let mut body = vec![0; IFINFOMSG_BYTES];
        body.extend([length.to_ne_bytes(), IFLA_IFNAME.to_ne_bytes()].concat());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
        let answers = self.one(&format!("find the interface {name}"), RTM_GETLINK, &body)?;
        Ok(answers.iter().find_map(|bytes| read_device(bytes)))
    }

    /// The qdiscs of one device, as far as they matter.
    pub fn qdiscs_of(&mut self, device: u32) -> Result<Vec<Qdisc>, Error> {
        let mut qdiscs = Vec::new();
        for parent in PARENTS {
            let what = format!("ask for a qdisc of the device with index {device}");
            let answers = self.one(&what, RTM_GETQDISC, &tcmsg(device, parent))?;
            qdiscs.extend(answers.iter().filter_map(|bytes| read_qdisc(bytes)));
        }
        Ok(qdiscs)
    }

    /// All devices.
    pub fn devices(&mut self) -> Result<Vec<Device>, Error> {
        let (answers, _) =
            self.dump("list the devices", RTM_GETLINK, &[0; IFINFOMSG_BYTES], usize::MAX)?;
        Ok(answers.iter().filter_map(|bytes| read_device(bytes)).collect())
    }

    /// All qdiscs of all devices.
    pub fn qdiscs(&mut self) -> Result<Vec<Qdisc>, Error> {
        let (answers, _) = self.dump("list the qdiscs", RTM_GETQDISC, &tcmsg(0, 0), usize::MAX)?;
        Ok(answers.iter().filter_map(|bytes| read_qdisc(bytes)).collect())
    }

    /// Filters below a parent: a side of clsact, or a qdisc's handle. Also says whether there are more.
    pub fn filters(
        &mut self,
        device: u32,
        parent: u32,
    ) -> Result<(Vec<ListedFilter>, bool), Error> {
        let what = format!("list the filters of the device with index {device}");
        let (answers, cut) = self.dump(&what, RTM_GETTFILTER, &tcmsg(device, parent), FILTERS)?;
        let filters = answers.iter().filter_map(|bytes| read_filter(bytes));
        Ok((filters.filter(ListedFilter::is_one).collect(), cut))
    }

    /// What is not there has no answer.
    fn one(&mut self, what: &str, kind: u16, body: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        match self.ask(kind, NLM_F_ACK | NLM_F_ECHO, body, usize::MAX) {
            Ok(answer) => Ok(answer.bodies),
            Err(e) => {
                Some(Error::new(what, e)).filter(|e| !e.is_not_found()).map_or(Ok(Vec::new()), Err)
            }
        }
    }

    fn dump(
        &mut self,
        what: &str,
        kind: u16,
        body: &[u8],
        at_most: usize,
    ) -> Result<(Vec<Vec<u8>>, bool), Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.ask(kind, NLM_F_DUMP, body, at_most);
            let Answer { bodies, whole, cut } = answer.map_err(|e| Error::new(what, e))?;
            if cut {
                // The kernel begins no other list before this one's end was read.
                self.socket = Self::socket()?;
            }
            if whole || cut || tries == TRIES {
                return Ok((bodies, cut));
            }
        }
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8], at_most: usize) -> io::Result<Answer> {
        self.sequence += 1;
        let flags = NLM_F_REQUEST | flags;
        let length = (HEADER_BYTES + body.len()) as u32;
        let header = [
            &length.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &flags.to_ne_bytes(),
            &self.sequence.to_ne_bytes(),
            &[0; 4],
            body,
        ];
        self.socket.send(&header.concat(), 0)?;
        let mut answer = Answer { bodies: Vec::new(), whole: true, cut: false };
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram) {
                if message.sequence != self.sequence {
                    continue;
                }
                answer.whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(answer),
                    NLMSG_ERROR => match i32_at(message.body, 0).unwrap_or(0).abs() {
                        0 => return Ok(answer),
                        errno => return Err(io::Error::from_raw_os_error(errno)),
                    },
                    _ => answer.bodies.push(message.body.to_vec()),
                }
            }
            if answer.bodies.len() >= at_most {
                return Ok(Answer { cut: true, ..answer });
            }
        }
    }
}

struct Answer {
    bodies: Vec<Vec<u8>>,
    /// Whether nothing changed meanwhile.
    whole: bool,
    /// Whether there is more.
    cut: bool,
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            body: bytes.get(HEADER_BYTES..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// struct tcmsg.
fn tcmsg(device: u32, parent: u32) -> [u8; TCMSG_BYTES] {
    let mut body = [0; TCMSG_BYTES];
    body[4..8].copy_from_slice(&device.to_ne_bytes());
    body[12..16].copy_from_slice(&parent.to_ne_bytes());
    body
}

fn read_device(body: &[u8]) -> Option<Device> {
    let mut device = Device { index: u32_at(body, 4)?, ..Device::default() };
    for (kind, value) in attributes(body.get(IFINFOMSG_BYTES..)?) {
        match kind {
            IFLA_IFNAME => device.name = text(value),
            IFLA_MTU => device.mtu = u32_at(value, 0)?,
            IFLA_LINK => device.peer_index = u32_at(value, 0),
            IFLA_LINKINFO => device.kind = find(value, IFLA_INFO_KIND).map(text),
            IFLA_LINK_NETNSID => device.peer_netns = i32_at(value, 0),
            IFLA_GSO_MAX_SIZE => device.gso_max_size = u32_at(value, 0),
            IFLA_GSO_IPV4_MAX_SIZE => device.gso_ipv4_max_size = u32_at(value, 0),
            IFLA_XDP => device.xdp = find(value, IFLA_XDP_PROG_ID).and_then(|id| u32_at(id, 0)),
            _ => {}
        }
    }
    Some(device)
}

fn read_qdisc(body: &[u8]) -> Option<Qdisc> {
    let kind = text(find(body.get(TCMSG_BYTES..)?, TCA_KIND)?);
    let (device, handle, parent) = (u32_at(body, 4)?, u32_at(body, 8)?, u32_at(body, 12)?);
    Some(Qdisc { device, kind, handle, parent })
}

fn read_filter(body: &[u8]) -> Option<ListedFilter> {
    let attributes = body.get(TCMSG_BYTES..)?;
    let info = u32_at(body, 16)?;
    let filter = ListedFilter {
        kind: text(find(attributes, TCA_KIND)?),
        priority: (info >> 16) as u16,
        protocol: u16::from_be(info as u16),
        handle: u32_at(body, 8)?,
        ..ListedFilter::default()
    };
    let options = find(attributes, TCA_OPTIONS).unwrap_or_default();
    let number = |kind| find(options, kind).and_then(|value| u32_at(value, 0));
    Some(match filter.kind.as_str() {
        "bpf" => ListedFilter {
            name: find(options, TCA_BPF_NAME).map(text),
            program: number(TCA_BPF_ID),
            direct_action: number(TCA_BPF_FLAGS).unwrap_or(0) & TCA_BPF_FLAG_ACT_DIRECT != 0,
            classid: number(TCA_BPF_CLASSID),
            ..filter
        },
        "u32" => ListedFilter { redirects_to: mirred(options, TCA_U32_ACT), ..filter },
        "matchall" => ListedFilter { redirects_to: mirred(options, TCA_MATCHALL_ACT), ..filter },
        _ => filter,
    })
}

/// The device of the first mirred among a filter's actions.
fn mirred(options: &[u8], actions: u16) -> Option<u32> {
    attributes(find(options, actions)?).find_map(|(_, action)| {
        let is_mirred = find(action, TCA_ACT_KIND).map(text).as_deref() == Some("mirred");
        let parms = find(find(action, TCA_ACT_OPTIONS)?, TCA_MIRRED_PARMS)?;
        is_mirred.then(|| u32_at(parms, MIRRED_IFINDEX_AT)).flatten()
    })
}

/// Kind and value of each attribute; ends where they stop making sense.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Above it are flags: nested, network byte order.
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = (u16_at(bytes, 2)? & KIND, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(u32::cast_signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (4 + value.len()) as u16;
        let mut bytes = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn veth_with_its_other_end_in_another_namespace_is_read() {
        let mut body = vec![0; IFINFOMSG_BYTES];
        body[4..8].copy_from_slice(&7u32.to_ne_bytes());
        body.extend(attribute(IFLA_IFNAME, b"eni1\0"));
        body.extend(attribute(IFLA_LINK, &3u32.to_ne_bytes()));
        body.extend(attribute(IFLA_LINK_NETNSID, &0i32.to_ne_bytes()));
        body.extend(attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, b"veth\0")));
        let device = read_device(&body).unwrap();
        assert_eq!((device.index, device.name.as_str()), (7, "eni1"));
        assert_eq!((device.peer_index, device.peer_netns), (Some(3), Some(0)));
        assert!(device.is_kind("veth"));
    }

    #[test]
    fn redirect_of_the_upstream_plugin_is_read() {
        let mut parms = vec![0; MIRRED_IFINDEX_AT];
        parms.extend(9u32.to_ne_bytes());
        let options = attribute(TCA_ACT_OPTIONS, &attribute(TCA_MIRRED_PARMS, &parms));
        let action = [attribute(TCA_ACT_KIND, b"mirred\0"), options].concat();
        let actions = attribute(TCA_U32_ACT, &attribute(1, &action));
        let mut body = tcmsg(7, CLSACT_INGRESS).to_vec();
        body[8..12].copy_from_slice(&0x8000_0000u32.to_ne_bytes());
        body[16..20].copy_from_slice(&(1 << 16 | 0x0300u32).to_ne_bytes());
        body.extend(attribute(TCA_KIND, b"u32\0"));
        body.extend(attribute(TCA_OPTIONS, &actions));
        let filter = read_filter(&body).unwrap();
        assert_eq!((filter.priority, filter.protocol), (1, 3));
        assert_eq!(filter.redirects_to, Some(9));
        assert!(!filter.is_one(), "a table");
        assert!(ListedFilter { handle: 0x8000_0800, ..filter }.is_one());
    }

    #[test]
    fn what_is_cut_short_or_lies_about_its_length_ends() {
        let whole = attribute(TCA_KIND, b"fq\0");
        assert_eq!(attributes(&whole[..6]).count(), 0);
        assert_eq!(attributes(&[0; 8]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
