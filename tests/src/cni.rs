// SPDX-License-Identifier: Apache-2.0
//! Calls the plugin as libcni does: environment, configuration on standard
//! input, and containerd's spelling of the bandwidth keys.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::command::{json as parse, text, wait_for};
use crate::node::{BIN_DIR, Node, Pod};

/// What containerd sends when no one asked for a burst.
const BURST_NOT_SET: u64 = 4_294_967_295;

/// A pod's bandwidth annotations in bit/s; 0 where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Annotations {
    pub egress: u64,
    pub ingress: u64,
}

/// An ADD or DEL, so that a test can change what it tests before the call.
pub struct Call {
    pub verb: &'static str,
    pub container_id: String,
    pub netns: String,
    pub ifname: &'static str,
    /// Where the plugin is.
    pub bin_dir: &'static str,
    pub stdin: Value,
}

impl Call {
    pub fn new(verb: &'static str, pod: &Pod, annotations: Annotations) -> Self {
        let netns = pod.netns().display().to_string();
        Self {
            verb,
            container_id: format!("id-{}", pod.name),
            stdin: configuration(pod, &netns, annotations),
            netns,
            ifname: "eth0",
            bin_dir: BIN_DIR,
        }
    }

    pub fn run(&self, pod: &Pod) -> Output {
        self.start(pod).wait_with_output().expect("wait for the plugin")
    }

    /// The same with this text on standard input.
    pub fn run_with(&self, pod: &Pod, stdin: &str) -> Output {
        self.start_with(pod, stdin).wait_with_output().expect("wait for the plugin")
    }

    /// The plugin, which has all that it needs.
    pub fn start(&self, pod: &Pod) -> Child {
        self.start_with(pod, &self.stdin.to_string())
    }

    fn start_with(&self, pod: &Pod, stdin: &str) -> Child {
        let mut child = self
            .command(pod)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the plugin");
        // A plugin that does not read its configuration closes the pipe; that is its affair.
        let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
        child
    }

    /// The plugin and its environment.
    pub fn command(&self, pod: &Pod) -> Command {
        let mut command = Command::new(format!("{}/sluice", self.bin_dir));
        command
            .env_clear()
            .env("CNI_COMMAND", self.verb)
            .env("CNI_CONTAINERID", &self.container_id)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", self.ifname)
            .env("CNI_PATH", self.bin_dir)
            .env(
                "CNI_ARGS",
                format!("K8S_POD_NAME={};IgnoreUnknown=1;K8S_POD_NAMESPACE=default", pod.name),
            );
        command
    }
}

impl Node {
    /// ADD that must succeed and hand the previous result through, byte for byte.
    pub fn add(&self, pod: &Pod, annotations: Annotations) {
        let call = Call::new("ADD", pod, annotations);
        let output = call.run(pod);
        assert!(output.status.success(), "ADD: {}", text(&output));
        let result = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(result, call.stdin["prevResult"].to_string());
    }

    /// The pod's guard, once the agent has found a place for it or none.
    pub fn guard(&self, pod: &Pod) -> Value {
        wait_for("the guard", Duration::from_secs(5), || {
            let guard = self.status(pod)["guard"].clone();
            (guard["state"] != "pending").then_some(guard)
        })
    }

    /// DEL, which must always succeed and say nothing.
    pub fn del(&self, pod: &Pod) {
        let output = Call::new("DEL", pod, Annotations::default()).run(pod);
        assert!(output.status.success() && output.stdout.is_empty(), "DEL: {}", text(&output));
    }

    /// What `sluice status --json` says of one pod.
    pub fn status(&self, pod: &Pod) -> Value {
        let status = self.sluice_json(&["status", "--json", "--interval", "1"]);
        let pods = status["pods"].as_array().expect("a list of pods");
        let found = pods.iter().find(|p| p["pod"] == pod.name.as_str());
        found.unwrap_or_else(|| panic!("{} is not in {status}", pod.name)).clone()
    }
}

/// An ADD that fails: exit status 1, and the CNI error that it prints.
pub fn expect_error(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(1), "{}", text(output));
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn configuration(pod: &Pod, netns: &str, annotations: Annotations) -> Value {
    let burst = |rate| if rate == 0 { 0 } else { BURST_NOT_SET };
    let Annotations { egress, ingress } = annotations;
    let mut configuration = json!({
        "cniVersion": "1.0.0",
        "name": "main",
        "type": "sluice",
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
    });
    if egress != 0 || ingress != 0 {
        configuration["runtimeConfig"] = json!({"bandwidth": {
            "IngressRate": ingress, "IngressBurst": burst(ingress),
            "EgressRate": egress, "EgressBurst": burst(egress),
        }});
    }
    configuration
}
