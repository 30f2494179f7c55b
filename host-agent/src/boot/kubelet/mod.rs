// SPDX-License-Identifier: Apache-2.0
//! How kubelet learns, before it starts, how many pods the node takes: what
//! the node has for that (`probe`), and the files that result (`assign`,
//! pure). A foreign number is never overridden, and a file that
//! no one would read is never written. docs/kubelet.md.

mod probe;
mod root;
mod says;
mod text;
mod unit;
mod variables;
mod words;
pub mod yaml;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod written;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use settings_model::{KubeletConfig, PodLimit, Settings};

use crate::addresses::max_pods::reserved_mebibytes;
use crate::boot::part::{FileContent, Part};
use crate::host::paths::Paths;
use crate::settings::document::NodeConfig;
use root::Place;
use says::{Given, NodeConfigs, Reserved, Unreserved};
use variables::PODS_VARIABLE;

/// First by name: a file that comes after `boot` (cloud-init writes some) is above it.
const NODEADM_FILE: &str = "/etc/eks/nodeadm.d/00-sluice.yaml";
const NODEADM_DIR: &str = "/etc/eks/nodeadm.d";
/// The same; kubelet passes over what does not end in .conf.
const DROP_IN: &str = "00-sluice.conf";
const ENV_FILE: &str = "/run/sluice/kubelet.env";
/// Where the units let us write for kubelet, with all that is below. Another --config-dir needs a
/// drop-in of theirs.
#[cfg(test)]
const WRITABLE: [&str; 3] =
    [NODEADM_DIR, "/etc/kubernetes/kubelet.conf.d", "/etc/kubernetes/kubelet"];
/// What was written where, so that it can be taken away when kubelet's command names another place.
const RECORD: &str = "/var/lib/sluice/kubelet.json";
const RECORD_NAME: &str = "sluice/kubelet.json";

/// What the node has that can configure kubelet, and what has configured it already. Plain data.
#[derive(Clone, Debug)]
pub struct Kubelet {
    paths: Paths,
    nodeadm: Option<Nodeadm>,
    service: Option<Service>,
    /// The number that kubelet goes by whatever is written here.
    pods: Option<Given>,
    /// Memory that is reserved for kubelet already.
    memory: Option<Given>,
    /// nodeadm keeps memory for another number of pods than it gives kubelet.
    unreserved: Option<Unreserved>,
    /// All that kubelet's own files reserve, which a --kube-reserved of the command replaces whole.
    reserved: Reserved,
    /// --kube-reserved of the command, where our variable is in it.
    reserve_flag: Option<String>,
    /// The number in the file of --config, which every other one overrides.
    below: Option<Given>,
    ours: Ours,
    warnings: Vec<String>,
}

/// nodeadm, which makes kubelet's configuration again at each start (AL2023).
#[derive(Clone, Debug)]
enum Nodeadm {
    /// Its unit reads NODEADM_DIR, or does not.
    Unit { exec_start: Place, reads_directory: bool },
    /// There is no unit that would say.
    Binary(&'static str),
}

/// kubelet.service.
#[derive(Clone, Debug)]
struct Service {
    file: PathBuf,
    exec_start: Place,
    config_dir: Option<ConfigDir>,
    /// It names ENV_FILE; true if it fails to start without that.
    env_file: Option<bool>,
    uses_variable: bool,
    /// nodeadm writes a part of its command, so that is not known before nodeadm has run.
    is_generated: bool,
}

#[derive(Clone, Debug)]
struct ConfigDir {
    path: PathBuf,
    place: Place,
}

/// What is there of earlier boots.
#[derive(Clone, Debug, Default)]
struct Ours {
    files: Vec<PathBuf>,
    /// Directories that were made for them, and are still there.
    directories: Vec<PathBuf>,
    has_record: bool,
    /// NODEADM_DIR and what is above it, as far as it is not there.
    missing: Vec<PathBuf>,
}

/// Of RECORD.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenFiles {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

/// What to do so that kubelet knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// How kubelet gets its number; never `Auto`.
    pub flavour: KubeletConfig,
    /// What was seen, and where kubelet gets its number.
    pub summary: String,
    /// To be written; none where a foreign number applies.
    pub files: Vec<FileContent>,
    /// Ours of before, to be removed: files, and directories that are then empty.
    pub obsolete: Vec<PathBuf>,
    /// The foreign number that kubelet has.
    pub explicit: Option<Explicit>,
    /// Why kubelet's part of the settings is left out.
    pub refused: Option<NotForKubelet>,
    pub warnings: Vec<String>,
}

/// A number of pods that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explicit {
    /// None where it is no constant.
    pub pods: Option<u16>,
    /// File, line and key.
    pub place: String,
}

