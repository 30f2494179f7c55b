// SPDX-License-Identifier: Apache-2.0
//! Everything that the checks judge, gathered once, plain data. Reading only:
//! the one thing tried, what the kernel can, is tried in a network namespace
//! of its own. What cannot be read is None or an error text, never a guess.

mod files;
mod node;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail};
use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, setns};
use settings_model::Settings;

pub use files::{CniFiles, SluiceState};
pub use node::{BpfFs, KernelSurvey};

use super::hooks::{Namespace, Programs, Surveyed, hex};
use crate::host::logging::harmless;
use crate::host::paths::Paths;
use crate::pod::guard;
use crate::pod::record::{Claim, Record, Records};

#[derive(Debug)]
pub struct Survey {
    pub kernel: KernelSurvey,
    pub bpffs: BpfFs,
    pub state: SluiceState,
    pub cni: CniFiles,
    pub host: Namespace,
    pub pods: Vec<SurveyedPod>,
    pub programs: Programs,
    /// Digests of this version's pinned programs, and whether all are compiled.
    pub own_tags: BTreeSet<String>,
    pub own_are_jited: bool,
}

/// A record, and what it names as it is now.
#[derive(Debug)]
pub struct SurveyedPod {
    pub claim: Claim,
    pub record: Result<Record, String>,
    /// The pod's own end; or why it cannot be reached.
    pub inside: Result<Surveyed, String>,
    /// What passed its host end by; None without the agent's maps.
    pub bypassed: Option<bpf::Counters>,
    /// What it is handed that way is read before any guard in it runs.
    pub is_guard_preceded: bool,
}

impl SurveyedPod {
    /// `default/web`, or what else there is to call it.
    pub fn name(&self) -> String {
        match &self.record {
            Ok(record) => harmless(&format!("{}/{}", record.namespace, record.pod)),
            Err(_) => format!("container {}", self.claim.key.container_id),
        }
    }
}

impl Survey {
    pub fn take(paths: &Paths) -> Result<Self> {
        check_rights()?;
        let bpffs = paths.bpffs();
        let pins = bpf::survey::pins_below(&bpffs).unwrap_or_default();
        let mut programs = Programs::new(&bpffs, pins);
        let host = Namespace::look(&mut programs).context("survey the node's devices")?;
        let pods = pods(paths, &mut programs)?;
        let settings = settings(paths);
        let cni = CniFiles::read(paths, settings.as_ref().and_then(|s| s.as_ref().ok()));
        let own = programs.below(&paths.pin_dir());
        Ok(Self {
            own_tags: own.iter().map(|loaded| hex(&loaded.tag)).collect(),
            own_are_jited: own.iter().all(|loaded| loaded.jited),
            kernel: KernelSurvey::read(host.has_tcx),
            bpffs: BpfFs::read(paths),
            state: SluiceState::read(paths, settings),
            cni,
            host,
            pods,
            programs,
        })
    }

    /// The host's end of a record's pair; None if the device has gone or is another one now.
    pub fn host_end(&self, record: &Record) -> Option<&Surveyed> {
        let host = record.host.as_ref()?;
        self.host.by_index(host.ifindex).filter(|found| found.device.name == host.ifname)
    }

    /// The pod that a record knows behind this device.
    pub fn pod_behind(&self, device: &Surveyed) -> Option<&SurveyedPod> {
        let is_it = |pod: &&SurveyedPod| {
            let record = pod.record.as_ref().ok();
            let end = record.and_then(|record| self.host_end(record));
            end.is_some_and(|end| end.device.index == device.device.index)
        };
        self.pods.iter().find(is_it)
    }

    /// The device, with its pod if one is known.
    pub fn subject(&self, device: &Surveyed) -> String {
        match self.pod_behind(device) {
            Some(pod) => format!("{} (pod {})", device.device.name, pod.name()),
            None => device.device.name.clone(),
        }
    }

    /// Host ends of pods' veth pairs, known to us or not.
    pub fn pod_ends(&self) -> impl Iterator<Item = &Surveyed> {
        self.host.devices.iter().filter(|found| found.is_pod_end())
    }
}

fn check_rights() -> Result<()> {
    let held = caps::read(None, CapSet::Effective).context("read the capabilities")?;
    let needed = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN];
    if let Some(lacking) = needed.iter().find(|needed| !held.contains(needed)) {
        bail!("survey the node: needs root ({lacking} is missing)");
    }
    Ok(())
}

fn settings(paths: &Paths) -> Option<Result<Settings, String>> {
    let path = paths.settings_in_force();
    let text = fs::read_to_string(&path).ok()?;
    Some(settings_model::parse(&path.display().to_string(), &text).map_err(|e| e.to_string()))
}

fn pods(paths: &Paths, programs: &mut Programs) -> Result<Vec<SurveyedPod>> {
    let claims = Records::new(paths).list()?;
    let pins = bpf::Pins::open(&paths.pin_dir()).ok();
    let pods = claims.into_iter().map(|claim| {
        let record = claim.read().map_err(|e| format!("{e:#}"));
        let inside = match &record {
            Ok(record) => inside(&record.netns, &claim.key.ifname, programs),
            Err(_) => bail_text("its record does not say where it is"),
        };
        let bypassed =
            pins.as_ref().and_then(|pins| pins.unshaped(claim.slot, bpf::Direction::Ingress).ok());
        let inside = inside.map_err(|e| format!("{e:#}"));
        let guard = record.as_ref().ok().and_then(|record| record.ingress_guard.as_ref());
        let is_guard_preceded = guard.is_some_and(|guard| {
            record.as_ref().is_ok_and(|r| guard::is_preceded(&r.netns, guard.ifindex))
        });
        SurveyedPod { inside, bypassed, is_guard_preceded, claim, record }
    });
    Ok(pods.collect())
}

fn bail_text<T>(text: &'static str) -> Result<T> {
    bail!(text)
}

/// What is on the pod's own end. A thread goes into its namespace, so nothing is left behind in it.
fn inside(netns: &Path, ifname: &str, programs: &mut Programs) -> Result<Surveyed> {
    let file = File::open(netns)
        .with_context(|| format!("open the network namespace {}", netns.display()))?;
    let look = || -> Result<Surveyed> {
        setns(&file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter the network namespace {}", netns.display()))?;
        let found = Surveyed::in_pod(programs, ifname)?;
        found.with_context(|| format!("find {ifname} in {}", netns.display()))
    };
    let looked = thread::scope(|scope| scope.spawn(look).join());
    looked.unwrap_or_else(|_| bail_text("the thread in the pod's namespace ended early"))
}
