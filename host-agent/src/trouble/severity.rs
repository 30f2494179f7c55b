// SPDX-License-Identifier: Apache-2.0
//! How bad something is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Worst first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A limit or network policy is not in force where it should be, or pods cannot start.
    Fault,
    /// What should be in force is, but not as well, or not against everyone.
    #[default]
    Degraded,
    /// Good to know.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Fault => "fault",
            Self::Degraded => "degraded",
            Self::Note => "note",
        })
    }
}
