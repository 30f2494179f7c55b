// SPDX-License-Identifier: Apache-2.0
//! What a node's prefixes make of its network, as text: the conflist for the
//! runtime and the ruleset for nft. Pure.

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use thiserror::Error;

use crate::imds::interface::Interface;
use crate::libcni::conflist::ENTRY;

/// Of the CNI network and of the table.
pub const NAME: &str = "sluice";
/// Where host-local keeps which pod has which address; gone after a reboot, as the pods are.
pub const STORE: &str = "/run/sluice/ipam";
/// libcni of containerd 1.6 and 1.7 knows no newer one.
const CNI_VERSION: &str = "1.0.0";
/// What pods have as their gateway; any link-local one does for IPv6.
const GATEWAY_V6: &str = "fe80::1";
/// Makes sure that there is a table, and takes it away: what follows it in one transaction finds none.
pub const NO_TABLE: &str = "add table ip sluice\ndelete table ip sluice\n";

/// IMDS has shown prefixes, but not what else must be known for pods to have addresses of them.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("IMDS shows prefixes of interface {mac}, but no {key}")]
pub struct Incomplete {
    mac: String,
    key: &'static str,
}

/// The conflist for pods with addresses of this interface's prefixes, and limits if `limits` says so.
/// Without prefixes it has no address to give, but undoes what it has made.
pub fn conflist(interface: &Interface, mtu: u32, limits: bool) -> Result<String, Incomplete> {
    let (mut ranges, mut routes) = (Vec::new(), Vec::new());
    if !interface.prefixes.is_empty() {
        ranges.push(ranges_v4(interface)?);
        routes.push(json!({"dst": "0.0.0.0/0"}));
    }
    if !interface.prefixes_v6.is_empty() {
        let range = |prefix| json!({"subnet": prefix, "gateway": GATEWAY_V6});
        ranges.push(interface.prefixes_v6.iter().map(range).collect());
        routes.push(json!({"dst": "::/0"}));
    }
    if ranges.is_empty() {
        ranges.push(vec![no_address()]);
    }
    let ptp = json!({
        "type": "ptp",
        "ipMasq": false,
        "mtu": mtu,
        "ipam": {"type": "host-local", "dataDir": STORE, "ranges": ranges, "routes": routes},
    });
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let own = limits.then(|| serde_json::from_str(ENTRY).unwrap_or_default());
    let plugins: Vec<Value> = [ptp, portmap].into_iter().chain(own).collect();
    let list = json!({"cniVersion": CNI_VERSION, "name": NAME, "plugins": plugins});
    Ok(format!("{list:#}\n"))
}

/// A prefix of 16 has 16 addresses, because its first and last one are none of a subnet's. The gateway
/// is the node's own address, so that the node is itself for its pods (kubelet's probes, policies).
fn ranges_v4(interface: &Interface) -> Result<Vec<Value>, Incomplete> {
    let missing = |key| Incomplete { mac: interface.mac.clone(), key };
    let subnet = interface.subnet.ok_or_else(|| missing("subnet-ipv4-cidr-block"))?;
    let gateway = interface.addresses.first().ok_or_else(|| missing("local-ipv4s"))?;
    let range = |prefix: &Ipv4Net| {
        json!({
            "subnet": subnet,
            "rangeStart": prefix.network(),
            "rangeEnd": prefix.broadcast(),
            "gateway": gateway,
        })
    };
    Ok(interface.prefixes.iter().map(range).collect())
}

/// host-local never gives the gateway's address to a pod, and here there is no other.
fn no_address() -> Value {
    json!({
        "subnet": "fe80::/64",
        "rangeStart": GATEWAY_V6,
        "rangeEnd": GATEWAY_V6,
        "gateway": GATEWAY_V6,
    })
}

