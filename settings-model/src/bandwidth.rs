// SPDX-License-Identifier: Apache-2.0

//! `[settings.sluice.bandwidth]`: how pods are shaped unless something more specific says otherwise.
//!
//! Owns the section's keys, defaults and rules.
//! Never decides what a single pod gets; the agent's plan does.

use crate::burst::{Burst, burst};
use crate::rate::{Limit, limit};
use crate::reader::{Table, boolean};

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
}

impl Default for Bandwidth {
    fn default() -> Self {
        Self {
            enabled: true,
            default_egress: Limit::Unlimited,
            default_ingress: Limit::Unlimited,
            burst: Burst::default(),
        }
    }
}

pub(crate) fn read(table: &mut Table<'_, '_>) -> Bandwidth {
    let default = Bandwidth::default();
    Bandwidth {
        enabled: table.read("enabled", boolean).unwrap_or(default.enabled),
        default_egress: table.read("default-egress", limit).unwrap_or(default.default_egress),
        default_ingress: table.read("default-ingress", limit).unwrap_or(default.default_ingress),
        burst: table.read("burst", burst).unwrap_or(default.burst),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn each_key_sets_its_own_field() {
        let text = "sluice.version = 1\n[sluice.bandwidth]\nenabled = false\n\
                    default-egress = '1Mbit'\ndefault-ingress = '2Mbit'\nburst = '3us'\n";
        let limit = |text: &str| text.parse::<Limit>().expect("limit");
        assert_eq!(
            parse("t", text).expect("settings").bandwidth,
            Bandwidth {
                enabled: false,
                default_egress: limit("1Mbit"),
                default_ingress: limit("2Mbit"),
                burst: "3us".parse().expect("burst"),
            }
        );
    }

    #[test]
    fn default_shapes_nothing_yet_is_on() {
        let Bandwidth { enabled, default_egress, default_ingress, burst } = Bandwidth::default();
        assert!(enabled);
        assert_eq!((default_egress, default_ingress), (Limit::Unlimited, Limit::Unlimited));
        assert_eq!(burst.to_string(), "5ms");
    }
}
