// SPDX-License-Identifier: Apache-2.0
//! Network devices: look-up by name or index, and the size of super-packets.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use serde::{Deserialize, Serialize};

use super::socket::{Error, Netlink};

/// What Sluice needs to know of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Its MAC address, where it is a device that has one.
    pub address: Vec<u8>,
    pub mtu: u32,
    pub gso: Gso,
    /// txqueuelen. The kernel makes 1000 of 0 for any qdisc that is put on a veth (sch_api.c,
    /// qdisc_create).
    pub tx_queue_len: Option<u32>,
    /// Index of the other end, for one of a pair; it lies in another namespace as a rule. Of other kinds
    /// this is the device below.
    pub peer_index: Option<u32>,
    /// The other end's namespace, by the id that this namespace has for it; None if it is this one.
    pub peer_netns: Option<i32>,
    /// Whether it is one of two ends, as of a veth or netkit.
    pub is_pair: bool,
    pub is_ifb: bool,
    /// Kind of its root qdisc.
    pub qdisc: String,
}

impl Link {
    /// Whether its root qdisc is the kernel's own, which makes way for any other.
    pub fn has_no_qdisc(&self) -> bool {
        ["", "noop", "noqueue"].contains(&self.qdisc.as_str())
    }
}

/// Largest super-packet that a device is given to send, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gso {
    /// IFLA_GSO_MAX_SIZE.
    pub max_size: u32,
    /// IFLA_GSO_IPV4_MAX_SIZE, on kernels that have it (6.3).
    pub ipv4_max_size: Option<u32>,
}

impl Default for Gso {
    /// Of a device that does not say.
    fn default() -> Self {
        Self { max_size: 65536, ipv4_max_size: None }
    }
}

impl Gso {
    /// Neither more than this nor more than it was.
    pub fn clamped(self, bytes: u32) -> Self {
        let ipv4_max_size = self.ipv4_max_size.map(|size| size.min(bytes));
        Self { max_size: self.max_size.min(bytes), ipv4_max_size }
    }
}

impl Netlink {
    pub fn link_by_name(&mut self, name: &str) -> Result<Link, Error> {
        let mut ask = LinkMessage::default();
        ask.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(&format!("find the interface {name}"), ask)
    }

    pub fn link_by_index(&mut self, index: u32) -> Result<Link, Error> {
        let mut ask = LinkMessage::default();
        ask.header.index = index;
        self.link(&format!("find the interface with index {index}"), ask)
    }

    /// All devices of the namespace; only ever for the host's.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut ask = LinkMessage::default();
        ask.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let ask = RouteNetlinkMessage::GetLink(ask);
        let answers = self.request("list the interfaces", ask, NLM_F_DUMP)?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(read_link(message)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// The id that this namespace has for another one. None without one, as long as nothing here leads
    /// there, and for this namespace itself.
    pub fn netns_id(&mut self, netns: impl AsFd) -> Result<Option<i32>, Error> {
        let mut ask = NsidMessage::default();
        ask.attributes.push(NsidAttribute::Fd(netns.as_fd().as_raw_fd() as u32));
        let ask = RouteNetlinkMessage::GetNsId(ask);
        let answers = self.request("ask for the id of the network namespace", ask, 0)?;
        let attributes = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNsId(message) => Some(message.attributes),
            _ => None,
        });
        // -1 is the kernel's "none" (NETNSA_NSID_NOT_ASSIGNED).
        Ok(attributes.flatten().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) if id >= 0 => Some(id),
            _ => None,
        }))
    }

    pub fn delete_link(&mut self, link: &Link) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let what = format!("delete the interface {}", link.name);
        self.request(&what, RouteNetlinkMessage::DelLink(message), 0).map(|_| ())
    }

    /// Both sizes are said: the first alone takes the second along, where it is up to 64 KiB and
    /// other than before (net/core/dev.c, netif_set_gso_max_size; rtnetlink.c, do_setlink).
    pub fn set_gso(&mut self, link: &Link, gso: Gso) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes.push(LinkAttribute::GsoMaxSize(gso.max_size));
        message.attributes.extend(gso.ipv4_max_size.map(LinkAttribute::GsoIpv4MaxSize));
        let what = format!("set gso_max_size {} on {}", gso.max_size, link.name);
        self.request(&what, RouteNetlinkMessage::SetLink(message), 0).map(|_| ())
    }

    pub fn set_tx_queue_len(&mut self, link: &Link, packets: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes.push(LinkAttribute::TxQueueLen(packets));
        let what = format!("set txqueuelen {packets} on {}", link.name);
        self.request(&what, RouteNetlinkMessage::SetLink(message), 0).map(|_| ())
    }

    fn link(&mut self, what: &str, ask: LinkMessage) -> Result<Link, Error> {
        let answers = self.request(what, RouteNetlinkMessage::GetLink(ask), 0)?;
        let found = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(read_link(message)),
            _ => None,
        });
        found.ok_or_else(|| Error::new(what, std::io::ErrorKind::NotFound.into()))
    }
}

fn read_link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        address: Vec::new(),
        mtu: 0,
        gso: Gso::default(),
        tx_queue_len: None,
        peer_index: None,
        peer_netns: None,
        is_pair: false,
        is_ifb: false,
        qdisc: String::new(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(address) => link.address = address,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::TxQueueLen(packets) => link.tx_queue_len = Some(packets),
            LinkAttribute::GsoMaxSize(bytes) => link.gso.max_size = bytes,
            LinkAttribute::GsoIpv4MaxSize(bytes) => link.gso.ipv4_max_size = Some(bytes),
            LinkAttribute::Qdisc(kind) => link.qdisc = kind,
            LinkAttribute::Link(index) => link.peer_index = Some(index),
            LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(id),
            LinkAttribute::LinkInfo(infos) => {
                let is = |kind| infos.contains(&LinkInfo::Kind(kind));
                link.is_pair = is(InfoKind::Veth) || is(InfoKind::Netkit);
                link.is_ifb = infos.contains(&LinkInfo::Kind(InfoKind::Ifb));
            }
            _ => {}
        }
    }
    link
}
