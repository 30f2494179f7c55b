// SPDX-License-Identifier: Apache-2.0
//! Which limits hold for a pod, highest first: one set by hand, its annotation,
//! its class, the node's default, none. Pure; ADD and a reload ask the same
//! question.

use serde::{Deserialize, Serialize};
use settings_model::{Bandwidth, Burst, LatencyTarget, Limit as Choice, Rate};

use crate::limit::{Limit, Origin};

/// Limits from the pod's annotations, and how they queue; None where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotated {
    #[serde(with = "as_text")]
    pub egress: Option<Rate>,
    #[serde(with = "as_text")]
    pub egress_burst: Option<Burst>,
    #[serde(with = "as_text")]
    pub ingress: Option<Rate>,
    #[serde(with = "as_text")]
    pub ingress_burst: Option<Burst>,
    /// Absent from records of older versions.
    #[serde(with = "as_text", default)]
    pub latency_target: Option<LatencyTarget>,
}

/// Limits that an operator set on a living pod (`sluice limit set`), above all others; None where
/// the way was left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    #[serde(with = "as_text")]
    pub egress: Option<Choice>,
    #[serde(with = "as_text")]
    pub ingress: Option<Choice>,
    /// Seconds since 1970 at which it ends.
    pub until: u64,
}

/// The limits of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub egress: Option<Limit>,
    pub ingress: Option<Limit>,
}

/// One direction's sources, highest first.
struct Sources {
    live: Option<Choice>,
    annotation: Option<Rate>,
    burst: Option<Burst>,
    latency_target: Option<LatencyTarget>,
    class: Option<Choice>,
    default: Choice,
}

impl Wanted {
    pub fn of(
        bandwidth: &Bandwidth,
        namespace: &str,
        pod: &str,
        annotated: &Annotated,
        live: Option<&Live>,
    ) -> Self {
        let class = bandwidth.classes.class_for(namespace, pod);
        let egress = Sources {
            live: live.and_then(|live| live.egress),
            annotation: annotated.egress,
            burst: annotated.egress_burst,
            latency_target: annotated.latency_target,
            class: class.and_then(|class| class.egress),
            default: bandwidth.default_egress,
        };
        let ingress = Sources {
            live: live.and_then(|live| live.ingress),
            annotation: annotated.ingress,
            burst: annotated.ingress_burst,
            latency_target: annotated.latency_target,
            class: class.and_then(|class| class.ingress),
            default: bandwidth.default_ingress,
        };
        Self { egress: egress.limit(bandwidth), ingress: ingress.limit(bandwidth) }
    }

    /// One line for people.
    pub fn to_text(&self) -> String {
        let text = |limit: Option<Limit>| match limit {
            Some(limit) => format!("{} ({})", limit.rate, limit.origin),
            None => "unlimited".into(),
        };
        format!("egress {}, ingress {}", text(self.egress), text(self.ingress))
    }

    /// Whether the pod itself asks for a limit.
    pub fn is_annotated(&self) -> bool {
        let limits = [self.egress, self.ingress];
        limits.iter().flatten().any(|limit| limit.origin == Origin::PodAnnotation)
    }

    pub fn is_unlimited(&self) -> bool {
        self.egress.is_none() && self.ingress.is_none()
    }
}

impl Sources {
    fn limit(&self, bandwidth: &Bandwidth) -> Option<Limit> {
        let (choice, origin) = match (self.live, self.annotation, self.class) {
            (Some(choice), _, _) => (choice, Origin::LiveOverride),
            (None, Some(rate), _) => (Choice::Rate(rate), Origin::PodAnnotation),
            (None, None, Some(choice)) => (choice, Origin::Class),
            (None, None, None) => (self.default, Origin::NodeDefault),
        };
        match choice {
            Choice::Rate(rate) if bandwidth.enabled => Some(Limit {
                rate,
                burst: self.burst.unwrap_or(bandwidth.burst),
                origin,
                latency_target: self.latency_target.unwrap_or(bandwidth.latency_target),
                ecn: bandwidth.ecn,
                guard: bandwidth.guard,
            }),
            _ => None,
        }
    }
}

