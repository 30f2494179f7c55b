// SPDX-License-Identifier: Apache-2.0
//! What a runtime makes of a pod's annotations, and the annotations that it hands
//! on: for the plugin on standard input, for others in its result cache.

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Number, Value};
use settings_model::{Burst, ByteCount, Rate};

use crate::pod::annotations::{self, NotAllowed, PodAnnotations};
use crate::pod::asked::Annotated;

/// `runtimeConfig`, as far as it is ours.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RuntimeConfig {
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

impl RuntimeConfig {
    /// What both ask for.
    pub fn annotated(&self) -> Result<Annotated, NotAllowed> {
        let none = BandwidthEntry::default();
        let entry = self.bandwidth.as_ref().unwrap_or(&none);
        let mut annotated = Annotated {
            egress: rate("egressRate", &entry.egress_rate)?,
            egress_burst: burst("egressBurst", &entry.egress_burst)?,
            ingress: rate("ingressRate", &entry.ingress_rate)?,
            ingress_burst: burst("ingressBurst", &entry.ingress_burst)?,
            ..Annotated::default()
        };
        if let Some(all) = &self.annotations {
            annotations::enter(all, &mut annotated)?;
        }
        Ok(annotated)
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
    Ok(runtime.annotated()?)
}

/// A runtime has no way to leave a value out, so it says more than can mean anything: dockershim and
/// cri-dockerd a burst of 2^31 - 1, containerd 2^32 - 1, CRI-O 8 (2^32 - 1) - 1, before that 8 (2^32 - 1)
/// and 2^64 - 1. Whatever is above the largest that we know a meaning for is therefore "not set",
/// as 0 is: a rate above 1 Pbit/s, a burst above 64 MiB.
fn rate(key: &str, value: &Value) -> Result<Option<Rate>, NotAllowed> {
    const MOST: u64 = 1_000_000_000_000_000;
    let bits_per_sec = bits(key, value)?;
    if bits_per_sec == 0 || bits_per_sec > MOST {
        return Ok(None);
    }
    Rate::from_bits_per_sec(bits_per_sec).map(Some).ok_or_else(|| {
        let text = format!(
            "runtimeConfig.bandwidth.{key} is {bits_per_sec} bit/s, allowed are 1 kbit/s to 1 Pbit/s"
        );
        NotAllowed(text)
    })
}

fn burst(key: &str, value: &Value) -> Result<Option<Burst>, NotAllowed> {
    let bytes = bits(key, value)?.div_ceil(8);
    Ok(ByteCount::new(bytes).map(Burst::Bytes))
}

/// A whole number, as an integer, as a float (libcni's cache has gone through floats: 2^64 - 1 comes
/// back as 18446744073709552000), or as either in quotes. -1 is 2^64 - 1, read with a sign.
fn bits(key: &str, value: &Value) -> Result<u64, NotAllowed> {
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
        NotAllowed(text)
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
