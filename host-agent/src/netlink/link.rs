// SPDX-License-Identifier: Apache-2.0
//! Network devices: look-up by name or index, and the size of super-packets.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use serde::{Deserialize, Serialize};

use super::attributes::{attributes, find, i32_at, text, u32_at, u64_at};
use super::socket::{Ask, Error, Heard, Netlink};

const RTM_GETLINK: u16 = 18;
/// struct ifinfomsg, and where it has the device's index.
const IFINFOMSG_BYTES: usize = 16;
const INDEX_AT: usize = 4;
/// include/uapi/linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_QDISC: u16 = 6;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_EXT_MASK: u16 = 29;
/// include/uapi/linux/rtnetlink.h
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_STATS64: u16 = 23;
/// struct rtnl_link_stats64.
const RX_BYTES_AT: usize = 16;
const TX_BYTES_AT: usize = 24;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
/// A list during which something changed is asked for again, so often.
const TRIES: usize = 5;

/// What Sluice needs to know of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// veth, vlan, netkit…; None for hardware.
    pub kind: Option<String>,
    /// Its MAC address, where it is a device that has one.
    #[serde(skip)]
    pub address: Vec<u8>,
    pub mtu: u32,
    #[serde(skip)]
    pub gso: Gso,
    /// txqueuelen. The kernel makes 1000 of 0 for any qdisc that is put on a veth (sch_api.c,
    /// qdisc_create).
    #[serde(skip)]
    pub tx_queue_len: Option<u32>,
    /// Index of the other end, for one of a pair; it lies in another namespace as a rule. Of other kinds
    /// this is the device below.
    pub peer_index: Option<u32>,
    /// The other end's namespace, by the id that this namespace has for it; None if it is this one.
    pub peer_netns: Option<i32>,
    /// Number of the XDP program.
    pub xdp: Option<u32>,
    /// Kind of its root qdisc.
    #[serde(skip)]
    pub qdisc: String,
}

impl Link {
    pub fn is_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// Whether it is one of two ends.
    pub fn is_pair(&self) -> bool {
        self.is_kind("veth") || self.is_kind("netkit")
    }

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

/// What a device has carried, as it counts that itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub device: String,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

impl Netlink {
    pub fn traffic(&mut self, index: u32) -> Result<Traffic, Error> {
        let what = format!("read the counters of the interface with index {index}");
        let ask = Ask { kind: RTM_GETLINK, flags: 0, body: &ifinfomsg(index, None) };
        let heard = self.ask(&what, &ask, usize::MAX, |_, body| Ok(read_traffic(body)))?;
        let found = heard.answers.into_iter().next();
        found.ok_or_else(|| Error::new(what, std::io::ErrorKind::NotFound.into()))
    }

    pub fn link_by_name(&mut self, name: &str) -> Result<Link, Error> {
        let name_and_end = [name.as_bytes(), &[0]].concat();
        self.link(&format!("find the interface {name}"), 0, Some((IFLA_IFNAME, &name_and_end)))
    }

    pub fn link_by_index(&mut self, index: u32) -> Result<Link, Error> {
        self.link(&format!("find the interface with index {index}"), index, None)
    }

    /// All devices of the namespace; only ever for the host's.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mask = RTEXT_FILTER_SKIP_STATS.to_ne_bytes();
        let body = ifinfomsg(0, Some((IFLA_EXT_MASK, &mask)));
        let ask = Ask { kind: RTM_GETLINK, flags: NLM_F_DUMP, body: &body };
        Ok(self.list("list the interfaces", &ask, usize::MAX, read_link)?.answers)
    }

