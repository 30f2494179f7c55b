// SPDX-License-Identifier: Apache-2.0
//! What the upstream bandwidth plugin leaves on the host's end of a pod: an
//! `ingress` qdisc whose u32 filter redirects all that the pod sends to an ifb
//! device called `bwp…` (plugins/meta/bandwidth, ifb_creator.go). Found by all
//! three marks together, so that no foreign one is taken for it.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute,
    TcFilterU32Option, TcHandle, TcMessage, TcOption,
};
use nix::errno::Errno;

use super::link::Link;
use super::socket::{Error, Netlink};
use super::tc::tc_message;

const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0 };
/// No qdisc, side of clsact or chain is called so.
const NO_KIND: &str = "?";
const NO_SIDE: u16 = 1;
const NO_CHAIN: u32 = 0x51ce;

impl Netlink {
    /// The ifb that the upstream plugin redirects this device's traffic to.
    pub fn upstream_ifb(&mut self, link: &Link) -> Result<Option<Link>, Error> {
        if self.ingress_kind(link)? != Some("ingress") {
            return Ok(None);
        }
        for index in self.redirects(link)? {
            let target = self.link_by_index(index)?;
            if target.name.starts_with("bwp") && target.is_kind("ifb") {
                return Ok(Some(target));
            }
        }
        Ok(None)
    }

    /// Removes the redirect with its qdisc. Only after [`Self::upstream_ifb`] has named its target.
    pub fn delete_ingress_qdisc(&mut self, link: &Link) -> Result<(), Error> {
        let message = tc_message(link, TcHandle::INGRESS, INGRESS);
        let what = format!("delete the ingress qdisc of {}", link.name);
        self.request(&what, RouteNetlinkMessage::DelQueueDiscipline(message), 0).map(|_| ())
    }

    /// `clsact` or `ingress`, which share a handle and a parent, where the device has one of them. Asked
    /// so that the kernel neither lists the qdiscs of all devices nor notifies others of the question: for a
    /// qdisc of a kind that it is not (sch_api.c, tc_get_qdisc), and for a filter below a class that
    /// clsact denies before it looks for the chain, which `ingress` does not (sch_ingress.c, clsact_find).
    pub fn ingress_kind(&mut self, link: &Link) -> Result<Option<&'static str>, Error> {
        // By its handle: where one was removed, the parent still has a qdisc, which does nothing.
        let mut qdisc = tc_message(link, TcHandle::UNSPEC, INGRESS);
        qdisc.attributes.push(TcAttribute::Kind(NO_KIND.into()));
        let what = format!("ask for the ingress qdisc of {}", link.name);
        match self.request(&what, RouteNetlinkMessage::GetQueueDiscipline(qdisc), 0) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => return Ok(None),
            Err(e) if e.errno() != Some(Errno::EINVAL) => return Err(e),
            _ => {}
        }
        let mut filter = tc_message(link, TcHandle { minor: NO_SIDE, ..INGRESS }, TcHandle::UNSPEC);
        filter.header.info = 1 << 16;
        filter.attributes.push(TcAttribute::Chain(NO_CHAIN));
        match self.request(&what, RouteNetlinkMessage::GetTrafficFilter(filter), 0) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => Ok(Some("clsact")),
            Err(e) if e.errno() != Some(Errno::EINVAL) => Err(e),
            _ => Ok(Some("ingress")),
        }
    }

    fn redirects(&mut self, link: &Link) -> Result<Vec<u32>, Error> {
        let ask =
            RouteNetlinkMessage::GetTrafficFilter(tc_message(link, INGRESS, TcHandle::UNSPEC));
        let what = format!("list the filters of {}", link.name);
        let answers = self.request(&what, ask, NLM_F_DUMP)?;
        let filters = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
            _ => None,
        });
        Ok(filters.flat_map(|filter| targets(&filter)).collect())
    }
}

fn targets(filter: &TcMessage) -> Vec<u32> {
    let options = filter.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let actions = options.flatten().filter_map(|option| match option {
        TcOption::U32(TcFilterU32Option::Action(actions)) => Some(actions),
        _ => None,
    });
    actions.flatten().flat_map(mirred).collect()
}

fn mirred(action: &TcAction) -> Vec<u32> {
    let options = action.attributes.iter().filter_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    let targets = options.flatten().filter_map(|option| match option {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) => Some(mirror.ifindex),
        _ => None,
    });
    targets.collect()
}
