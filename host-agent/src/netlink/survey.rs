// SPDX-License-Identifier: Apache-2.0
//! Everything that is on the devices of a network namespace, whoever put it
//! there: dumps of devices, qdiscs and filters, and nothing that changes any. In
//! a pod's namespace one device is asked for, and what is on that.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_ECHO};
use serde::Serialize;

use super::attributes::{attributes, find, text, u32_at};
use super::link::Link;
use super::socket::{Ask, Error, Netlink};
use super::tc::ROOT_HANDLE;

const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;

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

const TCMSG_BYTES: usize = 20;
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

/// What asks for lists, by the socket of one network namespace.
pub struct Lists(Netlink);

impl Lists {
    /// Of the caller's network namespace.
    pub fn open() -> Result<Self, Error> {
        Netlink::open().map(Self)
    }

    /// The device of this name; None without one.
    pub fn device(&mut self, name: &str) -> Result<Option<Link>, Error> {
        match self.0.link_by_name(name) {
            Err(e) if e.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    }

    /// The qdiscs of one device, as far as they matter.
    pub fn qdiscs_of(&mut self, device: u32) -> Result<Vec<Qdisc>, Error> {
        let mut qdiscs = Vec::new();
        for parent in PARENTS {
            let what = format!("ask for a qdisc of the device with index {device}");
            let body = tcmsg(device, parent);
            let ask = Ask { kind: RTM_GETQDISC, flags: NLM_F_ECHO, body: &body };
            match self.0.ask(&what, &ask, usize::MAX, |_, body| Ok(read_qdisc(body))) {
                // What is not there has no answer.
                Err(e) if e.is_not_found() => {}
                heard => qdiscs.extend(heard?.answers),
            }
        }
        Ok(qdiscs)
    }

    /// All devices.
    pub fn devices(&mut self) -> Result<Vec<Link>, Error> {
        self.0.links()
    }

    /// All qdiscs of all devices.
    pub fn qdiscs(&mut self) -> Result<Vec<Qdisc>, Error> {
        let ask = Ask { kind: RTM_GETQDISC, flags: NLM_F_DUMP, body: &tcmsg(0, 0) };
        Ok(self.0.list("list the qdiscs", &ask, usize::MAX, read_qdisc)?.answers)
    }

    /// Filters below a parent: a side of clsact, or a qdisc's handle. Also says whether there are more.
    pub fn filters(
        &mut self,
        device: u32,
        parent: u32,
    ) -> Result<(Vec<ListedFilter>, bool), Error> {
        let what = format!("list the filters of the device with index {device}");
        let body = tcmsg(device, parent);
        let ask = Ask { kind: RTM_GETTFILTER, flags: NLM_F_DUMP, body: &body };
        let heard = self.0.list(&what, &ask, FILTERS, read_filter)?;
        let filters = heard.answers.into_iter().filter(ListedFilter::is_one);
        Ok((filters.collect(), heard.cut))
    }
}

/// struct tcmsg.
fn tcmsg(device: u32, parent: u32) -> [u8; TCMSG_BYTES] {
    let mut body = [0; TCMSG_BYTES];
    body[4..8].copy_from_slice(&device.to_ne_bytes());
    body[12..16].copy_from_slice(&parent.to_ne_bytes());
    body
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

#[cfg(test)]
mod tests {
    use super::super::attributes::tests::attribute;
    use super::*;

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
}
