// SPDX-License-Identifier: Apache-2.0
//! Pods that the chain has missed: those that ran before Sluice did, or started
//! while somebody had just rewritten the conflist. libcni keeps, for each pod
//! interface, what it was made with (libcni/api.go, cachedInfo), and that holds
//! all that an ADD would have told. It only reads.

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
use settings_model::{Settings, UpstreamBandwidth};

use crate::host::logging::harmless;
use crate::host::netns::{is_netns, process_lives};
use crate::libcni::conflist::has_upstream;
use crate::libcni::entry::lost_rates;
use crate::pod::annotations::CAPABILITY;
use crate::pod::record::{Came, Key, Record, Shaping};
use crate::pod::runtime_config::annotated;
use crate::pod::wanted::Annotated;

/// A file of the cache that concerns a living pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    /// None for a file that cannot be read.
    pub cached: Option<Cached>,
    /// What of the file could not be read.
    pub problem: Option<String>,
}

/// A pod interface as the runtime's result cache tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    pub key: Key,
    pub namespace: String,
    pub pod: String,
    /// Whether the upstream bandwidth plugin was in its chain.
    pub beside_upstream: bool,
    netns: PathBuf,
    network: Option<String>,
    annotated: Annotated,
    /// The list that it was made with; empty where that cannot be read.
    list: String,
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
    result: Option<CachedResult>,
}

#[derive(Default, Deserialize)]
struct CachedResult {
    /// A null where the main plugin names none.
    interfaces: Option<Vec<Interface>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    sandbox: PathBuf,
}

impl Cached {
    /// Whether the upstream plugin's limits on it are to stay: the settings say so, or have no default
    /// in the place of rates that its entry gives every pod.
    pub fn is_left_alone(&self, settings: &Settings) -> bool {
        let keep = settings.cni.upstream_bandwidth == UpstreamBandwidth::Keep;
        self.beside_upstream && (keep || lost_rates(settings, &self.list).is_some())
    }

    pub fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.pod)
    }

    /// As ADD would have left it for a pod without limits.
    pub fn record(&self) -> Record {
        Record {
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            netns: self.netns.clone(),
            network: self.network.clone(),
            annotated: self.annotated,
            live: None,
            came: Came::Adopted { beside_upstream: self.beside_upstream },
            main: None,
            host: None,
            egress: Shaping::Unlimited,
            ingress: Shaping::Unlimited,
            guard: None,
            admitted: None,
            ingress_guard: None,
        }
    }
}

impl Found {
    /// `namespace/pod interface`, or the file.
    pub fn subject(&self) -> String {
        match &self.cached {
            Some(cached) => harmless(&format!("{} {}", cached.name(), cached.key.ifname)),
            None => harmless(&self.path.display().to_string()),
        }
    }

    /// Whether this is the file of an interface, by its name: `network-container-interface`.
    pub fn is_of(&self, key: &Key) -> bool {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(&format!("-{}-{}", key.container_id, key.ifname))
    }
}

/// Every living pod interface in the cache, and every file that cannot be read.
pub fn read_all(dir: &Path) -> Result<Vec<Found>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("list {}", dir.display()))?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        all.extend(read(&path));
    }
    Ok(all)
}

/// None for what is no living pod's interface.
pub fn read(path: &Path) -> Option<Found> {
    let found = |cached, problem| Some(Found { path: path.to_owned(), cached, problem });
    let text = match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return None,
        text => text.context("read it"),
    };
    let info = text.and_then(|text| Ok(serde_json::from_slice::<Info>(&text)?));
    match info {
        Ok(info) if info.kind != "cniCacheV1" || info.if_name == "lo" => None,
        Ok(info) => {
            let (cached, problem) = decode(info);
            let process = process_lives(&cached.netns) && !is_of_an_earlier_boot(path);
            let lives = is_netns(&cached.netns) || process;
            lives.then(|| found(Some(cached), problem)).flatten()
        }
        Err(_) if is_of_an_earlier_boot(path) => None,
        Err(e) => found(None, Some(format!("{e:#}"))),
    }
}

/// Its pod has gone with that: a power cut may have left an empty file.
fn is_of_an_earlier_boot(path: &Path) -> bool {
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    let age = fs::metadata(path).and_then(|file| file.modified()).ok();
    let age = age.and_then(|modified| modified.elapsed().ok());
    since_boot.is_ok_and(|since_boot| age.is_some_and(|age| age > since_boot))
}

