// SPDX-License-Identifier: Apache-2.0
//! An aws-node that is there against what the settings want: each difference,
//! and what its variables do to each other.

use serde_json::Value;
use thiserror::Error;

use super::addon::not_standalone;
use super::{ClusterNeeds, Network, SetBy, Variable};

const TERMS: &str =
    "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

/// What a file says of aws-node.
#[derive(Debug)]
pub struct AwsNode<'f> {
    source: Source,
    env: Vec<(&'f str, EnvValue<'f>)>,
    affinity: Option<&'f Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    DaemonSet,
    /// Configuration values; what they leave out is the chart's.
    Addon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EnvValue<'f> {
    Value(&'f str),
    /// A ConfigMap's, say, which is not in the file.
    Elsewhere,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotAwsNode {
    #[error(
        "neither a DaemonSet with a container aws-node (kubectl get daemonset aws-node -n \
         kube-system -o json) nor configuration values of vpc-cni, an object with \"env\""
    )]
    Shape,
    #[error("env {0} is no text; the add-on takes text alone, also for numbers")]
    NoText(String),
}

impl<'f> AwsNode<'f> {
    pub fn read(file: &'f Value) -> Result<Self, NotAwsNode> {
        let addon = ["env", "affinity"].iter().any(|key| file[key].is_object());
        match file["kind"].as_str() {
            Some("DaemonSet") => Self::of_daemon_set(file),
            None if addon => Self::of_addon(file),
            _ => Err(NotAwsNode::Shape),
        }
    }

    fn of_daemon_set(file: &'f Value) -> Result<Self, NotAwsNode> {
        let pod = &file["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array().into_iter().flatten();
        let ours = containers.into_iter().find(|container| container["name"] == "aws-node");
        let env = ours.ok_or(NotAwsNode::Shape)?["env"].as_array().into_iter().flatten();
        let env = env.filter_map(|entry| Some((entry["name"].as_str()?, found(entry))));
        Ok(Self { source: Source::DaemonSet, env: env.collect(), affinity: pod.get("affinity") })
    }

    fn of_addon(file: &'f Value) -> Result<Self, NotAwsNode> {
        let env = file["env"].as_object().into_iter().flatten();
        let env = env.map(|(name, value)| match value.as_str() {
            Some(value) => Ok((name.as_str(), EnvValue::Value(value))),
            None => Err(NotAwsNode::NoText(name.clone())),
        });
        let env = env.collect::<Result<_, _>>()?;
        Ok(Self { source: Source::Addon, env, affinity: file.get("affinity") })
    }

    /// A line for all that is not as it should be.
    pub fn differences(&self, wanted: &ClusterNeeds) -> Vec<String> {
        match &wanted.network {
            Network::AwsNode(variables) => {
                let lines = variables.iter().filter_map(|variable| self.difference(variable));
                lines.chain(self.precedence()).collect()
            }
            Network::Standalone(_) => self.on_our_nodes().into_iter().collect(),
        }
    }

    fn difference(&self, wanted: &Variable) -> Option<String> {
        if self.source == Source::Addon && wanted.set_by == SetBy::Cluster {
            return None;
        }
        let Variable { name, value, from, .. } = wanted;
        let found = match self.find(name) {
            Some(EnvValue::Elsewhere) => {
                "a reference (valueFrom), which this file does not resolve".into()
            }
            Some(EnvValue::Value(found)) if Self::is_in_force(name, found, value) => return None,
            Some(EnvValue::Value(found)) => format!("{found:?}"),
            None if self.default(name) == value => return None,
            None => format!("nothing, which means {:?}", self.default(name)),
        };
        Some(format!("{name}: found {found}, wanted {value:?} ({from})"))
    }

    /// aws-node takes a MAX_ENI below 1, or that is no number, for none (pkg/ipamd, getMaxENI).
    fn is_in_force(name: &str, found: &str, wanted: &str) -> bool {
        let is_none = |text: &str| number(text).is_none_or(|number| number < 1);
        means(found, wanted) || (name == "MAX_ENI" && is_none(found) && is_none(wanted))
    }

    /// What aws-node makes of its own variables, whatever the settings want.
    fn precedence(&self) -> Vec<String> {
        let zero = |name| !self.value(name).parse::<i64>().is_ok_and(|number| number > 0);
        let delegates = means(self.value("ENABLE_PREFIX_DELEGATION"), "true");
        let (warm, minimum) = (!zero("WARM_IP_TARGET"), !zero("MINIMUM_IP_TARGET"));
        let prefixes = !zero("WARM_PREFIX_TARGET");
        let mut lines = Vec::new();
        if delegates && !warm && !minimum && !prefixes {
            lines.push("WARM_PREFIX_TARGET, WARM_IP_TARGET and MINIMUM_IP_TARGET are all 0: aws-node does not start so".into());
        }
        if minimum && !warm {
            lines.push("MINIMUM_IP_TARGET without WARM_IP_TARGET: a node never has more addresses than the minimum".into());
        }
        lines
    }

    fn on_our_nodes(&self) -> Option<String> {
        let terms = self.affinity.and_then(|affinity| affinity.pointer(TERMS)?.as_array());
        let excluded = |term: &Value| {
            let expressions = term["matchExpressions"].as_array();
            expressions.is_some_and(|all| all.contains(&not_standalone()))
        };
        // Terms are alternatives.
        let kept_off = terms.is_some_and(|terms| terms.iter().all(excluded) && !terms.is_empty());
        let line = "affinity: aws-node may run on standalone nodes (cni.mode = \"standalone\"); \
                    wanted in each of nodeSelectorTerms: ";
        (!kept_off).then(|| format!("{line}{}", not_standalone()))
    }

    fn find(&self, name: &str) -> Option<EnvValue<'f>> {
        // Of two with one name kubelet takes the last.
        self.env.iter().rev().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }

    fn value(&self, name: &str) -> &str {
        match self.find(name) {
            Some(EnvValue::Value(value)) => value,
            _ => self.default(name),
        }
    }

    /// What applies without the variable: aws-node's own (pkg/ipamd), or the chart's (WARM_PREFIX_TARGET).
    fn default(&self, name: &str) -> &'static str {
        match name {
            "WARM_PREFIX_TARGET" if self.source == Source::Addon => "1",
            "WARM_PREFIX_TARGET" | "WARM_IP_TARGET" | "MINIMUM_IP_TARGET" | "MAX_ENI" => "0",
            "ENI_CONFIG_LABEL_DEF" => "k8s.amazonaws.com/eniConfig",
            "ENABLE_IPv4" => "true",
            _ => "false",
        }
    }
}

fn found(entry: &Value) -> EnvValue<'_> {
    match entry.get("valueFrom") {
        Some(_) => EnvValue::Elsewhere,
        None => EnvValue::Value(entry["value"].as_str().unwrap_or_default()),
    }
}

/// Go's ParseBool and Atoi take several spellings.
fn means(found: &str, wanted: &str) -> bool {
    let spellings: &[&str] = match wanted {
        "true" => &["1", "t", "T", "TRUE", "true", "True"],
        "false" => &["0", "f", "F", "FALSE", "false", "False"],
        other => return found == other || number(found).is_some_and(|n| number(other) == Some(n)),
    };
    spellings.contains(&found)
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}
