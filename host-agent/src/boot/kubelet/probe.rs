// SPDX-License-Identifier: Apache-2.0
//! Reads what the node has that configures kubelet. Files only, no systemctl:
//! `boot` runs before much of systemd's world, and images are looked at off
//! line. Changes nothing; a foreign file that makes no sense is a warning.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::root::HostRoot;
use super::says::{Given, KubeletConfigurations, NodeConfigs};
use super::unit::{self, Unknown, flag, flags};
use super::variables::{MEMORY_VARIABLE, PODS_VARIABLE};
use super::{
    ConfigDir, DROP_IN, ENV_FILE, Kubelet, NODEADM_DIR, NODEADM_FILE, Nodeadm, Ours, RECORD,
    Service, WrittenFiles,
};
use crate::host::paths::Paths;
use crate::settings::document::NodeConfig;

const NODEADM_BINARIES: [&str; 2] = ["/usr/bin/nodeadm", "/usr/local/bin/nodeadm"];
/// nodeadm writes kubelet's flags there when it runs, which is after `boot`.
const GENERATED: &str = "/etc/eks/kubelet/environment";

impl Kubelet {
    /// Reads files below `paths` only. `node_configs` are those of the node's user data.
    pub fn probe(paths: &Paths, node_configs: &[NodeConfig]) -> Result<Self> {
        let root = HostRoot(paths);
        let mut warnings = Vec::new();
        let nodeadm = nodeadm(&root)?;
        let unknown = Unknown {
            variables: &[PODS_VARIABLE, MEMORY_VARIABLE],
            files: if nodeadm.is_some() { &[GENERATED] } else { &[] },
        };
        let found = unit::Service::find(&root, "kubelet.service", &unknown)?;
        let service = found.as_ref().map(|found| Service::of(found, nodeadm.is_some()));
        let words = found.as_ref().map_or(&[][..], |found| &found.words);
        warnings.extend(found.iter().flat_map(|found| found.warnings.clone()));

        let theirs = match nodeadm {
            Some(_) => of_nodeadm(&root, node_configs, &mut warnings)?,
            None => NodeConfigs::default(),
        };
        let dir = service.as_ref().and_then(|service| service.config_dir.as_ref());
        // What nodeadm makes is made again, of what was looked at above.
        let config = flag(words, "config").filter(|_| nodeadm.is_none());
        let mut files = KubeletConfigurations::default();
        if let Some(config) = config {
            add(&root, Path::new(&config.text), &mut files, &mut warnings)?;
        }
        let below = files.max_pods.take();
        if let Some(dir) = dir {
            of_directory(&root, &dir.path, &mut files, &mut warnings)?;
        }
        let (drop_in, reserved) = (files.max_pods, files.reserved);
        let by_flag = |name| Given::of_flag(words, name).filter(is_somebodys);
        // kubelet adds what one of them names to what the ones before it do.
        let reserve = flags(words, "kube-reserved").into_iter().map(|word| word.text);
        let reserve = reserve.collect::<Vec<_>>().join(",");
        let ours = Ours::find(&root, dir, &mut warnings)?;
        Ok(Self {
            paths: paths.clone(),
            pods: by_flag("max-pods").or(theirs.pods()).or(drop_in),
            unreserved: theirs.unreserved(),
            memory: by_flag("kube-reserved").or(theirs.memory()).or(reserved.memory().cloned()),
            reserve_flag: reserve.contains(MEMORY_VARIABLE).then_some(reserve),
            reserved,
            nodeadm,
            service,
            below,
            ours,
            warnings,
        })
    }
}

/// A variable of ours in a flag is no number yet, and a flag without a value is none.
fn is_somebodys(given: &Given) -> bool {
    let ours = [PODS_VARIABLE, MEMORY_VARIABLE].map(|variable| format!("${{{variable}}}"));
    !given.value.is_empty() && !ours.iter().any(|variable| given.value.contains(variable))
}

fn nodeadm(root: &HostRoot<'_>) -> Result<Option<Nodeadm>> {
    let nothing = Unknown { variables: &[], files: &[] };
    if let Some(found) = unit::Service::find(root, "nodeadm-run.service", &nothing)? {
        let source = format!("file://{NODEADM_DIR}");
        let mut words = found.words.iter().map(|word| word.text.trim_end_matches('/'));
        let reads_directory = words.any(|word| word.ends_with(&source));
        return Ok(Some(Nodeadm::Unit { exec_start: found.exec_start, reads_directory }));
    }
    let binary = NODEADM_BINARIES.into_iter().find(|path| root.has(Path::new(path)));
    Ok(binary.map(Nodeadm::Binary))
}

