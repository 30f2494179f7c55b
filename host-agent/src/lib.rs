// SPDX-License-Identifier: Apache-2.0
//! What the two executables share. `sluice` (main.rs) is agent and command
//! line, `sluice-cni` (cni_main.rs) is the CNI plugin. Settings (as written)
//! and facts (as probed) make a plan (pure), which `apply` carries out.
#![forbid(unsafe_code)]

pub mod addresses;
pub mod agent;
pub mod api;
pub mod boot;
pub mod cli;
pub mod cluster_config;
pub mod cni;
pub mod doctor;
pub mod host;
pub mod imds;
pub mod libcni;
pub mod netlink;
pub mod pod;
pub mod settings;
pub mod standalone;
pub mod status;
pub mod trouble;
