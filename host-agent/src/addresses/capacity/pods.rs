// SPDX-License-Identifier: Apache-2.0
//! How many pods have an address: those with a result of libcni's. Pods in the
//! host's network have none there.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::libcni::results;

/// What every runtime calls a pod's first interface; others are of other networks.
const MAIN: &str = "eth0";

/// Each pod once, whatever networks it has. Files that cannot be read count for no pod: the agent's own pass
/// reports them.
pub fn count(cache: &Path) -> Result<u64> {
    let paths = results::paths(cache)?;
    // The name says of which interface it is, so that others are not read.
    let of_main = paths.iter().filter(|path| path.to_string_lossy().ends_with(&format!("-{MAIN}")));
    let pods = of_main.filter_map(|path| results::read(path)?.pod.ok());
    let pods = pods.filter(|pod| pod.ifname == MAIN).map(|pod| pod.container_id);
    Ok(pods.collect::<BTreeSet<_>>().len() as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// There as long as this process is.
    const ALIVE: &str = "/proc/self/ns/net";

    fn count_of(files: &[(&str, &str)]) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        count(dir.path()).unwrap()
    }

    fn newer(id: &str, interface: &str, netns: &str) -> String {
        format!(
            r#"{{"kind":"cniCacheV1","containerId":"{id}","ifName":"{interface}","netns":"{netns}"}}"#
        )
    }

    #[test]
    fn each_living_pod_counts_once() {
        let older = format!(
            r#"{{"kind":"cniCacheV1","containerId":"b","ifName":"eth0","result":{{"interfaces":[{{"name":"eni1"}},
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
