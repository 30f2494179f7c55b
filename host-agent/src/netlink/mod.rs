// SPDX-License-Identifier: Apache-2.0
//! Links, qdiscs and filters by rtnetlink. `socket` carries messages, `link`
//! and `tc` are the verbs. Names, indexes and handles come in and go out; no
//! message type leaves this folder. Blocking on purpose: the CNI plugin starts,
//! asks ten questions and ends (docs/decisions/0002-blocking-netlink.md).

mod link;
mod socket;
mod tc;

pub use link::Link;
pub use socket::{Error, Netlink};
pub use tc::{FILTER_HANDLE, Filter, Fq, LEAF_HANDLE, ROOT_HANDLE};
