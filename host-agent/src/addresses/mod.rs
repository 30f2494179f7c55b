// SPDX-License-Identifier: Apache-2.0
//! How many pods the node has addresses for: the formula, the table of instance
//! types, and whether the addresses really come.

pub mod capacity;
pub mod instance;
pub mod max_pods;
