// SPDX-License-Identifier: Apache-2.0
//! Sluice's own annotations of a pod. The runtime hands on all that the pod
//! has; whatever is not named here is foreign and is not looked at.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde_json::value::RawValue;
use settings_model::{Burst, LatencyTarget, Rate, Weight};

use crate::pod::asked::Annotated;

/// The capability, and the key of `runtimeConfig`, that containerd and CRI-O hand annotations on by.
pub const CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";
pub const EGRESS_BURST: &str = "sluice.dev/egress-burst";
pub const INGRESS_BURST: &str = "sluice.dev/ingress-burst";
pub const LATENCY_TARGET: &str = "sluice.dev/latency-target";
pub const WEIGHT: &str = "sluice.dev/weight";
pub const EGRESS_FLOOR: &str = "sluice.dev/egress-floor";
pub const INGRESS_FLOOR: &str = "sluice.dev/ingress-floor";

/// Why a pod's annotation, or what a runtime made of one, cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAllowed(pub String);

/// All annotations of a pod, undecoded.
pub type PodAnnotations = BTreeMap<String, Box<RawValue>>;

/// Enters what the pod says of itself. Values are written as those of the settings `burst`,
/// `latency-target` and, as a string, `weight`; floors as a class' `floor-egress`.
pub fn enter(all: &PodAnnotations, annotated: &mut Annotated) -> Result<(), NotAllowed> {
    let burst = |name| own::<Burst>(all, name);
    annotated.egress_burst = burst(EGRESS_BURST)?.or(annotated.egress_burst);
    annotated.ingress_burst = burst(INGRESS_BURST)?.or(annotated.ingress_burst);
    annotated.latency_target = own::<LatencyTarget>(all, LATENCY_TARGET)?;
    annotated.weight = own::<Weight>(all, WEIGHT)?;
    annotated.egress_floor = own::<Rate>(all, EGRESS_FLOOR)?;
    annotated.ingress_floor = own::<Rate>(all, INGRESS_FLOOR)?;
    Ok(())
}

fn own<T: FromStr<Err: Display>>(
    all: &PodAnnotations,
    name: &str,
) -> Result<Option<T>, NotAllowed> {
    let Some(raw) = all.get(name) else { return Ok(None) };
    let refuse = |why: String| NotAllowed(format!("annotation {name}: {why}"));
    let text: String =
        serde_json::from_str(raw.get()).map_err(|_| refuse(format!("{raw} is no string")))?;
    text.parse().map(Some).map_err(|e: T::Err| refuse(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Annotated, String> {
        let all = serde_json::from_str(json).unwrap();
        let mut annotated = Annotated::default();
        enter(&all, &mut annotated).map(|()| annotated).map_err(|e| e.to_string())
    }

    #[test]
    fn own_annotations_are_read_and_others_are_left_alone() {
        let json = r#"{"sluice.dev/egress-burst":"64KB","sluice.dev/ingress-burst":"2ms",
            "sluice.dev/latency-target":"7ms","sluice.dev/weight":"250",
            "sluice.dev/egress-floor":"5Mbit","sluice.dev/ingress-floor":"10M","sluice.dev/someday":"x","example.org/burst":7}"#;
        let expected = Annotated {
            egress_burst: "64KB".parse().ok(),
            ingress_burst: "2ms".parse().ok(),
            latency_target: "7ms".parse().ok(),
            weight: "250".parse().ok(),
            egress_floor: "5Mbit".parse().ok(),
            ingress_floor: "10Mbit".parse().ok(),
            ..Annotated::default()
        };
        assert_eq!(read(json), Ok(expected));
        assert_eq!(read("{}"), Ok(Annotated::default()));
    }

    #[test]
    fn annotation_that_cannot_be_read_is_named_with_what_is_allowed() {
        let table = [
            (
                r#"{"sluice.dev/egress-burst":"64Kb"}"#,
                "annotation sluice.dev/egress-burst: \"64Kb\" has an unknown unit; use ns, us, ms or \
                 s for time, or B, KB, MB, KiB or MiB for bytes, e.g. \"5ms\" or \"64KB\"",
            ),
            (
                r#"{"sluice.dev/ingress-burst":""}"#,
                "annotation sluice.dev/ingress-burst: \"\" is not a number with a unit; use 1ns to \
                 1s, or 1B to 64MiB, e.g. \"5ms\" or \"64KB\"",
            ),
            (
                r#"{"sluice.dev/latency-target":"1s"}"#,
                "annotation sluice.dev/latency-target: \"1s\" is out of range; use 1ms to 100ms",
            ),
            (
                r#"{"sluice.dev/latency-target":5}"#,
                "annotation sluice.dev/latency-target: 5 is no string",
            ),
            (
                r#"{"sluice.dev/weight":"0"}"#,
                "annotation sluice.dev/weight: \"0\" is no weight; use a whole number from 1 to 10000",
            ),
        ];
        for (json, message) in table {
            assert_eq!(read(json), Err(message.to_owned()));
        }
    }
}
