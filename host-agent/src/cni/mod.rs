// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin `sluice` (CNI spec 1.1.0, also spoken as 0.3.0 to 1.0.0).
//! It is chained after the plugin that makes the veth pair, puts the shaper on
//! it, and hands the result through unchanged. It needs the pins and the
//! settings in force, no running agent.

mod add;
mod check;
mod delete;
mod error;
mod gc;
mod interface;
mod request;
mod status;
mod verbs;

pub use error::{CniCode, Error};
pub use gc::Valid;
pub use request::{CNI_VERSIONS, Command, Environment, Request};
pub use verbs::run;
