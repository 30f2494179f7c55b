// SPDX-License-Identifier: Apache-2.0

//! `[settings.sluice.max-pods]`: how many pods the node takes, what of the cluster that depends on,
//! and where kubelet gets the number.
//!
//! Owns the section's keys, defaults and rules, and what of `settings.kubernetes.max-pods` is of use.
//! Never computes the number for "auto"; the agent does, from the node.

use std::fmt;

use serde_json::Value;
use toml::de::DeValue;

use crate::text::problem::Refusal;
use crate::text::reader::{Table, boolean};
use crate::values::number::{Range, whole};
use crate::values::words::{word, words};

/// Up to 1000: the shaper has 1023 slots, one a pod, and Kubernetes is not tested beyond some
/// hundred pods a node; more is a typing mistake.
pub(crate) const PODS: Range = 1..=1000;

/// ENIs: no instance type has more, and 0 for not set, as the VPC CNI has it.
pub(crate) const ENIS: Range = 0..=100;

/// How many pods, what of the cluster that depends on, and where kubelet gets the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaxPods {
    /// `value`: how many pods; default auto.
    pub value: PodLimit,
    /// `kubelet`: where kubelet gets the number; default auto.
    pub kubelet: KubeletConfig,
    /// `ip-family`: of the pods' addresses; default ipv4.
    pub ip_family: IpFamily,
    /// `custom-networking`: whether the primary ENI carries no pods; default false.
    pub custom_networking: bool,
    /// `pod-security-groups`: whether one ENI is a trunk; default false.
    pub pod_security_groups: bool,
    /// `max-eni`: how many ENIs the VPC CNI uses at most; default 0, which is not set.
    pub max_eni: u16,
}

/// How many pods a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodLimit {
    /// As many as the node has addresses for.
    #[default]
    Auto,
    /// This many.
    Count(PodCount),
}

/// A number of pods, 1 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodCount(u16);

impl PodCount {
    /// None outside the range.
    pub fn new(pods: u16) -> Option<Self> {
        PODS.contains(&pods).then_some(Self(pods))
    }

    /// The number of pods.
    pub fn pods(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PodCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which addresses the cluster's pods have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpFamily {
    /// Those of the ENIs, or of prefixes of 16.
    #[default]
    Ipv4,
    /// Those of one /80 prefix.
    Ipv6,
}

words!(IpFamily: "ipv4" = Ipv4, "ipv6" = Ipv6);

/// Where kubelet gets the number of pods that the node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KubeletConfig {
    /// Whatever this node has.
    #[default]
    Auto,
    /// nodeadm's configuration (AL2023).
    Nodeadm,
    /// A file in kubelet's drop-in directory.
    ConfigDir,
    /// An environment file of kubelet's unit.
    EnvFile,
    /// Nowhere; something else configures kubelet.
    None,
}

words!(KubeletConfig:
    "auto" = Auto, "nodeadm" = Nodeadm, "config-dir" = ConfigDir, "env-file" = EnvFile, "none" = None);

impl MaxPods {
    pub(crate) fn rows(&self) -> Vec<(&'static str, Value)> {
        let value = match self.value {
            PodLimit::Auto => "auto".into(),
            PodLimit::Count(count) => count.pods().into(),
        };
        vec![
            ("value", value),
            ("kubelet", self.kubelet.to_string().into()),
            ("ip-family", self.ip_family.to_string().into()),
            ("custom-networking", self.custom_networking.into()),
            ("pod-security-groups", self.pod_security_groups.into()),
            ("max-eni", self.max_eni.into()),
        ]
    }
}

pub(crate) fn read(table: &mut Table<'_, '_>, max_pods: &mut MaxPods) {
    table.set("value", value, &mut max_pods.value);
    table.set("kubelet", word, &mut max_pods.kubelet);
    table.set("ip-family", word, &mut max_pods.ip_family);
    table.set("custom-networking", boolean, &mut max_pods.custom_networking);
    table.set("pod-security-groups", boolean, &mut max_pods.pod_security_groups);
    table.set("max-eni", max_eni, &mut max_pods.max_eni);
}

fn max_eni(value: &DeValue<'_>) -> Result<u16, Refusal> {
    whole(value, &ENIS, "a whole number")
}

fn value(value: &DeValue<'_>) -> Result<PodLimit, Refusal> {
    match value.as_str() {
        Some("auto") => Ok(PodLimit::Auto),
        _ => whole(value, &PODS, "\"auto\", or a whole number").map(PodCount).map(PodLimit::Count),
    }
}

/// The value of `settings.kubernetes.max-pods`.
pub(crate) fn foreign_count(value: &DeValue<'_>) -> Result<PodCount, Refusal> {
    whole(value, &PODS, "a whole number").map(PodCount)
}
