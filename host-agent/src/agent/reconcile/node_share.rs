// SPDX-License-Identifier: Apache-2.0
//! The node's own line: what the node can do, and which packets use it. Pods have
//! their parts of it from their records, as they have limits.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use bpf::{Ethtool, Pins, Slot};
use settings_model::{Bandwidth, Capacity, Rate};

use super::node_line::NodeLine;
use crate::addresses::instance::{Instance, InstanceBandwidth};
use crate::host::file;
use crate::host::paths::Paths;
use crate::netlink::{Netlink, NodePaths};
use crate::pod::direction::Direction;
use crate::pod::sources::capacity;
use crate::settings::in_force::{InForce, with_found_capacity};
use crate::trouble::{Trouble, code};

/// What the maps hold of it, as far as this process knows.
#[derive(Default)]
pub struct NodeShare {
    paths: NodePaths,
    /// Another route, or another device, or settings; all is looked at again.
    is_due: bool,
    pub line: NodeLine,
    pub ethtool: Option<Ethtool>,
    /// Why no one knows what "auto" is.
    unknown: String,
}

/// What "auto" is.
struct Auto {
    rate: Rate,
    /// Where EC2's counters tell more.
    of_type: Option<InstanceBandwidth>,
}

impl NodeShare {
    pub fn look_again(&mut self) {
        self.is_due = true;
    }

    /// Whether all is to be looked at again; asked once for each time.
    pub fn take_due(&mut self) -> bool {
        std::mem::take(&mut self.is_due)
    }

    /// Brings the maps to what is wanted now, before the pods, whose parts are of that. True where "auto"
    /// is something else than before, so all pods are due.
    pub fn bring(
        &mut self,
        pins: &Pins,
        netlink: &mut Netlink,
        bandwidth: &mut Bandwidth,
        files: &Paths,
    ) -> Result<bool> {
        let mut paths = NodePaths::default();
        let before = (bandwidth.node_egress, bandwidth.node_ingress);
        let (mut of_type, mut asks) = (None, false);
        if bandwidth.node_share == Some(true) {
            paths = netlink.node_paths().context("find the node's uplinks")?;
            let devices = paths.uplinks.iter().filter_map(|index| netlink.traffic(*index).ok());
            let devices: Vec<String> = devices.map(|traffic| traffic.device).collect();
            let counts = self.find_enas(&devices)?;
            if bandwidth.shares_by_auto() {
                of_type = self.find_auto(bandwidth, files, &devices, counts)?;
            }
            asks = counts || bandwidth.shares_by_auto();
        }
        if !asks {
            self.ethtool = None;
        }
        if paths != self.paths {
            pins.set_node_paths(&paths.uplinks, &paths.routes)?;
            self.paths = paths;
        }
        let shared = Direction::BOTH.map(|direction| {
            let is_auto = !matches!(asked(bandwidth, direction), Capacity::Rate(_));
            capacity(bandwidth, direction).map(|it| (it, of_type.filter(|_| is_auto)))
        });
        self.line.bring(pins, bandwidth, shared, &self.paths.uplinks)?;
        Ok(before != (bandwidth.node_egress, bandwidth.node_ingress))
    }

    /// What the pods may use of the line now.
    pub fn look(
        &mut self,
        pins: &Pins,
        netlink: &mut Netlink,
        slots: &BTreeSet<Slot>,
        bandwidth: &Bandwidth,
    ) -> Result<()> {
        self.line.look(pins, netlink, self.ethtool.as_ref(), slots, bandwidth)
    }

    /// Whether some of these count what is above EC2's allowance.
    fn find_enas(&mut self, devices: &[String]) -> Result<bool> {
        if self.ethtool.is_none() {
            self.ethtool = Some(Ethtool::open().context("ask devices what they can do")?);
        }
        Ok(self.ethtool.as_ref().is_some_and(|it| self.line.find_enas(it, devices)))
    }

    /// Keeps what was found where ADD and commands see it, and puts it into the settings.
    fn find_auto(
        &mut self,
        bandwidth: &mut Bandwidth,
        files: &Paths,
        devices: &[String],
        counts: bool,
    ) -> Result<Option<InstanceBandwidth>> {
        let speed = self.speed(devices);
        let boot = InForce::read(&files.boot_file()).ok().flatten();
        let name = boot.and_then(|in_force| in_force.max_pods?.instance_type);
        match auto(name.as_deref(), counts, speed, devices) {
            Ok(found) => {
                let text = format!("{}\n", found.rate);
                if std::fs::read_to_string(files.capacity_found()).ok().as_ref() != Some(&text) {
                    file::replace(&files.capacity_found(), text.as_bytes(), 0o644)?;
                    log::info!("node-egress and node-ingress: \"auto\" is {} here", found.rate);
                }
                with_found_capacity(files, bandwidth);
                Ok(found.of_type)
            }
            // What was found before holds as long as no one knows better.
            Err(unknown) => {
                self.unknown = unknown;
                Ok(None)
            }
        }
    }

