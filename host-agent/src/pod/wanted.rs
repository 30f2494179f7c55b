// SPDX-License-Identifier: Apache-2.0
//! Which limits apply to a pod, highest first: an override, its annotation,
//! its class, the node's default, none; and none above the maximum but one set by
//! hand. Pure; ADD and a reload ask the same question.

use settings_model::{Bandwidth, Burst};

use crate::pod::asked::{Annotated, Override};
use crate::pod::direction::Direction;
use crate::pod::limit::{Limit, Origin};
use crate::pod::sources::Sources;

/// The limits of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub egress: Option<Limit>,
    pub ingress: Option<Limit>,
}

impl Wanted {
    pub fn of(
        bandwidth: &Bandwidth,
        namespace: &str,
        pod: &str,
        annotated: &Annotated,
        live: Option<&Override>,
    ) -> Self {
        let limit = |direction| {
            Sources::of(bandwidth, direction, namespace, pod, annotated, live).limit(bandwidth)
        };
        Self { egress: limit(Direction::Egress), ingress: limit(Direction::Ingress) }
    }

    /// One line for people.
    pub fn to_text(self) -> String {
        let text = |limit: Option<Limit>| match limit {
            Some(Limit { rate, origin, asked: Some(asked), .. }) => {
                format!("{rate} ({origin}: {asked}, above the maximum)")
            }
            Some(limit) => format!("{} ({})", limit.rate, limit.origin),
            None => "unlimited".into(),
        };
        format!("egress {}, ingress {}", text(self.egress), text(self.ingress))
    }

