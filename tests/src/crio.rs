// SPDX-License-Identifier: Apache-2.0
//! A double of CRI-O 1.37 (f954a17e50, with ocicni 0.5.0 and its libcni): which verbs
//! of a plugin it calls, when, and with what. By its own sources:
//!
//! - a list counts only if each plugin's VERSION names the list's version (libcni,
//!   validatePlugin, called by ocicni's loadNetworks);
//! - STATUS each half second until it succeeds, before the first pod, then each five (cnimgr.go);
//!   GC after the first success;
//! - ADD, and CHECK at once, of which each failure ends the pod by a DEL (sandbox_network.go,
//!   networkStart);
//! - DEL once, by list, arguments and capabilities as they were at ADD, from the cache
//!   (ocicni, TearDownPodWithContext and loadNetworkFromCache).
//!
//! The main plugin is a stand-in: the pod's devices are there. Only `sluice` is executed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::command::{json as parse, text};
use crate::node::{BIN_DIR, Pod};

const NETWORK: &str = "main";
const RESULTS: &str = "/var/lib/cni/results";
/// math.MaxUint32*8 - 1
const BURST_NOT_SET: u64 = 34_359_738_359;
const BANDWIDTH: &str = "bandwidth";
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// By the list that it has loaded: our entry, and the list's version.
pub struct Crio {
    version: &'static str,
    entry: Value,
}

impl Crio {
    /// Loads a list of this version, if our plugin lets it.
    pub fn load(version: &'static str) -> Self {
        let stdin = json!({"cniVersion": "1.1.0"});
        let dummies = [("CNI_NETNS", "dummy"), ("CNI_IFNAME", "dummy"), ("CNI_PATH", "dummy")];
        let output = execute("VERSION", &dummies, &stdin);
        assert!(output.status.success(), "VERSION: {}", text(&output));
        let answer = parse(&String::from_utf8_lossy(&output.stdout));
        let supported = answer["supportedVersions"].as_array().expect("a list of versions");
        assert!(supported.contains(&version.into()), "CRI-O would skip the list: {answer}");
        let capabilities = json!({BANDWIDTH: true, ANNOTATIONS: true});
        Self { version, entry: json!({"type": "sluice", "capabilities": capabilities}) }
    }

    /// Whether pods may come. libcni asks no older list than 1.1.0.
    pub fn status(&self) -> Result<(), String> {
        if self.version != "1.1.0" {
            return Ok(());
        }
        outcome(&execute("STATUS", &[("CNI_PATH", BIN_DIR)], &self.stdin(&[])))
    }

    /// RunPodSandbox, as far as the network is concerned.
    pub fn run_pod(&self, pod: &Pod, annotations: &[(&str, &str)]) -> Result<(), String> {
        let arguments = arguments(pod);
        let capabilities = capabilities(annotations);
        let stdin = self.stdin(&[
            ("prevResult", result(pod, self.version)),
            ("runtimeConfig", of_entry(&capabilities)),
        ]);
        let environment = environment(pod, &arguments);
        let added = execute("ADD", &borrowed(&environment), &stdin);
        let done = outcome(&added).and_then(|()| {
            let result = parse(&String::from_utf8_lossy(&added.stdout));
            let list = json!([{"type": "ptp"}, self.entry]);
            self.cache(pod, list, &capabilities, &result);
            self.check(pod)
        });
        done.inspect_err(|_| self.stop_pod(pod).expect("DEL of a pod that did not come"))
    }

    /// What the cache has of a pod whose list had no entry of ours: nothing of ours was called for it, nor
    /// will be.
    pub fn has_run_without_us(&self, pod: &Pod, annotations: &[(&str, &str)]) {
        let list = json!([{"type": "ptp"}]);
        let result = result(pod, self.version);
        self.cache(pod, list, &capabilities(annotations), &result);
    }

    /// The end of such a pod.
    pub fn forget(&self, pod: &Pod) {
        fs::remove_file(cache_file(pod)).expect("remove a file of the cache");
    }

