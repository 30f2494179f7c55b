// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin `sluice` (CNI spec 1.1.0, also spoken as 0.3.0 to 1.0.0).
//! It is chained after the plugin that makes the veth pair, puts the shaper on
//! it, and hands the result through unchanged. It needs the pins and the
//! settings in force, no running agent.

mod check;
pub(crate) mod error;
mod gc;
mod request;
mod verbs;

pub use error::{Code, Error};
pub use gc::Valid;
pub use request::{Command, Environment, Request, annotated};
pub use verbs::run;

/// To standard error, which runtimes put into the journal.
pub(crate) fn complain(what: impl std::fmt::Display) {
    eprintln!("sluice: {}", crate::host::logging::harmless(&what.to_string()));
}

/// Versions of the CNI spec that requests may carry, oldest first.
pub const CNI_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
