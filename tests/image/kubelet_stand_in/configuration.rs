// SPDX-License-Identifier: Apache-2.0
//! KubeletConfiguration from files: the fields that our nodes use, and how files are laid over one another.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// With kubelet's own defaults (pkg/kubelet/apis/config/v1beta1/defaults.go).
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Configuration {
    kind: String,
    api_version: String,
    #[serde(default = "max_pods")]
    pub max_pods: i32,
    #[serde(default)]
    pub kube_reserved: BTreeMap<String, String>,
    #[serde(default)]
    system_reserved: BTreeMap<String, String>,
    #[serde(default)]
    pub protect_kernel_defaults: bool,
    #[serde(default, rename = "clusterDNS")]
    cluster_dns: Vec<String>,
    #[serde(default)]
    feature_gates: BTreeMap<String, bool>,
}

fn max_pods() -> i32 {
    110
}

impl Configuration {
    /// The file's, and over it those of the directory in lexical order (server.go, mergeKubeletConfigurations).
    pub fn load(file: Option<&Path>, directory: Option<&Path>) -> Result<Self> {
        let mut found = json!({"kind": KIND, "apiVersion": VERSION});
        if let Some(file) = file {
            found = read(file)?;
        }
        if let Some(directory) = directory {
            add_all(&mut found, directory)?;
        }
        serde_json::from_value(found).context("decode what the files say together")
    }
}

const KIND: &str = "KubeletConfiguration";
const VERSION: &str = "kubelet.config.k8s.io/v1beta1";

/// Goes into directories that are further down, but does not follow links to such (filepath.WalkDir).
fn add_all(to: &mut Value, directory: &Path) -> Result<()> {
    let attempt = || format!("walk through the drop-in directory {}", directory.display());
    let mut entries = fs::read_dir(directory)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(attempt)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type().with_context(attempt)?.is_dir() {
            add_all(to, &entry.path())?;
        } else if entry.file_name().to_string_lossy().ends_with(".conf") {
            merge(to, read(&entry.path())?);
        }
    }
    Ok(())
}

/// YAML, or JSON, which is YAML. A file that is no whole configuration by itself is an error.
fn read(file: &Path) -> Result<Value> {
    let attempt = || format!("load {}", file.display());
    let text = fs::read_to_string(file).with_context(attempt)?;
    let value: Value = serde_saphyr::from_str(&text).with_context(attempt)?;
    let one: Configuration = serde_json::from_value(value.clone()).with_context(attempt)?;
    let is_known = one.kind == KIND && one.api_version == VERSION;
    ensure!(is_known, "load {}: unknown {} {}", file.display(), one.api_version, one.kind);
    Ok(value)
}

/// A JSON merge patch (RFC 7396): maps key by key, null removes, all else is replaced.
fn merge(to: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *to = patch;
        return;
    };
    if !to.is_object() {
        *to = json!({});
    }
    let Some(map) = to.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(&key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    const HEAD: &str = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";

    /// A `--config`, and the files of a `--config-dir`.
    fn node(config: &str, drop_ins: &[(&str, &str)]) -> (TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (file, drop_in) = (dir.path().join("config.json"), dir.path().join("config.json.d"));
        fs::write(&file, config).unwrap();
        fs::create_dir(&drop_in).unwrap();
        for (name, text) in drop_ins {
            let path = drop_in.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (dir, file, drop_in)
    }

    fn load(config: &str, drop_ins: &[(&str, &str)]) -> Result<Value> {
        let (_dir, file, drop_in) = node(config, drop_ins);
        Ok(serde_json::to_value(Configuration::load(Some(&file), Some(&drop_in))?)?)
    }

    #[test]
    fn maps_are_merged_key_by_key_lists_are_replaced_and_later_names_win() {
        let config = format!("{HEAD}kubeReserved: {{cpu: 70m, memory: 2Gi}}\nclusterDNS: [a, b]\n");
        let ten = format!("{HEAD}maxPods: 10\nkubeReserved: {{memory: 1Gi}}\n");
        let twenty = format!("{HEAD}maxPods: 20\nclusterDNS: [c]\n");
        let found = load(&config, &[("20.conf", &twenty), ("10.conf", &ten)]).unwrap();
        assert_eq!(found["maxPods"], 20);
        assert_eq!(found["kubeReserved"], json!({"cpu": "70m", "memory": "1Gi"}));
        assert_eq!(found["clusterDNS"], json!(["c"]));
    }

    #[test]
    fn only_conf_files_are_read_json_links_and_those_further_down_too() {
        let json = json!({"kind": KIND, "apiVersion": VERSION, "maxPods": 7}).to_string();
        let (dir, file, drop_in) =
            node(HEAD, &[("00.yaml", "not even YAML: :"), ("10.conf", &json)]);
        let pods = || Configuration::load(Some(&file), Some(&drop_in)).unwrap().max_pods;
        assert_eq!(pods(), 7);
        fs::write(dir.path().join("elsewhere"), format!("{HEAD}maxPods: 8\n")).unwrap();
        symlink("../elsewhere", drop_in.join("20.conf")).unwrap();
        assert_eq!(pods(), 8);
        fs::create_dir(drop_in.join("site")).unwrap();
        fs::write(drop_in.join("site/30.conf"), format!("{HEAD}maxPods: 9\n")).unwrap();
        assert_eq!(pods(), 9);
    }

    #[test]
    fn what_kubelet_does_not_take_ends_it() {
        let (dir, file, drop_in) = node(HEAD, &[]);
        assert_eq!(Configuration::load(Some(&file), Some(&drop_in)).unwrap().max_pods, 110);
        let missing = dir.path().join("nothing.d");
        let error = Configuration::load(Some(&file), Some(&missing)).unwrap_err().to_string();
        assert_eq!(error, format!("walk through the drop-in directory {}", missing.display()));
        for (text, why) in [
            (format!("{HEAD}maxPod: 7\n"), "unknown field `maxPod`"),
            (format!("{HEAD}maxPods: \"7\"\n"), "invalid type: string \"7\", expected i32"),
            (format!("{HEAD}kubeReserved: {{cpu: 1}}\n"), "expected a string"),
            ("maxPods: 7\n".to_owned(), "missing field `kind`"),
            (HEAD.replace("v1beta1", "v2"), "unknown kubelet.config.k8s.io/v2"),
        ] {
            let error = format!("{:#}", load(HEAD, &[("10.conf", &text)]).unwrap_err());
            assert!(error.contains("10.conf") && error.contains(why), "{text}: {error}");
            let error = format!("{:#}", load(&text, &[]).unwrap_err());
            assert!(error.contains("config.json") && error.contains(why), "{text}: {error}");
        }
    }
}
