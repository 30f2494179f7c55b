// SPDX-License-Identifier: Apache-2.0
//! `sluice boot`: layers of settings → plan → files, as a generation. Settings
//! are put in force whole, or else what `on-invalid` says: the last good
//! generation, the layers below the user data, or nothing at all. Beside them
//! stand kubelet's file, the chain's entry, the plugin and the store: one that
//! fails is reported (unmet.rs) and takes no limit away.

pub mod apply;
pub mod facts;
pub mod kubelet;
pub mod machine;
pub mod part;
pub mod plan;
pub mod preview;
pub mod unmet;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use settings_model::{Effective, OnInvalid, Problems, Settings};

use crate::host::lock::Lock;
use crate::host::paths::Paths;
use crate::libcni::entry::{Upstream, has_plugin, rates_kept};
use crate::settings::document::{Document, NodeConfig};
use crate::settings::generation::Generations;
use crate::settings::in_force::{InForce, MaxPodsInForce, Reason, Took};
use crate::settings::kubelet_start::Started;
use crate::settings::layers::{Layers, merge};
use crate::settings::user_data::{self, Undecoded};
use apply::apply;
use facts::Facts;
use part::Part;
use plan::Plan;

/// For another boot or reload to end: its own waits for IMDS are over by then. Twice that, for the rehearsal
/// too, fits beside IMDS into the unit's TimeoutStartSec=.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where things are, for one boot.
pub struct Boot<'a> {
    pub paths: &'a Paths,
    pub plugin: &'a Path,
}

/// What was asked for is in force.
#[derive(Debug)]
pub struct Booted {
    pub in_force: InForce,
    /// Files that were not yet as they should be.
    pub written: Vec<PathBuf>,
}

/// What was asked for could not be put in force.
#[derive(Debug)]
pub struct NotInForce {
    pub error: anyhow::Error,
    /// What applies instead, or why nothing else does. None: the node is as it was.
    pub instead: Option<Result<Box<InForce>>>,
}

/// Why what was asked for is not in force.
struct Why<'w> {
    error: &'w anyhow::Error,
    /// The settings could not be used, wherever that shows.
    unusable: bool,
    /// They could not even be had.
    unread: bool,
    /// How long that took to find out.
    waited: Duration,
}

