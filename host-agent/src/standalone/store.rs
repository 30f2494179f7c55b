// SPDX-License-Identifier: Apache-2.0
//! host-local's store: a file for each address that is taken, named by it, with
//! the container's id. A runtime that was killed within an ADD may never call
//! DEL (containerd 1.7 does not), so what no pod has any more is given back here.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::network::NAME;
use crate::host::lock::wait;
use crate::libcni::results;

/// No ADD that goes on for so long comes to anything: kubelet gives up after four minutes.
const LEAKED_AFTER: Duration = Duration::from_secs(600);

/// host-local holds its lock for a listing and a small file.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses that no longer belong to any pod are given back: taken long ago, not routed to any pod,
/// and by a container that the runtime knows no result of. Gives them.
pub fn free_leaked(store: &Path, cache: &Path) -> Result<Vec<IpAddr>> {
    let attempt = || format!("look for leaked addresses in {}", store.display());
    let path = store.join("lock");
    let lock = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        lock => lock.with_context(attempt)?,
    };
    // host-local's own; held until the end, so that no address is taken again meanwhile.
    wait(&lock, &path, PATIENCE, File::try_lock).with_context(attempt)?;
    let mut freed = Vec::new();
    for (address, path) in old_addresses(store).with_context(attempt)? {
        let text = fs::read_to_string(&path).with_context(attempt)?;
        let container = text.lines().next().unwrap_or_default().trim();
        let is_kept = |path: &PathBuf| results::is_of_container(path, NAME, container);
        if !is_routed(address)? && !results::paths(cache)?.iter().any(is_kept) {
            fs::remove_file(&path).with_context(attempt)?;
            freed.push(address);
        }
    }
    Ok(freed)
}

/// The store holds other files too: its lock, and which address was given last.
fn old_addresses(store: &Path) -> io::Result<Vec<(IpAddr, PathBuf)>> {
    let mut old = Vec::new();
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let age = SystemTime::now().duration_since(entry.metadata()?.modified()?);
        if age.is_ok_and(|age| age > LEAKED_AFTER) {
            old.push((address, entry.path()));
        }
    }
    Ok(old)
}

/// Whether the host has a route to just this address; ptp makes it, and it goes with the pod's veth.
fn is_routed(address: IpAddr) -> Result<bool> {
    let (path, is_route_to): (_, fn(&str, IpAddr) -> bool) = match address {
        IpAddr::V4(_) => ("/proc/self/net/route", is_route_v4),
        IpAddr::V6(_) => ("/proc/self/net/ipv6_route", is_route_v6),
    };
    let table = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(table.lines().any(|line| is_route_to(line, address)))
}

/// Interface, destination, gateway, flags, three counters, mask, …: addresses as numbers of this
/// machine's byte order.
fn is_route_v4(line: &str, address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    let fields: Vec<_> = line.split_whitespace().collect();
    let wanted = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    fields.get(1) == Some(&wanted.as_str()) && fields.get(7) == Some(&"FFFFFFFF")
}

/// Destination, length of its prefix, …: in the order of the network, hexadecimal.
fn is_route_v6(line: &str, address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return false };
    line.starts_with(&format!("{:032x} 80 ", u128::from(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node(tempfile::TempDir);

    impl Node {
        /// Addresses with their containers; all were taken long ago but for the last.
        fn with(addresses: &[(&str, &str)], results: &[&str]) -> Self {
            let node = Self(tempfile::tempdir().unwrap());
            fs::create_dir(node.results()).unwrap();
            fs::create_dir(node.store()).unwrap();
            fs::write(node.store().join("lock"), "").unwrap();
            fs::write(node.store().join("last_reserved_ip.0"), "10.0.1.17").unwrap();
            for (address, container) in addresses {
                let text = format!("{container}\r\neth0");
                fs::write(node.store().join(address), text).unwrap();
            }
            for result in results {
                fs::write(node.results().join(result), "{}").unwrap();
            }
            for (address, _) in addresses.iter().rev().skip(1) {
                let file = File::options().write(true).open(node.store().join(address)).unwrap();
                let long_ago = SystemTime::now() - LEAKED_AFTER - Duration::from_secs(1);
                file.set_modified(long_ago).unwrap();
            }
            node
        }

        fn store(&self) -> PathBuf {
            self.0.path().join("store")
        }

        fn results(&self) -> PathBuf {
            self.0.path().join("results")
        }
    }

    #[test]
    fn only_old_addresses_without_a_result_are_given_back() {
        // Of a range for documentation, so nothing is routed there.
        let addresses = [("192.0.2.1", "lost"), ("192.0.2.2", "kept"), ("192.0.2.3", "young")];
        let node = Node::with(&addresses, &["sluice-kept-eth0", "cni-loopback-lost-lo"]);
        let freed = free_leaked(&node.store(), &node.results()).unwrap();
        assert_eq!(freed, [IpAddr::from([192, 0, 2, 1])]);
        let left = fs::read_dir(node.store()).unwrap().count();
        assert_eq!(left, 4, "two addresses, the lock and the last one given");
    }

    #[test]
    fn node_without_a_store_has_nothing_to_give_back() {
        let none = Path::new("/nonexistent");
        assert_eq!(free_leaked(none, none).unwrap(), [] as [IpAddr; 0]);
    }

    #[test]
    fn routes_are_read_as_the_kernel_prints_them() {
        let line = "veth1\t1001000A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0";
        assert!(is_route_v4(line, "10.0.1.16".parse().unwrap()));
        assert!(!is_route_v4(line, "10.0.1.17".parse().unwrap()));
        let subnet = line.replace("FFFFFFFF", "F0FFFFFF");
        assert!(!is_route_v4(&subnet, "10.0.1.16".parse().unwrap()));
        let line = "20010db8000100020003000000000001 80 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 00000400 00000001 00000000 00000001 veth1";
        assert!(is_route_v6(line, "2001:db8:1:2:3::1".parse().unwrap()));
        assert!(!is_route_v6(line, "2001:db8:1:2:3::2".parse().unwrap()));
    }
}
