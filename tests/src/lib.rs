// SPDX-License-Identifier: Apache-2.0
//! What the root tests and the demonstration share. Everything here drives the
//! executables from outside; nothing links the agent's code. It is test code:
//! what cannot be is a panic with a message.

pub mod addresses;
pub mod api;
pub mod calico;
pub mod chaos;
pub mod cilium;
pub mod cluster_config;
pub mod cni;
pub mod command;
pub mod conflist;
pub mod containerd;
pub mod crash;
pub mod cri;
pub mod crio;
pub mod flood;
pub mod flows;
pub mod foreign;
pub mod imds;
pub mod ipv6;
pub mod json_schema;
pub mod kata;
pub mod kernel;
pub mod link;
pub mod meter;
pub mod node;
pub mod pinned_map;
pub mod policy_agent;
pub mod probes;
pub mod proof;
pub mod raw;
pub mod result_cache;
pub mod sluice_node;
pub mod standalone;
pub mod systemd;
pub mod tc_monitor;
pub mod tcx;
pub mod wire;
