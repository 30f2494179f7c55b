// SPDX-License-Identifier: Apache-2.0
//! What settings mean for pods, in a few words for people.

use settings_model::{Bandwidth, Limit};

/// The limits: those by default, maxima and how many classes.
pub fn limits(bandwidth: &Bandwidth) -> String {
    if !bandwidth.enabled {
        return "none, bandwidth.enabled is false".into();
    }
    let by_default = match [bandwidth.default_egress, bandwidth.default_ingress] {
        [Limit::Unlimited, Limit::Unlimited] => "none by default".into(),
        [egress, ingress] => format!("egress {egress}, ingress {ingress} by default"),
    };
    let classes = match bandwidth.classes.iter().count() {
        0 => "no class".into(),
        1 => "1 class".into(),
        several => format!("{several} classes"),
    };
    format!("{by_default}{}; {classes}", maxima(bandwidth))
}

fn maxima(bandwidth: &Bandwidth) -> String {
    let maxima = [("egress", bandwidth.max_egress), ("ingress", bandwidth.max_ingress)];
    let maxima = maxima.iter().filter_map(|(name, most)| Some(format!("{name} {}", (*most)?)));
    match maxima.collect::<Vec<_>>().join(", ").as_str() {
        "" => String::new(),
        maxima => format!("; at most {maxima}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_in_one_line() {
        let class = |name: &str| {
            format!(
                "[[sluice.bandwidth.class]]\nname = '{name}'\nnamespaces = ['{name}']\negress = '1Mbit'\n"
            )
        };
        let table = |lines: &str| format!("[sluice.bandwidth]\n{lines}\n");
        for (lines, expected) in [
            (String::new(), "none by default; no class"),
            (
                table("default-egress = '500Mbit'"),
                "egress 500Mbit, ingress unlimited by default; no class",
            ),
            (
                table("default-egress = '1Gbit'\ndefault-ingress = '500Mbit'") + &class("a"),
                "egress 1Gbit, ingress 500Mbit by default; 1 class",
            ),
            (class("a") + &class("b"), "none by default; 2 classes"),
            (table("max-egress = '2Gbit'"), "none by default; at most egress 2Gbit; no class"),
            (
                table("max-egress = '2Gbit'\nmax-ingress = '1Gbit'"),
                "none by default; at most egress 2Gbit, ingress 1Gbit; no class",
            ),
            (
                table("enabled = false\ndefault-egress = '1Mbit'"),
                "none, bandwidth.enabled is false",
            ),
        ] {
            let text = format!("[sluice]\nversion = 1\n{lines}");
            let settings = settings_model::parse("t", &text).expect("settings");
            assert_eq!(limits(&settings.bandwidth), expected, "{text}");
        }
    }
}
