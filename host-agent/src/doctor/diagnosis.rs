// SPDX-License-Identifier: Apache-2.0
//! What was seen, and what is to be said of it.

use super::finding::Finding;
use super::survey::Survey;
use crate::trouble::Severity;

/// What was seen, and what is to be said of it.
pub struct Diagnosis {
    pub survey: Survey,
    /// Worst first.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    pub fn exit_status(&self) -> u8 {
        Severity::exit_status(self.findings.iter().map(|finding| finding.severity))
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}