/// The pod is there already, so what cannot be read of its annotations costs it those and not the
/// rest: class and default apply.
fn decode(info: Info) -> (Cached, Option<String>) {
    let arguments = info.cni_args.unwrap_or_default();
    let argument = |name: &str| {
        let found = arguments.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let capabilities = info.capability_args.unwrap_or_default();
    let capability = |name: &str| capabilities.get(name).map(|raw| raw.get());
    let bandwidth = capability("bandwidth");
    let (read, problem) = match annotated(bandwidth, capability(CAPABILITY)) {
        Ok(read) => (read, None),
        Err(e) => (annotated(bandwidth, None).unwrap_or_default(), Some(format!("{e:#}"))),
    };
    let interfaces = info.result.and_then(|result| result.interfaces).unwrap_or_default();
    let mut inside = interfaces.into_iter().filter(|i| i.name == info.if_name);
    let sandbox = inside.next().map(|interface| interface.sandbox).unwrap_or_default();
    let list = BASE64_STANDARD.decode(&info.config).unwrap_or_default();
    let list = String::from_utf8(list).unwrap_or_default();
    let cached = Cached {
        namespace: argument("K8S_POD_NAMESPACE"),
        pod: argument("K8S_POD_NAME"),
        key: Key { container_id: info.container_id, ifname: info.if_name },
        beside_upstream: has_upstream(&list).unwrap_or(false),
        network: info.network_name,
        netns: if info.netns.as_os_str().is_empty() { sandbox } else { info.netns },
        annotated: read,
        list,
    };
    (cached, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> Cached {
        decode(serde_json::from_str(text).unwrap()).0
    }

    #[test]
    fn cache_of_containerd_tells_all_that_an_add_would() {
        let list = r#"{"plugins":[{"type":"ptp"},{"type":"bandwidth"}]}"#;
        let text = format!(
            r#"{{"kind":"cniCacheV1","containerId":"c1","ifName":"eth0","networkName":"n",
            "config":"{}","cniArgs":[["K8S_POD_NAME","web"],["K8S_POD_NAMESPACE","shop"]],
            "capabilityArgs":{{"bandwidth":{{"IngressRate":1000000,"IngressBurst":4294967295,
            "EgressRate":0,"EgressBurst":0}},"portMappings":[],
            "io.kubernetes.cri.pod-annotations":{{"sluice.dev/ingress-burst":"9KB"}}}},
            "result":{{"cniVersion":"1.0.0","interfaces":[{{"name":"eni1"}},
            {{"name":"eth0","sandbox":"/run/netns/x"}}]}}}}"#,
            BASE64_STANDARD.encode(list)
        );
        let cached = info(&text);
        assert_eq!((cached.namespace.as_str(), cached.pod.as_str()), ("shop", "web"));
        assert_eq!(cached.netns, PathBuf::from("/run/netns/x"));
        assert_eq!(cached.annotated.ingress, "1Mbit".parse().ok());
        assert_eq!(cached.annotated.ingress_burst, "9KB".parse().ok());
        assert_eq!((cached.annotated.egress, cached.annotated.egress_burst), (None, None));
        assert_eq!(cached.network.as_deref(), Some("n"));
        assert!(cached.beside_upstream && !cached.is_left_alone(&Settings::default()));
    }

    #[test]
    fn pod_whose_upstream_entry_has_rates_of_its_own_keeps_them() {
        let list = r#"{"plugins":[{"type":"ptp"},{"type":"bandwidth","egressRate":1000000}]}"#;
        let config = BASE64_STANDARD.encode(list);
        let text = format!(
            r#"{{"kind":"cniCacheV1","containerId":"c1","ifName":"eth0","netns":"/n","config":"{config}"}}"#
        );
        assert!(info(&text).is_left_alone(&Settings::default()));
        let settings = "sluice = { version = 1, bandwidth.default-egress = '3Mbit' }";
        assert!(!info(&text).is_left_alone(&settings_model::parse("t", settings).unwrap()));
    }

    #[test]
    fn annotation_that_cannot_be_read_costs_no_limit() {
        let text = r#"{"kind":"cniCacheV1","containerId":"c1","ifName":"eth0","netns":"/n",
            "capabilityArgs":{"bandwidth":{"IngressRate":1000000},
            "io.kubernetes.cri.pod-annotations":{"sluice.dev/ingress-burst":"9 apples"}}}"#;
        let annotated = Annotated { ingress: "1Mbit".parse().ok(), ..Annotated::default() };
        assert_eq!(info(text).annotated, annotated);
    }

    #[test]
    fn rate_that_cannot_be_read_is_reported_and_class_and_default_apply() {
        let text = r#"{"kind":"cniCacheV1","containerId":"c1","ifName":"eth0","netns":"/n",
            "capabilityArgs":{"bandwidth":{"IngressRate":999}},
            "result":{"interfaces":null}}"#;
        let (cached, problem) = decode(serde_json::from_str(text).unwrap());
        assert_eq!(cached.annotated, Annotated::default());
        assert!(problem.unwrap().starts_with("runtimeConfig.bandwidth.ingressRate is 999 bit/s"));
    }

    #[test]
    fn file_cut_short_is_found_and_known_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main-c1-eth0");
        fs::write(&path, "{").unwrap();
        let found = read(&path).unwrap();
        let key = |id: &str| Key { container_id: id.into(), ifname: "eth0".into() };
        assert!(found.cached.is_none() && found.problem.is_some());
        assert!(found.is_of(&key("c1")) && !found.is_of(&key("c2")));
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(read(&path), None);
    }

    #[test]
    fn pod_without_any_annotation_has_a_null_in_the_cache() {
        let text = r#"{"kind":"cniCacheV1","containerId":"c1","ifName":"eth0","netns":"/n",
            "capabilityArgs":{"io.kubernetes.cri.pod-annotations":null}}"#;
        assert_eq!(info(text).annotated, Annotated::default());
    }

    #[test]
    fn bare_entry_is_a_pod_without_limits_and_without_the_upstream_plugin() {
        let text = r#"{"kind":"cniCacheV1","containerId":"c1","ifName":"eth0","netns":"/n",
            "config":"not base64!"}"#;
        let cached = info(text);
        assert_eq!(cached.netns, PathBuf::from("/n"));
        assert_eq!(cached.annotated, Annotated::default());
        assert!(!cached.beside_upstream);
    }
}
