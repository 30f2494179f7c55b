// SPDX-License-Identifier: Apache-2.0
//! Rates that stand in the upstream bandwidth plugin's own entry, for every pod:
//! `ingressRate` and `egressRate`, or a `runtimeConfig` that no runtime has
//! replaced (plugins/meta/bandwidth/main.go, getBandwidth). Only reads.

use std::fmt;

use serde_json::value::RawValue;
use settings_model::{Bandwidth, Limit, Rate};

use super::json::Members;

/// None, or 0 in the entry, is no limit in that direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StaticRates {
    pub egress: Option<Rate>,
    pub ingress: Option<Rate>,
}

impl StaticRates {
    pub(super) fn of(entry: &Members) -> Self {
        let own = Self::in_members(entry);
        let config = entry.last_of_any_case("runtimeConfig").and_then(parse);
        let given = config.and_then(|config| config.last_of_any_case("bandwidth").and_then(parse));
        let given = given.filter(|_| own == Self::default());
        given.as_ref().map_or(own, Self::in_members)
    }

    fn in_members(members: &Members) -> Self {
        let rate = |key| rate(members.last_of_any_case(key)?);
        Self { egress: rate("egressRate"), ingress: rate("ingressRate") }
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self { egress: self.egress.or(other.egress), ingress: self.ingress.or(other.ingress) }
    }

    /// Those that would be lost without the entry, since the settings have no default in its place.
    pub fn without_defaults_of(self, bandwidth: &Bandwidth) -> Option<Self> {
        let lost = |rate: Option<Rate>, default| rate.filter(|_| default == Limit::Unlimited);
        let egress = lost(self.egress, bandwidth.default_egress);
        let ingress = lost(self.ingress, bandwidth.default_ingress);
        (egress.is_some() || ingress.is_some()).then_some(Self { egress, ingress })
    }
}

/// As keys of the settings.
impl fmt::Display for StaticRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |key, rate: Option<Rate>| rate.map(|rate| format!("{key} = \"{rate}\""));
        let both = [text("default-egress", self.egress), text("default-ingress", self.ingress)];
        f.write_str(&both.into_iter().flatten().collect::<Vec<_>>().join(" and "))
    }
}

fn parse(raw: &RawValue) -> Option<Members<'_>> {
    Members::parse(raw.get()).ok()
}

/// What is no rate of ours is brought to the nearest one, so that it is not taken for none.
fn rate(raw: &RawValue) -> Option<Rate> {
    let bits = raw.get().parse::<f64>().ok().filter(|bits| *bits > 0.0)? as u64;
    let nearest = bits.clamp(LEAST_BITS, MOST_BITS);
    Rate::from_bits_per_sec(nearest)
}

const LEAST_BITS: u64 = 1_000;
const MOST_BITS: u64 = 1_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::super::upstream_rates;
    use super::*;

    fn shown(entry: &str) -> String {
        let text = format!(r#"{{"plugins":[{{"type":"ptp"}},{{"type":"bandwidth"{entry}}}]}}"#);
        upstream_rates(&text).unwrap().to_string()
    }

    #[test]
    fn rates_are_found_as_go_reads_them() {
        let table = [
            ("", ""),
            (r#","ingressRate":0,"egressRate":0"#, ""),
            (r#","ingressBurst":800000"#, ""),
            (r#","ingressRate":20000000,"ingressBurst":800000"#, "default-ingress = \"20Mbit\""),
            (r#","EGRESSRATE":1500"#, "default-egress = \"1500bit\""),
            (r#","egressRate":1"#, "default-egress = \"1kbit\""),
            (r#","egressRate":18446744073709551615"#, "default-egress = \"1000Tbit\""),
            (
                r#","runtimeConfig":{"bandwidth":{"egressRate":1000000,"ingressRate":2000000}}"#,
                "default-egress = \"1Mbit\" and default-ingress = \"2Mbit\"",
            ),
        ];
        for (entry, expected) in table {
            assert_eq!(shown(entry), expected, "{entry}");
        }
    }

    #[test]
    fn default_of_the_settings_takes_the_place_of_its_direction_only() {
        let text = "sluice = { version = 1, bandwidth.default-egress = '3Mbit' }";
        let bandwidth = settings_model::parse("t", text).unwrap().bandwidth;
        let rate = "1Mbit".parse().ok();
        let both = StaticRates { egress: rate, ingress: rate };
        let lost = StaticRates { egress: None, ..both };
        assert_eq!(both.without_defaults_of(&bandwidth), Some(lost));
        assert_eq!(StaticRates { ingress: None, ..both }.without_defaults_of(&bandwidth), None);
        assert_eq!(both.without_defaults_of(&Bandwidth::default()), Some(both));
    }
}
