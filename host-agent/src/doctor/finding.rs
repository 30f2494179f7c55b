// SPDX-License-Identifier: Apache-2.0
//! One thing that is not as it should be: what, where, why it matters, and
//! what to do about it.

use std::fmt;

use serde::Serialize;

/// Worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A limit or network policy is not in force where it should be, or pods cannot start.
    Fault,
    /// What should be in force is, but not as well, or not against everybody.
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// One of [`super::code::ALL`].
    pub code: &'static str,
    /// A device or pod, a file, or the kernel.
    pub subject: String,
    pub seen: String,
    pub why: String,
    /// A command or a setting.
    pub remedy: String,
}

/// Each finding says in this order: subject, what was seen, why, remedy.
impl Finding {
    pub fn fault(code: &'static str, subject: impl Into<String>) -> Self {
        Self::new(Severity::Fault, code, subject)
    }

    pub fn degraded(code: &'static str, subject: impl Into<String>) -> Self {
        Self::new(Severity::Degraded, code, subject)
    }

    pub fn note(code: &'static str, subject: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, subject)
    }

    pub fn new(severity: Severity, code: &'static str, subject: impl Into<String>) -> Self {
        let (seen, why, remedy) = Default::default();
        Self { severity, code, subject: subject.into(), seen, why, remedy }
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
