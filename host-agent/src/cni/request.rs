// SPDX-License-Identifier: Apache-2.0
//! What the runtime says: environment and standard input, decoded and checked.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value};
use settings_model::{Burst, ByteCount, Rate};

use super::CNI_VERSIONS;
use super::error::{Code, Error};
use crate::pod::annotations::{self, PodAnnotations};
use crate::pod::record::Key;
use crate::pod::wanted::Annotated;

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
        Err(Error::new(Code::IncompatibleVersion, text))
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
                Code::InvalidEnvironment,
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
            return Err(Error::new(Code::InvalidEnvironment, text));
        }
        let ifname = &self.ifname;
        let foreign = |c: char| c.is_whitespace() || "/:\0".contains(c);
        if !(1..=15).contains(&ifname.len()) || ifname.contains(foreign) || ifname.starts_with('.')
        {
            let text = format!("CNI_IFNAME is {ifname:?}, which is no interface name");
            return Err(Error::new(Code::InvalidEnvironment, text));
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    bandwidth: Option<BandwidthEntry>,
    /// A null for a pod that has none.
    #[serde(rename = "io.kubernetes.cri.pod-annotations")]
    annotations: Option<PodAnnotations>,
}

/// CNI's convention spells the keys `ingressRate`; containerd sends `IngressRate`, because
/// go-cni's struct has no JSON tags. Rates are bit/s, bursts bits.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BandwidthEntry {
    #[serde(alias = "EgressRate", rename = "egressRate")]
    egress_rate: Value,
    #[serde(alias = "EgressBurst", rename = "egressBurst")]
    egress_burst: Value,
    #[serde(alias = "IngressRate", rename = "ingressRate")]
    ingress_rate: Value,
    #[serde(alias = "IngressBurst", rename = "ingressBurst")]
    ingress_burst: Value,
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
            .map_err(Error::with(Code::Decode))?;
        let runtime = config.runtime_config.unwrap_or_default();
        let annotated = annotated_of(&runtime)?;
        if environment.netns.is_empty() {
            let text = "CNI_NETNS is empty: ADD and CHECK need a network namespace";
            return Err(Error::new(Code::InvalidEnvironment, text));
        }
        let prev_result = config.prev_result.ok_or_else(|| {
            let text = "prevResult is missing: sluice must be chained after the plugin that makes \
                        the interface";
            Error::new(Code::InvalidConfig, text)
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

/// What the runtime made of a pod's annotations and the annotations themselves, as it keeps them in
/// its result cache.
pub fn annotated(bandwidth: Option<&str>, annotations: Option<&str>) -> anyhow::Result<Annotated> {
    fn decode<'de, T: Deserialize<'de>>(json: Option<&'de str>) -> serde_json::Result<Option<T>> {
        json.map_or(Ok(None), serde_json::from_str)
    }
    let runtime = RuntimeConfig {
        bandwidth: decode(bandwidth).context("decode the bandwidth")?,
        annotations: decode(annotations).context("decode the annotations")?,
    };
    annotated_of(&runtime).map_err(|e| e.source)
}

fn annotated_of(runtime: &RuntimeConfig) -> Result<Annotated, Error> {
    let none = BandwidthEntry::default();
    let entry = runtime.bandwidth.as_ref().unwrap_or(&none);
    let mut annotated = Annotated {
        egress: rate("egressRate", &entry.egress_rate)?,
        egress_burst: burst("egressBurst", &entry.egress_burst)?,
        ingress: rate("ingressRate", &entry.ingress_rate)?,
        ingress_burst: burst("ingressBurst", &entry.ingress_burst)?,
        latency_target: None,
    };
    if let Some(all) = &runtime.annotations {
        annotations::enter(all, &mut annotated)?;
    }
    Ok(annotated)
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

/// A runtime has no way to leave a value out, so it says more than can mean anything: dockershim and
/// cri-dockerd a burst of 2^31 - 1, containerd 2^32 - 1, CRI-O 8 (2^32 - 1) - 1, before that 8 (2^32 - 1)
/// and 2^64 - 1. Whatever is above the largest that we know a meaning for is therefore "not set",
/// as 0 is: a rate above 1 Pbit/s, a burst above 64 MiB.
fn rate(key: &str, value: &Value) -> Result<Option<Rate>, Error> {
    const MOST: u64 = 1_000_000_000_000_000;
    let bits_per_sec = bits(key, value)?;
    if bits_per_sec == 0 || bits_per_sec > MOST {
        return Ok(None);
    }
    Rate::from_bits_per_sec(bits_per_sec).map(Some).ok_or_else(|| {
        let text = format!(
            "runtimeConfig.bandwidth.{key} is {bits_per_sec} bit/s, allowed are 1 kbit/s to 1 Pbit/s"
        );
        Error::new(Code::InvalidConfig, text)
    })
}

fn burst(key: &str, value: &Value) -> Result<Option<Burst>, Error> {
    let bytes = bits(key, value)?.div_ceil(8);
    Ok(ByteCount::new(bytes).map(Burst::Bytes))
}

/// A whole number, as an integer, as a float (libcni's cache has gone through floats: 2^64 - 1 comes
/// back as 18446744073709552000), or as either in quotes. -1 is 2^64 - 1, read with a sign.
fn bits(key: &str, value: &Value) -> Result<u64, Error> {
    let number = match value {
        Value::Null => return Ok(0),
        Value::Number(number) => Some(number.clone()),
        Value::String(text) => text.trim().parse::<Number>().ok(),
        _ => None,
    };
    let whole = number.and_then(|number| match (number.as_u64(), number.as_i64()) {
        (Some(bits), _) => Some(bits),
        (None, Some(-1)) => Some(u64::MAX),
        // A cast keeps to what the type holds.
        _ => number.as_f64().filter(|bits| *bits >= 0.0).map(|bits| bits.round() as u64),
    });
    whole.ok_or_else(|| {
        let text = format!("runtimeConfig.bandwidth.{key} is {value}, allowed is a number of bits");
        Error::new(Code::InvalidConfig, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bandwidth: &str) -> anyhow::Result<Annotated> {
        annotated(Some(bandwidth), None)
    }

    #[test]
    fn burst_that_says_not_set_leaves_the_limit_with_the_settings_burst() {
        let expected = Annotated { egress: "10Mbit".parse().ok(), ..Annotated::default() };
        for burst in [
            "0",
            "null",
            "-1",
            "2147483647",
            "4294967295",
            "4294967296",
            "34359738359",
            "34359738360",
            "9223372036854775807",
            "18446744073709551615",
            "18446744073709552000",
            "3.4359738359e10",
            "1e300",
            "\"34359738359\"",
            "536870913",
        ] {
            let text = format!(r#"{{"egressRate":10000000,"egressBurst":{burst}}}"#);
            assert_eq!(read(&text).unwrap(), expected, "{burst}");
        }
        let set = read(r#"{"EgressRate":1e7,"EgressBurst":"536870912"}"#).unwrap();
        assert_eq!(set, Annotated { egress_burst: "64MiB".parse().ok(), ..expected });
    }

    #[test]
    fn rate_in_any_spelling_is_read_and_one_beyond_all_is_none() {
        for rate in ["20000000", "2e7", "20000000.0", "\"20000000\"", "\" 2e7 \""] {
            let read = read(&format!(r#"{{"ingressRate":{rate}}}"#)).unwrap();
            assert_eq!(read.ingress, "20Mbit".parse().ok(), "{rate}");
        }
        for rate in ["0", "0.0", "null", "-1", "18446744073709551615", "1000000000000001"] {
            let read = read(&format!(r#"{{"ingressRate":{rate}}}"#)).unwrap();
            assert_eq!(read.ingress, None, "{rate}");
        }
    }

    #[test]
    fn what_is_no_number_of_bits_is_named_with_its_key() {
        for (value, message) in [
            ("999", "is 999 bit/s, allowed are 1 kbit/s to 1 Pbit/s"),
            ("-5", "is -5, allowed is a number of bits"),
            ("\"10M\"", "is \"10M\", allowed is a number of bits"),
            ("[]", "is [], allowed is a number of bits"),
            ("\"\"", "is \"\", allowed is a number of bits"),
        ] {
            let error = read(&format!(r#"{{"ingressRate":{value}}}"#)).unwrap_err();
            assert_eq!(error.to_string(), format!("runtimeConfig.bandwidth.ingressRate {message}"));
        }
    }
}
