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

impl Severity {
    /// What `status` and `doctor` exit with where these were found: 0 if all is well, 1 with a fault, 3
    /// where something is degraded and nothing worse.
    pub fn exit_status(found: impl Iterator<Item = Self>) -> u8 {
        match found.min() {
            Some(Self::Fault) => 1,
            Some(Self::Degraded) => 3,
            Some(Self::Note) | None => 0,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::Severity::{self, Degraded, Fault, Note};

    #[test]
    fn exit_status_is_that_of_the_worst() {
        let table: [(&[Severity], u8); 5] = [
            (&[], 0),
            (&[Note], 0),
            (&[Note, Degraded], 3),
            (&[Degraded, Fault], 1),
            (&[Fault], 1),
        ];
        for (found, status) in table {
            assert_eq!(Severity::exit_status(found.iter().copied()), status, "{found:?}");
        }
    }
}
