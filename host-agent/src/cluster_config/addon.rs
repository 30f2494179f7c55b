// SPDX-License-Identifier: Apache-2.0
//! The configuration values of the EKS add-on vpc-cni. Its schema takes text
//! for every variable, and refuses names that it does not know: the IP family's
//! are among those.

use serde_json::{Map, Value, json};

use super::{ClusterNeeds, Network, STANDALONE_LABEL};

/// With a line end; JSON has no comments.
pub fn text(wanted: &ClusterNeeds) -> String {
    format!("{:#}\n", values(wanted))
}

pub(super) fn values(wanted: &ClusterNeeds) -> Value {
    match wanted.network {
        Network::AwsNode(_) => {
            let env = wanted.variables().map(|v| (v.name.to_owned(), v.value.clone().into()));
            json!({ "env": env.collect::<Map<_, _>>() })
        }
        Network::Standalone(_) => json!({ "affinity": affinity() }),
    }
}

/// The add-on replaces its own affinity by this, so what it has is said again (chart aws-vpc-cni).
fn affinity() -> Value {
    let term = |key: &str, operator: &str, values: &[&str]| json!({ "key": key, "operator": operator, "values": values });
    let expressions = [
        term("kubernetes.io/os", "In", &["linux"]),
        term("kubernetes.io/arch", "In", &["amd64", "arm64"]),
        term("eks.amazonaws.com/compute-type", "NotIn", &["fargate", "hybrid", "auto"]),
        not_standalone(),
    ];
    json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": expressions }]
    } } })
}

/// Keeps a DaemonSet off nodes whose network is ours.
pub(super) fn not_standalone() -> Value {
    let (key, value) = STANDALONE_LABEL;
    json!({ "key": key, "operator": "NotIn", "values": [value] })
}
