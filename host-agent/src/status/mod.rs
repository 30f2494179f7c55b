// SPDX-License-Identifier: Apache-2.0
//! What holds on this node: settings, kernel, pods with raw counters, and what
//! is degraded. Made from records, pinned maps and the agent's report, by the
//! agent for its API or by the command line itself where no agent runs. Rates
//! are for the reader of two such pictures to compute (`rates`).

pub mod degraded;
pub mod metrics;
mod pods;
mod queues;
pub mod rates;
pub mod report;
pub mod text;
pub mod trace;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use bpf::Pins;
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::boot::InForce;
use crate::boot::kubelet::Started;
use crate::host::paths::Paths;
use crate::settings::generation::Verdict;
use crate::status::report::Report;
use crate::trouble::Trouble;

pub use pods::{Delays, Drops, GuardLine, Line, Pod, State, need_container};

/// One picture of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When the counters were read: nanoseconds since the node started.
    pub at_ns: u64,
    /// The same as seconds since 1970.
    pub time: u64,
    /// None where no agent was asked.
    pub agent: Option<Agent>,
    /// None on a node where `sluice boot` has not run.
    pub settings: Option<InForce>,
    /// What became of the generation in force.
    pub verdict: Option<Verdict>,
    /// None where the settings in force give kubelet no number.
    #[serde(default)]
    pub kubelet: Option<InKubelet>,
    pub kernel: Kernel,
    pub pods: Vec<Pod>,
    /// What keeps a limit from being what it should be, and what can be done.
    pub degraded: Vec<Trouble>,
}

/// The process that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub version: String,
    pub report: Report,
}

/// What of the kernel decides how limits are enforced; None where nobody has found out yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    pub release: String,
    /// The guard is a link and needs nobody else's clsact (6.6).
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

impl InKubelet {
    fn find(paths: &Paths, in_force: &InForce) -> Option<Self> {
        let max_pods = in_force.max_pods.as_ref()?.in_kubelet(&Started::find(paths));
        Some(Self { max_pods })
    }
}

impl Status {
    /// Reads records and maps. What cannot be read is told in `degraded`, so that the rest can be
    /// seen.
    pub fn read(paths: &Paths, report: Option<&Report>) -> Result<Self> {
        let settings = InForce::read(&paths.boot_file())?;
        let pins = Pins::open(&paths.pin_dir());
        let (pods, mut degraded) = pods::read(paths, pins.as_ref().ok())?;
        let agent = report.map(|report| Agent {
            version: env!("CARGO_PKG_VERSION").into(),
            report: report.clone(),
        });
        let mut status = Self {
            at_ns: now_ns(),
            time: seconds(SystemTime::now()),
            agent,
            verdict: verdict(paths, settings.as_ref()),
            kubelet: settings.as_ref().and_then(|in_force| InKubelet::find(paths, in_force)),
            settings,
            kernel: Kernel::find(paths, pins.as_ref().ok(), &pods),
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

    /// How many pods are in each state; a pod is counted once for each of its interfaces.
    pub fn count(&self, state: State) -> usize {
        self.pods.iter().filter(|pod| pod.state() == state).count()
    }
}

impl Kernel {
    fn find(paths: &Paths, pins: Option<&Pins>, pods: &[Pod]) -> Self {
        let release = uname().map(|name| name.release().to_string_lossy().into_owned());
        let release = release.unwrap_or_default();
        let ways = pods.iter().flat_map(|pod| [&pod.egress, &pod.ingress]);
        let modes: Vec<&str> = ways.filter_map(|line| line.mode.as_deref()).collect();
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
    let all = crate::settings::generation::Generations::new(paths).list();
    all.into_iter().find(|generation| generation.number == number).map(|found| found.verdict)
}

/// The clock that the programs use, too (bpf_ktime_get_ns).
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
