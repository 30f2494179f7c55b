// SPDX-License-Identifier: Apache-2.0
//! What can stand behind a key: read from TOML, kept with its unit, printed as it was written.
//!
//! One file for each kind; none knows which keys take it.

pub(crate) mod burst;
pub(crate) mod kubernetes;
pub(crate) mod latency;
pub(crate) mod number;
pub(crate) mod path;
pub(crate) mod pattern;
pub mod quantity;
pub(crate) mod rate;
pub(crate) mod weight;
pub(crate) mod words;
