// SPDX-License-Identifier: Apache-2.0
//! Makes a picture of the node, from records, pinned maps and the agent's report.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use bpf::Pins;
use nix::sys::utsname::uname;

use super::node::{InKubelet, Kernel, RunningAgent, Status};
use super::node_share::NodeLines;
use super::pod::PodStatus;
use super::report::AgentReport;
use super::{degraded, pods};
use crate::host::clock::{now_ns, seconds};
use crate::host::paths::Paths;
use crate::settings::generation::{Generations, Verdict};
use crate::settings::in_force::InForce;
use crate::settings::kubelet_start::Started;

impl InKubelet {
    fn find(paths: &Paths, in_force: &InForce) -> Option<Self> {
        let max_pods = in_force.max_pods.as_ref()?.in_kubelet(&Started::find(paths));
        Some(Self { max_pods })
    }
}

impl Status {
    /// Reads records and maps. What cannot be read is reported in `degraded`, so that the rest can be
    /// seen.
    pub fn read(paths: &Paths, report: Option<&AgentReport>) -> Result<Self> {
        let settings = InForce::read(&paths.boot_file())?;
        let pins = Pins::open(&paths.pin_dir());
        let at_ns = now_ns();
        let node_share = pins.as_ref().ok().map(|pins| NodeLines::read(pins, at_ns)).transpose()?;
        let node_share = node_share.unwrap_or_default();
        let (pods, mut degraded) = pods::read(paths, pins.as_ref().ok(), &node_share)?;
        let agent = report.map(|report| RunningAgent {
            version: env!("CARGO_PKG_VERSION").into(),
            report: report.clone(),
        });
        let mut status = Self {
            at_ns,
            time: seconds(SystemTime::now()),
            agent,
            verdict: verdict(paths, settings.as_ref()),
            kubelet: settings.as_ref().and_then(|in_force| InKubelet::find(paths, in_force)),
            settings,
            kernel: Kernel::find(paths, pins.as_ref().ok(), &pods),
            node_share,
            pods,
            degraded: Vec::new(),
        };
        degraded.extend(degraded::of(&status, pins.err().as_ref()));
        degraded.sort();
        degraded.dedup();
        status.degraded = degraded;
        Ok(status)
    }

    /// Looks at every limited pod's devices, too: some netlink in each namespace, milliseconds for each
    /// pod. So that is for root's command line, and never for the agent's loop, whose own pass finds
    /// the same.
    pub fn look_at_devices(&mut self, paths: &Paths) -> Result<()> {
        pods::look_at_devices(paths, &mut self.pods)?;
        degraded::look_again(&mut self.degraded, &self.pods);
        self.degraded.sort();
        Ok(())
    }
}

impl Kernel {
    fn find(paths: &Paths, pins: Option<&Pins>, pods: &[PodStatus]) -> Self {
        let release = uname().map(|name| name.release().to_string_lossy().into_owned());
        let release = release.unwrap_or_default();
        let directions = pods.iter().flat_map(|pod| [&pod.egress, &pod.ingress]);
        let modes: Vec<&str> = directions.filter_map(|line| line.mode.as_deref()).collect();
        let sch_fq = if modes.contains(&"policed") {
            Some(false)
        } else {
            let there = modes.contains(&"paced") || has_module(paths, &release, "sch_fq");
            there.then_some(true)
        };
        Self { release, tcx: pins.map(Pins::has_tcx), sch_fq }
    }
}

/// Loaded, built in, or there to be loaded.
fn has_module(paths: &Paths, release: &str, name: &str) -> bool {
    let listed = |list: &str| {
        let file = paths.resolve(Path::new(&format!("/lib/modules/{release}/{list}")));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.contains(&format!("/{name}.ko")))
    };
    paths.resolve(Path::new(&format!("/sys/module/{name}"))).exists()
        || listed("modules.builtin")
        || listed("modules.dep")
}

/// Generations of settings that are gone, or cannot be read here, have none.
fn verdict(paths: &Paths, settings: Option<&InForce>) -> Option<Verdict> {
    let number = settings?.generation?;
    let all = Generations::new(paths).list();
    all.into_iter().find(|generation| generation.number == number).map(|found| found.verdict)
}
