// SPDX-License-Identifier: Apache-2.0
//! One picture of the node, as data. It travels to the command line as JSON.

use serde::{Deserialize, Serialize};

use super::node_share::NodeLines;
use super::pod::{PodState, PodStatus};
use super::report::AgentReport;
use crate::settings::generation::Verdict;
use crate::settings::in_force::InForce;
use crate::trouble::code::NOT_ADOPTED;
use crate::trouble::{Severity, Trouble};

/// One picture of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When the counters were read: nanoseconds since the node started.
    pub at_ns: u64,
    /// The same as seconds since 1970.
    pub time: u64,
    /// None where no agent was asked.
    pub agent: Option<RunningAgent>,
    /// None on a node where `sluice boot` has not run.
    pub settings: Option<InForce>,
    /// What became of the generation in force.
    pub verdict: Option<Verdict>,
    /// None where the settings in force give kubelet no number.
    #[serde(default)]
    pub kubelet: Option<InKubelet>,
    pub kernel: Kernel,
    #[serde(default)]
    pub node_share: NodeLines,
    pub pods: Vec<PodStatus>,
    /// What keeps a limit from being what it should be, and what can be done.
    pub degraded: Vec<Trouble>,
}

/// The process that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningAgent {
    pub version: String,
    pub report: AgentReport,
}

/// What of the kernel decides how limits are enforced; None where it is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    pub release: String,
    /// The guard is a link and needs no foreign clsact (6.6).
    pub tcx: Option<bool>,
    /// Packets are paced; without, excess is dropped.
    pub sch_fq: Option<bool>,
}

/// What kubelet runs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InKubelet {
    /// None where it was given none when it started.
    pub max_pods: Option<u16>,
}

impl Status {
    /// 0 if the node is well, 1 with a fault, 3 where it is degraded only.
    pub fn exit_status(&self) -> u8 {
        Severity::exit_status(self.degraded.iter().map(|trouble| trouble.severity))
    }

    /// What pods take of the node's line in this direction; None in what was read once.
    pub fn node_rate(&self, direction: &str) -> Option<u64> {
        node_rate(&self.pods, direction)
    }

    /// How many pods are in each state; a pod is counted once for each of its interfaces.
    pub fn count(&self, state: PodState) -> usize {
        self.pods.iter().filter(|pod| pod.state() == state).count()
    }
}

/// Sum of what was measured; None where nothing was.
fn node_rate(pods: &[PodStatus], direction: &str) -> Option<u64> {
    let lines = pods.iter().filter(|pod| pod.main.is_none()).flat_map(PodStatus::directions);
    let lines = lines.filter(|(name, _)| *name == direction);
    let rates = lines.filter_map(|(_, line)| line.share.as_ref()?.measured_bps);
    rates.fold(None, |sum, rate| Some(sum.unwrap_or(0) + rate))
}

/// Pods and their counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pods {
    pub at_ns: u64,
    #[serde(default)]
    pub node_share: NodeLines,
    pub pods: Vec<PodStatus>,
    pub degraded: Vec<Trouble>,
}

impl Pods {
    pub fn of(status: Status) -> Self {
        let Status { at_ns, node_share, pods, degraded, .. } = status;
        Self { at_ns, node_share, pods, degraded }
    }

    /// What pods take of the node's line in this direction; None in what was read once.
    pub fn node_rate(&self, direction: &str) -> Option<u64> {
        node_rate(&self.pods, direction)
    }

    /// Lines about pods that are none of these because they could not be adopted.
    pub fn not_adopted(&self) -> String {
        let troubles = self.degraded.iter().filter(|trouble| trouble.is(NOT_ADOPTED));
        troubles.map(|it| format!("{}: {}: {}\n", it.subject, it.code(), it.what)).collect()
    }
}
