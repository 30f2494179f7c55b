// SPDX-License-Identifier: Apache-2.0
//! Standalone mode: no aws-node; pods have addresses of the prefixes that are
//! delegated to the node, by a conflist of ours, and leave the VPC with the
//! node's address. The agent's second thread asks, writes and reports
//! (agent/background.rs), so that neither IMDS nor nft keeps the loop waiting (docs/decisions/0009-standalone.md).

mod keeper;
mod known;
mod network;
mod nft;
mod removal;
mod store;

pub use keeper::Keeper;
pub use removal::{earlier_conflist, take_off};
