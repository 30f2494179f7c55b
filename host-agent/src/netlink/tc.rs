// SPDX-License-Identifier: Apache-2.0
//! Qdiscs and filters. Everything that Sluice creates carries one of the
//! handles below, so that it can be told from everybody else's, and never
//! handle 1, which the AWS network policy agent takes for its own
//! (aws-ebpf-sdk-go pkg/tc/tc.go, Detach). Creation is exclusive: what is
//! already there is never replaced.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::link::Link;
use super::options::{self, Fq};
use super::socket::{Error, Netlink};

/// Major number of the root qdisc that Sluice puts on a device.
pub const ROOT_HANDLE: u16 = 0x51ce;
/// Major number of the leaf below a classful root.
pub const LEAF_HANDLE: u16 = 0x51cf;
/// Handle of Sluice's filters.
pub const FILTER_HANDLE: u32 = 0x51ce;

const FILTER_PRIORITY: u32 = 1;
const ETH_P_ALL: u32 = 0x0003;
const ROOT: TcHandle = TcHandle { major: ROOT_HANDLE, minor: 0 };
const CLASS: TcHandle = TcHandle { major: ROOT_HANDLE, minor: 1 };
const LEAF: TcHandle = TcHandle { major: LEAF_HANDLE, minor: 0 };
/// clsact's qdisc handle and, as parents of filters, its two sides.
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0 };
const CLSACT_EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };
const CLSACT_INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };

/// A direct-action BPF filter.
pub struct Filter<'a> {
    pub program: BorrowedFd<'a>,
    /// The name that `tc filter show` prints.
    pub name: &'a str,
    /// What the program reads as `skb->tc_classid`.
    pub slot: u16,
}

impl Netlink {
    /// fq as the root qdisc.
    pub fn add_root_fq(&mut self, link: &Link, fq: Fq) -> Result<(), Error> {
        self.add_qdisc(link, TcHandle::ROOT, ROOT, "fq", options::fq(fq))
    }

    /// fq below the classful root.
    pub fn add_leaf_fq(&mut self, link: &Link, fq: Fq) -> Result<(), Error> {
        self.add_qdisc(link, CLASS, LEAF, "fq", options::fq(fq))
    }

    /// New parameters for the fq that is the root; what waits in it stays, if the limit has room.
    pub fn change_root_fq(&mut self, link: &Link, fq: Fq) -> Result<(), Error> {
        self.change_qdisc(link, TcHandle::ROOT, ROOT, "fq", options::fq(fq))
    }

    /// The same for the fq below the classful root.
    pub fn change_leaf_fq(&mut self, link: &Link, fq: Fq) -> Result<(), Error> {
        self.change_qdisc(link, CLASS, LEAF, "fq", options::fq(fq))
    }

    /// A classful root with one class that everything goes through; it is there to carry a filter.
    /// prio where the kernel has it, else htb (dearer, and asks for a rate).
    pub fn add_root_with_class(&mut self, link: &Link) -> Result<(), Error> {
        match self.add_qdisc(link, TcHandle::ROOT, ROOT, "prio", options::prio()) {
            Err(e) if e.errno() == Some(nix::errno::Errno::ENOENT) => {
                self.add_qdisc(link, TcHandle::ROOT, ROOT, "htb", options::htb())?;
                self.add_htb_class(link)
            }
            result => result,
        }
    }

    pub fn delete_root(&mut self, link: &Link) -> Result<(), Error> {
        let message = tc_message(link, TcHandle::ROOT, ROOT);
        let what = format!("delete the root qdisc {ROOT_HANDLE:x}: of {}", link.name);
        self.request(&what, RouteNetlinkMessage::DelQueueDiscipline(message), 0).map(|_| ())
    }

    /// clsact; only ever on a device inside a pod, where no network policy agent works.
    pub fn add_clsact(&mut self, link: &Link) -> Result<(), Error> {
        self.add_qdisc(link, TcHandle::CLSACT, CLSACT, "clsact", Vec::new())
    }

