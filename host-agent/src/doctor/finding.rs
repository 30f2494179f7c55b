// SPDX-License-Identifier: Apache-2.0
//! One thing that is not as it should be: what, where, why it matters, and
//! what to do about it.

use serde::Serialize;

use crate::trouble::Severity;
use crate::trouble::code::Code;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// A name out of the table of codes.
    pub code: &'static str,
    /// A device or pod, a file, or the kernel.
    pub subject: String,
    pub seen: String,
    pub why: String,
    /// A command or a setting.
    pub remedy: String,
}

/// Who hands out findings says of each in this order: subject, what was seen, why, and where the
/// table's next step can be said with names, that.
impl Finding {
    /// As bad as the table says, with its next step.
    pub fn new(code: &'static Code, subject: impl Into<String>) -> Self {
        debug_assert!(code.is_of_doctor(), "{} is status' alone", code.name);
        Self {
            severity: code.severity,
            code: code.name,
            subject: subject.into(),
            seen: String::new(),
            why: String::new(),
            remedy: code.next_step.into(),
        }
    }

    /// As bad as this, here.
    pub fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    pub fn seen(self, seen: impl Into<String>) -> Self {
        Self { seen: seen.into(), ..self }
    }

    pub fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }
}
