// SPDX-License-Identifier: Apache-2.0
//! What the agent's loop knows that neither records nor maps show: how its
//! passes go, what it has repaired, and what is wrong and why. Plain data; it
//! travels to the command line as JSON.

use serde::{Deserialize, Serialize};

use crate::addresses::capacity::Capacity;
use crate::trouble::Trouble;

/// The loop's own account of itself since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    /// Whether the first whole pass has finished.
    pub ready: bool,
    /// Whole passes, and what the last one took.
    pub passes: u64,
    pub last_pass_ns: u64,
    /// Pods whose attachment was removed and that got it again.
    pub repairs: u64,
    /// Looks that were put off because a pod's devices change too often.
    #[serde(default)]
    pub deferred: u64,
    /// Pods that the chain had missed.
    pub adopted: u64,
    /// Records whose pod had gone without a DEL.
    pub collected: u64,
    /// Times that our entry was restored in the conflist.
    pub conflist_writes: u64,
    /// Whether the node has the addresses that max-pods promises; None where no one has asked for that.
    #[serde(default)]
    pub capacity: Option<Capacity>,
    /// What applies now.
    pub troubles: Vec<Trouble>,
}

impl AgentReport {
    /// One line for `systemctl status`.
    pub fn to_line(&self, pods: usize) -> String {
        let first = self.troubles.first().map(|t| format!("; {}: {}", t.subject, t.what));
        let count = self.troubles.len();
        format!("{pods} pod interfaces, {count} in trouble{}", first.unwrap_or_default())
    }
}