/// What nft takes to replace our table in one transaction. What pods send to somewhere outside of
/// the VPC leaves with the node's address: their own are of no use there.
pub fn ruleset(interface: &Interface, pods: &[Ipv4Net]) -> Result<String, Incomplete> {
    if pods.is_empty() {
        return Ok(NO_TABLE.into());
    }
    if interface.vpc.is_empty() {
        return Err(Incomplete { mac: interface.mac.clone(), key: "vpc-ipv4-cidr-blocks" });
    }
    let (pods, vpc) = (elements(pods), elements(&interface.vpc));
    Ok(format!(
        "{NO_TABLE}\
table ip sluice {{
	set pods {{
		type ipv4_addr
		flags interval
		auto-merge
		elements = {{ {pods} }}
	}}
	set vpc {{
		type ipv4_addr
		flags interval
		auto-merge
		elements = {{ {vpc} }}
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @pods ip daddr != @vpc ip daddr != 224.0.0.0/4 masquerade fully-random
	}}
}}
"
    ))
}

fn elements(nets: &[Ipv4Net]) -> String {
    nets.iter().map(Ipv4Net::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(prefixes: &[&str], prefixes_v6: &[&str]) -> Interface {
        Interface {
            mac: "02:00:00:00:00:01".into(),
            addresses: vec![[10, 0, 0, 10].into(), [10, 0, 0, 11].into()],
            subnet: "10.0.0.0/20".parse().ok(),
            vpc: ["10.0.0.0/16", "100.64.0.0/16"].map(|net| net.parse().unwrap()).into(),
            prefixes: prefixes.iter().map(|net| net.parse().unwrap()).collect(),
            prefixes_v6: prefixes_v6.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    /// Compared with the file of this name; UPDATE_GOLDEN=1 rewrites it.
    fn assert_golden(name: &str, text: &str) {
        let path = format!("{}/testdata/standalone/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
    }

    #[test]
    fn conflists_are_as_on_record() {
        let (v4, v6) = (["10.0.1.16/28", "10.0.2.32/28"], ["2001:db8:1:2:3::/80"]);
        let text = |v4: &[&str], v6: &[&str]| conflist(&interface(v4, v6), 9001, true).unwrap();
        assert_golden("ipv4.conflist", &text(&v4, &[]));
        assert_golden("ipv6.conflist", &text(&[], &v6));
        assert_golden("both.conflist", &text(&v4[..1], &v6));
        assert_golden("no-prefix.conflist", &text(&[], &[]));
    }

    #[test]
    fn ruleset_is_as_on_record() {
        let interface = interface(&["10.0.1.16/28"], &[]);
        let pods = ["10.0.1.16/28", "10.0.2.32/28"].map(|net| net.parse().unwrap());
        assert_golden("ruleset.nft", &ruleset(&interface, &pods).unwrap());
        assert_eq!(ruleset(&interface, &[]).unwrap(), NO_TABLE);
    }

    #[test]
    fn node_without_limits_has_no_entry_of_ours() {
        let text = conflist(&interface(&["10.0.1.16/28"], &[]), 9001, false).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        let kinds: Vec<_> =
            list["plugins"].as_array().unwrap().iter().map(|p| &p["type"]).collect();
        assert_eq!(kinds, ["ptp", "portmap"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let full = interface(&["10.0.1.16/28"], &[]);
        let said = |interface: &Interface| {
            let pods = ruleset(interface, &interface.prefixes).map(|_| ());
            let conflist = conflist(interface, 9001, true).map(|_| ());
            pods.and(conflist).unwrap_err().to_string()
        };
        let of = |key| format!("IMDS shows prefixes of interface 02:00:00:00:00:01, but no {key}");
        let without = Interface { vpc: Vec::new(), ..full.clone() };
        assert_eq!(said(&without), of("vpc-ipv4-cidr-blocks"));
        let without = Interface { subnet: None, ..full.clone() };
        assert_eq!(said(&without), of("subnet-ipv4-cidr-block"));
        let without = Interface { addresses: Vec::new(), ..full };
        assert_eq!(said(&without), of("local-ipv4s"));
    }
}
