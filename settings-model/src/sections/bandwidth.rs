// SPDX-License-Identifier: Apache-2.0

//! `[settings.sluice.bandwidth]`: how pods are shaped unless something more specific says otherwise.
//!
//! Owns the section's keys, defaults and rules.
//! Never decides what a single pod gets; the agent's plan does.

use serde_json::Value;
use toml::de::DeValue;

use crate::sections::class::{self, Classes};
use crate::text::problem::Refusal;
use crate::text::reader::{Table, boolean};
use crate::values::burst::{Burst, burst, some_burst};
use crate::values::latency::{LatencyTarget, latency_target};
use crate::values::rate::{Capacity, Limit, Rate, capacity, limit, some_limit, some_rate};
use crate::values::weight::{Weight, some_weight};
use crate::values::words::{word, words};

/// How pods are shaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bandwidth {
    /// `enabled`: whether pods are shaped at all; default true.
    pub enabled: bool,
    /// `default-egress`: what each pod may send; default unlimited.
    pub default_egress: Limit,
    /// `default-ingress`: what each pod may receive; default unlimited.
    pub default_ingress: Limit,
    /// `burst`: how far a pod may run ahead of its rate; default 5 ms.
    pub burst: Burst,
    /// `max-egress`: what no pod may send more than, whatever it asks for; default none.
    pub max_egress: Option<Limit>,
    /// `max-ingress`: what no pod may receive more than, whatever it asks for; default none.
    pub max_ingress: Option<Limit>,
    /// `max-burst`: what no pod's burst may be above, whatever it asks for; default none.
    pub max_burst: Option<Burst>,
    /// `latency-target`: how long a packet may wait for its pod's limit; default 5 ms.
    pub latency_target: LatencyTarget,
    /// `ecn`: whether packets that can be marked are marked instead of dropped; default true.
    pub ecn: bool,
    /// `count`: what a bit is.
    pub count: Count,
    /// `guard`: where the guard of what a pod sends may be on a kernel without tcx; default policy-only.
    pub guard: GuardPlace,
    /// `node-egress`: what the node can send; default auto.
    pub node_egress: Capacity,
    /// `node-ingress`: what the node can receive; default auto.
    pub node_ingress: Capacity,
    /// `node-share`: whether pods share the node's capacity; default false.
    pub node_share: Option<bool>,
    /// `weight`: of each pod's part of that; default 100.
    pub weight: Option<Weight>,
    /// `max-weight`: what no annotation may ask for more than; default none.
    pub max_weight: Option<Weight>,
    /// `max-floor`: what no annotation may be promised more than of either direction; default none.
    pub max_floor: Option<Rate>,
    /// `class`: limits for the pods that patterns match; default none.
    pub classes: Classes,
}

/// What counts as a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Count {
    /// The bits of L2 frames as they are on the pod's veth.
    #[default]
    L2,
}

words!(Count: "l2" = L2);

/// Where the guard of what a pod sends may be on a kernel without tcx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GuardPlace {
    /// On network policy's clsact alone; nowhere without one.
    #[default]
    PolicyOnly,
    /// On a clsact that is made for it where there is none.
    OwnClsact,
}

words!(GuardPlace: "policy-only" = PolicyOnly, "own-clsact" = OwnClsact);

impl Default for Bandwidth {
    fn default() -> Self {
        Self {
            enabled: true,
            default_egress: Limit::Unlimited,
            default_ingress: Limit::Unlimited,
            burst: Burst::default(),
            max_egress: None,
            max_ingress: None,
            max_burst: None,
            latency_target: LatencyTarget::default(),
            ecn: true,
            count: Count::default(),
            guard: GuardPlace::default(),
            node_egress: Capacity::default(),
            node_ingress: Capacity::default(),
            node_share: None,
            weight: None,
            max_weight: None,
            max_floor: None,
            classes: Classes::default(),
        }
    }
}

impl Bandwidth {
    /// Whether pods share the node, and what it can do is to be found out on the node.
    pub fn shares_by_auto(&self) -> bool {
        let capacities = [self.node_egress, self.node_ingress];
        let given = |capacity: &Capacity| matches!(capacity, Capacity::Rate(_));
        self.node_share == Some(true) && !capacities.iter().all(given)
    }

    pub(crate) fn rows(&self) -> Vec<(&'static str, Value)> {
        let mut rows = vec![
            ("enabled", self.enabled.into()),
            ("default-egress", self.default_egress.to_string().into()),
            ("default-ingress", self.default_ingress.to_string().into()),
            ("burst", self.burst.to_string().into()),
        ];
        rows.extend(maximum_rows(self.max_egress, self.max_ingress, self.max_burst));
        rows.extend([
            ("latency-target", self.latency_target.to_string().into()),
            ("ecn", self.ecn.into()),
            ("count", self.count.to_string().into()),
            ("guard", self.guard.to_string().into()),
            ("node-egress", self.node_egress.to_string().into()),
            ("node-ingress", self.node_ingress.to_string().into()),
        ]);
        rows.extend(self.node_share.map(|on| ("node-share", on.into())));
        rows.extend(weight_row("weight", self.weight));
        rows.extend(weight_row("max-weight", self.max_weight));
        rows.extend(rate_row("max-floor", self.max_floor));
        rows
    }
}