/// Why kubelet cannot get the settings' number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotForKubelet {
    #[error("max-pods.kubelet is \"{asked}\", but {why}; allowed on this node: {allowed}")]
    Unread { asked: KubeletConfig, why: String, allowed: String },
    #[error(
        "the settings give kubelet {pods} pods (max-pods.value, or settings.kubernetes.max-pods), \
         but {place} gives it {found}; allowed is the same number, or only one of them"
    )]
    Contradiction { pods: u16, place: String, found: u16 },
}

/// The ways to configure kubelet, in the order in which they are looked for.
const WAYS: [KubeletConfig; 3] =
    [KubeletConfig::Nodeadm, KubeletConfig::ConfigDir, KubeletConfig::EnvFile];

impl Kubelet {
    /// What is to be done so that kubelet takes this many pods; `by_user` where the settings give
    /// the number, so that another one is a contradiction.
    pub fn assign(&self, asked: KubeletConfig, pods: u16, by_user: bool) -> Result<Assignment> {
        let (flavour, seen, unread) = self.flavour(asked);
        let explicit = self.explicit(flavour);
        let mut warnings = self.warnings.clone();
        let contradiction = match self.compare(asked, flavour, pods, by_user) {
            Ok(warning) => {
                warnings.extend(warning);
                None
            }
            Err(why) => Some(why),
        };
        let files = match explicit {
            Some(_) => Vec::new(),
            None => self.files(flavour, pods),
        };
        warnings.extend(self.missed(&files, pods));
        let summary = match (&explicit, files.first()) {
            (Some(Explicit { place, .. }), _) => format!("{seen}; its number is from {place}"),
            (None, Some((path, _))) => format!("{seen}; kubelet gets it in {}", path.display()),
            (None, None) => seen,
        };
        let (files, obsolete) = self.changes(files)?;
        let refused = unread.or(contradiction);
        Ok(Assignment { flavour, summary, files, obsolete, explicit, refused, warnings })
    }

    /// What is short where nodeadm keeps memory for fewer pods than kubelet takes; `standard` is the
    /// number of the type's ENIs, which is nodeadm's own expression.
    pub fn unreserved(&self, standard: Option<u64>) -> Option<String> {
        let Unreserved { given, expression } = self.unreserved.as_ref()?;
        let pods = given.pods()?;
        let counted = match expression {
            Some(expression) => expression.pods(),
            None => standard.and_then(|standard| standard.try_into().ok()),
        };
        let counted = counted.filter(|counted| *counted < pods)?;
        let [wanted, kept] = [pods, counted].map(reserved_mebibytes);
        Some(format!(
            "{} gives kubelet {pods} pods without kubeReserved.memory: nodeadm keeps {kept}Mi, for \
             {counted} pods; {pods} want {wanted}Mi",
            given.place
        ))
    }

    /// The way that is asked for, or the first that would work, what was seen, and why it is not the
    /// one that is asked for.
    fn flavour(&self, asked: KubeletConfig) -> (KubeletConfig, String, Option<NotForKubelet>) {
        let none = KubeletConfig::None;
        match asked {
            KubeletConfig::None => {
                let seen = "others configure kubelet, as max-pods.kubelet = \"none\" says";
                (none, seen.into(), None)
            }
            KubeletConfig::Auto => match WAYS.into_iter().find(|way| self.unread(*way).is_none()) {
                Some(way) => (way, self.seen(way), None),
                None => {
                    let mut reasons: Vec<_> = WAYS.iter().filter_map(|w| self.unread(*w)).collect();
                    reasons.dedup();
                    (none, format!("kubelet gets no number: {}", reasons.join("; ")), None)
                }
            },
            asked => match self.unread(asked) {
                None => (asked, self.seen(asked), None),
                Some(why) => {
                    let seen = format!("kubelet gets no number: {why}");
                    (
                        none,
                        seen,
                        Some(NotForKubelet::Unread { asked, why, allowed: self.allowed() }),
                    )
                }
            },
        }
    }

    /// Why no one would read a file of this kind; None where it is read, or that is unknown.
    fn unread(&self, way: KubeletConfig) -> Option<String> {
        match (way, &self.nodeadm, &self.service) {
            (KubeletConfig::Nodeadm, None, _) => {
                Some("neither nodeadm-run.service nor nodeadm's binary is there".into())
            }
            (KubeletConfig::Nodeadm, Some(Nodeadm::Unit { exec_start, reads_directory }), _) => {
                (!reads_directory).then(|| {
                    format!(
                        "{exec_start} runs nodeadm without --config-source file://{NODEADM_DIR}/"
                    )
                })
            }
            (KubeletConfig::ConfigDir | KubeletConfig::EnvFile, _, None) => {
                Some("there is no kubelet.service".into())
            }
            (KubeletConfig::ConfigDir, _, Some(service)) => service.no_config_dir(),
            (KubeletConfig::EnvFile, _, Some(service)) => service.no_env_file(),
            _ => None,
        }
    }

