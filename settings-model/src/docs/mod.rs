// SPDX-License-Identifier: Apache-2.0
//! What is said of the keys: explanations, the page of the documentation, the schema. All of it comes from one table.

pub(crate) mod explain;
pub(crate) mod keys;
pub(crate) mod schema;
pub(crate) mod shape;