    /// A list of which `read` keeps what it can read; asked for again while it changes.
    pub(super) fn list<T>(
        &mut self,
        what: &str,
        ask: &Ask,
        at_most: usize,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Heard<T>, Error> {
        for _ in 1..TRIES {
            let heard = self.ask(what, ask, at_most, |_, body| Ok(read(body)))?;
            if heard.whole || heard.cut {
                return Ok(heard);
            }
        }
        self.ask(what, ask, at_most, |_, body| Ok(read(body)))
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

    fn link(
        &mut self,
        what: &str,
        index: u32,
        attribute: Option<(u16, &[u8])>,
    ) -> Result<Link, Error> {
        let body = ifinfomsg(index, attribute);
        let ask = Ask { kind: RTM_GETLINK, flags: 0, body: &body };
        let heard = self.ask(what, &ask, usize::MAX, |_, body| Ok(read_link(body)))?;
        let found = heard.answers.into_iter().next();
        found.ok_or_else(|| Error::new(what, std::io::ErrorKind::NotFound.into()))
    }
}

fn ifinfomsg(index: u32, attribute: Option<(u16, &[u8])>) -> Vec<u8> {
    let mut body = vec![0; IFINFOMSG_BYTES];
    body[INDEX_AT..INDEX_AT + 4].copy_from_slice(&index.to_ne_bytes());
    if let Some((kind, value)) = attribute {
        body.extend(((4 + value.len()) as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    body
}

fn read_link(body: &[u8]) -> Option<Link> {
    let mut link = Link { index: u32_at(body, INDEX_AT)?, ..Link::default() };
    for (kind, value) in attributes(body.get(IFINFOMSG_BYTES..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.address = value.to_vec(),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_TXQLEN => link.tx_queue_len = u32_at(value, 0),
            IFLA_GSO_MAX_SIZE => link.gso.max_size = u32_at(value, 0)?,
            IFLA_GSO_IPV4_MAX_SIZE => link.gso.ipv4_max_size = u32_at(value, 0),
            IFLA_QDISC => link.qdisc = text(value),
            IFLA_LINK => link.peer_index = u32_at(value, 0),
            IFLA_LINK_NETNSID => link.peer_netns = i32_at(value, 0),
            IFLA_LINKINFO => link.kind = find(value, IFLA_INFO_KIND).map(text),
            IFLA_XDP => link.xdp = find(value, IFLA_XDP_PROG_ID).and_then(|id| u32_at(id, 0)),
            _ => {}
        }
    }
    Some(link)
}

fn read_traffic(body: &[u8]) -> Option<Traffic> {
    let attributes = body.get(IFINFOMSG_BYTES..)?;
    let counters = find(attributes, IFLA_STATS64)?;
    Some(Traffic {
        device: text(find(attributes, IFLA_IFNAME)?),
        received_bytes: u64_at(counters, RX_BYTES_AT)?,
        sent_bytes: u64_at(counters, TX_BYTES_AT)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::attributes::tests::attribute;
    use super::*;

    #[test]
    fn counters_of_a_device_are_read() {
        let mut body = ifinfomsg(7, Some((IFLA_IFNAME, b"eth0\0")));
        let counters: Vec<u8> = (1..=4u64).flat_map(|n| (n << 33).to_ne_bytes()).collect();
        body.extend(attribute(IFLA_STATS64, &counters));
        let expected =
            Traffic { device: "eth0".into(), received_bytes: 3 << 33, sent_bytes: 4 << 33 };
        assert_eq!(read_traffic(&body), Some(expected));
        assert_eq!(read_traffic(&ifinfomsg(7, None)), None);
    }

    #[test]
    fn veth_with_its_other_end_in_another_namespace_is_read() {
        let mut body = ifinfomsg(7, Some((IFLA_IFNAME, b"eni1\0")));
        body.extend(attribute(IFLA_LINK, &3u32.to_ne_bytes()));
        body.extend(attribute(IFLA_LINK_NETNSID, &0i32.to_ne_bytes()));
        body.extend(attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, b"veth\0")));
        let link = read_link(&body).unwrap();
        assert_eq!((link.index, link.name.as_str()), (7, "eni1"));
        assert_eq!((link.peer_index, link.peer_netns), (Some(3), Some(0)));
        assert!(link.is_kind("veth") && link.is_pair());
    }
}
