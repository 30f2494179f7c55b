// SPDX-License-Identifier: Apache-2.0
//! A ClusterConfig of eksctl, in YAML. User data reaches a managed node group
//! by a launch template only, and beside one eksctl takes neither
//! `maxPodsPerNode` nor `overrideBootstrapCommand`.

use settings_model::IpFamily;

use super::cluster::Cluster;
use super::{
    ClusterNeeds, Network, STANDALONE_LABEL, Variable, addon, comment, commented, indented,
};

pub fn text(wanted: &ClusterNeeds, cluster: &Cluster, launch_template: &str) -> String {
    let Cluster { name, region, .. } = cluster;
    let notes = commented(&wanted.notes);
    let from = |Variable { name, from, .. }: &Variable| comment(4, &format!("{name}: {from}"));
    let from = wanted.variables().map(from).collect::<String>();
    let values = indented(6, &addon::text(wanted));
    let (network, others) = family(wanted.family);
    let labels = labels(&wanted.network);
    format!(
        "{notes}apiVersion: eksctl.io/v1alpha5
kind: ClusterConfig
metadata:
  name: \"{name}\"
  region: {region}
{network}addons:
  - name: vpc-cni
    resolveConflicts: overwrite
{from}    configurationValues: |
{values}{others}managedNodeGroups:
  - name: sluice
{labels}    # Made of `sluice cluster-config launch-template`, which has the user data, and with it the number
    # of pods: eksctl takes no maxPodsPerNode beside a launch template.
    launchTemplate:
      id: {launch_template}
"
    )
}

/// An IPv6 cluster of eksctl's names its core add-ons, and has an OIDC provider.
fn family(family: IpFamily) -> (&'static str, &'static str) {
    match family {
        IpFamily::Ipv4 => ("", ""),
        IpFamily::Ipv6 => (
            "kubernetesNetworkConfig:\n  ipFamily: IPv6\niam:\n  withOIDC: true\n",
            "  - name: coredns\n  - name: kube-proxy\n",
        ),
    }
}

fn labels(network: &Network) -> String {
    let (label, value) = STANDALONE_LABEL;
    match network {
        Network::AwsNode(_) => String::new(),
        Network::Standalone(_) => format!("    labels:\n      {label}: {value}\n"),
    }
}
