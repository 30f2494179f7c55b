// SPDX-License-Identifier: Apache-2.0
//! What is written for nodeadm, kubelet and systemd. Decides nothing.

use super::variables::{MEMORY_VARIABLE, PODS_VARIABLE};
use crate::addresses::max_pods::reserved_mebibytes;

const HEAD: &str =
    "# Written by `sluice boot` and overwritten at every boot: this node's max-pods.\n";

/// A NodeConfig. nodeadm computes kubeReserved from the expression alone; one that does not know it
/// yet drops it, and takes the memory from kubelet's own configuration.
pub(super) fn node_config(pods: u16, with_memory: bool) -> String {
    let memory = match with_memory {
        true => format!("      kubeReserved:\n        memory: {}Mi\n", reserved_mebibytes(pods)),
        false => String::new(),
    };
    format!(
        "{HEAD}apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  kubelet:\n    \
         maxPodsExpression: \"{pods}\"\n    config:\n      maxPods: {pods}\n{memory}"
    )
}

/// A drop-in of kubelet's.
pub(super) fn kubelet_configuration(pods: u16, with_memory: bool) -> String {
    let memory = match with_memory {
        true => format!("kubeReserved:\n  memory: {}Mi\n", reserved_mebibytes(pods)),
        false => String::new(),
    };
    format!(
        "{HEAD}apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: \
         {pods}\n{memory}"
    )
}

/// Variables for kubelet's command.
pub(super) fn environment(pods: u16, reserved: &str) -> String {
    format!("{HEAD}{PODS_VARIABLE}={pods}\n{MEMORY_VARIABLE}={reserved}\n")
}