/// As the rows of maxima: only where it is given.
pub(crate) fn weight_row(
    key: &'static str,
    weight: Option<Weight>,
) -> Option<(&'static str, Value)> {
    weight.map(|weight| (key, weight.value().into()))
}

pub(crate) fn rate_row(key: &'static str, rate: Option<Rate>) -> Option<(&'static str, Value)> {
    rate.map(|rate| (key, rate.to_string().into()))
}

fn some_boolean(value: &DeValue<'_>) -> Result<Option<bool>, Refusal> {
    boolean(value).map(Some)
}

/// Those that are given: a program without these keys can read what one with them prints.
pub(crate) fn maximum_rows(
    egress: Option<Limit>,
    ingress: Option<Limit>,
    burst: Option<Burst>,
) -> Vec<(&'static str, Value)> {
    let rates = [("max-egress", egress), ("max-ingress", ingress)];
    let rates = rates.into_iter().filter_map(|(key, max)| Some((key, max?.to_string().into())));
    rates.chain(burst.map(|max| ("max-burst", max.to_string().into()))).collect()
}

pub(crate) fn read(table: &mut Table<'_, '_>, bandwidth: &mut Bandwidth) {
    table.set("enabled", boolean, &mut bandwidth.enabled);
    table.set("default-egress", limit, &mut bandwidth.default_egress);
    table.set("default-ingress", limit, &mut bandwidth.default_ingress);
    table.set("burst", burst, &mut bandwidth.burst);
    table.set("max-egress", some_limit, &mut bandwidth.max_egress);
    table.set("max-ingress", some_limit, &mut bandwidth.max_ingress);
    table.set("max-burst", some_burst, &mut bandwidth.max_burst);
    table.set("latency-target", latency_target, &mut bandwidth.latency_target);
    table.set("ecn", boolean, &mut bandwidth.ecn);
    table.set("count", word, &mut bandwidth.count);
    table.set("guard", word, &mut bandwidth.guard);
    table.set("node-egress", capacity, &mut bandwidth.node_egress);
    table.set("node-ingress", capacity, &mut bandwidth.node_ingress);
    table.set("node-share", some_boolean, &mut bandwidth.node_share);
    table.set("weight", some_weight, &mut bandwidth.weight);
    table.set("max-weight", some_weight, &mut bandwidth.max_weight);
    table.set("max-floor", some_rate, &mut bandwidth.max_floor);
    table.each("class", "name", &mut bandwidth.classes, class::read);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn each_key_sets_its_own_field() {
        let text = "sluice.version = 1\n[sluice.bandwidth]\nenabled = false\n\
                    default-egress = '1Mbit'\ndefault-ingress = '2Mbit'\nburst = '3us'\n\
                    max-egress = '7Mbit'\nmax-ingress = '8Mbit'\nmax-burst = '9us'\n\
                    latency-target = '4ms'\necn = false\ncount = 'l2'\nguard = 'own-clsact'\n\
                    node-egress = '15Mbit'\nnode-ingress = '16Mbit'\n\
                    node-share = true\nweight = 17\nmax-weight = 18\nmax-floor = '19Mbit'\n";
        let limit = |text: &str| text.parse::<Limit>().expect("limit");
        assert_eq!(
            parse("t", text).expect("settings").bandwidth,
            Bandwidth {
                enabled: false,
                default_egress: limit("1Mbit"),
                default_ingress: limit("2Mbit"),
                burst: "3us".parse().expect("burst"),
                max_egress: Some(limit("7Mbit")),
                max_ingress: Some(limit("8Mbit")),
                max_burst: Some("9us".parse().expect("burst")),
                latency_target: "4ms".parse().expect("latency target"),
                ecn: false,
                count: Count::L2,
                guard: GuardPlace::OwnClsact,
                node_egress: "15Mbit".parse().expect("capacity"),
                node_ingress: "16Mbit".parse().expect("capacity"),
                node_share: Some(true),
                weight: Weight::new(17),
                max_weight: Weight::new(18),
                max_floor: Some("19Mbit".parse().expect("rate")),
                classes: Classes::default(),
            }
        );
    }

    #[test]
    fn default_shapes_nothing_yet_is_on() {
        let Bandwidth { enabled, default_egress, default_ingress, burst, .. } =
            Bandwidth::default();
        assert!(enabled);
        assert_eq!((default_egress, default_ingress), (Limit::Unlimited, Limit::Unlimited));
        assert_eq!(burst.to_string(), "5ms");
    }
}
