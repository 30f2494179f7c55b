// SPDX-License-Identifier: Apache-2.0
//! What the metadata service shows of the primary network interface: its
//! addresses and the prefixes that are delegated to it. Asks, and judges only
//! whether the answer can be read.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Client, ImdsError, Outside};

pub(super) const METADATA: &str = "/latest/meta-data";

/// The interface that the instance was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// As the service writes it: small letters, colons.
    pub mac: String,
    /// The first is its own; the others are secondary ones.
    pub addresses: Vec<Ipv4Addr>,
    pub subnet: Option<Ipv4Net>,
    pub vpc: Vec<Ipv4Net>,
    /// In order, whatever the service's is, so that the same prefixes are always equal.
    pub prefixes: Vec<Ipv4Net>,
    pub prefixes_v6: Vec<Ipv6Net>,
}

#[derive(Debug, Error)]
pub enum InterfaceError {
    #[error("ask IMDS for network interfaces")]
    Imds(#[from] ImdsError),
    #[error("IMDS has nothing at {path}")]
    Missing { path: String },
    #[error("{text:?} at {path} is not what is expected there")]
    Unreadable { path: String, text: String },
}

impl Interface {
    /// Asks for all of it.
    pub fn read(budget: Duration, outside: &mut impl Outside) -> Result<Self, InterfaceError> {
        let client = &mut Client::new(budget, outside);
        let path = format!("{METADATA}/mac");
        let mac = words(client, &path)?.into_iter().next();
        let mac: String = mac.ok_or(InterfaceError::Missing { path })?;
        let of = |key: &str| format!("{METADATA}/network/interfaces/macs/{mac}/{key}");
        let mut interface = Self {
            addresses: words(client, &of("local-ipv4s"))?,
            subnet: words(client, &of("subnet-ipv4-cidr-block"))?.into_iter().next(),
            vpc: words(client, &of("vpc-ipv4-cidr-blocks"))?,
            prefixes: words(client, &of("ipv4-prefix"))?,
            prefixes_v6: words(client, &of("ipv6-prefix"))?,
            mac,
        };
        interface.prefixes.sort();
        interface.prefixes_v6.sort();
        Ok(interface)
    }

    /// Of any kind.
    pub fn has_prefixes(&self) -> bool {
        !self.prefixes.is_empty() || !self.prefixes_v6.is_empty()
    }
}

/// One of them on each line; none where the service has nothing at this path.
pub(super) fn words<T: FromStr>(
    client: &mut Client<impl Outside>,
    path: &str,
) -> Result<Vec<T>, InterfaceError> {
    let body = client.get(path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let unreadable =
        |word: &str| InterfaceError::Unreadable { path: path.into(), text: word.into() };
    text.split_whitespace().map(|word| word.parse().map_err(|_| unreadable(word))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{ImdsAnswer, ImdsRequest, Silence};
    use super::*;

    const OF: &str = "network/interfaces/macs/02:00:00:00:00:01/";

    /// A service with these pages.
    struct Pages(Vec<(String, &'static str)>);

    impl Outside for Pages {
        fn send(&mut self, request: &ImdsRequest, _: Duration) -> Result<ImdsAnswer, Silence> {
            let page = |body: &str| Ok(ImdsAnswer { status: 200, body: body.into() });
            let Some((_, path)) = request.url.split_once("/latest/meta-data/") else {
                return page("token");
            };
            let found = self.0.iter().find(|(known, _)| known == path);
            found.map_or(Ok(ImdsAnswer { status: 404, body: Vec::new() }), |(_, body)| page(body))
        }

        fn now(&self) -> Duration {
            Duration::ZERO
        }

        fn sleep(&mut self, _: Duration) {}

        fn chance(&mut self) -> f64 {
            1.0
        }
    }

    fn ask(of_interface: &[(&str, &'static str)]) -> Result<Interface, String> {
        let mut pages = vec![("mac".to_owned(), "02:00:00:00:00:01")];
        pages.extend(of_interface.iter().map(|(key, body)| (format!("{OF}{key}"), *body)));
        let mut pages = Pages(pages);
        let read = Interface::read(Duration::from_secs(1), &mut pages);
        read.map_err(|e| e.to_string())
    }

    #[test]
    fn everything_is_read_and_prefixes_are_in_order() {
        let interface = ask(&[
            ("local-ipv4s", "10.0.0.10\n10.0.0.11"),
            ("subnet-ipv4-cidr-block", "10.0.0.0/20"),
            ("vpc-ipv4-cidr-blocks", "10.0.0.0/16\n100.64.0.0/16\n"),
            ("ipv4-prefix", "10.0.2.16/28\n10.0.1.16/28"),
            ("ipv6-prefix", "2001:db8:1:2:3::/80"),
        ]);
        let expected = Interface {
            mac: "02:00:00:00:00:01".into(),
            addresses: vec![[10, 0, 0, 10].into(), [10, 0, 0, 11].into()],
            subnet: "10.0.0.0/20".parse().ok(),
            vpc: ["10.0.0.0/16", "100.64.0.0/16"].map(|net| net.parse().unwrap()).into(),
            prefixes: ["10.0.1.16/28", "10.0.2.16/28"].map(|net| net.parse().unwrap()).into(),
            prefixes_v6: vec!["2001:db8:1:2:3::/80".parse().unwrap()],
        };
        assert_eq!(interface, Ok(expected));
    }

    #[test]
    fn interface_without_prefixes_is_no_error() {
        let interface = ask(&[("local-ipv4s", "10.0.0.10")]).unwrap();
        assert_eq!((interface.prefixes, interface.prefixes_v6), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let path = format!("/latest/meta-data/{OF}ipv4-prefix");
        let expected = format!("\"10.0.1.16/33\" at {path} is not what is expected there");
        assert_eq!(ask(&[("ipv4-prefix", "10.0.1.16/33")]), Err(expected));
    }
}
