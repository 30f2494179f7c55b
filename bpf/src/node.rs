// SPDX-License-Identifier: Apache-2.0
//! Which packets use the node's line: the devices that it is made of, and where
//! the node's routes lead to. The maps are brought to what is wanted entry by
//! entry: nothing that stays is ever missing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};

use crate::{Error, Result};

/// Of addresses; contract.h's `struct sluice_prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    pub address: IpAddr,
    pub bits: u8,
}

impl Prefix {
    fn key(self) -> Vec<u8> {
        let (address, above) = match self.address {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), 96),
            IpAddr::V6(address) => (address, 0),
        };
        let bits = u32::from(self.bits) + above;
        [&bits.to_ne_bytes()[..], &address.octets()].concat()
    }
}

/// Where a route leads to; contract.h's `enum sluice_where`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Leaves = 0,
    Stays = 1,
    Own = 2,
}

pub type Routes = BTreeMap<Prefix, Where>;

pub(crate) fn set_routes(map: &MapHandle, routes: &Routes) -> Result<()> {
    let wanted = routes.iter().map(|(prefix, to)| (prefix.key(), *to as u32));
    bring(map, "routes", wanted.collect())
}

pub(crate) fn set_uplinks(map: &MapHandle, uplinks: &BTreeSet<u32>) -> Result<()> {
    let wanted = uplinks.iter().map(|ifindex| (ifindex.to_ne_bytes().to_vec(), 1));
    bring(map, "uplinks", wanted.collect())
}

fn bring(map: &MapHandle, name: &'static str, wanted: BTreeMap<Vec<u8>, u32>) -> Result<()> {
    let error = |source| Error::NodeMap { map: name, source };
    let held: BTreeSet<Vec<u8>> = map.keys().collect();
    for (key, value) in &wanted {
        map.update(key, &value.to_ne_bytes(), MapFlags::ANY).map_err(error)?;
    }
    for key in held.iter().filter(|key| !wanted.contains_key(*key)) {
        match map.delete(key) {
            Err(source) if source.kind() != ErrorKind::NotFound => return Err(error(source)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_prefix_is_one_of_mapped_addresses() {
        let prefix = Prefix { address: [10, 1, 0, 0].into(), bits: 16 };
        let key = prefix.key();
        assert_eq!(key[..4], 112u32.to_ne_bytes());
        assert_eq!(key[4..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 0]);
    }
}
