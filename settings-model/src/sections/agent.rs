// SPDX-License-Identifier: Apache-2.0

//! `[settings.sluice.agent]`: how the agent itself behaves.
//!
//! Owns the section's keys, defaults and rules.
//! Never opens a socket.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde_json::Value;
use toml::de::DeValue;

use crate::text::code;
use crate::text::problem::{Refusal, quote};
use crate::text::reader::{Table, wrong_type};
use crate::values::words::{word, words};

/// How the agent itself behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Agent {
    /// `metrics-listen`: where metrics are served; default `127.0.0.1:9469`.
    pub metrics_listen: Listen,
    /// `on-invalid`: what applies when settings cannot be used; default last-good.
    pub on_invalid: OnInvalid,
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At this address; its port is not 0.
    At(ListenAddress),
}

/// An IP address and a port other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(SocketAddr);

impl ListenAddress {
    /// None if the port is 0, which would be a different one at every start.
    pub fn new(address: SocketAddr) -> Option<Self> {
        (address.port() != 0).then_some(Self(address))
    }

    /// The address and port.
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

impl Default for Listen {
    /// Only from the node itself.
    fn default() -> Self {
        Self::At(ListenAddress(SocketAddr::from((Ipv4Addr::LOCALHOST, 9469))))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(ListenAddress(address)) => address.fmt(f),
        }
    }
}

/// What applies when settings cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnInvalid {
    /// The settings that were good last; the defaults if there are none.
    #[default]
    LastGood,
    /// The defaults.
    Defaults,
    /// Nothing: the agent does not start.
    Fail,
}

words!(OnInvalid: "last-good" = LastGood, "defaults" = Defaults, "fail" = Fail);

impl Agent {
    pub(crate) fn rows(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("metrics-listen", self.metrics_listen.to_string().into()),
            ("on-invalid", self.on_invalid.to_string().into()),
        ]
    }
}

pub(crate) fn read(table: &mut Table<'_, '_>, agent: &mut Agent) {
    table.set("metrics-listen", listen, &mut agent.metrics_listen);
    table.set("on-invalid", word, &mut agent.on_invalid);
}

fn listen(value: &DeValue<'_>) -> Result<Listen, Refusal> {
    const ALLOWED: &str = "an IP address and a port, e.g. \"127.0.0.1:9469\", or \"off\"";
    let Some(text) = value.as_str() else { return Err(wrong_type(value, ALLOWED)) };
    if text == "off" {
        return Ok(Listen::Off);
    }
    let address = SocketAddr::from_str(text).ok().and_then(ListenAddress::new);
    address.map(Listen::At).ok_or_else(|| {
        let message = format!("{} is no address to listen on; use {ALLOWED}", quote(text));
        Refusal::new(code::BAD_ADDRESS, message)
    })
}
