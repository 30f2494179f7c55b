// SPDX-License-Identifier: Apache-2.0
//! What libcni keeps of each ADD that succeeded, until its DEL: a file for each
//! pod interface, `<network>-<container>-<interface>`, that holds what it was made
//! with (libcni/api.go, cachedInfo). One account of it for everyone: which files
//! are of living pods, and what they say. It only reads.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::host::netns::{is_netns, process_lives};

/// A file that concerns a living pod, or that cannot be read.
#[derive(Debug)]
pub struct ResultFile {
    pub path: PathBuf,
    /// Or why it cannot be read.
    pub pod: Result<PodResult, String>,
}

/// A pod interface, and what it was made with.
#[derive(Debug)]
pub struct PodResult {
    pub container_id: String,
    pub ifname: String,
    pub network: Option<String>,
    pub netns: PathBuf,
    /// These two are empty where the runtime gives no names.
    pub namespace: String,
    pub pod: String,
    /// The list of plugins, in base64.
    config: String,
    capabilities: HashMap<String, Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    /// Absent from the files of libcni before 0.7.1, which hold a bare result.
    #[serde(default)]
    kind: String,
    #[serde(default)]
    container_id: String,
    #[serde(default)]
    if_name: String,
    #[serde(default)]
    network_name: Option<String>,
    /// Newer versions only.
    #[serde(default)]
    netns: PathBuf,
    #[serde(default)]
    config: String,
    cni_args: Option<Vec<(String, String)>>,
    capability_args: Option<HashMap<String, Box<RawValue>>>,
    result: Option<Made>,
}

#[derive(Default, Deserialize)]
struct Made {
    /// A null where the main plugin names none.
    interfaces: Option<Vec<Interface>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    sandbox: PathBuf,
}

/// Every file of the cache; none where there is no cache.
pub fn paths(cache: &Path) -> Result<Vec<PathBuf>> {
    let attempt = || format!("list {}", cache.display());
    let entries = match fs::read_dir(cache) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(attempt)?,
    };
    entries.map(|entry| Ok(entry.with_context(attempt)?.path())).collect()
}

/// What there is of living pods, and every file that cannot be read.
pub fn read_all(cache: &Path) -> Result<Vec<ResultFile>> {
    Ok(paths(cache)?.iter().filter_map(|path| read(path)).collect())
}

/// None for what is no living pod's interface.
pub fn read(path: &Path) -> Option<ResultFile> {
    let found = |pod| Some(ResultFile { path: path.to_owned(), pod });
    let text = match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return None,
        text => text.context("read it"),
    };
    match text.and_then(|text| PodResult::parse(&text)) {
        Ok(pod) => found(Ok(pod?)).filter(|file| file.is_of_living_pod()),
        Err(_) if is_of_an_earlier_boot(path) => None,
        Err(e) => found(Err(format!("{e:#}"))),
    }
}

/// The file's name says of which container; that of the runtime's own loopback is of another network.
pub fn is_of_container(path: &Path, network: &str, container: &str) -> bool {
    name(path).starts_with(&format!("{network}-{container}-"))
}

/// And of which interface.
pub fn is_of_interface(path: &Path, container: &str, ifname: &str) -> bool {
    name(path).ends_with(&format!("-{container}-{ifname}"))
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Its pod has gone with that: a power cut may have left an empty file.
fn is_of_an_earlier_boot(path: &Path) -> bool {
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    let age = fs::metadata(path).and_then(|file| file.modified()).ok();
    let age = age.and_then(|modified| modified.elapsed().ok());
    since_boot.is_ok_and(|since_boot| age.is_some_and(|age| age > since_boot))
}

impl ResultFile {
    /// A process's number may be another one's after the node has started again.
    fn is_of_living_pod(&self) -> bool {
        let Ok(pod) = &self.pod else { return false };
        is_netns(&pod.netns) || process_lives(&pod.netns) && !is_of_an_earlier_boot(&self.path)
    }
}

impl PodResult {
    /// None for what is no pod's: the loopback, and a bare result.
    pub fn parse(text: &[u8]) -> Result<Option<Self>> {
        let info: Info = serde_json::from_slice(text)?;
        let is_pods = info.kind == "cniCacheV1" && info.if_name != "lo";
        Ok(is_pods.then(|| Self::of(info)))
    }

    fn of(info: Info) -> Self {
        let arguments = info.cni_args.unwrap_or_default();
        let argument = |name: &str| {
            let found = arguments.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let interfaces = info.result.and_then(|result| result.interfaces).unwrap_or_default();
        let mut inside = interfaces.into_iter().filter(|i| i.name == info.if_name);
        let sandbox = inside.next().map(|interface| interface.sandbox).unwrap_or_default();
        Self {
            namespace: argument("K8S_POD_NAMESPACE"),
            pod: argument("K8S_POD_NAME"),
            container_id: info.container_id,
            ifname: info.if_name,
            network: info.network_name,
            netns: if info.netns.as_os_str().is_empty() { sandbox } else { info.netns },
            config: info.config,
            capabilities: info.capability_args.unwrap_or_default(),
        }
    }

    /// What the runtime handed on by this capability, as JSON.
    pub fn capability(&self, name: &str) -> Option<&str> {
        self.capabilities.get(name).map(|raw| raw.get())
    }

    /// The list that it was made with; empty where that cannot be read.
    pub fn list(&self) -> String {
        let list = BASE64_STANDARD.decode(&self.config).unwrap_or_default();
        String::from_utf8(list).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There as long as this process is.
    const ALIVE: &str = "/proc/self/ns/net";

    fn file(text: &str) -> Option<ResultFile> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main-c1-eth0");
        fs::write(&path, text).unwrap();
        read(&path)
    }

    fn result(ifname: &str, sandbox: &str) -> String {
        format!(
            r#"{{"kind":"cniCacheV1","containerId":"c1","ifName":"{ifname}","networkName":"aws-cni",
            "cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","default"],["K8S_POD_NAME","web"]],
            "result":{{"interfaces":[{{"name":"eni1"}},{{"name":"{ifname}","sandbox":"{sandbox}"}}]}}}}"#
        )
    }

    #[test]
    fn living_pod_is_read() {
        let pod = file(&result("eth0", ALIVE)).unwrap().pod.unwrap();
        assert_eq!((pod.namespace.as_str(), pod.pod.as_str()), ("default", "web"));
        assert_eq!((pod.container_id.as_str(), pod.ifname.as_str()), ("c1", "eth0"));
        assert_eq!(
            (pod.network.as_deref(), pod.netns.as_path()),
            (Some("aws-cni"), Path::new(ALIVE))
        );
    }

    #[test]
    fn what_is_no_living_pods_is_passed_over() {
        assert!(file(&result("eth0", "/no/such/netns")).is_none());
        assert!(file(&result("lo", ALIVE)).is_none());
        assert!(file(r#"{"x": 1}"#).is_none());
        assert!(read_all(Path::new("/no/such/directory")).unwrap().is_empty());
    }

    #[test]
    fn file_cut_short_is_found_unless_the_node_has_started_since() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main-c1-eth0");
        fs::write(&path, "{").unwrap();
        assert!(read(&path).unwrap().pod.is_err());
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(read(&path).is_none());
    }
}
