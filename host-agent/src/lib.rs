// SPDX-License-Identifier: Apache-2.0
//! What the two executables share. `sluice` (main.rs) is agent and command
//! line, `sluice-cni` (cni_main.rs) is the CNI plugin. Settings (as written)
//! and facts (as probed) make a plan (pure), which `apply` carries out. Only
//! what others use is public here, so that the compiler finds what is not used.
#![forbid(unsafe_code)]

mod addresses;
mod agent;
mod api;
mod boot;
mod cli;
mod cluster_config;
mod cni;
mod doctor;
mod host;
mod imds;
mod libcni;
mod netlink;
mod pod;
mod settings;
mod standalone;
mod status;
mod trouble;

/// For `sluice`.
pub mod command_line {
    pub use crate::cli::{parse, report, run};
    pub use crate::host::logging::init as init_log;
}

/// For `sluice-cni`, and for fuzz/.
pub mod plugin {
    pub use crate::cni::{CNI_VERSIONS, CniCode, Command, Environment, Error, Request, Valid, run};
    pub use crate::host::paths::Paths;
}

/// What reads bytes of others, for fuzz/.
pub mod readers {
    pub use crate::api::http::{Door, JSON, MAX_BYTES, parse};
    pub use crate::api::{Node, Reloaded, answer};
    pub use crate::boot::kubelet::yaml::Yaml;
    pub use crate::libcni::conflist;
    pub use crate::pod::annotations::CAPABILITY;
    pub use crate::pod::asked::{Annotated, Override};
    pub use crate::pod::runtime_config::annotated;
    pub use crate::settings::user_data::carrier;
    pub use crate::status::Status;
}

/// The table of instance types, for examples/.
pub mod instances {
    pub use crate::addresses::instance::Instance;
}
