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
    /// 1 if there is a fault.
    pub fn exit_status(&self) -> u8 {
        u8::from(self.count(Severity::Fault) > 0)
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}
