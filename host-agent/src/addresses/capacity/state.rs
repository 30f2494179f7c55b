// SPDX-License-Identifier: Apache-2.0
//! What is known of the node's addresses, as data. It travels to the command
//! line as JSON.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::pods;

/// One account of it, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    pub state: CapacityState,
    pub finding: CapacityFinding,
    /// What kubelet has.
    pub max_pods: u16,
    /// Addresses for pods when all ENIs are full; None where the instance type is unknown.
    pub full: Option<u64>,
    /// None as long as IMDS has not answered.
    pub seen: Option<AddressCount>,
}

impl Capacity {
    /// The same with the pods that are there now: IMDS is asked once a minute, and pods come meanwhile.
    pub fn with_pods_of(mut self, cache: &Path) -> Self {
        if let (Some(seen), Ok(used)) = (&mut self.seen, pods::count(cache)) {
            seen.used = used;
        }
        self
    }

    /// How long ago IMDS last answered.
    pub fn age_ns(&self, now_ns: u64) -> Option<u64> {
        self.seen.as_ref().map(|seen| now_ns.saturating_sub(seen.at_ns))
    }
}

/// What IMDS last showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressCount {
    /// Nanoseconds since the node started.
    pub at_ns: u64,
    /// For pods, those that have one included.
    pub addresses: u64,
    /// Of the family that pods have addresses of.
    pub prefixes: u64,
    /// Pods that have an address, as the runtime has it.
    pub used: u64,
}

/// For programs and graphs. What is said in words is the [`CapacityFinding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityState {
    /// IMDS has not answered yet, or is off.
    Unknown,
    Ok,
    /// Fewer addresses than pods and the warm target want; more can come.
    Filling,
    /// Settings, max-pods and what the node has contradict each other.
    Mismatch,
    /// The next pod gets no address, though max-pods allows it.
    Exhausted,
}

impl CapacityState {
    pub const ALL: [Self; 5] =
        [Self::Unknown, Self::Ok, Self::Filling, Self::Mismatch, Self::Exhausted];

    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Filling => "filling",
            Self::Mismatch => "mismatch",
            Self::Exhausted => "exhausted",
        }
    }
}

/// What the state is because of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityFinding {
    #[default]
    Unseen,
    Fits,
    Filling,
    /// Settings say that there are prefixes; there is none.
    NoPrefixes,
    /// Settings say that there are prefixes; this instance type cannot have any.
    CannotDelegate,
    /// Settings say that there are none; there are, and max-pods leaves most of them unused.
    UnexpectedPrefixes,
    /// max-pods is more than the ENIs can carry.
    Overpromised,
    Exhausted,
}

impl CapacityFinding {
    pub fn state(self) -> CapacityState {
        match self {
            Self::Unseen => CapacityState::Unknown,
            Self::Fits => CapacityState::Ok,
            Self::Filling => CapacityState::Filling,
            Self::NoPrefixes
            | Self::CannotDelegate
            | Self::UnexpectedPrefixes
            | Self::Overpromised => CapacityState::Mismatch,
            Self::Exhausted => CapacityState::Exhausted,
        }
    }
}
