// SPDX-License-Identifier: Apache-2.0
//! An EC2NodeClass of Karpenter, in YAML.

use super::user_data::{self, Os};
use super::{
    ClusterNeeds, Error, HOP_LIMIT, Miscount, Network, PodCount, Prefixes, STANDALONE_LABEL,
    comment, commented, indented,
};
use crate::addresses::max_pods::reserved_mebibytes;

/// Karpenter appends its own NodeConfig to the user data.
pub fn text(wanted: &ClusterNeeds, cluster: &str, os: Os) -> Result<String, Error> {
    if os == Os::Bottlerocket {
        return Err(Error::KarpenterBottlerocket);
    }
    let notes = commented(&wanted.notes);
    let interface = interface(&wanted.network)?;
    let kubelet = kubelet(wanted);
    let user_data = indented(4, &user_data::text(wanted, os, None));
    Ok(format!(
        "{notes}apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata:
  name: sluice
spec:
  amiFamily: AL2023
  # Your image with Sluice in it.
  amiSelectorTerms:
    - name: sluice-*
      owner: self
  role: KarpenterNodeRole-{cluster}
  subnetSelectorTerms:
    - tags:
        karpenter.sh/discovery: \"{cluster}\"
  securityGroupSelectorTerms:
    - tags:
        karpenter.sh/discovery: \"{cluster}\"
  metadataOptions:
    httpEndpoint: enabled
    httpTokens: required
    httpPutResponseHopLimit: {HOP_LIMIT}
{interface}{kubelet}  userData: |
{user_data}"
    ))
}

fn interface(network: &Network) -> Result<String, Error> {
    let prefixes = match network {
        Network::AwsNode(_) => return Ok(String::new()),
        Network::Standalone(Prefixes::Ipv6) => return Err(Error::KarpenterIpv6),
        Network::Standalone(prefixes) => prefixes.count()?,
    };
    let (label, value) = STANDALONE_LABEL;
    let said = format!(
        "Karpenter 1.8 or newer. The label {label}={value} belongs to the NodePool \
         (spec.template.metadata.labels)."
    );
    Ok(comment(2, &said) + &format!("  ipPrefixCount: {prefixes}\n"))
}

fn kubelet(wanted: &ClusterNeeds) -> String {
    match &wanted.pods {
        Some(PodCount { count, from }) => {
            let said = format!("{from}. It applies to every instance type of a NodePool.");
            comment(2, &said) + &format!("  kubelet:\n    maxPods: {count}\n") + &reserved(*count)
        }
        None => no_number(wanted.miscount.as_ref()),
    }
}

/// nodeadm keeps memory for as many pods as its own expression gives, whatever maxPods is.
fn reserved(pods: u16) -> String {
    format!("    kubeReserved:\n      memory: {}Mi\n", reserved_mebibytes(pods))
}

fn no_number(miscount: Option<&Miscount>) -> String {
    let Some(Miscount { counts, rule }) = miscount else { return comment(2, ONE_FOR_ALL) };
    let said = format!("{ONE_FOR_ALL} {} {REMEDY}", wrong_number(counts));
    comment(2, &said) + &format!("  #   kubelet:\n  #     maxPods: \"{rule}\"\n")
}

/// What the nodes would have instead of Sluice's number, if anything.
pub fn warning(wanted: &ClusterNeeds) -> Option<String> {
    let miscount = wanted.miscount.as_ref().filter(|_| wanted.pods.is_none())?;
    let wrong = wrong_number(miscount.counts);
    Some(format!("{wrong} Give max-pods.value or --instance-type, or see the comment"))
}

fn wrong_number(counts: &str) -> String {
    format!(
        "Karpenter gives each node a number all the same, counted {counts} \
         (aws/karpenter-provider-aws issues 2273, 6102 and 8210), and Sluice leaves it in force."
    )
}

const ONE_FOR_ALL: &str =
    "kubelet.maxPods is not here: it would be one number for all instance types.";
const REMEDY: &str = "Give max-pods.value or --instance-type for one that is right, or Sluice's \
     rule, which needs Karpenter's feature gate NodeClassCEL (and kubeReserved.memory, 255Mi and 11Mi for \
     each pod, which nodeadm does not compute from it):";
