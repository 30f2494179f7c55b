// SPDX-License-Identifier: Apache-2.0
//! What libcni keeps on disk: lists of plugins with our entry in one of them,
//! and the results of earlier ADDs.

pub mod conflist;
pub mod edit;
pub mod entry;
pub mod files;
pub mod results;
