// SPDX-License-Identifier: Apache-2.0
//! What is written, applied to copies of every node of testdata/kubelet: it is
//! what nodeadm and kubelet read, changes nothing twice, and goes without trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use settings_model::KubeletConfig;

use super::fixtures::{Ask, Case};
use super::words::environment_file;
use super::{DROP_IN, ENV_FILE, Kubelet, NODEADM_FILE, RECORD, WRITABLE, WrittenFiles};
use crate::boot::apply::apply;
use crate::boot::part::{FileContent, Part};
use crate::host::lock::Lock;
use crate::host::paths::Paths;

/// Of awslabs/amazon-eks-ami, nodeadm/api/v1alpha1/nodeconfig_types.go: NodeConfig, what of it is
/// ours. `config` goes to kubelet as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NodeConfig {
    api_version: String,
    kind: String,
    spec: NodeConfigSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeConfigSpec {
    kubelet: KubeletOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KubeletOptions {
    max_pods_expression: String,
    config: Numbers,
}

/// Of k8s.io/kubelet, config/v1beta1/types.go: KubeletConfiguration (`MaxPods int32`,
/// `KubeReserved map[string]string`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KubeletConfiguration {
    api_version: String,
    kind: String,
    max_pods: i32,
    kube_reserved: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Numbers {
    max_pods: i32,
    kube_reserved: Option<BTreeMap<String, String>>,
}

/// Fails unless the file is what its reader takes, with this number and the memory that goes with it.
fn check(file: &FileContent, root: &Path, pods: u16) {
    let text = std::str::from_utf8(&file.content).unwrap();
    let path = Path::new("/").join(file.path.strip_prefix(root).unwrap());
    let memory = format!("{}Mi", 11 * u32::from(pods) + 255);
    let reserved = BTreeMap::from([("memory".to_owned(), memory.clone())]);
    match path.to_str().unwrap() {
        NODEADM_FILE => {
            let read: NodeConfig = serde_saphyr::from_str(text).unwrap();
            assert_eq!((&*read.api_version, &*read.kind), ("node.eks.aws/v1alpha1", "NodeConfig"));
            assert_eq!(read.spec.kubelet.max_pods_expression, pods.to_string());
            assert_eq!(read.spec.kubelet.config.max_pods, i32::from(pods));
            assert!(read.spec.kubelet.config.kube_reserved.is_none_or(|kept| kept == reserved));
        }
        ENV_FILE => {
            let read = environment_file(text);
            let keys: Vec<_> = read.iter().map(|a| a.key.as_str()).collect();
            assert_eq!(keys, ["SLUICE_MAX_PODS", "SLUICE_KUBE_RESERVED_MEMORY"]);
            assert_eq!(read[0].value, pods.to_string());
            // More memory than that may be reserved already, and more than memory.
            let reserved = read[1].value.split(',').next();
            assert!([Some(memory.as_str()), Some("2Gi")].contains(&reserved), "{text}");
        }
        "/var/lib/sluice/kubelet.json" => {
            serde_json::from_str::<WrittenFiles>(text).unwrap();
        }
        _ => {
            assert_eq!(path.file_name().unwrap(), DROP_IN);
            let read: KubeletConfiguration = serde_saphyr::from_str(text).unwrap();
            let (version, kind) = ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration");
            assert_eq!((&*read.api_version, &*read.kind), (version, kind));
            assert_eq!(read.max_pods, i32::from(pods));
            assert!(read.kube_reserved.is_none_or(|kept| kept == reserved));
        }
    }
}

/// A copy of a case's node, with the directories that systemd gives the unit.
fn copy_of(case: &Case) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    copy(&case.node(), root.path());
    for dir in ["run/sluice", "var/lib/sluice"] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    root
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else if entry.file_type().unwrap().is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// Paths that one tree alone has, or that are not the same in both.
fn different(a: &Tree, b: &Tree) -> Vec<PathBuf> {
    let paths: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    paths.into_iter().filter(|path| a.get(*path) != b.get(*path)).cloned().collect()
}

/// Every path below, with its mode and what it holds.
fn tree(root: &Path) -> Tree {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = match metadata.is_dir() {
            true => {
                found.extend(tree(&path));
                Vec::new()
            }
            false => fs::read(&path).unwrap_or_default(),
        };
        found.insert(path, (metadata.permissions().mode(), content));
    }
    found
}

/// Asks and does what comes of it; false where it is refused.
fn put(case: &Case, root: &Path, ask: &Ask) -> bool {
    let assignment = case.assign(root, ask).unwrap();
    if assignment.refused.is_some() {
        return false;
    }
    assignment.files.iter().for_each(|file| check(file, root, ask.pods));
    let part = Part { files: assignment.files, obsolete: assignment.obsolete, ..Part::default() };
    let locks = tempfile::tempdir().unwrap();
    apply(&part, &Lock::new(locks.path(), "files")).unwrap();
    true
}

fn none() -> Ask {
    Ask { line: "none 1".into(), way: KubeletConfig::None, pods: 1, by_user: false }
}