    pub fn delete_clsact(&mut self, link: &Link) -> Result<(), Error> {
        let message = tc_message(link, TcHandle::CLSACT, CLSACT);
        let what = format!("delete clsact of {}", link.name);
        self.request(&what, RouteNetlinkMessage::DelQueueDiscipline(message), 0).map(|_| ())
    }

    /// A filter on clsact's egress side.
    pub fn add_egress_filter(&mut self, link: &Link, filter: &Filter) -> Result<(), Error> {
        self.add_filter(link, CLSACT_EGRESS, filter)
    }

    /// A filter on the root qdisc itself, which runs after all of clsact and tcx.
    pub fn add_root_filter(&mut self, link: &Link, filter: &Filter) -> Result<(), Error> {
        self.add_filter(link, ROOT, filter)
    }

    pub fn delete_egress_filter(&mut self, link: &Link) -> Result<(), Error> {
        self.delete_filter(link, CLSACT_EGRESS, "egress")
    }

    /// A filter on clsact's ingress side, in front of those of the same priority: the last one that
    /// was added runs first (net/sched/cls_bpf.c, cls_bpf_change).
    pub fn add_ingress_filter(&mut self, link: &Link, filter: &Filter) -> Result<(), Error> {
        self.add_filter(link, CLSACT_INGRESS, filter)
    }

    pub fn delete_ingress_filter(&mut self, link: &Link) -> Result<(), Error> {
        self.delete_filter(link, CLSACT_INGRESS, "ingress")
    }

    /// Handles of the filters on clsact's ingress side, in the order in which they run.
    pub fn ingress_filters(&mut self, link: &Link) -> Result<Vec<u32>, Error> {
        self.filters(link, CLSACT_INGRESS)
    }

    /// Whether our filter is on clsact's egress side.
    pub fn has_egress_filter(&mut self, link: &Link) -> Result<bool, Error> {
        Ok(self.filters(link, CLSACT_EGRESS)?.contains(&FILTER_HANDLE))
    }

    /// Whether our filter is on the root qdisc.
    pub fn has_root_filter(&mut self, link: &Link) -> Result<bool, Error> {
        Ok(self.filters(link, ROOT)?.contains(&FILTER_HANDLE))
    }

