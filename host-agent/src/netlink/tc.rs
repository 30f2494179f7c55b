// SPDX-License-Identifier: Apache-2.0
//! Qdiscs and filters. Everything that Sluice creates carries one of the
//! handles below, so that it can be distinguished from foreign ones, and never
//! handle 1, which the AWS network policy agent takes for its own
//! (aws-ebpf-sdk-go pkg/tc/tc.go, Detach). Creation is exclusive: what is
//! already there is never replaced.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    DefaultNla, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption, TcStats2,
};
use nix::errno::Errno;

use super::link::Link;
use super::options::{self, Fq};
use super::socket::{Error, Netlink};

/// Major number of the root qdisc that Sluice puts on a device.
pub const ROOT_HANDLE: u16 = 0x51ce;
/// Major number of the leaf below a classful root.
pub const LEAF_HANDLE: u16 = 0x51cf;
/// Major number of the leaf that takes no packet.
const DROP_HANDLE: u16 = 0x51d0;
/// Handle of Sluice's filters.
pub const FILTER_HANDLE: u32 = 0x51ce;

const FILTER_PRIORITY: u32 = 1;
const ETH_P_ALL: u32 = 0x0003;
const ROOT: TcHandle = TcHandle { major: ROOT_HANDLE, minor: 0 };
const CLASS: TcHandle = TcHandle { major: ROOT_HANDLE, minor: 1 };
const LEAF: TcHandle = TcHandle { major: LEAF_HANDLE, minor: 0 };
/// contract.h, SLUICE_DROP_CLASS.
const DROP_CLASS: TcHandle = TcHandle { major: ROOT_HANDLE, minor: 2 };
const DROP_LEAF: TcHandle = TcHandle { major: DROP_HANDLE, minor: 0 };
/// clsact's qdisc handle and, as parents of filters, its two sides.
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0 };
const CLSACT_EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };
const CLSACT_INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };
/// Of a list that may be a pod's so much is read; what is ours comes first.
const FIRST: usize = 256;

/// A direct-action BPF filter.
pub struct Filter<'a> {
    pub program: BorrowedFd<'a>,
    /// The name that `tc filter show` prints.
    pub name: &'a str,
    /// What the program reads as `skb->tc_classid`.
    pub slot: u16,
}

/// Kind and major handle of a root qdisc, e.g. `tbf` and 1; noqueue has major 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    pub kind: String,
    pub major: u16,
}

/// What of our qdiscs is on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The root, with its classes.
    pub root: bool,
    /// fq below it.
    pub leaf: bool,
    /// Below it the leaf that takes no packet.
    pub drop: bool,
}

impl Root {
    pub fn is_ours(&self) -> bool {
        self.major == ROOT_HANDLE
    }

    /// The upstream plugin's is `tbf 1:` (plugins/meta/bandwidth, CreateTBF).
    pub fn is_upstreams(&self) -> bool {
        self.kind == "tbf" && self.major == 1
    }
}

/// A filter of ours as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub handle: u32,
    /// None for a filter that is no BPF program.
    pub program_id: Option<u32>,
    /// What its program reads as `skb->tc_classid`.
    pub slot: Option<u16>,
}

impl Netlink {
    /// fq below the classful root.
    pub fn add_leaf_fq(&mut self, link: &Link, fq: Fq) -> Result<(), Error> {
        self.add_qdisc(link, CLASS, LEAF, "fq", options::fq(fq))
    }

    /// New parameters for it; what waits in it stays, if the limit has room.
    pub fn change_leaf_fq(&mut self, link: &Link, fq: Fq) -> Result<(), Error> {
        self.change_qdisc(link, CLASS, LEAF, "fq", options::fq(fq))
    }

