// SPDX-License-Identifier: Apache-2.0
//! What the metadata service shows of every network interface: which prefixes
//! and secondary addresses it has now. Asks each thing once; whoever adds up what is
//! of use to pods is addresses/capacity/'s.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

use super::interface::{InterfaceError, METADATA, words};
use super::{Client, Outside};

/// An interface, as far as addresses for pods go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eni {
    /// The one that the instance was started with.
    pub primary: bool,
    /// The network card; ENIs on the first, 0, alone serve pods.
    pub card: u16,
    /// It takes an ENI's place and has no address of its own, so it can have none for pods.
    pub efa_only: bool,
    pub prefixes: Vec<Ipv4Net>,
    pub prefixes_v6: Vec<Ipv6Net>,
    /// How many it has beside its own.
    pub secondary_addresses: u64,
}

impl Eni {
    /// All of them; an instance has one at least. One that goes between two questions has nothing.
    pub fn read_all(
        budget: Duration,
        outside: &mut impl Outside,
    ) -> Result<Vec<Self>, InterfaceError> {
        let client = &mut Client::once(budget, outside);
        let primary: Vec<String> = words(client, &format!("{METADATA}/mac"))?;
        let path = format!("{METADATA}/network/interfaces/macs/");
        let macs: Vec<String> = words(client, &path)?;
        if macs.is_empty() {
            return Err(InterfaceError::Missing { path });
        }
        let macs = macs.iter().map(|mac| mac.trim_end_matches('/'));
        macs.map(|mac| {
            let is_primary = primary.iter().any(|own| own == mac);
            Self::read(client, mac, is_primary)
        })
        .collect()
    }

    fn read(
        client: &mut Client<impl Outside>,
        mac: &str,
        primary: bool,
    ) -> Result<Self, InterfaceError> {
        let of = |key: &str| format!("{METADATA}/network/interfaces/macs/{mac}/{key}");
        let addresses: Vec<Ipv4Addr> = words(client, &of("local-ipv4s"))?;
        let cards: Vec<u16> = words(client, &of("network-card"))?;
        let mut is_there_without = |key: &str| -> Result<bool, InterfaceError> {
            let addresses: Vec<Ipv6Addr> = words(client, &of(key))?;
            // Asked last: one that has gone meanwhile has no number.
            let numbers: Vec<u16> = words(client, &of("device-number"))?;
            Ok(addresses.is_empty() && !numbers.is_empty())
        };
        let efa_only = !primary && addresses.is_empty() && is_there_without("ipv6s")?;
        Ok(Self {
            primary,
            card: cards.first().copied().unwrap_or(0),
            efa_only,
            prefixes: words(client, &of("ipv4-prefix"))?,
            prefixes_v6: words(client, &of("ipv6-prefix"))?,
            secondary_addresses: addresses.len().saturating_sub(1) as u64,
        })
    }
}