    /// Kind and major handle of the root qdisc, e.g. `("tbf", 1)`; noqueue has major 0.
    pub fn root_qdisc(&mut self, link: &Link) -> Result<Option<(String, u16)>, Error> {
        let what = format!("list the qdiscs of {}", link.name);
        let ask = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let answers = self.request(&what, ask, NLM_F_DUMP)?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(qdisc) => root_kind(qdisc, link),
            _ => None,
        }))
    }

    fn add_qdisc(
        &mut self,
        link: &Link,
        parent: TcHandle,
        handle: TcHandle,
        kind: &str,
        options: Vec<u8>,
    ) -> Result<(), Error> {
        let what = format!("add the qdisc {kind} to {}", link.name);
        let request = qdisc_request(link, parent, handle, kind, options);
        self.request(&what, request, NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
    }

    /// Without NLM_F_CREATE and NLM_F_REPLACE this can only change what is there and ours.
    fn change_qdisc(
        &mut self,
        link: &Link,
        parent: TcHandle,
        handle: TcHandle,
        kind: &str,
        options: Vec<u8>,
    ) -> Result<(), Error> {
        let what = format!("change the qdisc {kind} of {}", link.name);
        let request = qdisc_request(link, parent, handle, kind, options);
        self.request(&what, request, 0).map(|_| ())
    }

    fn add_htb_class(&mut self, link: &Link) -> Result<(), Error> {
        let mut message = tc_message(link, ROOT, CLASS);
        message.attributes.push(TcAttribute::Kind("htb".into()));
        message.attributes.push(raw(TCA_OPTIONS, options::htb_class()));
        let what = format!("add the class of htb to {}", link.name);
        let request = RouteNetlinkMessage::NewTrafficClass(message);
        self.request(&what, request, NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
    }

    fn add_filter(&mut self, link: &Link, parent: TcHandle, filter: &Filter) -> Result<(), Error> {
        let mut message = tc_message(link, parent, FILTER_HANDLE.into());
        message.header.info = filter_info();
        message.attributes.push(TcAttribute::Kind("bpf".into()));
        let classid = TcHandle { major: 0, minor: filter.slot };
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(filter.program.as_raw_fd() as u32)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(filter.name.into())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
            TcOption::Bpf(TcFilterBpfOption::ClassId(classid)),
        ]));
        let what = format!("add the filter {} to {}", filter.name, link.name);
        let request = RouteNetlinkMessage::NewTrafficFilter(message);
        self.request(&what, request, NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
    }

    fn delete_filter(&mut self, link: &Link, parent: TcHandle, side: &str) -> Result<(), Error> {
        let mut message = tc_message(link, parent, FILTER_HANDLE.into());
        message.header.info = filter_info();
        message.attributes.push(TcAttribute::Kind("bpf".into()));
        let what = format!("delete the {side} filter {FILTER_HANDLE:#x} of {}", link.name);
        self.request(&what, RouteNetlinkMessage::DelTrafficFilter(message), 0).map(|_| ())
    }

    fn filters(&mut self, link: &Link, parent: TcHandle) -> Result<Vec<u32>, Error> {
        let ask = RouteNetlinkMessage::GetTrafficFilter(tc_message(link, parent, TcHandle::UNSPEC));
        let what = format!("list the filters of {}", link.name);
        let answers = self.request(&what, ask, NLM_F_DUMP)?;
        let handles = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter.header.handle.into()),
            _ => None,
        });
        // The kernel prints a line for each priority itself, which has no handle.
        Ok(handles.filter(|handle| *handle != 0).collect())
    }
}

fn qdisc_request(
    link: &Link,
    parent: TcHandle,
    handle: TcHandle,
    kind: &str,
    options: Vec<u8>,
) -> RouteNetlinkMessage {
    let mut message = tc_message(link, parent, handle);
    message.attributes.push(TcAttribute::Kind(kind.into()));
    if !options.is_empty() {
        message.attributes.push(raw(TCA_OPTIONS, options));
    }
    RouteNetlinkMessage::NewQueueDiscipline(message)
}

fn tc_message(link: &Link, parent: TcHandle, handle: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(link.index as i32);
    message.header.parent = parent;
    message.header.handle = handle;
    message
}

/// tcm_info of a filter: priority in the upper half, protocol in network order in the lower.
fn filter_info() -> u32 {
    (FILTER_PRIORITY << 16) | u32::from((ETH_P_ALL as u16).to_be())
}

fn root_kind(qdisc: TcMessage, link: &Link) -> Option<(String, u16)> {
    if qdisc.header.index != link.index as i32 || qdisc.header.parent != TcHandle::ROOT {
        return None;
    }
    let major = qdisc.header.handle.major;
    qdisc.attributes.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some((kind, major)),
        _ => None,
    })
}

/// include/uapi/linux/rtnetlink.h
const TCA_OPTIONS: u16 = 2;

fn raw(kind: u16, bytes: Vec<u8>) -> TcAttribute {
    TcAttribute::Other(DefaultNla::new(kind, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_info_is_priority_and_protocol() {
        // tc filter add ... prio 1 protocol all, as strace shows it: 0x00010300 on little endian.
        assert_eq!(filter_info().to_le_bytes(), [0x00, 0x03, 0x01, 0x00]);
    }

    #[test]
    fn no_handle_is_that_of_the_policy_agent() {
        let roots = [ROOT_HANDLE, LEAF_HANDLE].map(u32::from);
        assert!(!roots.contains(&1) && FILTER_HANDLE != 1);
    }
}
