// SPDX-License-Identifier: Apache-2.0
//! How many pods have an address: those with a result of libcni's. Pods in the
//! host's network have none there.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::host::netns::is_netns;

/// What every runtime calls a pod's first interface; others are of other networks.
const MAIN: &str = "eth0";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    #[serde(default)]
    container_id: String,
    #[serde(default)]
    if_name: String,
    /// Newer versions only.
    #[serde(default)]
    netns: PathBuf,
    #[serde(default)]
    result: Made,
}

#[derive(Default, Deserialize)]
struct Made {
    #[serde(default)]
    interfaces: Vec<Interface>,
}

#[derive(Deserialize)]
struct Interface {
    #[serde(default)]
    name: String,
    #[serde(default)]
    sandbox: PathBuf,
}

/// Each pod once, whatever networks it has. Files that cannot be read are nobody's: the agent's own pass
/// tells of them.
pub fn count(cache: &Path) -> Result<u64> {
    let attempt = || format!("list {}", cache.display());
    let entries = match fs::read_dir(cache) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries.with_context(attempt)?,
    };
    let mut pods = BTreeSet::new();
    for entry in entries {
        let name = entry.with_context(attempt)?.file_name();
        // libcni names them <network>-<container>-<interface>.
        if name.to_string_lossy().ends_with(&format!("-{MAIN}")) {
            pods.extend(pod(&cache.join(name)));
        }
    }
    Ok(pods.len() as u64)
}

/// The container, if it lives.
fn pod(path: &Path) -> Option<String> {
    let cached: Cached = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let inside = || {
        let own = cached.result.interfaces.iter().find(|interface| interface.name == MAIN);
        own.map_or(Path::new(""), |interface| &interface.sandbox)
    };
    let netns = if cached.netns.as_os_str().is_empty() { inside() } else { &cached.netns };
    (cached.if_name == MAIN && is_netns(netns)).then_some(cached.container_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There as long as this process is.
    const ALIVE: &str = "/proc/self/ns/net";

    fn count_of(files: &[(&str, &str)]) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        count(dir.path()).unwrap()
    }

    fn newer(id: &str, interface: &str, netns: &str) -> String {
        format!(r#"{{"containerId":"{id}","ifName":"{interface}","netns":"{netns}"}}"#)
    }

    #[test]
    fn each_living_pod_counts_once() {
        let older = format!(
            r#"{{"containerId":"b","ifName":"eth0","result":{{"interfaces":[{{"name":"eni1"}},
            {{"name":"eth0","sandbox":"{ALIVE}"}}]}}}}"#
        );
        let files = [
            ("aws-cni-a-eth0", newer("a", "eth0", ALIVE)),
            ("multus-a-eth0", newer("a", "eth0", ALIVE)),
            ("storage-a-net1", newer("a", "net1", ALIVE)),
            ("cni-loopback-a-lo", newer("a", "lo", ALIVE)),
            ("aws-cni-b-eth0", older),
            ("aws-cni-gone-eth0", newer("gone", "eth0", "/run/netns/no-such")),
            ("aws-cni-broken-eth0", "{".into()),
        ];
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        assert_eq!(count_of(&files), 2);
    }

    #[test]
    fn node_without_a_cache_has_no_pod() {
        assert_eq!(count(Path::new("/no/such/directory")).unwrap(), 0);
    }
}
