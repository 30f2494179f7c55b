// SPDX-License-Identifier: Apache-2.0
//! The node's routes: by which devices it is reached and left, and what stays on it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bpf::{Prefix, Routes};
use nix::libc;

use super::attributes::{find, u32_at};
use super::socket::{Ask, Error, Netlink};

/// struct rtmsg (include/uapi/linux/rtnetlink.h).
const RTMSG_BYTES: usize = 12;
/// struct rtnexthop; its length stands first, its device behind four bytes.
const NEXTHOP_BYTES: usize = 8;

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
        Ok(node_paths(&routes))
    }
}

fn node_paths(routes: &[Route]) -> NodePaths {
    let unicast = |route: &&Route| route.kind == libc::RTN_UNICAST;
    let defaults = routes.iter().filter(unicast).filter(|route| route.to.bits == 0);
    let uplinks: BTreeSet<u32> = defaults.flat_map(|route| route.devices.clone()).collect();
    let tables = [libc::RT_TABLE_MAIN, libc::RT_TABLE_LOCAL].map(u32::from);
    let of_node = routes.iter().filter(|r| r.to.bits > 0 && tables.contains(&r.table));
    let stays = |route: &Route| match route.kind {
        libc::RTN_LOCAL => Some(true),
        libc::RTN_UNICAST => Some(route.devices.iter().all(|device| !uplinks.contains(device))),
        _ => None,
    };
    let routes = of_node.filter_map(|route| Some((route.to, stays(route)?)));
    // Whoever it is, it is at the other end of the pod's link.
    let link_local =
        Prefix { address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), bits: 10 };
    let routes = routes.chain([(link_local, true)]).collect();
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
            route("10.0.31.255/32", local, libc::RTN_BROADCAST, 2),
            route("::/0", main, libc::RTN_UNICAST, 2),
            route("2001:db8::7/128", main, libc::RTN_UNICAST, 9),
        ];
        let paths = node_paths(&routes);
        assert_eq!(paths.uplinks, BTreeSet::from([2, 3]));
        let stays = |address: &str, bits| {
            paths.routes.get(&Prefix { address: address.parse().unwrap(), bits }).copied()
        };
        assert_eq!(stays("10.0.0.0", 19), Some(false));
        assert_eq!(stays("10.0.1.7", 32), Some(true));
        assert_eq!(stays("10.0.0.10", 32), Some(true));
        assert_eq!(stays("2001:db8::7", 128), Some(true));
        assert_eq!(stays("10.0.31.255", 32), None);
        assert_eq!(stays("10.0.0.1", 32), None);
    }

    #[test]
    fn devices_of_a_route_of_many_ways_are_read_and_nonsense_ends() {
        let hop = |device: u32| [&8u16.to_ne_bytes()[..], &[0; 2], &device.to_ne_bytes()].concat();
        assert_eq!(nexthops(&[hop(3), hop(4)].concat()), [3, 4]);
        assert!(nexthops(&[0; 16]).is_empty());
        assert!(nexthops(&hop(3)[..5]).is_empty());
    }
}
