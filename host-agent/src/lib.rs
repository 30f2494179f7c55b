// SPDX-License-Identifier: Apache-2.0
//! What the two executables share. `sluice` (main.rs) is agent and command
//! line, `sluice-cni` (cni_main.rs) is the CNI plugin. Settings (as written)
//! and facts (as probed) make a plan (pure), which `apply` carries out.
#![forbid(unsafe_code)]

pub mod agent;
pub mod aide;
pub mod api;
pub mod apply;
pub mod attach;
pub mod background;
pub mod boot;
pub mod capacity;
pub mod cli;
pub mod client;
pub mod cluster_config;
pub mod cni;
pub mod conflist;
pub mod detach;
pub mod doctor;
pub mod facts;
pub mod file;
pub mod generation;
pub mod guard;
pub mod imds;
pub mod instance;
pub mod kubelet;
pub mod layers;
pub mod limit;
pub mod limits;
pub mod live;
pub mod lock;
pub mod logging;
pub mod machine;
pub mod max_pods;
pub mod metrics;
pub mod netlink;
pub mod notify;
pub mod paths;
pub mod plan;
pub mod preview;
pub mod raised;
pub mod reconcile;
pub mod record;
pub mod report;
pub mod serve;
pub mod shape;
pub mod standalone;
pub mod status;
pub mod trace;
pub mod unmet;
pub mod user_data;
pub mod wanted;
pub mod watches;