impl Boot<'_> {
    /// Puts settings in force, whole. Settings that cannot be used are replaced by the last good
    /// ones, or by the layers below the user data; usable ones that cannot be applied by the last
    /// good ones only, for whatever is in the way of them would be in the way of defaults too. `waited` is
    /// how long it took to get the layers.
    pub fn run(&self, layers: Result<Layers>, waited: Duration) -> Result<Booted, NotInForce> {
        // Two at once (SIGHUP and `sluice reload`) would put a mixture in force.
        let _alone = self
            .paths
            .boot_lock()
            .take(PATIENCE)
            .map_err(|error| NotInForce { error, instead: None })?;
        let below = match &layers {
            Ok(layers) => layers.without_user_data(),
            Err(error) => Layers::of_image(self.paths)
                .unwrap_or_default()
                .with_node_configs(user_data::node_configs_beside(error)),
        };
        let below_settings = merge(&below.documents()).map(|below| below.settings);
        let on_invalid = below_settings.unwrap_or_default().agent.on_invalid;
        let unread = layers.as_ref().is_err_and(|error| !error.is::<Undecoded>());
        let documents = layers.map(|layers| layers.documents());
        let read = documents.and_then(|all| Ok((merge(&all)?, all)));
        let unusable = read.is_err();
        let result = read.and_then(|(effective, all)| {
            let began = Instant::now();
            let plan = self.plan(&effective.settings, below.node_configs());
            let planned = Instant::now();
            let mut booted = self.put(&effective, plan, &all, on_invalid)?;
            booted.in_force.took = Some(took(waited, planned - began, planned.elapsed()));
            Ok(booted)
        });
        let done = result.and_then(|booted| self.record(&booted.in_force).map(|()| booted));
        done.map_err(|error| {
            let why = Why { error: &error, unusable, unread, waited };
            let instead = self.instead(&below, on_invalid, &why);
            NotInForce { error, instead }
        })
    }

    /// What these settings would make of this node, whose user data has these NodeConfigs.
    pub fn plan(&self, settings: &Settings, node_configs: &[NodeConfig]) -> Plan {
        Plan::of(settings, &Facts::probe(self.paths, settings, self.plugin, node_configs))
    }

    /// Most of what `run` does is the same whatever the user data says. Done beforehand, for nothing, in
    /// a directory that is removed again, it has code, configuration and plugin off the disk, and
    /// through dm-verity, by the time that IMDS answers and kubelet waits.
    pub fn rehearse(&self, layers: &Layers) -> Result<()> {
        let _alone = self.paths.boot_lock().take(PATIENCE)?;
        let documents = layers.documents();
        let asked = merge(&documents)?;
        let dir = self.paths.rehearsal_dir();
        let paths = &Paths::below(&dir);
        let plan = self.plan(&asked.settings, layers.node_configs()).below(paths);
        let there = Boot { paths, plugin: self.plugin };
        let done = there
            .put(&asked, plan, &documents, OnInvalid::default())
            .and_then(|it| there.record(&it.in_force));
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        done
    }

    fn put(
        &self,
        asked: &Effective,
        mut plan: Plan,
        documents: &[Document],
        on_invalid: OnInvalid,
    ) -> Result<Booted> {
        let warnings = asked.warnings.iter().map(ToString::to_string);
        let warnings = warnings.chain(upstream_warning(&plan)).chain(plan.warnings.clone());
        let warnings: Vec<String> = warnings.collect();
        let generations = Generations::new(self.paths);
        let begun = generations.begin(documents, on_invalid == OnInvalid::LastGood)?;
        let number = begun.number;
        plan.unmet.extend(begun.not_stored.iter().map(|why| unmet::not_stored(format!("{why:#}"))));
        let written = match self.carry_out(&mut plan) {
            Ok(written) => written,
            Err(error) => {
                // The first error is the one to report; a full disk may keep this from being noted.
                let _ = generations.has_failed(number, documents, format!("{error:#}"));
                return Err(error);
            }
        };
        if let Err(why) = generations.is_good(begun) {
            plan.unmet.push(unmet::not_stored(format!("{why:#}")));
        }
        plan.unmet.iter().for_each(|trouble| log::error!("{}", unmet::line(trouble)));
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let max_pods = plan.max_pods.iter();
        max_pods.for_each(|known| log::info!("max-pods {}: {}", known.pods, known.summary));
        written.iter().for_each(|path| log::info!("wrote {}", path.display()));
        let documents = names(documents);
        let in_force = InForce {
            generation: Some(number),
            documents,
            reason: Reason::AsAsked,
            took: None,
            problems: Vec::new(),
            unread: false,
            warnings,
            unmet: plan.unmet,
            max_pods: plan.max_pods,
        };
        Ok(Booted { in_force, written })
    }

    /// Part by part; the plan is then as it came about. Gives the paths that were written; fails only
    /// where the settings cannot be in force.
    fn carry_out(&self, plan: &mut Plan) -> Result<Vec<PathBuf>> {
        let mut changed = self.install(&plan.plugin).unwrap_or_else(|why| {
            plan.unmet.push(unmet::plugin(format!("{why:#}")));
            Vec::new()
        });
        changed.extend(apply(&plan.settings, &self.paths.files_lock())?);
        match put_kubelet(&plan.kubelet, &self.paths.files_lock()) {
            Ok(paths) => {
                changed.extend(paths);
                plan.max_pods = self.after_earlier(plan.max_pods.take());
            }
            Err(why) => {
                plan.unmet.push(unmet::kubelet(format!("{why:#}")));
                plan.max_pods = None;
            }
        }
        let installed = plan.plugin.plugin.as_ref().is_some_and(|it| has_plugin(&it.to));
        let entry = if installed { &plan.conflist } else { &plan.without_plugin };
        match apply(entry, &self.paths.files_lock()) {
            Ok(paths) => changed.extend(paths),
            Err(why) => plan.unmet.push(unmet::conflist_not_written(format!("{why:#}"))),
        }
        Ok(changed)
    }

    fn install(&self, part: &Part) -> Result<Vec<PathBuf>> {
        let plugin = self.plugin;
        fs::File::open(plugin)
            .with_context(|| format!("read the CNI plugin's binary {}", plugin.display()))?;
        apply(part, &self.paths.files_lock())
    }

    /// With what kubelet runs with until it reads this.
    fn after_earlier(&self, max_pods: Option<MaxPodsInForce>) -> Option<MaxPodsInForce> {
        let mut max_pods = max_pods?;
        // What cannot be read was of another version, and is replaced.
        let before = InForce::read(&self.paths.boot_file()).ok().flatten();
        max_pods.earlier = before.and_then(|before| {
            let (started, pods) = (Started::find(self.paths), max_pods.pods);
            let has = before.max_pods.and_then(|before| before.in_kubelet(&started));
            (has != Some(pods)).then(|| started.earlier(has)).flatten()
        });
        Some(max_pods)
    }

    /// `on-invalid` of the layers below the user data decides: the user data cannot be trusted now.
    fn instead(
        &self,
        below: &Layers,
        on_invalid: OnInvalid,
        why: &Why,
    ) -> Option<Result<Box<InForce>>> {
        // Documents that another image understood may be beyond this one.
        let last_good = Generations::new(self.paths).last_good();
        let last_good = last_good.filter(|good| merge(&good.documents).is_ok());
        let (documents, generation, reason) = match (on_invalid, last_good) {
            (OnInvalid::Fail, _) => return None,
            (OnInvalid::LastGood, Some(good)) => {
                (good.documents, Some(good.number), Reason::LastGood)
            }
            _ if why.unusable => (below.documents(), None, Reason::Defaults),
            _ => return None,
        };
        let put = || {
            // An image whose own layers are broken still has the built-in defaults.
            let settings = match merge(&documents) {
                Err(_) if reason == Reason::Defaults => Settings::default(),
                merged => merged?.settings,
            };
            let began = Instant::now();
            let mut plan = self.plan(&settings, below.node_configs());
            let planned = Instant::now();
            self.carry_out(&mut plan)?;
            let took = Some(took(why.waited, planned - began, planned.elapsed()));
            let (documents, problems) = (names(&documents), lines(why.error));
            let Plan { warnings, unmet, max_pods, .. } = plan;
            let unread = why.unread;
            let in_force = InForce {
                generation,
                documents,
                reason,
                took,
                problems,
                unread,
                warnings,
                unmet,
                max_pods,
            };
            self.record(&in_force).map(|()| Box::new(in_force))
        };
        Some(put().context("put other settings in force instead"))
    }

    fn record(&self, in_force: &InForce) -> Result<()> {
        let path = self.paths.boot_file();
        // The same again is not written for its time alone.
        let is_as_before = |before: InForce| InForce { took: in_force.took, ..before } == *in_force;
        if InForce::read(&path).is_ok_and(|before| before.is_some_and(is_as_before)) {
            return Ok(());
        }
        in_force.write(&path)
    }
}