    /// What of the pod's own annotations is above a maximum, a line for each.
    pub fn clamped(&self, annotated: &Annotated) -> Vec<String> {
        let directions = [
            ("egress", self.egress, annotated.egress_burst),
            ("ingress", self.ingress, annotated.ingress_burst),
        ];
        let of_way = |(direction, limit, own_burst): (&str, Option<Limit>, Option<Burst>)| {
            let limit = limit?;
            let asked = limit.asked.filter(|_| limit.origin == Origin::PodAnnotation);
            let burst = limit.asked_burst.filter(|asked| own_burst == Some(*asked));
            let clamp = |key, asked: String, max: String| {
                format!("its annotation asks for {key} {asked}, above the maximum: it has {max}")
            };
            let rate =
                asked.map(|asked| clamp(direction, asked.to_string(), limit.rate.to_string()));
            let key = format!("{direction} burst");
            let burst = burst.map(|asked| clamp(&key, asked.to_string(), limit.burst.to_string()));
            Some(rate.into_iter().chain(burst))
        };
        directions.into_iter().filter_map(of_way).flatten().collect()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use settings_model::Limit as Choice;

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
        let live = Override { egress: "unlimited".parse().ok(), ingress: None, until: 0 };
        let wanted = Wanted::of(&bandwidth(""), "a", "x", &annotated, Some(&live));
        assert_eq!(wanted.egress, None);
        assert_eq!(wanted.ingress.unwrap().origin, Origin::PodAnnotation);
        let live = Override { egress: None, ingress: "7Mbit".parse().ok(), until: 0 };
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
    fn maximum_lowers_what_is_asked_for_and_limits_who_asks_for_nothing() {
        let keys = "default-ingress = '9Mbit'\nmax-egress = '10Mbit'\nmax-burst = '6ms'\n\
                    [[sluice.bandwidth.class]]\nname = 'a'\nnamespaces = ['a']\n\
                    ingress = 'unlimited'\nmax-egress = '2Mbit'\nmax-ingress = '3Mbit'\n";
        let bandwidth = bandwidth(keys);
        let none = Annotated::default();
        let high =
            Annotated { egress: "1Gbit".parse().ok(), egress_burst: "64MiB".parse().ok(), ..none };
        let low = Annotated { egress: "1Mbit".parse().ok(), ..none };
        let table = [
            (
                "b",
                none,
                "egress 10Mbit (node default: unlimited, above the maximum), ingress 9Mbit (node default)",
            ),
            (
                "b",
                high,
                "egress 10Mbit (pod annotation: 1Gbit, above the maximum), ingress 9Mbit (node default)",
            ),
            ("b", low, "egress 1Mbit (pod annotation), ingress 9Mbit (node default)"),
            (
                "a",
                none,
                "egress 2Mbit (node default: unlimited, above the maximum), ingress 3Mbit (class: unlimited, above the maximum)",
            ),
            (
                "a",
                high,
                "egress 2Mbit (pod annotation: 1Gbit, above the maximum), ingress 3Mbit (class: unlimited, above the maximum)",
            ),
        ];
        for (namespace, annotated, text) in table {
            assert_eq!(Wanted::of(&bandwidth, namespace, "x", &annotated, None).to_text(), text);
        }
        let wanted = Wanted::of(&bandwidth, "b", "x", &high, None);
        let expected = [
            "its annotation asks for egress 1Gbit, above the maximum: it has 10Mbit",
            "its annotation asks for egress burst 64MiB, above the maximum: it has 6ms",
        ];
        assert_eq!(wanted.clamped(&high), expected);
        assert!(Wanted::of(&bandwidth, "a", "x", &none, None).clamped(&none).is_empty());
    }

    #[test]
    fn where_pods_share_the_node_each_has_a_weight_and_who_has_no_limit_the_nodes_capacity() {
        let keys = "node-share = true\nnode-egress = '1Gbit'\nnode-ingress = 'auto'\n\
                    default-egress = 'unlimited'\nweight = 200\nmax-weight = 300\n\
                    [[sluice.bandwidth.class]]\nname = 'a'\nnamespaces = ['a']\n\
                    egress = '50Mbit'\nweight = 400\n";
        let bandwidth = bandwidth(keys);
        let annotated = Annotated { weight: "7".parse().ok(), ..Annotated::default() };
        let egress = |namespace, annotated| {
            Wanted::of(&bandwidth, namespace, "x", annotated, None).egress.unwrap()
        };
        let in_programs = |limit: Limit| limit.for_bpf(bpf::Mode::Paced, Direction::Egress, 1500);
        let blank = Annotated::default();
        let (none, class) = (egress("b", &blank), egress("a", &blank));
        assert_eq!((none.origin, none.rate.bits_per_sec()), (Origin::NodeShare, 1_000_000_000));
        assert_eq!((class.origin, class.rate.bits_per_sec()), (Origin::Class, 50_000_000));
        let weights = [none, class, egress("a", &annotated)].map(|limit| in_programs(limit).weight);
        assert_eq!(weights, [200, 400, 7]);
        let greedy = Annotated { weight: "10000".parse().ok(), ..Annotated::default() };
        assert_eq!(in_programs(egress("b", &greedy)).weight, 300);
        assert_eq!([none, class].map(|limit| in_programs(limit).node_only), [true, false]);
        let wanted = Wanted::of(&bandwidth, "b", "x", &Annotated::default(), None);
        assert_eq!(wanted.to_text(), "egress 1Gbit (node share), ingress unlimited");
    }

    #[test]
    fn pod_that_may_be_faster_than_the_node_is_shaped_as_fast_as_that() {
        let bandwidth = bandwidth("node-share = true\nnode-egress = '100Mbit'\n");
        let annotated = Annotated { egress: "1Gbit".parse().ok(), ..Annotated::default() };
        let limit = Wanted::of(&bandwidth, "b", "x", &annotated, None).egress.unwrap();
        assert_eq!(limit.rate.bits_per_sec(), 1_000_000_000);
        assert_eq!(limit.gso_max_size(1500), 3_000);
        assert_eq!(limit.gso_max_size(700), 1_562);
    }

    #[test]
    fn root_of_the_node_may_go_above_the_maximum_for_a_while() {
        let bandwidth = bandwidth("max-egress = '10Mbit'\nmax-ingress = '10Mbit'\n");
        let (egress, ingress) = ("1Gbit".parse().ok(), "unlimited".parse().ok());
        let live = Override { egress, ingress, until: 0 };
        let wanted = Wanted::of(&bandwidth, "a", "x", &Annotated::default(), Some(&live));
        assert_eq!(wanted.to_text(), "egress 1Gbit (override), ingress unlimited");
    }

    proptest! {
        /// Whatever a pod says of itself, and whatever it is called.
        #[test]
        fn no_annotation_raises_a_limit_above_the_maximum(
            egress in prop::option::of(1_000u64..=1_000_000_000_000_000),
            ingress in prop::option::of(1_000u64..=1_000_000_000_000_000),
            bursts in (any_burst(), any_burst()),
            max in (1_000u64..=1_000_000_000_000, 1_000u64..=1_000_000_000_000),
            max_burst in any_burst(),
            default in prop::option::of(1_000u64..=1_000_000_000_000),
            namespace in "[ab]",
        ) {
            let rate = |bits: u64| settings_model::Rate::from_bits_per_sec(bits).unwrap();
            let mut bandwidth = bandwidth(
                "[[sluice.bandwidth.class]]\nname = 'a'\nnamespaces = ['a']\negress = 'unlimited'\nmax-egress = '1kbit'\n",
            );
            bandwidth.default_egress = default.map_or(Choice::Unlimited, |bits| Choice::Rate(rate(bits)));
            bandwidth.max_egress = Some(Choice::Rate(rate(max.0)));
            bandwidth.max_ingress = Some(Choice::Rate(rate(max.1)));
            bandwidth.max_burst = max_burst;
            let annotated = Annotated {
                egress: egress.map(rate),
                egress_burst: bursts.0,
                ingress: ingress.map(rate),
                ingress_burst: bursts.1,
                ..Annotated::default()
            };
            let wanted = Wanted::of(&bandwidth, &namespace, "x", &annotated, None);
            let class = if namespace == "a" { 1_000 } else { u64::MAX };
            for (limit, max) in [(wanted.egress, max.0.min(class)), (wanted.ingress, max.1)] {
                let limit = limit.expect("there is a maximum");
                prop_assert!(limit.rate.bits_per_sec() <= max);
                if let Some(max) = max_burst {
                    prop_assert!(limit.burst.ns_at(limit.rate) <= max.ns_at(limit.rate));
                }
                let asked = matches!(limit.asked, Some(Choice::Rate(asked)) if asked <= limit.rate);
                prop_assert!(!asked, "{:?}", limit);
            }
        }
    }

    fn any_burst() -> impl Strategy<Value = Option<Burst>> {
        let text = prop_oneof![
            (1u64..=1_000_000_000).prop_map(|ns| format!("{ns}ns")),
            (1u64..=67_108_864).prop_map(|bytes| format!("{bytes}B")),
        ];
        prop::option::of(text.prop_map(|text| text.parse().unwrap()))
    }

    #[test]
    fn annotations_survive_the_trip_through_a_record() {
        let annotated = Annotated {
            egress: "1234567bit".parse().ok(),
            egress_burst: "5ms".parse().ok(),
            ingress: None,
            ingress_burst: "64KB".parse().ok(),
            latency_target: "3ms".parse().ok(),
            weight: "7".parse().ok(),
            egress_floor: "5Mbit".parse().ok(),
            ingress_floor: None,
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
