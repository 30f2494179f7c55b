// SPDX-License-Identifier: Apache-2.0
//! What applies on this node: settings, kernel, pods with raw counters, and what
//! is degraded. Made from records, pinned maps and the agent's report, by the
//! agent for its API or by the command line itself where no agent runs. Rates
//! are for the reader of two such pictures to compute (`rates`).

pub mod degraded;
pub mod metrics;
mod node;
pub mod node_share;
mod picture;
mod pod;
mod pods;
mod queues;
pub mod rates;
pub mod report;
pub mod text;
pub mod trace;

pub use node::{Kernel, Pods, Status};
pub use pod::{GuardLine, Line, PodState, PodStatus, Waits, few, need_container};
