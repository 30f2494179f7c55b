// SPDX-License-Identifier: Apache-2.0

//! `[settings.sluice.prefix-delegation]`: whether this cluster gives its nodes whole prefixes.
//!
//! Owns the section's keys, defaults and rules.
//! Never turns delegation on: that is in the aws-node DaemonSet, out of a host's reach.

use serde_json::Value;
use toml::de::DeValue;

use crate::number::{Range, whole};
use crate::problem::Refusal;
use crate::reader::{Table, boolean};

/// A prefix is 16 addresses: 16 spare ones are 256, more than the 250 pods that EKS lets a node have.
pub(crate) const TARGETS: Range = 1..=16;

/// What the cluster does about prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrefixDelegation {
    /// `enabled`: whether the cluster delegates prefixes; default false, as in the VPC CNI.
    pub enabled: bool,
    /// `warm-prefix-target`: how many spare prefixes a node holds; default 1, as in the VPC CNI.
    pub warm_prefix_target: WarmPrefixTarget,
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
        let target = self.warm_prefix_target.prefixes();
        vec![("enabled", self.enabled.into()), ("warm-prefix-target", target.into())]
    }
}

pub(crate) fn read(table: &mut Table<'_, '_>, delegation: &mut PrefixDelegation) {
    table.set("enabled", boolean, &mut delegation.enabled);
    table.set("warm-prefix-target", target, &mut delegation.warm_prefix_target);
}

fn target(value: &DeValue<'_>) -> Result<WarmPrefixTarget, Refusal> {
    whole(value, &TARGETS, "a whole number").map(WarmPrefixTarget)
}