    /// What max-pods.kubelet may be here.
    fn allowed(&self) -> String {
        let ways = WAYS.into_iter().filter(|way| self.unread(*way).is_none());
        let words = [KubeletConfig::Auto].into_iter().chain(ways);
        let words: Vec<_> = words.map(|way| format!("\"{way}\"")).collect();
        format!("{} and \"{}\"", words.join(", "), KubeletConfig::None)
    }

    fn seen(&self, flavour: KubeletConfig) -> String {
        match (flavour, &self.nodeadm, &self.service) {
            (KubeletConfig::Nodeadm, Some(Nodeadm::Unit { exec_start, .. }), _) => {
                format!("nodeadm reads {NODEADM_DIR} ({exec_start})")
            }
            (KubeletConfig::Nodeadm, Some(Nodeadm::Binary(path)), _) => format!("{path} is there"),
            (KubeletConfig::ConfigDir, _, Some(Service { config_dir: Some(dir), .. })) => {
                format!("kubelet reads {} ({})", dir.path.display(), dir.place)
            }
            (_, _, Some(service)) => {
                format!("kubelet is started with ${{{PODS_VARIABLE}}} ({})", service.exec_start)
            }
            _ => String::new(),
        }
    }

    /// The number of the file of --config counts where nothing is put above it.
    fn explicit(&self, flavour: KubeletConfig) -> Option<Explicit> {
        let below = self.below.as_ref().filter(|_| flavour == KubeletConfig::None);
        let given = self.pods.as_ref().or(below)?;
        Some(Explicit { pods: given.pods(), place: given.place.clone() })
    }

    /// What the settings' number is against that of others.
    fn compare(
        &self,
        asked: KubeletConfig,
        flavour: KubeletConfig,
        pods: u16,
        by_user: bool,
    ) -> Result<Option<String>, NotForKubelet> {
        if !by_user {
            return Ok(None);
        }
        let not_told = |but: String| format!("kubelet does not get the settings' {pods} pods{but}");
        match (&self.pods, &self.below) {
            (Some(Given { value, place }), _) => match self.pods.as_ref().and_then(Given::pods) {
                Some(found) if found == pods => Ok(None),
                Some(found) => {
                    Err(NotForKubelet::Contradiction { pods, place: place.clone(), found })
                }
                None => Ok(Some(not_told(format!(
                    ": {place} says {value:?}, which cannot be compared with them"
                )))),
            },
            (None, Some(below)) if flavour == KubeletConfig::None => {
                let differs = below.pods() != Some(pods);
                let but = || format!(": {} says {}", below.place, below.value);
                Ok(differs.then(|| not_told(but())))
            }
            (None, _) if flavour == KubeletConfig::None && asked == KubeletConfig::Auto => {
                Ok(Some(not_told(String::new())))
            }
            _ => Ok(None),
        }
    }

    /// By the node's own paths.
    fn files(&self, flavour: KubeletConfig, pods: u16) -> Vec<(PathBuf, String)> {
        let with_memory = self.memory.is_none();
        match (flavour, &self.service) {
            (KubeletConfig::Nodeadm, _) => {
                vec![(NODEADM_FILE.into(), text::node_config(pods, with_memory))]
            }
            (KubeletConfig::ConfigDir, Some(Service { config_dir: Some(dir), .. })) => {
                vec![(dir.path.join(DROP_IN), text::kubelet_configuration(pods, with_memory))]
            }
            (KubeletConfig::EnvFile, _) => {
                let reserved = self.reserved.for_flag(pods, self.reserve_flag.as_deref());
                vec![(ENV_FILE.into(), text::environment(pods, &reserved))]
            }
            _ => Vec::new(),
        }
    }

