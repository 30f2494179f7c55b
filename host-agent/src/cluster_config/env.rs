// SPDX-License-Identifier: Apache-2.0
//! Commands for a shell: kubectl changes the aws-node DaemonSet.

use serde_json::json;

use super::addon::not_standalone;
use super::{ClusterNeeds, Network, SetBy, Variable, comment, commented};

const AWS_NODE: &str = "daemonset aws-node -n kube-system";
const EXPRESSIONS: &str = "/spec/template/spec/affinity/nodeAffinity/\
     requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions/-";

pub fn text(wanted: &ClusterNeeds) -> String {
    let command = match &wanted.network {
        Network::AwsNode(variables) => set(variables),
        Network::Standalone(_) => keep_off(),
    };
    commented(&wanted.notes) + &command
}

fn set(variables: &[Variable]) -> String {
    let (ours, clusters): (Vec<_>, Vec<_>) = variables
        .iter()
        .filter(|variable| variable.set_by != SetBy::NotSet)
        .partition(|variable| variable.set_by == SetBy::Operator);
    let from = |variable: &&Variable| comment(0, &format!("{}: {}", variable.name, variable.from));
    let pair = |variable: &Variable| format!("{}={}", variable.name, variable.value);
    let arguments = ours.iter().map(|variable| format!(" \\\n    {}", pair(variable)));
    let look = clusters.iter().map(|variable| pair(variable)).collect::<Vec<_>>().join(" ");
    let from = ours.iter().map(from).collect::<String>();
    let arguments = arguments.collect::<String>();
    let look = comment(0, &format!("EKS has set, by the cluster's IP family: {look}"));
    format!("{from}kubectl set env {AWS_NODE} -c aws-node{arguments}\n{look}")
}

fn keep_off() -> String {
    let patch = json!([{ "op": "add", "path": EXPRESSIONS, "value": not_standalone() }]);
    format!("kubectl patch {AWS_NODE} --type json --patch '{patch}'\n")
}
