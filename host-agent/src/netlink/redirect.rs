// SPDX-License-Identifier: Apache-2.0
//! What the upstream bandwidth plugin leaves on the host's end of a pod: an
//! `ingress` qdisc whose u32 filter redirects all that the pod sends to an ifb
//! device called `bwp…` (plugins/meta/bandwidth, ifb_creator.go). Found by all
//! three marks together, so that nobody else's is taken for it.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute,
    TcFilterU32Option, TcHandle, TcMessage, TcOption,
};

use super::link::Link;
use super::socket::{Error, Netlink};
use super::tc::tc_message;

const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0 };

impl Netlink {
    /// The ifb that the upstream plugin redirects this device's traffic to.
    pub fn upstream_ifb(&mut self, link: &Link) -> Result<Option<Link>, Error> {
        if self.ingress_kind(link)?.as_deref() != Some("ingress") {
            return Ok(None);
        }
        for index in self.redirects(link)? {
            let target = self.link_by_index(index)?;
            if target.name.starts_with("bwp") && target.is_ifb {
                return Ok(Some(target));
            }
        }
        Ok(None)
    }

    /// Takes off the redirect with its qdisc. Only after [`Self::upstream_ifb`] has named its target.
    pub fn delete_ingress_qdisc(&mut self, link: &Link) -> Result<(), Error> {
        let message = tc_message(link, TcHandle::INGRESS, INGRESS);
        let what = format!("delete the ingress qdisc of {}", link.name);
        self.request(&what, RouteNetlinkMessage::DelQueueDiscipline(message), 0).map(|_| ())
    }

    /// `clsact` or `ingress`, which share a handle and a parent, where the device has one of them.
    pub fn ingress_kind(&mut self, link: &Link) -> Result<Option<String>, Error> {
        let ask = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let answers = self.request("list the qdiscs", ask, NLM_F_DUMP)?;
        let qdisc = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(qdisc) => Some(qdisc).filter(|qdisc| {
                let place = (qdisc.header.index, qdisc.header.parent);
                place == (link.index as i32, TcHandle::INGRESS)
            }),
            _ => None,
        });
        Ok(qdisc.into_iter().flat_map(|qdisc| qdisc.attributes).find_map(
            |attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind),
                _ => None,
            },
        ))
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
