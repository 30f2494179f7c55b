// SPDX-License-Identifier: Apache-2.0
//! What the runtime says: environment and standard input, decoded and checked.

use std::path::PathBuf;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{CniCode, Error};
use crate::pod::asked::Annotated;
use crate::pod::record::Key;
use crate::pod::runtime_config::RuntimeConfig;

/// Versions of the CNI spec that requests may carry, oldest first.
pub const CNI_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    /// The version of the spec that the verb came with, where that is not the oldest.
    fn since(self) -> Option<&'static str> {
        match self {
            Self::Check => Some("0.4.0"),
            Self::Gc => Some("1.1.0"),
            // STATUS came with 1.1.0 too, but it changes nothing: whoever asks is answered.
            Self::Add | Self::Del | Self::Status | Self::Version => None,
        }
    }

    /// Refuses a version that we do not speak, or in which there was no such verb. DEL is never
    /// refused, and VERSION is how to find out.
    pub fn check_version(self, version: &str) -> Result<(), Error> {
        if matches!(self, Self::Del | Self::Version) {
            return Ok(());
        }
        // Without a version libcni sends "", which means the oldest, and everybody takes that.
        let place = |version: &str| match version {
            "" => Some(0),
            version => CNI_VERSIONS.iter().position(|known| *known == version),
        };
        let since = self.since().and_then(place).unwrap_or_default();
        if place(version).is_some_and(|place| place >= since) {
            return Ok(());
        }
        let allowed = CNI_VERSIONS[since..].join(", ");
        let text = format!("cniVersion is {version:?}, allowed are {allowed}");
        Err(Error::new(CniCode::IncompatibleVersion, text))
    }
}

/// The runtime's environment variables; an unset one and an empty one are the same to the spec.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub command: String,
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
    pub args: String,
}

impl Environment {
    pub fn of_process() -> Self {
        let get = |name| std::env::var(name).unwrap_or_default();
        Self {
            command: get("CNI_COMMAND"),
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            args: get("CNI_ARGS"),
        }
    }

    pub fn command(&self) -> Result<Command, Error> {
        match self.command.as_str() {
            "ADD" => Ok(Command::Add),
            "DEL" => Ok(Command::Del),
            "CHECK" => Ok(Command::Check),
            "GC" => Ok(Command::Gc),
            "STATUS" => Ok(Command::Status),
            "VERSION" => Ok(Command::Version),
            other => Err(Error::new(
                CniCode::InvalidEnvironment,
                format!(
                    "CNI_COMMAND is {other:?}, allowed are ADD, DEL, CHECK, GC, STATUS and VERSION"
                ),
            )),
        }
    }

    /// Only the characters that the spec allows, and so nothing that leaves the records' directory.
    pub fn key(&self) -> Result<Key, Error> {
        let id = &self.container_id;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !id.starts_with(|c: char| c.is_ascii_alphanumeric()) || !id.chars().all(plain) {
            let text = format!(
                "CNI_CONTAINERID is {id:?}, allowed are letters, digits, '_', '.' and '-', and a \
                 letter or digit first"
            );
            return Err(Error::new(CniCode::InvalidEnvironment, text));
        }
        let ifname = &self.ifname;
        let foreign = |c: char| c.is_whitespace() || "/:\0".contains(c);
        if !(1..=15).contains(&ifname.len()) || ifname.contains(foreign) || ifname.starts_with('.')
        {
            let text = format!("CNI_IFNAME is {ifname:?}, which is no interface name");
            return Err(Error::new(CniCode::InvalidEnvironment, text));
        }
        Ok(Key { container_id: id.clone(), ifname: ifname.clone() })
    }
}

/// A decoded ADD or CHECK.
#[derive(Debug)]
pub struct Request {
    pub began: Instant,
    pub key: Key,
    pub netns: PathBuf,
    pub namespace: String,
    pub pod: String,
    pub network: Option<String>,
    pub annotated: Annotated,
    /// The result of the plugins before us, byte for byte as it came.
    pub prev_result: Box<RawValue>,
}

/// The part of the network configuration that concerns us; foreign keys are the runtime's affair.
#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    name: Option<String>,
    #[serde(default, rename = "prevResult")]
    prev_result: Option<Box<RawValue>>,
    #[serde(default, rename = "runtimeConfig")]
    runtime_config: Option<RuntimeConfig>,
}

#[derive(Deserialize)]
struct VersionOnly {
    #[serde(default, rename = "cniVersion")]
    cni_version: String,
}

/// The version that answers must carry: the request's own.
pub fn cni_version(stdin: &str) -> Option<String> {
    serde_json::from_str::<VersionOnly>(stdin).ok().map(|config| config.cni_version)
}

impl Request {
    pub fn decode(environment: &Environment, stdin: &str) -> Result<Self, Error> {
        let began = Instant::now();
        let config: Config = serde_json::from_str(stdin)
            .map_err(|e| anyhow::Error::from(e).context("decode the network configuration"))
            .map_err(Error::with(CniCode::Decode))?;
        let runtime = config.runtime_config.unwrap_or_default();
        let annotated = runtime.annotated().map_err(Error::with(CniCode::InvalidConfig))?;
        if environment.netns.is_empty() {
            let text = "CNI_NETNS is empty: ADD and CHECK need a network namespace";
            return Err(Error::new(CniCode::InvalidEnvironment, text));
        }
        let prev_result = config.prev_result.ok_or_else(|| {
            let text = "prevResult is missing: sluice must be chained after the plugin that makes \
                        the interface";
            Error::new(CniCode::InvalidConfig, text)
        })?;
        Ok(Self {
            began,
            key: environment.key()?,
            netns: PathBuf::from(&environment.netns),
            namespace: argument(&environment.args, "K8S_POD_NAMESPACE"),
            pod: argument(&environment.args, "K8S_POD_NAME"),
            network: config.name,
            annotated,
            prev_result,
        })
    }
}

/// One value of CNI_ARGS, `A=1;B=2`; the order varies from call to call.
fn argument(args: &str, name: &str) -> String {
    let pairs = args.split(';').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
        .next()
        .unwrap_or_default()
}
