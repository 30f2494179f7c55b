// SPDX-License-Identifier: Apache-2.0
//! Calls the bandwidth plugin of the CNI project (Debian's) as libcni does.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::cni::Annotations;
use tests::command::text;
use tests::node::Pod;

pub const PLUGIN_DIR: &str = "/usr/lib/cni";
/// Bits that containerd asks for when the pod names no burst. The plugin takes it for 512 MB.
pub const BURST_NOT_SET: u64 = 4_294_967_295;
pub const BURST_32_KB: u64 = 8 * 32 * 1024;

pub fn add(pod: &Pod, limits: Annotations, burst: u64) {
    let mut configuration = configuration(pod);
    let burst_of = |rate| if rate == 0 { 0 } else { burst };
    configuration["runtimeConfig"] = json!({"bandwidth": {
        "ingressRate": limits.ingress, "ingressBurst": burst_of(limits.ingress),
        "egressRate": limits.egress, "egressBurst": burst_of(limits.egress),
    }});
    call("ADD", pod, &configuration);
}

pub fn del(pod: &Pod) {
    call("DEL", pod, &configuration(pod));
}

fn configuration(pod: &Pod) -> Value {
    let netns = pod.netns();
    json!({
        "cniVersion": "1.0.0",
        "name": "main",
        "type": "bandwidth",
        "capabilities": {"bandwidth": true},
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": pod.host_ifname, "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": netns},
            ],
            "ips": [{"interface": 1, "address": format!("{}/32", pod.address)}],
            "dns": {},
        },
    })
}

fn call(command: &str, pod: &Pod, configuration: &Value) {
    let mut child = Command::new(format!("{PLUGIN_DIR}/bandwidth"))
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", format!("id-{}", pod.name))
        .env("CNI_NETNS", pod.netns())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", PLUGIN_DIR)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the bandwidth plugin");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(configuration.to_string().as_bytes()).expect("give it its configuration");
    drop(stdin);
    let output = child.wait_with_output().expect("wait for the bandwidth plugin");
    assert!(output.status.success(), "{command}: {}", text(&output));
}