    /// What follows each ADD, and each of CRI-O's own restarts for each pod.
    pub fn check(&self, pod: &Pod) -> Result<(), String> {
        if self.version < "0.4.0" {
            return Ok(());
        }
        let (arguments, stdin) = self.cached(pod);
        outcome(&execute("CHECK", &borrowed(&environment(pod, &arguments)), &stdin))
    }

    /// StopPodSandbox. Without a file in the cache it is the list as it is now, without a result.
    pub fn stop_pod(&self, pod: &Pod) -> Result<(), String> {
        let (arguments, stdin) = self.cached(pod);
        let deleted = execute("DEL", &borrowed(&environment(pod, &arguments)), &stdin);
        // libcni's at success, CRI-O's own at a failure (cleanupCNIResultFiles).
        drop(fs::remove_file(cache_file(pod)));
        outcome(&deleted)
    }

    /// GC for the pods that CRI-O knows: libcni's DELs for those that only the cache knows, then the verb.
    pub fn gc(&self, known: &[&Pod], forgotten: &[&Pod]) -> Result<(), String> {
        for pod in forgotten {
            self.stop_pod(pod)?;
        }
        if self.version != "1.1.0" {
            return Ok(());
        }
        let valid = known.iter().map(|pod| json!({"containerID": id(pod), "ifname": "eth0"}));
        // Go writes a list without entries as a null.
        let valid = Some(valid.collect::<Vec<_>>()).filter(|valid| !valid.is_empty());
        let stdin = self.stdin(&[
            ("cni.dev/valid-attachments", json!(valid)),
            ("cni.dev/attachments", json!(valid)),
        ]);
        outcome(&execute("GC", &[("CNI_PATH", BIN_DIR)], &stdin))
    }

    /// Our entry, with what libcni adds to it.
    fn stdin(&self, more: &[(&str, Value)]) -> Value {
        let mut stdin = self.entry.clone();
        stdin["name"] = NETWORK.into();
        stdin["cniVersion"] = self.version.into();
        for (key, value) in more {
            stdin[*key] = value.clone();
        }
        stdin
    }

    /// libcni's file (cacheAdd).
    fn cache(&self, pod: &Pod, plugins: Value, capabilities: &Value, result: &Value) {
        let list = json!({"cniVersion": self.version, "name": NETWORK, "plugins": plugins});
        let info = json!({
            "kind": "cniCacheV1", "containerId": id(pod), "ifName": "eth0", "networkName": NETWORK,
            "config": BASE64_STANDARD.encode(list.to_string()), "netns": netns(pod),
            "cniArgs": arguments(pod), "capabilityArgs": capabilities, "result": result,
        });
        fs::create_dir_all(RESULTS).expect("make the result cache");
        fs::write(cache_file(pod), info.to_string()).expect("write the cache");
    }

    /// Arguments and configuration as the cache has them, or as far as they are known without it.
    fn cached(&self, pod: &Pod) -> (Vec<[String; 2]>, Value) {
        let Ok(cached) = fs::read_to_string(cache_file(pod)) else {
            return (
                arguments(pod),
                self.stdin(&[("runtimeConfig", of_entry(&capabilities(&[])))]),
            );
        };
        let cached = parse(&cached);
        let arguments = cached["cniArgs"].as_array().expect("arguments").iter();
        let word = |word: &Value| word.as_str().expect("a word").to_owned();
        let arguments = arguments.map(|pair| [word(&pair[0]), word(&pair[1])]).collect();
        let list = BASE64_STANDARD.decode(cached["config"].as_str().expect("a list"));
        let list: Value = serde_json::from_slice(&list.expect("base64")).expect("a list");
        let then = Self { version: self.version, entry: list["plugins"][1].clone() };
        let stdin = then.stdin(&[
            ("prevResult", cached["result"].clone()),
            ("runtimeConfig", of_entry(&cached["capabilityArgs"])),
        ]);
        (arguments, stdin)
    }
}

