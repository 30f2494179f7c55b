// SPDX-License-Identifier: Apache-2.0
//! An EC2NodeClass of Karpenter, in YAML.

use super::user_data::{self, Os};
use super::{
    Error, HOP_LIMIT, Network, Pods, Prefixes, STANDALONE_LABEL, Wanted, comment, commented,
    indented,
};

pub fn text(wanted: &Wanted, cluster: &str, os: Os) -> Result<String, Error> {
    let notes = commented(&wanted.notes);
    let family = os.ami_family();
    let interface = interface(&wanted.network)?;
    let kubelet = kubelet(wanted);
    let user_data = indented(4, &user_data::text(wanted, os));
    Ok(format!(
        "{notes}apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata:
  name: sluice
spec:
  amiFamily: {family}
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

fn kubelet(wanted: &Wanted) -> String {
    match &wanted.pods {
        Some(Pods { count, from }) => {
            let said = format!("{from}. It holds for every instance type of a NodePool.");
            comment(2, &said) + &format!("  kubelet:\n    maxPods: {count}\n")
        }
        None => no_number(wanted.pods_expression.as_deref()),
    }
}

fn no_number(expression: Option<&str>) -> String {
    let Some(expression) = expression else { return comment(2, EACH_ITS_OWN) };
    let said = comment(2, &format!("{EACH_ITS_OWN} {WITHOUT_PREFIXES}"));
    said + &format!("  #   kubelet:\n  #     maxPods: \"{expression}\"\n")
}

const EACH_ITS_OWN: &str = "kubelet.maxPods is not here: it would be one number for all instance \
     types, and Sluice gives each node its own.";
const WITHOUT_PREFIXES: &str = "Karpenter counts pods without prefixes (aws/karpenter-provider-aws \
     issues 6102 and 8210), so before a node has joined it may take it for smaller than it is. With \
     its feature gate NodeClassCEL it counts as Sluice does by:";
