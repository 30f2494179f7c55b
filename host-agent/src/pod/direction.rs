// SPDX-License-Identifier: Apache-2.0
//! The two directions of a pod's traffic, seen from the pod. In the maps the
//! guard has an entry beside them, which is no direction of its own.

/// One of a slot's entries in the maps: a direction's shaper, or the guard.
pub use bpf::Direction as Entry;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The pod sends; shaped on its own end.
    Egress,
    /// The pod receives; shaped on the host's end.
    Ingress,
}

impl Direction {
    /// As keys, labels and screens have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }

    /// That of its shaper.
    pub fn entry(self) -> Entry {
        match self {
            Self::Egress => Entry::Egress,
            Self::Ingress => Entry::Ingress,
        }
    }
}
