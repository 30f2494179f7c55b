// SPDX-License-Identifier: Apache-2.0
//! Whether the node really has the addresses that its max-pods promises: what
//! IMDS shows of prefixes and secondary addresses, against settings, max-pods
//! and pods. Asks, judges and reports; it can repair nothing, for addresses are
//! aws-node's business. docs/metrics.md says what each state means.

mod explain;
mod judge;
mod pods;
mod promise;
pub mod state;
mod watch;

pub use explain::numbers;
pub use promise::Promise;
pub use state::{Capacity, CapacityState};
pub use watch::{CapacityLook, Watch};
