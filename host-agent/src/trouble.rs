// SPDX-License-Identifier: Apache-2.0
//! Something that is wrong: a stable code, of what, what was seen and what the
//! reader can do. Plain data; it travels to the command line as JSON.

use serde::{Deserialize, Serialize};

/// Code of a conflist that our entry could not be put into: `boot` and the agent both see that.
pub const CONFLIST: &str = "conflist";

/// How many a message names.
const NAMED: usize = 5;

/// The first few names, and how many more there are.
pub fn some(names: &[String]) -> String {
    let named = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Something that keeps a limit, or the pods' network, from being what it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Trouble {
    /// A stable name, for programs, e.g. `contested`.
    pub code: String,
    /// `namespace/pod interface`, a file or a device.
    pub subject: String,
    /// What was seen.
    pub what: String,
    /// What the reader can do.
    pub next_step: String,
}