    /// A classful root with one class that everything goes through; it is there to carry a filter.
    /// prio where the kernel has it, else htb (dearer, and asks for a rate). Gives its kind.
    pub fn add_root_with_class(&mut self, link: &Link) -> Result<&'static str, Error> {
        self.put_root_with_class(link, NLM_F_EXCL)
    }

    /// The class whose leaf takes no packet: what the programs drop goes there.
    pub fn add_drop_class(&mut self, link: &Link, root: &str) -> Result<(), Error> {
        if root == "htb" {
            match self.add_htb_class(link, DROP_CLASS) {
                Err(e) if e.errno() == Some(Errno::EEXIST) => {}
                added => added?,
            }
        }
        self.add_qdisc(link, DROP_CLASS, DROP_LEAF, "pfifo", options::no_packets())
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

    /// Our filter on clsact's ingress side.
    pub fn ingress_filter(&mut self, link: &Link) -> Result<Option<Listed>, Error> {
        self.own_filter(link, CLSACT_INGRESS)
    }

    /// The filter on clsact's ingress side that runs first. The kernel also lists each priority itself,
    /// without a handle.
    pub fn first_ingress_filter(&mut self, link: &Link) -> Result<Option<Listed>, Error> {
        let message = tc_message(link, CLSACT_INGRESS, TcHandle::UNSPEC);
        let ask = RouteNetlinkMessage::GetTrafficFilter(message);
        let what = format!("list the filters of {}", link.name);
        let answers = self.first_of_list(&what, ask, FIRST)?;
        Ok(answers.into_iter().filter_map(listed).find(|filter| filter.handle != 0))
    }

    /// Our filter on clsact's egress side, where older versions put it in a pod.
    pub fn egress_filter(&mut self, link: &Link) -> Result<Option<Listed>, Error> {
        self.own_filter(link, CLSACT_EGRESS)
    }

    /// Our filter on the root qdisc.
    pub fn root_filter(&mut self, link: &Link) -> Result<Option<Listed>, Error> {
        self.own_filter(link, ROOT)
    }

    /// Gives our filter another program; it keeps its place among the others.
    pub fn replace_root_filter(&mut self, link: &Link, filter: &Filter) -> Result<(), Error> {
        self.put_filter(link, ROOT, filter, NLM_F_CREATE)
    }

    pub fn replace_ingress_filter(&mut self, link: &Link, filter: &Filter) -> Result<(), Error> {
        self.put_filter(link, CLSACT_INGRESS, filter, NLM_F_CREATE)
    }

    /// Devices of the host whose root qdisc is ours. Never for a pod's namespace: the kernel lists all
    /// qdiscs of all devices, whichever one is asked for (net/sched/sch_api.c, tc_dump_qdisc).
    pub fn roots_of_ours(&mut self) -> Result<BTreeSet<u32>, Error> {
        let ask = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let answers = self.request("list the qdiscs", ask, NLM_F_DUMP)?;
        let roots = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(qdisc) => Some(qdisc.header),
            _ => None,
        });
        let ours = roots.filter(|q| (q.parent, q.handle) == (TcHandle::ROOT, ROOT));
        Ok(ours.map(|root| root.index as u32).collect())
    }

    /// What of our qdiscs is on this device. Known by classes, which the kernel lists for one device,
    /// those of the root first, each with its leaf (sch_api.c, tc_dump_tclass_root).
    pub fn layout(&mut self, link: &Link) -> Result<Layout, Error> {
        let classes = self.first_classes(link.index)?;
        let ours = |class: &&TcMessage| class.header.handle.major == ROOT_HANDLE;
        if classes.first().filter(ours).is_none() {
            return Ok(Layout::default());
        }
        let has = |class: TcHandle, leaf: TcHandle| {
            let place = (class, u32::from(leaf));
            classes.iter().any(|class| (class.header.handle, class.header.info) == place)
        };
        Ok(Layout { root: true, leaf: has(CLASS, LEAF), drop: has(DROP_CLASS, DROP_LEAF) })
    }

    /// The root qdisc of one device. Only for what was in the way of ours: the kernel notifies every
    /// listener of such a question, so that each look would cause the next one (sch_api.c, qdisc_notify).
    pub fn root(&mut self, link: &Link) -> Result<Root, Error> {
        let ask = tc_message(link, TcHandle::ROOT, TcHandle::UNSPEC);
        let ask = RouteNetlinkMessage::GetQueueDiscipline(ask);
        let what = format!("ask for the root qdisc of {}", link.name);
        let answers = self.request(&what, ask, NLM_F_ECHO)?;
        Ok(answers.into_iter().find_map(root).unwrap_or_default())
    }

    /// Packets that the fq below our classful root of this device has dropped of its own accord; None
    /// without one. The kernel lists classes of one device (net/sched/sch_api.c, tc_dump_tclass), with
    /// what their leaf counts; to ask for a qdisc would list all, or notify every listener (before 6.8).
    pub fn fq_drops(&mut self, index: u32) -> Result<Option<u32>, Error> {
        Ok(self.first_classes(index)?.into_iter().find_map(drops_of_fq))
    }

    fn first_classes(&mut self, index: u32) -> Result<Vec<TcMessage>, Error> {
        let ask = RouteNetlinkMessage::GetTrafficClass(TcMessage::with_index(index as i32));
        let answers = self.first_of_list("list the classes of our qdisc", ask, FIRST)?;
        let classes = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficClass(class) => Some(class),
            _ => None,
        });
        Ok(classes.collect())
    }

    /// Puts the classful root in the place of whatever is there. Only for a root whose owner is known
    /// and has made way (docs/decisions/0008-reconcile.md).
    pub fn replace_root_with_class(&mut self, link: &Link) -> Result<&'static str, Error> {
        self.put_root_with_class(link, NLM_F_REPLACE)
    }

    fn put_root_with_class(&mut self, link: &Link, flag: u16) -> Result<&'static str, Error> {
        let put = |netlink: &mut Self, kind: &str, options| {
            let what = match flag {
                NLM_F_EXCL => format!("add the qdisc {kind} to {}", link.name),
                _ => format!("replace the root qdisc of {}", link.name),
            };
            let request = qdisc_request(link, TcHandle::ROOT, ROOT, kind, options);
            netlink.request(&what, request, NLM_F_CREATE | flag).map(|_| ())
        };
        match put(self, "prio", options::prio()) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => {
                put(self, "htb", options::htb())?;
                self.add_htb_class(link, CLASS).map(|()| "htb")
            }
            result => result.map(|()| "prio"),
        }
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

    fn add_htb_class(&mut self, link: &Link, class: TcHandle) -> Result<(), Error> {
        let mut message = tc_message(link, ROOT, class);
        message.attributes.push(TcAttribute::Kind("htb".into()));
        message.attributes.push(raw(TCA_OPTIONS, options::htb_class()));
        let what = format!("add the class of htb to {}", link.name);
        let request = RouteNetlinkMessage::NewTrafficClass(message);
        self.request(&what, request, NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
    }

    fn add_filter(&mut self, link: &Link, parent: TcHandle, filter: &Filter) -> Result<(), Error> {
        self.put_filter(link, parent, filter, NLM_F_CREATE | NLM_F_EXCL)
    }

    fn put_filter(
        &mut self,
        link: &Link,
        parent: TcHandle,
        filter: &Filter,
        flags: u16,
    ) -> Result<(), Error> {
        let mut message = tc_message(link, parent, FILTER_HANDLE.into());
        message.header.info = filter_info();
        message.attributes.push(TcAttribute::Kind("bpf".into()));
        // The class that a program chooses is one of this major number's (cls_bpf.c, cls_bpf_classify).
        let classid = TcHandle { major: ROOT_HANDLE, minor: filter.slot };
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(filter.program.as_raw_fd() as u32)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(filter.name.into())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
            TcOption::Bpf(TcFilterBpfOption::ClassId(classid)),
        ]));
        let what = format!("add the filter {} to {}", filter.name, link.name);
        let request = RouteNetlinkMessage::NewTrafficFilter(message);
        self.request(&what, request, flags).map(|_| ())
    }

    fn delete_filter(&mut self, link: &Link, parent: TcHandle, side: &str) -> Result<(), Error> {
        let mut message = tc_message(link, parent, FILTER_HANDLE.into());
        message.header.info = filter_info();
        message.attributes.push(TcAttribute::Kind("bpf".into()));
        let what = format!("delete the {side} filter {FILTER_HANDLE:#x} of {}", link.name);
        self.request(&what, RouteNetlinkMessage::DelTrafficFilter(message), 0).map(|_| ())
    }

    /// Asked for by all that names it, so that nothing else is listed.
    fn own_filter(&mut self, link: &Link, parent: TcHandle) -> Result<Option<Listed>, Error> {
        let mut message = tc_message(link, parent, FILTER_HANDLE.into());
        message.header.info = filter_info();
        message.attributes.push(TcAttribute::Kind("bpf".into()));
        let what = format!("ask for the filter {FILTER_HANDLE:#x} of {}", link.name);
        match self.request(&what, RouteNetlinkMessage::GetTrafficFilter(message), 0) {
            Err(e) if e.is_not_found() => Ok(None),
            answers => Ok(answers?.into_iter().find_map(listed)),
        }
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

pub(super) fn tc_message(link: &Link, parent: TcHandle, handle: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(link.index as i32);
    message.header.parent = parent;
    message.header.handle = handle;
    message
}

/// tcm_info of a filter: priority in the upper half, protocol in network order in the lower.
fn filter_info() -> u32 {
    (FILTER_PRIORITY << 16) | u32::from((ETH_P_ALL as u16).to_be())
}

fn root(answer: RouteNetlinkMessage) -> Option<Root> {
    let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = answer else { return None };
    let major = qdisc.header.handle.major;
    qdisc.attributes.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(Root { kind, major }),
        _ => None,
    })
}

fn drops_of_fq(class: TcMessage) -> Option<u32> {
    let has_fq = class.header.handle == CLASS && class.header.info == u32::from(LEAF);
    class.attributes.into_iter().filter(|_| has_fq).find_map(|attribute| match attribute {
        TcAttribute::Stats2(all) => all.into_iter().find_map(|stats| match stats {
            TcStats2::Queue(queue) => Some(queue.drops),
            _ => None,
        }),
        _ => None,
    })
}

fn listed(answer: RouteNetlinkMessage) -> Option<Listed> {
    let RouteNetlinkMessage::NewTrafficFilter(filter) = answer else { return None };
    let handle = filter.header.handle.into();
    let mut options = filter.attributes.into_iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let mut listed = Listed { handle, program_id: None, slot: None };
    for option in options.next().into_iter().flatten() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => listed.program_id = Some(id),
            TcOption::Bpf(TcFilterBpfOption::ClassId(id)) => listed.slot = Some(id.minor),
            _ => {}
        }
    }
    Some(listed)
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
        let roots = [ROOT_HANDLE, LEAF_HANDLE, DROP_HANDLE].map(u32::from);
        assert!(!roots.contains(&1) && FILTER_HANDLE != 1);
    }
}