/// Without the record of it where that cannot be written: only a later move of kubelet's directory
/// needs that.
fn put_kubelet(part: &Part, alone: &Lock) -> Result<Vec<PathBuf>> {
    let without = || apply(&kubelet::without_record(part), alone);
    apply(part, alone).or_else(|first| without().map_err(|_| first))
}

/// That one was kept the agent reports, as long as it is so.
fn upstream_warning(plan: &Plan) -> Option<String> {
    let (path, upstream) = plan.upstream.as_ref()?;
    let path = path.display();
    match upstream {
        Upstream::Kept => None,
        Upstream::Replaced => Some(format!(
            "{path}: the upstream \"bandwidth\" plugin's entry was taken out and ours has its place, as \
             cni.upstream-bandwidth says"
        )),
        Upstream::HasRates(rates) => Some(format!("{path}: {}", rates_kept(rates))),
    }
}

fn took(user_data: Duration, plan: Duration, files: Duration) -> Took {
    let [user_data_ms, plan_ms, files_ms] =
        [user_data, plan, files].map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    Took { user_data_ms, plan_ms, files_ms }
}

fn names(documents: &[Document]) -> Vec<String> {
    documents.iter().map(|document| document.name.clone()).collect()
}

/// A line for each problem of the settings, or one for any other error.
pub fn lines(error: &anyhow::Error) -> Vec<String> {
    match error.downcast_ref::<Problems>() {
        Some(problems) => problems.iter().map(ToString::to_string).collect(),
        None => vec![format!("{error:#}")],
    }
}

#[cfg(test)]
mod tests;
