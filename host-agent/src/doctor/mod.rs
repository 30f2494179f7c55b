// SPDX-License-Identifier: Apache-2.0
//! `sluice doctor`: who sits on which hook of this node in which order, what
//! clashes, what is degraded and why, and what to do about it. A survey (plain
//! data), checks (pure functions of it), and text. It works without the agent,
//! as root, and changes nothing on the node.

mod cni;
mod finding;
mod hooks;
mod kernel;
mod others;
mod owner;
mod policy;
mod shaping;
mod state;
mod survey;
mod text;
mod verdict;

use anyhow::Result;
use serde_json::{Value, json};

pub use finding::Finding;
use survey::Survey;

use crate::host::paths::Paths;
use crate::trouble::Severity;

/// What was seen, and what is to be said of it.
pub struct Diagnosis {
    survey: Survey,
    /// Worst first.
    findings: Vec<Finding>,
}

/// Looks at the node and judges it.
pub fn diagnose(paths: &Paths) -> Result<Diagnosis> {
    let survey = Survey::take(paths)?;
    let checks: [fn(&Survey) -> Vec<Finding>; 6] =
        [kernel::check, state::check, cni::check, shaping::check, policy::check, others::check];
    let mut findings: Vec<Finding> = checks.iter().flat_map(|check| check(&survey)).collect();
    findings.sort_by_key(|finding| finding.severity);
    Ok(Diagnosis { survey, findings })
}

impl Diagnosis {
    /// 1 if there is a fault.
    pub fn exit_status(&self) -> u8 {
        u8::from(self.count(Severity::Fault) > 0)
    }

    /// Findings, and with `all` every device with its hooks.
    pub fn to_text(&self, all: bool) -> String {
        let mut text = text::summary(self) + &text::findings(&self.findings, all);
        if all {
            text += &text::tree(&self.survey);
        }
        text
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let survey = &self.survey;
        let count = |severity| self.count(severity);
        json!({
            "summary": {
                "fault": count(Severity::Fault),
                "degraded": count(Severity::Degraded),
                "note": count(Severity::Note),
            },
            "findings": self.findings,
            "kernel": survey.kernel,
            "bpffs": survey.bpffs,
            "agent_answers": survey.state.agent_answers,
            "devices": survey.host.devices.iter().map(|device| device.to_json(survey)).collect::<Vec<_>>(),
            "pods": survey.pods.iter().map(survey::Pod::to_json).collect::<Vec<_>>(),
        })
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}
