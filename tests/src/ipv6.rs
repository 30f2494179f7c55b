// SPDX-License-Identifier: Apache-2.0
//! IPv6 for pods, beside the IPv4 that `Pod` gives them: routed /128 addresses
//! with permanent neighbours, so that no traffic but the test's is on the veth.

use std::fs;
use std::net::Ipv6Addr;

use crate::command::{ip, json};
use crate::node::Pod;

const GATEWAY: &str = "fd01::ffff";

/// Gives the pod `fd01::N`, N as in its IPv4 address, and the host the way to it.
pub fn add_ipv6(pod: &Pod) -> Ipv6Addr {
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("forward");
    let number = u16::from(pod.address.octets()[3]);
    let address = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, number);
    let Pod { name, host_ifname, .. } = pod;
    let (outside, inside) =
        (mac(&format!("link show {host_ifname}")), { mac(&format!("-n {name} link show eth0")) });
    ip(&format!("-n {name} -6 addr add {address}/128 dev eth0 nodad"));
    ip(&format!("-n {name} -6 route add {GATEWAY} dev eth0"));
    ip(&format!("-n {name} -6 route add default via {GATEWAY} dev eth0"));
    ip(&format!("-n {name} -6 neigh add {GATEWAY} lladdr {outside} dev eth0 nud permanent"));
    ip(&format!("-6 neigh add {address} lladdr {inside} dev {host_ifname} nud permanent"));
    ip(&format!("-6 route add {address} dev {host_ifname}"));
    address
}

fn mac(query: &str) -> String {
    let links = json(&ip(&format!("-j {query}")));
    links[0]["address"].as_str().expect("a MAC address").to_owned()
}
