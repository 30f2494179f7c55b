// SPDX-License-Identifier: Apache-2.0
//! What foreign configurations say about the number of pods, and
//! about the memory that is kept for kubelet and goes with it. Judges nothing.

use std::collections::BTreeMap;
use std::path::Path;

use super::root::Place;
use super::unit::{Word, flag};
use super::variables::MEMORY_VARIABLE;
use super::words;
use super::yaml::Yaml;

use crate::addresses::max_pods::reserved_mebibytes;

/// A value that was given, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) value: String,
    /// File, line and key.
    pub(super) place: String,
}

impl Given {
    /// None where it is no number of pods: an expression, or a mistake.
    pub(super) fn pods(&self) -> Option<u16> {
        self.value.trim().parse().ok()
    }

    fn of(yaml: &Yaml, name: &str, key: &str) -> Option<Self> {
        let value = yaml.text()?.to_owned();
        (!value.is_empty())
            .then(|| Self { value, place: format!("{name}:{} ({key})", yaml.line()) })
    }

    pub(super) fn of_flag(words: &[Word], name: &str) -> Option<Self> {
        let Word { text, place } = flag(words, name)?;
        Some(Self { value: text, place: format!("{place} (--{name})") })
    }
}

/// What NodeConfigs say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeConfigs {
    /// `spec.kubelet.flags`, one behind the other: nodeadm appends them.
    flags: Vec<Word>,
    max_pods: Option<Given>,
    expression: Option<Given>,
    memory: Option<Given>,
}

impl NodeConfigs {
    /// Of later texts what they give counts (nodeadm, internal/api/merge.go).
    pub(super) fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        let yaml = Yaml::read(text)?;
        let kind = yaml.at(&["kind"]).and_then(Yaml::text);
        let version = yaml.at(&["apiVersion"]).and_then(Yaml::text).unwrap_or_default();
        if kind != Some("NodeConfig") || !version.starts_with("node.eks.aws/") {
            return Err("no NodeConfig of node.eks.aws".into());
        }
        let given = |keys: &[&str]| {
            let keys = [&["spec", "kubelet"], keys].concat();
            yaml.at(&keys).and_then(|found| Given::of(found, name, &keys.join(".")))
        };
        self.max_pods = given(&["config", "maxPods"]).or(self.max_pods.take());
        self.expression = given(&["maxPodsExpression"]).or(self.expression.take());
        self.memory = given(&["config", "kubeReserved", "memory"]).or(self.memory.take());
        for item in yaml.at(&["spec", "kubelet", "flags"]).iter().flat_map(|list| list.items()) {
            let place = Place { file: name.into(), line: item.line() };
            let texts = words::split(item.text().unwrap_or_default()).into_iter();
            self.flags.extend(texts.map(|text| Word { text, place: place.clone() }));
        }
        Ok(())
    }

    /// The one that kubelet goes by: flags come above its configuration, and nodeadm takes
    /// `maxPods` before an expression.
    pub(super) fn pods(&self) -> Option<Given> {
        let flag = Given::of_flag(&self.flags, "max-pods");
        flag.or_else(|| self.max_pods.clone()).or_else(|| self.expression.clone())
    }

    /// nodeadm computes what is kept from the expression alone (2026-07), unless it is given.
    pub(super) fn unreserved(&self) -> Option<Unreserved> {
        let (given, expression) = (self.pods()?, self.expression.clone());
        let is_fixed = self.memory().is_some() || expression.as_ref() == Some(&given);
        (!is_fixed).then_some(Unreserved { given, expression })
    }

    pub(super) fn memory(&self) -> Option<Given> {
        Given::of_flag(&self.flags, "kube-reserved").or_else(|| self.memory.clone())
    }
}

/// A number of pods, and what nodeadm keeps memory for instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreserved {
    pub(super) given: Given,
    pub(super) expression: Option<Given>,
}

/// What KubeletConfigurations say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KubeletConfigurations {
    pub(super) max_pods: Option<Given>,
    pub(super) reserved: Reserved,
}

/// `kubeReserved`, a map that kubelet merges key by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reserved(BTreeMap<&'static str, Given>);

/// The keys that kubelet takes (cmd/kubelet/app/server.go, parseResourceList).
const RESERVABLE: [&str; 4] = ["cpu", MEMORY, "ephemeral-storage", "pid"];
const MEMORY: &str = "memory";

impl KubeletConfigurations {
    /// Of later texts what they give counts (kubelet, mergeKubeletConfigurations).
    pub(super) fn add(&mut self, file: &Path, text: &str) -> Result<(), String> {
        let yaml = Yaml::read(text)?;
        let name = file.display().to_string();
        let given = |keys: &[&str]| {
            yaml.at(keys).and_then(|found| Given::of(found, &name, &keys.join(".")))
        };
        self.max_pods = given(&["maxPods"]).or(self.max_pods.take());
        let reserved = |key| Some((key, given(&["kubeReserved", key])?));
        self.reserved.0.extend(RESERVABLE.into_iter().filter_map(reserved));
        Ok(())
    }
}

impl Reserved {
    pub(super) fn memory(&self) -> Option<&Given> {
        self.0.get(MEMORY)
    }

    /// The value of our variable in `--kube-reserved=memory=${…}`. The flag replaces kubelet's whole
    /// map, so all else that is in there comes behind the memory, but for what the flag itself names.
    pub(super) fn for_flag(&self, pods: u16, flag: Option<&str>) -> String {
        let given = |key| self.0.get(key).map(|given| &given.value).filter(|v| is_quantity(v));
        let mut value = match given(MEMORY) {
            Some(memory) => memory.clone(),
            None => format!("{}Mi", reserved_mebibytes(pods)),
        };
        let is_memory = |flag: &&str| flag.contains(&format!("{MEMORY}=${{{MEMORY_VARIABLE}}}"));
        let Some(flag) = flag.filter(is_memory) else { return value };
        let named = |key| flag.split(',').any(|item| item.split('=').next() == Some(key));
        for key in RESERVABLE.into_iter().filter(|key| *key != MEMORY && !named(key)) {
            if let Some(quantity) = given(key) {
                value += &format!(",{key}={quantity}");
            }
        }
        value
    }
}

/// As Kubernetes writes one, and nothing that means something to systemd or to the flag.
fn is_quantity(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || ".+-".contains(c))
}