    /// Of the fastest uplink: several more often lead to the same network than to more of it.
    fn speed(&self, devices: &[String]) -> Option<u32> {
        let ethtool = self.ethtool.as_ref()?;
        devices.iter().filter_map(|device| ethtool.speed(device).ok()?).max()
    }

    /// Why pods do not share what the settings want them to share.
    pub fn trouble(&self, bandwidth: &Bandwidth) -> Option<Trouble> {
        if bandwidth.node_share != Some(true) {
            return None;
        }
        let unknown = |direction: &Direction| capacity(bandwidth, *direction).is_none();
        let unknown: Vec<_> = Direction::BOTH.into_iter().filter(unknown).collect();
        let key = |it: &Direction| format!("bandwidth.node-{}", it.name());
        let keys: Vec<_> = unknown.iter().map(key).collect();
        let what = format!("{} is \"auto\", and {}", keys.join(" and "), self.unknown);
        (!unknown.is_empty()).then(|| {
            Trouble::new(code::NODE_SHARE_OFF, keys.join(", "), what)
                .with_next_step("set it to a rate, e.g. \"10Gbit\"")
        })
    }
}

fn asked(bandwidth: &Bandwidth, direction: Direction) -> Capacity {
    match direction {
        Direction::Egress => bandwidth.node_egress,
        Direction::Ingress => bandwidth.node_ingress,
    }
}

/// The table's peak where the counters tell when that is too much, else the baseline; the devices'
/// speed where the table does not know.
fn auto(
    instance_type: Option<&str>,
    counts: bool,
    speed: Option<u32>,
    devices: &[String],
) -> Result<Auto, String> {
    let of_type = instance_type.and_then(Instance::find).and_then(|it| it.bandwidth);
    let mbit = match of_type {
        Some(it) if counts => Some(it.peak),
        Some(it) => Some(it.baseline),
        None => speed,
    };
    let rate = mbit.and_then(|mbit| Rate::from_bits_per_sec(u64::from(mbit) * 1_000_000));
    let found = rate.map(|rate| Auto { rate, of_type: of_type.filter(|_| counts) });
    found.ok_or_else(|| {
        let table = instance_type.map(|name| format!("the table has no bandwidth of {name}, and "));
        let why = match devices {
            [] => "there is no default route whose device could tell its speed".into(),
            devices => format!("{} tells no speed", devices.join(", ")),
        };
        format!("{}{why}", table.unwrap_or_default())
    })
}

/// The maps are not what they should be; the next event or pass tries again.
pub fn failed(error: &anyhow::Error) -> Trouble {
    Trouble::new(code::NODE_SHARE_OFF, "bandwidth.node-share", format!("{error:#}"))
        .with_next_step("systemctl restart sluice; if it comes back: sluice support")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_the_types_peak_or_baseline_else_the_devices_speed_else_unknown() {
        let devices = ["eth0".to_owned()];
        let found = |name: Option<&str>, counts, speed| {
            auto(name, counts, speed, &devices)
                .map(|it| (it.rate.to_string(), it.of_type.is_some()))
        };
        assert_eq!(found(Some("a1.large"), true, None), Ok(("10Gbit".into(), true)));
        assert_eq!(found(Some("a1.large"), false, Some(25_000)), Ok(("750Mbit".into(), false)));
        assert_eq!(found(Some("zz9.large"), true, Some(25_000)), Ok(("25Gbit".into(), false)));
        assert_eq!(found(None, false, Some(10_000)), Ok(("10Gbit".into(), false)));
        assert_eq!(found(None, false, None), Err("eth0 tells no speed".into()));
        let why = found(Some("zz9.large"), true, None).unwrap_err();
        assert_eq!(why, "the table has no bandwidth of zz9.large, and eth0 tells no speed");
        let why = auto(None, false, None, &[]).err().unwrap();
        assert_eq!(why, "there is no default route whose device could tell its speed");
    }
}
