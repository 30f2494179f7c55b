// SPDX-License-Identifier: Apache-2.0
//! Something that is wrong: its code, of what, what was seen and what the
//! reader can do. Plain data; it travels to the command line as JSON. Codes
//! are those of one table, for status, doctor, metrics and journal alike.

pub mod code;
#[cfg(test)]
mod page;
mod severity;

use serde::{Deserialize, Serialize};

use code::Code;
pub use severity::Severity;

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
    /// An earlier version's boot has not written it.
    #[serde(default)]
    pub severity: Severity,
    /// A name out of the table, which only this module gives.
    code: String,
    /// `namespace/pod interface`, a file or a device.
    pub subject: String,
    /// What was seen.
    pub what: String,
    /// What the reader can do.
    pub next_step: String,
}

impl Trouble {
    /// As bad as the table says, with its next step.
    pub fn new(code: &Code, subject: impl Into<String>, what: impl Into<String>) -> Self {
        debug_assert!(code.alert().is_some(), "{} is doctor's alone", code.name);
        Self {
            severity: code.severity,
            code: code.name.into(),
            subject: subject.into(),
            what: what.into(),
            next_step: code.next_step.into(),
        }
    }

    /// As bad as this, here.
    pub fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// With a next step that says more than the table's.
    pub fn with_next_step(self, next_step: impl Into<String>) -> Self {
        Self { next_step: next_step.into(), ..self }
    }

    pub fn code(&self) -> &str {
        &self.code
    }

    pub fn is(&self, code: &Code) -> bool {
        self.code == code.name
    }
}
