// SPDX-License-Identifier: Apache-2.0
//! Our entry in a foreign CNI configuration list: text in, text out.
//! The text is parsed only to find where the entries of `plugins` stand; what
//! is not ours is never printed again, so order, unknown keys, number formats
//! and white space of others stay as they are. What Go's reader takes for the
//! value (the last of equal keys, `Type` for `type`) is what counts here. No I/O.

mod active;
#[cfg(test)]
mod corpus;
mod json;
mod list;
mod rates;

pub use active::{TextFile, choose, is_list};
pub use list::{
    ENTRY, Invalid, ListProblem, MOST_BYTES, add, decode, has_cilium, has_entry, has_upstream,
    remove, upstream_rates,
};
pub use rates::StaticRates;