/// A quantity as people write it, so that a record can be read and outlives a change of units.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(T::to_string).serialize(to)
    }

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error>
    where
        T::Err: Display,
    {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bandwidth(keys: &str) -> Bandwidth {
        let text = format!("sluice.version = 1\n[sluice.bandwidth]\n{keys}");
        settings_model::parse("t", &text).unwrap().bandwidth
    }

    #[test]
    fn annotation_comes_before_class_and_class_before_default() {
        let keys = "default-egress = '3Mbit'\ndefault-ingress = '4Mbit'\n\
                    [[sluice.bandwidth.class]]\nname = 'a'\nnamespaces = ['a']\negress = '2Mbit'\n";
        let bandwidth = bandwidth(keys);
        let annotated = Annotated { egress: "1Mbit".parse().ok(), ..Annotated::default() };
        let table = [
            ("a", annotated, Origin::PodAnnotation, 1_000_000),
            ("a", Annotated::default(), Origin::Class, 2_000_000),
            ("b", Annotated::default(), Origin::NodeDefault, 3_000_000),
        ];
        for (namespace, annotated, origin, rate) in table {
            let wanted = Wanted::of(&bandwidth, namespace, "x", &annotated, None);
            let egress = wanted.egress.unwrap();
            assert_eq!((egress.origin, egress.rate.bits_per_sec()), (origin, rate));
            assert_eq!(wanted.ingress.unwrap().rate.bits_per_sec(), 4_000_000);
        }
    }

    #[test]
    fn limit_set_by_hand_comes_before_the_annotation_on_its_way_only() {
        let annotated = Annotated {
            egress: "1Mbit".parse().ok(),
            ingress: "2Mbit".parse().ok(),
            ..Annotated::default()
        };
        let live = Live { egress: "unlimited".parse().ok(), ingress: None, until: 0 };
        let wanted = Wanted::of(&bandwidth(""), "a", "x", &annotated, Some(&live));
        assert_eq!(wanted.egress, None);
        assert_eq!(wanted.ingress.unwrap().origin, Origin::PodAnnotation);
        let live = Live { egress: None, ingress: "7Mbit".parse().ok(), until: 0 };
        let wanted = Wanted::of(&bandwidth(""), "a", "x", &annotated, Some(&live));
        assert_eq!(wanted.ingress.unwrap().origin, Origin::LiveOverride);
        assert_eq!(wanted.ingress.unwrap().rate.bits_per_sec(), 7_000_000);
    }

    #[test]
    fn node_says_how_a_limit_queues_unless_the_pod_does() {
        let bandwidth = bandwidth(
            "default-egress = '3Mbit'\nburst = '2ms'\nlatency-target = '7ms'\necn = false\n",
        );
        let annotated = Annotated {
            egress_burst: "9KB".parse().ok(),
            latency_target: "2ms".parse().ok(),
            ..Annotated::default()
        };
        let limit = Wanted::of(&bandwidth, "a", "x", &Annotated::default(), None).egress.unwrap();
        assert_eq!((limit.burst.to_string(), limit.ecn), ("2ms".into(), false));
        assert_eq!(limit.latency_target.to_string(), "7ms");
        let limit = Wanted::of(&bandwidth, "a", "x", &annotated, None).egress.unwrap();
        assert_eq!(limit.burst.to_string(), "9KB");
        assert_eq!(limit.latency_target.to_string(), "2ms");
    }

    #[test]
    fn nothing_is_limited_where_shaping_is_off() {
        let bandwidth = bandwidth("enabled = false\ndefault-egress = '3Mbit'\n");
        let annotated = Annotated { ingress: "1Mbit".parse().ok(), ..Annotated::default() };
        assert!(Wanted::of(&bandwidth, "a", "x", &annotated, None).is_unlimited());
    }

    #[test]
    fn annotations_survive_the_trip_through_a_record() {
        let annotated = Annotated {
            egress: "1234567bit".parse().ok(),
            egress_burst: "5ms".parse().ok(),
            ingress: None,
            ingress_burst: "64KB".parse().ok(),
            latency_target: "3ms".parse().ok(),
        };
        let text = serde_json::to_string(&annotated).unwrap();
        assert_eq!(serde_json::from_str::<Annotated>(&text).unwrap(), annotated);
    }

    #[test]
    fn record_of_a_version_without_a_latency_target_is_still_read() {
        let text = r#"{"egress":"1Mbit","egress_burst":null,"ingress":null,"ingress_burst":null}"#;
        let annotated = Annotated { egress: "1Mbit".parse().ok(), ..Annotated::default() };
        assert_eq!(serde_json::from_str::<Annotated>(text).unwrap(), annotated);
    }
}
