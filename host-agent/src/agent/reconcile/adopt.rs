// SPDX-License-Identifier: Apache-2.0
//! Pods that the chain has missed: those that ran before Sluice did, or started
//! while another writer had just replaced the conflist. What libcni keeps of each pod
//! interface has all that an ADD would have received. It only reads.

use std::path::{Path, PathBuf};

use anyhow::Result;
use settings_model::{Settings, UpstreamBandwidth};

use crate::host::logging::harmless;
use crate::libcni::conflist::has_upstream;
use crate::libcni::entry::lost_rates;
use crate::libcni::results::{self, PodResult, ResultFile};
use crate::pod::annotations::CAPABILITY;
use crate::pod::asked::Annotated;
use crate::pod::record::{Arrival, Key, Record};
use crate::pod::runtime_config::annotated;

/// A file of the cache that concerns a living pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    /// None for a file that cannot be read.
    pub cached: Option<Cached>,
    /// What of the file could not be read.
    pub problem: Option<String>,
}

/// A pod interface as the runtime's result cache describes it.
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

impl Cached {
    /// The pod is there already, so what cannot be read of its annotations costs it those and not the
    /// rest: class and default apply.
    fn of(pod: PodResult) -> (Self, Option<String>) {
        let bandwidth = pod.capability("bandwidth");
        let (read, problem) = match annotated(bandwidth, pod.capability(CAPABILITY)) {
            Ok(read) => (read, None),
            Err(e) => (annotated(bandwidth, None).unwrap_or_default(), Some(format!("{e:#}"))),
        };
        let list = pod.list();
        let cached = Self {
            namespace: pod.namespace,
            pod: pod.pod,
            key: Key { container_id: pod.container_id, ifname: pod.ifname },
            beside_upstream: has_upstream(&list).unwrap_or(false),
            network: pod.network,
            netns: pod.netns,
            annotated: read,
            list,
        };
        (cached, problem)
    }

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
            ..Record::blank(Arrival::Adopted { beside_upstream: self.beside_upstream })
        }
    }
}

impl Found {
    fn of(file: ResultFile) -> Self {
        let (cached, problem) = match file.pod {
            Ok(pod) => {
                let (cached, problem) = Cached::of(pod);
                (Some(cached), problem)
            }
            Err(why) => (None, Some(why)),
        };
        Self { path: file.path, cached, problem }
    }

    /// `namespace/pod interface`, or the file.
    pub fn subject(&self) -> String {
        match &self.cached {
            Some(cached) => harmless(&format!("{} {}", cached.name(), cached.key.ifname)),
            None => harmless(&self.path.display().to_string()),
        }
    }

    /// Whether this is the file of an interface, by its name: `network-container-interface`.
    pub fn is_of(&self, key: &Key) -> bool {
        results::is_of_interface(&self.path, &key.container_id, &key.ifname)
    }
}

/// Every living pod interface in the cache, and every file that cannot be read.
pub fn read_all(cache: &Path) -> Result<Vec<Found>> {
    Ok(results::read_all(cache)?.into_iter().map(Found::of).collect())
}

/// None for what is no living pod's interface.
pub fn read(path: &Path) -> Option<Found> {
    results::read(path).map(Found::of)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    fn decode(text: &str) -> (Cached, Option<String>) {
        Cached::of(PodResult::parse(text.as_bytes()).unwrap().unwrap())
    }

    fn info(text: &str) -> Cached {
        decode(text).0
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
        let (cached, problem) = decode(text);
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
