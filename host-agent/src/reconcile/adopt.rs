// SPDX-License-Identifier: Apache-2.0
//! Pods that the chain has missed: those that ran before Sluice did, or started
//! while somebody had just rewritten the conflist. libcni keeps, for each pod
//! interface, what it was made with (libcni/api.go, cachedInfo), and that holds
//! all that an ADD would have told. It only reads.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::pod::is_netns;
use crate::cni::{POD_ANNOTATIONS, annotated};
use crate::record::{Came, Key, Record, Shaping};
use crate::wanted::Annotated;

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
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    kind: String,
    container_id: String,
    if_name: String,
    #[serde(default)]
    network_name: Option<String>,
    /// Newer versions only.
    #[serde(default)]
    netns: PathBuf,
    #[serde(default)]
    config: String,
    #[serde(default)]
    cni_args: Vec<(String, String)>,
    #[serde(default)]
    capability_args: HashMap<String, Box<RawValue>>,
    #[serde(default)]
    result: CachedResult,
}

#[derive(Default, Deserialize)]
struct CachedResult {
    #[serde(default)]
    interfaces: Vec<Interface>,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    sandbox: PathBuf,
}

#[derive(Default, Deserialize)]
struct List {
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(rename = "type")]
    kind: String,
}

impl Cached {
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
            ingress_guard: None,
        }
    }
}

/// Every living pod interface in the cache. A file that cannot be understood is told and left out.
pub fn read_all(dir: &Path) -> Result<Vec<Cached>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("list {}", dir.display()))?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        match read(&path) {
            Ok(cached) => all.extend(cached),
            Err(e) => log::warn!("{e:#}; left out"),
        }
    }
    Ok(all)
}

/// None for what is no living pod's interface.
pub fn read(path: &Path) -> Result<Option<Cached>> {
    let attempt = || format!("read the runtime's result {}", path.display());
    let text = match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(attempt)?,
    };
    let info: Info = serde_json::from_slice(&text).with_context(attempt)?;
    if info.kind != "cniCacheV1" || info.if_name == "lo" {
        return Ok(None);
    }
    let cached = decode(info).with_context(attempt)?;
    Ok(Some(cached).filter(|cached| is_netns(&cached.netns)))
}

fn decode(info: Info) -> Result<Cached> {
    let argument = |name: &str| {
        let found = info.cni_args.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let capability = |name: &str| info.capability_args.get(name).map(|raw| raw.get());
    let bandwidth = capability("bandwidth");
    // The pod is there already, so a burst that cannot be read costs it the burst, not the limit.
    let annotated = annotated(bandwidth, capability(POD_ANNOTATIONS)).or_else(|e| {
        log::warn!("{e:#}; no annotation of ours counts for {}", argument("K8S_POD_NAME"));
        annotated(bandwidth, None)
    })?;
    let mut inside = info.result.interfaces.into_iter().filter(|i| i.name == info.if_name);
    let sandbox = inside.next().map(|interface| interface.sandbox).unwrap_or_default();
    Ok(Cached {
        namespace: argument("K8S_POD_NAMESPACE"),
        pod: argument("K8S_POD_NAME"),
        key: Key { container_id: info.container_id, ifname: info.if_name },
        beside_upstream: has_bandwidth_plugin(&info.config),
        network: info.network_name,
        netns: if info.netns.as_os_str().is_empty() { sandbox } else { info.netns },
        annotated,
    })
}

/// What cannot be read has none: then nothing of anybody's is replaced.
fn has_bandwidth_plugin(config: &str) -> bool {
    let bytes = BASE64_STANDARD.decode(config).unwrap_or_default();
    let list = serde_json::from_slice::<List>(&bytes).unwrap_or_default();
    list.plugins.iter().any(|plugin| plugin.kind == "bandwidth")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> Cached {
        decode(serde_json::from_str(text).unwrap()).unwrap()
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
        assert!(cached.beside_upstream);
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
