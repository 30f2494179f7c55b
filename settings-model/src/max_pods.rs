// SPDX-License-Identifier: Apache-2.0

//! `[settings.sluice.max-pods]`: how many pods the node takes, and where kubelet is told.
//!
//! Owns the section's keys, defaults and rules, and what of `settings.kubernetes.max-pods` is of use.
//! Never computes the number for "auto"; the agent does, from the node.

use std::fmt;

use serde_json::Value;
use toml::de::DeValue;

use crate::number::{Range, whole};
use crate::problem::Refusal;
use crate::reader::Table;
use crate::words::{word, words};

/// Up to 1000: the shaper has 1023 slots, one a pod, and Kubernetes is not tested beyond some
/// hundred pods a node; more is a typing mistake.
pub(crate) const PODS: Range = 1..=1000;

/// How many pods, and where kubelet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaxPods {
    /// `value`: how many pods; default auto.
    pub value: PodLimit,
    /// `kubelet`: where kubelet is told; default auto.
    pub kubelet: KubeletConfig,
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

/// Where kubelet is told how many pods the node takes.
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
    /// Nowhere; somebody else does.
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
        vec![("value", value), ("kubelet", self.kubelet.to_string().into())]
    }
}

pub(crate) fn read(table: &mut Table<'_, '_>, max_pods: &mut MaxPods) {
    table.set("value", value, &mut max_pods.value);
    table.set("kubelet", word, &mut max_pods.kubelet);
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
