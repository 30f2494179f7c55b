// SPDX-License-Identifier: Apache-2.0
//! Links, qdiscs and filters by rtnetlink. `socket` carries messages, `link`
//! and `tc` are the verbs, `events` reports what others change, `survey` lists what
//! is there, `routes` where packets go, `attributes` reads bytes, `trial` finds out what the kernel can. Names, indexes and handles
//! come in and go out; no message type leaves this folder. Blocking on purpose:
//! the CNI plugin starts, asks ten questions and ends
//! (docs/decisions/0002-blocking-netlink.md).

mod attributes;
mod events;
mod link;
mod options;
mod redirect;
mod routes;
mod socket;
pub mod survey;
mod tc;
pub mod trial;

pub use events::{Changed, Events};
pub use link::{Gso, Link, Traffic};
pub use options::Fq;
pub use routes::NodePaths;
pub use socket::{Error, Netlink, inside};
pub use tc::{FILTER_HANDLE, Filter, LEAF_HANDLE, ROOT_HANDLE, Root};
