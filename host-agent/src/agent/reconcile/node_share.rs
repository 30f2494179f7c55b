// SPDX-License-Identifier: Apache-2.0
//! The node's own line: what the node can do, and which packets use it. Pods have
//! their parts of it from their records, as they have limits.

use anyhow::{Context, Result};
use bpf::{Mode, Pins};
use settings_model::Bandwidth;

use crate::netlink::{Netlink, NodePaths};
use crate::pod::direction::Direction;
use crate::pod::limit::Limit;
use crate::pod::sources::capacity;
use crate::trouble::{Trouble, code};

/// Of jumbo frames, so that one fits into what a pod may send at once.
const MTU: u32 = 9001;

/// What the maps hold of it, as far as this process knows.
#[derive(Default)]
pub struct NodeShare {
    paths: NodePaths,
    /// Another route, or another device, or settings; all is looked at again.
    is_due: bool,
}

impl NodeShare {
    pub fn look_again(&mut self) {
        self.is_due = true;
    }

    /// Whether all is to be looked at again; asked once for each time.
    pub fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.is_due)
    }

    /// Brings the maps to what is wanted now; before the pods, whose parts are of that.
    pub fn bring(
        &mut self,
        pins: &Pins,
        netlink: &mut Netlink,
        bandwidth: &Bandwidth,
    ) -> Result<()> {
        let shared = Direction::BOTH.map(|direction| (direction, capacity(bandwidth, direction)));
        let mut paths = NodePaths::default();
        if shared.iter().any(|(_, capacity)| capacity.is_some()) {
            paths = netlink.node_paths().context("find the node's uplinks")?;
        }
        if paths != self.paths {
            pins.set_node_paths(&paths.uplinks, &paths.routes)?;
            self.paths = paths;
        }
        for (direction, capacity) in shared {
            let limit = capacity.map_or(bpf::Limit::NONE, |capacity| {
                // Pods send by super-packets in either direction.
                Limit::of_node(capacity, bandwidth).for_bpf(Mode::Paced, Direction::Egress, MTU)
            });
            if pins.node_limit(direction)? != limit {
                pins.set_node_limit(direction, limit)?;
            }
        }
        Ok(())
    }
}

/// The maps are not what they should be; the next event or pass tries again.
pub fn failed(error: &anyhow::Error) -> Trouble {
    Trouble::new(code::NODE_SHARE_OFF, "bandwidth.node-share", format!("{error:#}"))
        .with_next_step("systemctl restart sluice; if it comes back: sluice support")
}

/// Why pods do not share what the settings want them to share.
pub fn trouble(bandwidth: &Bandwidth) -> Option<Trouble> {
    if bandwidth.node_share != Some(true) {
        return None;
    }
    let unknown = |direction: &Direction| capacity(bandwidth, *direction).is_none();
    let unknown: Vec<_> = Direction::BOTH.into_iter().filter(unknown).collect();
    let keys: Vec<_> = unknown.iter().map(|it| format!("bandwidth.node-{}", it.name())).collect();
    let what = format!("what the node can do is not known: {} is \"auto\"", keys.join(" and "));
    (!unknown.is_empty()).then(|| {
        Trouble::new(code::NODE_SHARE_OFF, keys.join(", "), what)
            .with_next_step("set it to a rate, e.g. \"10Gbit\"")
    })
}
