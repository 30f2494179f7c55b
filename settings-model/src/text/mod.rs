// SPDX-License-Identifier: Apache-2.0
//! What a document is made of: its bytes and places, the cursor over a table, and problems as people and programs get them.
//!
//! Knows no key and no value of ours.

pub(crate) mod caret;
pub mod code;
pub(crate) mod problem;
pub(crate) mod reader;
pub(crate) mod source;
pub(crate) mod syntax;
