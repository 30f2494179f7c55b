// SPDX-License-Identifier: Apache-2.0
//! What kubelet's command may name, and our file gives it.

pub const PODS_VARIABLE: &str = "SLUICE_MAX_PODS";
pub const MEMORY_VARIABLE: &str = "SLUICE_KUBE_RESERVED_MEMORY";