/// newPodNetwork in sandbox_network.go: a direction without annotation has zeroes, and a pod without
/// any has no bandwidth. No rate is too small for it.
fn capabilities(annotations: &[(&str, &str)]) -> Value {
    let rate = |name: &str| {
        let found = annotations.iter().find(|(key, _)| *key == name);
        found.map_or(0, |(_, value)| value.parse().expect("a plain number of bit/s"))
    };
    let burst = |rate: u64| if rate == 0 { 0 } else { BURST_NOT_SET };
    let egress = rate("kubernetes.io/egress-bandwidth");
    let ingress = rate("kubernetes.io/ingress-bandwidth");
    let all: Map<String, Value> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let mut capabilities = json!({"cgroupPath": "kubepods-burstable.slice", ANNOTATIONS: all});
    if egress != 0 || ingress != 0 {
        capabilities[BANDWIDTH] = json!({
            "egressRate": egress, "egressBurst": burst(egress),
            "ingressRate": ingress, "ingressBurst": burst(ingress),
        });
    }
    capabilities
}

/// What of it our entry asks for.
fn of_entry(capabilities: &Value) -> Value {
    let asked = [BANDWIDTH, ANNOTATIONS].into_iter();
    let given = asked.filter(|key| !capabilities[*key].is_null());
    given.map(|key| (key.to_owned(), capabilities[key].clone())).collect::<Map<_, _>>().into()
}

/// buildCNIRuntimeConf, in its order.
fn arguments(pod: &Pod) -> Vec<[String; 2]> {
    let pairs = [
        ("IgnoreUnknown", "1".to_owned()),
        ("K8S_POD_NAMESPACE", "default".to_owned()),
        ("K8S_POD_NAME", pod.name.clone()),
        ("K8S_POD_INFRA_CONTAINER_ID", id(pod)),
        ("K8S_POD_UID", format!("uid-{}", pod.name)),
    ];
    pairs.map(|(key, value)| [key.to_owned(), value]).into()
}

/// 64 hexadecimal digits.
fn id(pod: &Pod) -> String {
    let digits: String = pod.name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits:0>64}")
}

/// As `namespaces_dir` has it by default, a link to /run.
fn netns(pod: &Pod) -> PathBuf {
    Path::new("/var/run/netns").join(&pod.name)
}

fn cache_file(pod: &Pod) -> PathBuf {
    Path::new(RESULTS).join(format!("{NETWORK}-{}-eth0", id(pod)))
}

fn environment(pod: &Pod, arguments: &[[String; 2]]) -> Vec<(&'static str, String)> {
    let arguments: Vec<_> = arguments.iter().map(|[key, value]| format!("{key}={value}")).collect();
    vec![
        ("CNI_CONTAINERID", id(pod)),
        ("CNI_NETNS", netns(pod).display().to_string()),
        ("CNI_IFNAME", "eth0".into()),
        ("CNI_PATH", BIN_DIR.into()),
        ("CNI_ARGS", arguments.join(";")),
    ]
}

fn borrowed<'v>(environment: &'v [(&'v str, String)]) -> Vec<(&'v str, &'v str)> {
    environment.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

fn result(pod: &Pod, version: &str) -> Value {
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": pod.host_ifname, "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": netns(pod)},
        ],
        "ips": [{"interface": 1, "address": format!("{}/32", pod.address)}],
        "dns": {},
    })
}

/// With CRI-O's own environment besides, as libcni does.
fn execute(verb: &str, environment: &[(&str, &str)], stdin: &Value) -> Output {
    let mut command = Command::new(format!("{BIN_DIR}/sluice"));
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS"] {
        command.env(name, "");
    }
    command.env("CNI_COMMAND", verb).envs(environment.iter().copied());
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("start the plugin");
    // A plugin that does not read its configuration closes the pipe; that is its affair.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.to_string().as_bytes());
    child.wait_with_output().expect("wait for the plugin")
}

fn outcome(output: &Output) -> Result<(), String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}
