// SPDX-License-Identifier: Apache-2.0
//! The file that libcni leaves for a pod interface (libcni/api.go, cachedInfo).

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// What the runtime knows of a pod that it made.
pub struct Cached<'a> {
    pub pod: &'a str,
    pub host_ifname: &'a str,
    pub netns: &'a Path,
    /// Kinds of the plugins in the chain.
    pub plugins: &'a [&'a str],
    pub bandwidth: Value,
}

impl Cached<'_> {
    pub fn write(&self) {
        let dir = "/var/lib/cni/results";
        fs::create_dir_all(dir).expect("make the result cache");
        let plugins: Vec<Value> = self.plugins.iter().map(|kind| json!({ "type": kind })).collect();
        let list = json!({"cniVersion": "1.0.0", "name": "main", "plugins": plugins}).to_string();
        let id = format!("id-{}", self.pod);
        let info = json!({
            "kind": "cniCacheV1", "containerId": id, "ifName": "eth0", "networkName": "main",
            "config": BASE64_STANDARD.encode(list),
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAME", self.pod],
                ["K8S_POD_NAMESPACE", "default"]],
            "capabilityArgs": {"bandwidth": self.bandwidth},
            "result": {"cniVersion": "1.0.0", "interfaces": [{"name": self.host_ifname},
                {"name": "eth0", "sandbox": self.netns}]},
        });
        fs::write(format!("{dir}/main-{id}-eth0"), info.to_string()).expect("write the cache");
    }
}

/// Bit/s as containerd hands them on.
pub fn bandwidth(egress: u64, ingress: u64) -> Value {
    json!({"IngressRate": ingress, "IngressBurst": u32::MAX,
        "EgressRate": egress, "EgressBurst": u32::MAX})
}
