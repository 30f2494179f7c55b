// SPDX-License-Identifier: Apache-2.0
//! Network devices: look-up by name or index, and the GSO clamp.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use super::socket::{Error, Netlink};

/// What Sluice needs to know of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    /// Largest super-packet (IFLA_GSO_MAX_SIZE), in bytes.
    pub gso_max_size: u32,
    /// Index of the other end, for a veth; it lies in another namespace as a rule.
    pub peer_index: Option<u32>,
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

    /// Bounds the super-packets that the device is given to send. Kernels with a limit of its own
    /// for IPv4 (6.3) set that one along with it, up to 64 KiB.
    pub fn set_gso_max_size(&mut self, link: &Link, bytes: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes.push(LinkAttribute::GsoMaxSize(bytes));
        let what = format!("set gso_max_size {bytes} on {}", link.name);
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
        mtu: 0,
        gso_max_size: 65536,
        peer_index: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::GsoMaxSize(bytes) => link.gso_max_size = bytes,
            LinkAttribute::Link(index) => link.peer_index = Some(index),
            _ => {}
        }
    }
    link
}