    /// What may be missed beside the number.
    fn missed(&self, files: &[(PathBuf, String)], pods: u16) -> Vec<String> {
        let writes = |path: &str| files.iter().any(|(file, _)| file == Path::new(path));
        let memory = self.memory.as_ref().filter(|_| !files.is_empty());
        let memory = memory.map(|Given { value, place }| {
            let wanted = reserved_mebibytes(pods);
            format!("{place} keeps {value} for kubelet, which stays; {pods} pods want {wanted}Mi")
        });
        let unit = match &self.nodeadm {
            Some(Nodeadm::Binary(path)) if writes(NODEADM_FILE) => Some(format!(
                "{path} is there, but no nodeadm-run.service: whether {NODEADM_DIR} is read is unknown"
            )),
            _ => None,
        };
        let service = self.service.as_ref().filter(|service| service.env_file == Some(true));
        let required = service.filter(|_| !writes(ENV_FILE)).map(|service| {
            format!(
                "{} starts no kubelet without {ENV_FILE}, which is not written; \
                 EnvironmentFile=-{ENV_FILE} does",
                service.file.display()
            )
        });
        memory.into_iter().chain(unit).chain(required).collect()
    }

    /// The files with their record, and what of before is none of them.
    fn changes(&self, files: Vec<(PathBuf, String)>) -> Result<(Vec<FileContent>, Vec<PathBuf>)> {
        let record = self.record(&files);
        let is_kept = |path: &PathBuf| files.iter().any(|(file, _)| file == path);
        let mut obsolete: Vec<_> =
            self.ours.files.iter().filter(|f| !is_kept(f)).cloned().collect();
        let unused = |dir: &&PathBuf| !files.iter().any(|(file, _)| file.starts_with(dir));
        // The deepest first, or none would be empty.
        obsolete.extend(self.ours.directories.iter().rev().filter(unused).cloned());
        let mut contents = Vec::new();
        match record {
            // Before what it names: a power cut in between leaves a name too many, not one too few.
            Some(record) => {
                contents.push((RECORD.into(), serde_json::to_string_pretty(&record)? + "\n"))
            }
            None => obsolete.extend(self.ours.has_record.then(|| RECORD.into())),
        }
        contents.extend(files);
        let contents = contents.into_iter().map(|(path, text)| self.content(&path, text));
        let obsolete = obsolete.iter().map(|path| self.paths.resolve(path));
        Ok((contents.collect(), obsolete.collect()))
    }

    /// None where there is nothing that is found without it.
    fn record(&self, files: &[(PathBuf, String)]) -> Option<WrittenFiles> {
        let files: Vec<_> = files.iter().map(|(path, _)| path.clone()).collect();
        let lasting: Vec<_> =
            files.into_iter().filter(|path| path != Path::new(ENV_FILE)).collect();
        let of_nodeadm = lasting.iter().any(|path| path == Path::new(NODEADM_FILE));
        let used = |dir: &&PathBuf| lasting.iter().any(|file| file.starts_with(dir));
        let mut directories: Vec<_> = self.ours.directories.iter().filter(used).cloned().collect();
        if of_nodeadm {
            directories.extend(self.ours.missing.iter().cloned());
        }
        (!lasting.is_empty()).then_some(WrittenFiles { files: lasting, directories })
    }

    fn content(&self, path: &Path, text: String) -> FileContent {
        FileContent { path: self.paths.resolve(path), content: text.into(), mode: 0o644 }
    }
}

/// Why the settings' number cannot be kubelet's, by what the same user data says to nodeadm alone.
pub fn contradiction(settings: &Settings, node_configs: &[NodeConfig]) -> Option<NotForKubelet> {
    let PodLimit::Count(count) = settings.max_pods.value else { return None };
    let mut says = NodeConfigs::default();
    for NodeConfig { name, text } in node_configs {
        // One that cannot be read gives no number; on the node that is a warning.
        let _ = text.as_ref().map(|text| says.add(name, text));
    }
    let given = says.pods()?;
    let (pods, found) = (count.pods(), given.pods()?);
    (found != pods).then_some(NotForKubelet::Contradiction { pods, place: given.place, found })
}

/// The same without the record of what was written.
pub fn without_record(part: &Part) -> Part {
    let mut part = part.clone();
    part.files.retain(|file| !file.path.ends_with(RECORD_NAME));
    part.obsolete.retain(|path| !path.ends_with(RECORD_NAME));
    part
}

impl Service {
    fn no_config_dir(&self) -> Option<String> {
        let generated = match self.is_generated {
            true => " of its own; what nodeadm adds, it makes again at each start",
            false => "",
        };
        let exec_start = &self.exec_start;
        let why = || format!("{exec_start} starts kubelet without a --config-dir{generated}");
        self.config_dir.is_none().then(why)
    }

    fn no_env_file(&self) -> Option<String> {
        match (self.env_file, self.uses_variable) {
            (None, _) => Some(format!("{} has no EnvironmentFile={ENV_FILE}", self.file.display())),
            (_, false) => {
                Some(format!("{} starts kubelet without ${{{PODS_VARIABLE}}}", self.exec_start))
            }
            _ => None,
        }
    }
}
