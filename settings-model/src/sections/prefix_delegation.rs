// SPDX-License-Identifier: Apache-2.0

//! `[settings.sluice.prefix-delegation]`: whether this cluster gives its nodes whole prefixes.
//!
//! Owns the section's keys, defaults and rules.
//! Never turns delegation on: that is in the aws-node DaemonSet, out of a host's reach.

use serde_json::Value;
use toml::de::DeValue;

use crate::text::problem::Refusal;
use crate::text::reader::{Table, boolean};
use crate::values::number::{Range, whole};

/// A prefix is 16 addresses: 16 spare ones are 256, more than the 250 pods that EKS lets a node have.
pub(crate) const TARGETS: Range = 1..=16;

/// Addresses: as many as pods, and 0 for not set, as in the VPC CNI.
pub(crate) const IP_TARGETS: Range = 0..=1000;

/// What the cluster does about prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrefixDelegation {
    /// `enabled`: whether the cluster delegates prefixes; default false, as in the VPC CNI.
    pub enabled: bool,
    /// `warm-prefix-target`: how many spare prefixes a node keeps; default 1, as in the VPC CNI.
    pub warm_prefix_target: WarmPrefixTarget,
    /// `warm-ip-target`: how many spare addresses a node keeps instead; default 0, which is not set.
    pub warm_ip_target: u16,
    /// `minimum-ip-target`: how many addresses a node has at least; default 0, which is not set.
    pub minimum_ip_target: u16,
}

/// Spare prefixes, 1 to 16; the VPC CNI takes no 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WarmPrefixTarget(u16);

impl WarmPrefixTarget {
    /// None outside the range.
    pub fn new(prefixes: u16) -> Option<Self> {
        TARGETS.contains(&prefixes).then_some(Self(prefixes))
    }

    /// The number of prefixes.
    pub fn prefixes(self) -> u16 {
        self.0
    }
}

impl Default for WarmPrefixTarget {
    fn default() -> Self {
        Self(1)
    }
}

impl PrefixDelegation {
    pub(crate) fn rows(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("enabled", self.enabled.into()),
            ("warm-prefix-target", self.warm_prefix_target.prefixes().into()),
            ("warm-ip-target", self.warm_ip_target.into()),
            ("minimum-ip-target", self.minimum_ip_target.into()),
        ]
    }
}

pub(crate) fn read(table: &mut Table<'_, '_>, delegation: &mut PrefixDelegation) {
    table.set("enabled", boolean, &mut delegation.enabled);
    table.set("warm-prefix-target", target, &mut delegation.warm_prefix_target);
    table.set("warm-ip-target", ip_target, &mut delegation.warm_ip_target);
    table.set("minimum-ip-target", ip_target, &mut delegation.minimum_ip_target);
}

fn target(value: &DeValue<'_>) -> Result<WarmPrefixTarget, Refusal> {
    whole(value, &TARGETS, "a whole number").map(WarmPrefixTarget)
}

fn ip_target(value: &DeValue<'_>) -> Result<u16, Refusal> {
    whole(value, &IP_TARGETS, "a whole number")
}