impl Service {
    fn of(found: &unit::Service, by_nodeadm: bool) -> Self {
        let mut files = found.environment_files.iter();
        let variable = format!("${{{PODS_VARIABLE}}}");
        let config_dir = flag(&found.words, "config-dir").filter(|flag| !flag.text.is_empty());
        Self {
            file: found.file.clone(),
            exec_start: found.exec_start.clone(),
            config_dir: config_dir
                .map(|flag| ConfigDir { path: flag.text.into(), place: flag.place }),
            env_file: files.clone().find(|f| f.path == Path::new(ENV_FILE)).map(|f| f.is_required),
            uses_variable: found.words.iter().any(|word| word.text.contains(&variable)),
            is_generated: by_nodeadm && files.any(|f| f.path == Path::new(GENERATED)),
        }
    }
}

/// What nodeadm will merge: the user data's, and its directory's above them.
fn of_nodeadm(
    root: &HostRoot<'_>,
    node_configs: &[NodeConfig],
    warnings: &mut Vec<String>,
) -> Result<NodeConfigs> {
    let mut all = node_configs.to_vec();
    for (name, is_dir) in root.list(Path::new(NODEADM_DIR))? {
        let path = Path::new(NODEADM_DIR).join(&name);
        if !is_dir && is_for_nodeadm(&name) && path != Path::new(NODEADM_FILE) {
            let name = path.display().to_string();
            let found = NodeConfig::all_of(&name, &root.read(&path)?.unwrap_or_default());
            if found.is_empty() {
                warnings.push(format!("{name}: no NodeConfig of node.eks.aws; left out"));
            }
            all.extend(found);
        }
    }
    let mut says = NodeConfigs::default();
    for NodeConfig { name, text } in all {
        if let Err(why) = text.and_then(|text| says.add(&name, &text)) {
            warnings.push(format!("{name}: {why}; whether it gives kubelet a number is unknown"));
        }
    }
    Ok(says)
}

/// As nodeadm chooses (internal/configprovider/file.go).
fn is_for_nodeadm(name: &str) -> bool {
    let name = name.to_lowercase();
    [".yaml", ".yml", ".json"].iter().any(|extension| name.ends_with(extension))
}

/// All of a --config-dir but ours, over what is known: by name, links too. Directories below it are
/// not read by kubelet 1.36, but by older ones.
fn of_directory(
    root: &HostRoot<'_>,
    dir: &Path,
    says: &mut KubeletConfigurations,
    warnings: &mut Vec<String>,
) -> Result<()> {
    for (name, is_dir) in root.list(dir)? {
        if !is_dir && name.ends_with(".conf") && name != DROP_IN {
            add(root, &dir.join(name), says, warnings)?;
        } else if is_dir
            && root.list(&dir.join(&name))?.iter().any(|(file, _)| file.ends_with(".conf"))
        {
            let below = dir.join(name);
            warnings.push(format!("{}: not every kubelet reads it; left out", below.display()));
        }
    }
    Ok(())
}

fn add(
    root: &HostRoot<'_>,
    file: &Path,
    says: &mut KubeletConfigurations,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let Some(text) = root.read_text(file)? else { return Ok(()) };
    if let Err(why) = says.add(file, &text) {
        warnings.push(format!("{}: {why}; left out", file.display()));
    }
    Ok(())
}

impl Ours {
    fn find(
        root: &HostRoot<'_>,
        dir: Option<&ConfigDir>,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let text = root.read(Path::new(RECORD))?;
        let record: WrittenFiles = match text.as_deref().map(serde_json::from_slice) {
            Some(Ok(record)) => record,
            None => WrittenFiles::default(),
            Some(Err(error)) => {
                warnings.push(format!("{RECORD}: {error}; left out"));
                WrittenFiles::default()
            }
        };
        let drop_in = dir.map(|dir| dir.path.join(DROP_IN));
        let mut files = vec![PathBuf::from(NODEADM_FILE), ENV_FILE.into()];
        files.extend(drop_in.into_iter().chain(record.files));
        files.sort();
        files.dedup();
        files.retain(|file| root.has(file));
        let mut directories = record.directories;
        directories.retain(|dir| root.has(dir));
        let above = Path::new(NODEADM_DIR).ancestors();
        let mut missing: Vec<_> = above.filter(|dir| !root.has(dir)).map(PathBuf::from).collect();
        missing.reverse();
        Ok(Self { files, directories, has_record: text.is_some(), missing })
    }
}
