// SPDX-License-Identifier: Apache-2.0
//! The tables of our document, one file each: its keys, defaults, and how they are read.

pub(crate) mod agent;
pub(crate) mod bandwidth;
pub(crate) mod class;
pub(crate) mod cni;
pub(crate) mod max_pods;
pub(crate) mod prefix_delegation;