#[test]
fn telling_again_changes_nothing_and_none_restores_the_tree() {
    for case in Case::all() {
        let first = copy_of(&case);
        // What is there of an earlier boot goes with `none` too.
        put(&case, first.path(), &none());
        let before = tree(first.path());
        for ask in &case.asks {
            if !put(&case, first.path(), ask) {
                continue;
            }
            let (assignment, once) = (case.assign(first.path(), ask).unwrap(), tree(first.path()));
            assert_eq!(assignment.obsolete, [] as [PathBuf; 0], "{}: {}", case.name(), ask.line);
            assert!(put(&case, first.path(), ask));
            let changed = different(&tree(first.path()), &once);
            assert_eq!(changed, [] as [PathBuf; 0], "{}: {}", case.name(), ask.line);
            assert_eq!(case.assign(first.path(), ask).unwrap(), assignment);
            put(&case, first.path(), &none());
            let left = different(&tree(first.path()), &before);
            assert_eq!(left, made_for_good(&case, first.path()), "{}: {}", case.name(), ask.line);
        }
    }
}

/// A --config-dir that was missing stays: kubelet does not start without it.
fn made_for_good(case: &Case, root: &Path) -> Vec<PathBuf> {
    let made = ["etc/kubernetes", "etc/kubernetes/kubelet.conf.d"].map(|dir| root.join(dir));
    if case.name() == "config-dir-missing" { made.into() } else { Vec::new() }
}

#[test]
fn any_way_leads_to_any_other_and_the_last_alone_shows() {
    for case in Case::all() {
        let usable = |ask: &&Ask| case.assign(&case.node(), ask).unwrap().refused.is_none();
        let asks: Vec<_> = case.asks.iter().filter(usable).collect();
        for (from, to) in asks.iter().flat_map(|from| asks.iter().map(move |to| (from, to))) {
            let (straight, round) = (copy_of(&case), copy_of(&case));
            put(&case, straight.path(), to);
            put(&case, round.path(), from);
            put(&case, round.path(), to);
            let is_kept = from.way != KubeletConfig::None && to.way == KubeletConfig::None;
            let kept = if is_kept { made_for_good(&case, Path::new("")) } else { Vec::new() };
            let different = different(&relative(round.path()), &relative(straight.path()));
            assert_eq!(different, kept, "{}: {}, then {}", case.name(), from.line, to.line);
        }
    }
}

fn relative(root: &Path) -> Tree {
    let found = tree(root).into_iter();
    found.map(|(path, found)| (path.strip_prefix(root).unwrap().to_owned(), found)).collect()
}

/// What a unit may write to: directories, with all that is below.
fn writable(unit: &str) -> Vec<PathBuf> {
    let file = format!("../packaging/systemd/{unit}.service");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let settings = text.lines().filter_map(|line| line.split_once('='));
    let paths = settings.flat_map(|(key, value)| {
        let root = match key {
            "ReadWritePaths" => "/",
            "RuntimeDirectory" => "/run",
            "StateDirectory" => "/var/lib",
            _ => return Vec::new(),
        };
        let words = value.split_whitespace().map(|word| word.trim_start_matches('-'));
        words.map(|word| Path::new(root).join(word.trim_start_matches('/'))).collect()
    });
    paths.collect()
}

/// Of every node of testdata/kubelet and of the node image, what would be written for kubelet.
fn written_for_kubelet() -> Vec<(String, PathBuf)> {
    let image = tempfile::tempdir().unwrap();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image-build/kubelet.service");
    let units = image.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    fs::copy(unit, units.join("kubelet.service")).unwrap();
    let kubelet = Kubelet::probe(&Paths::below(image.path()), &[]).unwrap();
    let assignment = kubelet.assign(KubeletConfig::Auto, 58, false).unwrap();
    let files = assignment.files.into_iter().map(|file| file.path);
    let files = files.map(|path| path.strip_prefix(image.path()).unwrap().to_owned());
    let mut all: Vec<_> = files.map(|file| ("node image".to_owned(), file)).collect();
    assert!(!all.is_empty(), "the node image's kubelet is given nothing");
    for case in Case::all() {
        for ask in &case.asks {
            let assignment = case.assign(&case.node(), ask).unwrap();
            let paths =
                assignment.files.iter().map(|file| file.path.strip_prefix(case.node()).unwrap());
            all.extend(paths.map(|path| (case.name(), path.to_owned())));
        }
    }
    all
}

#[test]
fn units_may_write_wherever_boot_writes() {
    let paths = Paths::below("/");
    let own = [
        paths.settings_in_force(),
        paths.boot_file(),
        paths.generations_dir(),
        paths.generations_in_memory(),
        paths.rehearsal_dir(),
        paths.network_file(),
        paths.pods_dir(),
        paths.locks_dir(),
        RECORD.into(),
        "/etc/cni/net.d".into(),
        "/opt/cni/bin".into(),
    ];
    let for_kubelet = written_for_kubelet();
    for unit in ["sluice-boot", "sluice"] {
        let writable = writable(unit);
        let may = |path: &Path| writable.iter().any(|dir| path.starts_with(dir));
        for path in own.iter().map(PathBuf::as_path).chain(WRITABLE.map(Path::new)) {
            assert!(may(path), "{unit}.service may not write {}", path.display());
        }
        for (node, file) in &for_kubelet {
            // Its --config-dir is none of those: it needs a drop-in of the units, and boot says so.
            let is_foreign =
                node == "config-dir-that-moved" && file.starts_with("etc/kubernetes/new.d");
            let may = may(&Path::new("/").join(file));
            assert_eq!(may, !is_foreign, "{unit}.service, {node}: {}", file.display());
        }
    }
}

#[test]
fn kubelet_would_not_pass_over_our_drop_in() {
    assert_eq!(Path::new(DROP_IN).extension().unwrap(), "conf");
    assert!(!DROP_IN.starts_with('.'));
}
