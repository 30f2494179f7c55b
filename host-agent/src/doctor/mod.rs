// SPDX-License-Identifier: Apache-2.0
//! `sluice doctor`: what sits on which hook of this node in which order, what
//! clashes, what is degraded and why, and what to do about it. A survey (plain
//! data), checks (pure functions of it), and text. It works without the agent,
//! as root, and changes nothing on the node.

mod cni;
mod diagnosis;
mod finding;
mod hooks;
mod json;
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

use diagnosis::Diagnosis;
use finding::Finding;
use survey::Survey;

use crate::host::paths::Paths;

/// Looks at the node and judges it.
pub fn diagnose(paths: &Paths) -> Result<Diagnosis> {
    let survey = Survey::take(paths)?;
    let checks: [fn(&Survey) -> Vec<Finding>; 6] =
        [kernel::check, state::check, cni::check, shaping::check, policy::check, others::check];
    let mut findings: Vec<Finding> = checks.iter().flat_map(|check| check(&survey)).collect();
    findings.sort_by_key(|finding| finding.severity);
    Ok(Diagnosis { survey, findings })
}
