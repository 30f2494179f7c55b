// SPDX-License-Identifier: Apache-2.0
//! The node's routes: by which devices it is reached and left, and what stays on it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bpf::{Prefix, Routes, Where};
use nix::libc;

use super::attributes::{find, u32_at};
use super::socket::{Ask, Error, Netlink};

/// struct rtmsg (include/uapi/linux/rtnetlink.h).
const RTMSG_BYTES: usize = 12;
/// struct rtnexthop; its length stands first, its device behind four bytes.
const NEXTHOP_BYTES: usize = 8;

/// Whoever it is, it is at the other end of the pod's link.
const LINK_LOCAL: [(IpAddr, u8); 3] = [
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 24),
];

/// Has every ClusterIP, where kube-proxy runs in IPVS mode.
const IPVS_DEVICE: &str = "kube-ipvs0";

/// What a node's own line is made of, and what does not use it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NodePaths {
    /// Devices by which a default route of any table leaves: every ENI has one.
    pub uplinks: BTreeSet<u32>,
    /// Of the tables that pods' packets are routed by, as far as they lead anywhere.
    pub routes: Routes,
}

/// One route.
#[derive(Debug)]
struct Route {
    to: Prefix,
    table: u32,
    kind: u8,
    devices: Vec<u32>,
}

impl Netlink {
    /// By all routes of the namespace; only ever for the host's.
    pub fn node_paths(&mut self) -> Result<NodePaths, Error> {
        let ask = Ask {
            kind: libc::RTM_GETROUTE,
            flags: libc::NLM_F_DUMP as u16,
            body: &[0; RTMSG_BYTES],
        };
        let routes = self.list("list the routes", &ask, usize::MAX, read_route)?.answers;
        let services = self.link_by_name(IPVS_DEVICE).ok().map(|link| link.index);
        Ok(node_paths(&routes, services))
    }
}

fn node_paths(routes: &[Route], services: Option<u32>) -> NodePaths {
    let unicast = |route: &&Route| route.kind == libc::RTN_UNICAST;
    let defaults = routes.iter().filter(unicast).filter(|route| route.to.bits == 0);
    let uplinks: BTreeSet<u32> = defaults.flat_map(|route| route.devices.clone()).collect();
    let tables = [libc::RT_TABLE_MAIN, libc::RT_TABLE_LOCAL].map(u32::from);
    let of_node = routes.iter().filter(|r| r.to.bits > 0 && tables.contains(&r.table));
    let leaves = |device: &u32| uplinks.contains(device);
    let leads_to = |route: &Route| match route.kind {
        libc::RTN_LOCAL if services.is_some_and(|it| route.devices.contains(&it)) => {
            Some(Where::Leaves)
        }
        libc::RTN_LOCAL => Some(Where::Own),
        libc::RTN_UNICAST if route.devices.iter().any(leaves) => Some(Where::Leaves),
        libc::RTN_UNICAST => Some(Where::Stays),
        _ => None,
    };
    let routes = of_node.filter_map(|route| Some((route.to, leads_to(route)?)));
    let of_link = LINK_LOCAL.map(|(address, bits)| Prefix { address, bits });
    let routes = routes.chain(of_link.map(|prefix| (prefix, Where::Stays))).collect();
    NodePaths { uplinks, routes }
}

fn read_route(body: &[u8]) -> Option<Route> {
    let [family, bits, _, _, table, _, _, kind] = *body.first_chunk()?;
    let rest = body.get(RTMSG_BYTES..)?;
    let to = find(rest, libc::RTA_DST);
    let address: IpAddr = match i32::from(family) {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(to.unwrap_or(&[0; 4])).ok()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(to.unwrap_or(&[0; 16])).ok()?).into(),
        _ => return None,
    };
    let table = find(rest, libc::RTA_TABLE).and_then(|it| u32_at(it, 0)).unwrap_or(table.into());
    let own = find(rest, libc::RTA_OIF).and_then(|it| u32_at(it, 0));
    let hops = find(rest, libc::RTA_MULTIPATH).map_or_else(Vec::new, nexthops);
    let devices = own.into_iter().chain(hops).collect();
    Some(Route { to: Prefix { address, bits }, table, kind, devices })
}

fn nexthops(mut bytes: &[u8]) -> Vec<u32> {
    let mut devices = Vec::new();
    while let Some([low, high]) = bytes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([*low, *high]));
        devices.extend(u32_at(bytes, 4).filter(|_| length >= NEXTHOP_BYTES));
        bytes = match bytes.get(length.next_multiple_of(4)..) {
            Some(rest) if length >= NEXTHOP_BYTES => rest,
            _ => break,
        };
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, table: u8, kind: u8, device: u32) -> Route {
        let (address, bits) = to.split_once('/').unwrap();
        let to = Prefix { address: address.parse().unwrap(), bits: bits.parse().unwrap() };
        Route { to, table: table.into(), kind, devices: vec![device] }
    }

    /// As the VPC CNI makes them: two ENIs, each with a table, and a route to each pod.
    #[test]
    fn every_eni_is_an_uplink_and_pods_stay_on_the_node() {
        let (main, local) = (libc::RT_TABLE_MAIN, libc::RT_TABLE_LOCAL);
        let routes = [
            route("0.0.0.0/0", main, libc::RTN_UNICAST, 2),
            route("10.0.0.0/19", main, libc::RTN_UNICAST, 2),
            route("10.0.1.7/32", main, libc::RTN_UNICAST, 9),
            route("0.0.0.0/0", 2, libc::RTN_UNICAST, 3),
            route("10.0.0.1/32", 2, libc::RTN_UNICAST, 3),
            route("10.0.0.10/32", local, libc::RTN_LOCAL, 2),
            route("172.20.0.1/32", local, libc::RTN_LOCAL, 7),
            route("10.0.31.255/32", local, libc::RTN_BROADCAST, 2),
            route("::/0", main, libc::RTN_UNICAST, 2),
            route("2001:db8::7/128", main, libc::RTN_UNICAST, 9),
        ];
        let paths = node_paths(&routes, Some(7));
        assert_eq!(paths.uplinks, BTreeSet::from([2, 3]));
        let leads_to = |address: &str, bits| {
            paths.routes.get(&Prefix { address: address.parse().unwrap(), bits }).copied()
        };
        assert_eq!(leads_to("10.0.0.0", 19), Some(Where::Leaves));
        assert_eq!(leads_to("10.0.1.7", 32), Some(Where::Stays));
        assert_eq!(leads_to("10.0.0.10", 32), Some(Where::Own));
        assert_eq!(leads_to("2001:db8::7", 128), Some(Where::Stays));
        assert_eq!(leads_to("172.20.0.1", 32), Some(Where::Leaves), "a Service by IPVS");
        assert_eq!(leads_to("10.0.31.255", 32), None);
        assert_eq!(leads_to("10.0.0.1", 32), None);
    }

    #[test]
    fn devices_of_a_route_of_many_ways_are_read_and_nonsense_ends() {
        let hop = |device: u32| [&8u16.to_ne_bytes()[..], &[0; 2], &device.to_ne_bytes()].concat();
        assert_eq!(nexthops(&[hop(3), hop(4)].concat()), [3, 4]);
        assert!(nexthops(&[0; 16]).is_empty());
        assert!(nexthops(&hop(3)[..5]).is_empty());
    }
}
