// SPDX-License-Identifier: Apache-2.0
//! The part inside a QEMU guest. There is no containerd, so this calls the
//! chain ptp + sluice as libcni does: each plugin with the environment of the
//! runtime, and the result of the one before.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::command::ip;
use tests::node::{BIN_DIR, CONFLIST, Node, with_node};

use crate::host::{ANNOTATED_EGRESS, ANNOTATED_INGRESS, BANDWIDTH, measure};
use crate::traffic::{End, kernel};

const PTP_CONFLIST: &str = r#"{"cniVersion":"1.0.0","name":"node","plugins":[
  {"type":"ptp","ipam":{"type":"host-local","dataDir":"/run/node/ipam",
   "ranges":[[{"subnet":"10.99.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
"#;
const CNI_PLUGINS: &str = "/usr/lib/cni";

pub fn run() -> Result<()> {
    let mut result = Ok(());
    with_node(|node| result = on_node(node));
    result
}

fn on_node(node: &mut Node) -> Result<()> {
    println!("guest: kernel {}, chain ptp + sluice", kernel());
    fs::write(CONFLIST, PTP_CONFLIST)?;
    node.boot_with(BANDWIDTH);
    node.start_agent();
    let remote = make_remote();
    let annotations = json!({"bandwidth": {
        "EgressRate": ANNOTATED_EGRESS, "EgressBurst": u32::MAX,
        "IngressRate": ANNOTATED_INGRESS, "IngressBurst": u32::MAX,
    }});
    let annotated = add_pod("annotated", Some(&annotations))?;
    let default = add_pod("default", None)?;
    let measurements = measure(&annotated, &default, &remote, "paced");
    println!("\n{}", String::from_utf8_lossy(&node.sluice(&["pods"]).stdout));
    fs::write("/out/demo.json", serde_json::to_string(&measurements)?)?;
    Ok(())
}

fn make_remote() -> End {
    ip("netns add remote");
    ip("link add up0 type veth peer name eth0 netns remote");
    ip("addr add 10.200.0.1/24 dev up0");
    ip("link set up0 up");
    ip("-n remote addr add 10.200.0.2/24 dev eth0");
    ip("-n remote link set eth0 up");
    ip("-n remote route add default via 10.200.0.1");
    End { netns: "/run/netns/remote".into(), address: Ipv4Addr::new(10, 200, 0, 2) }
}

/// ADD along the chain as `sluice boot` left it.
fn add_pod(name: &str, runtime_config: Option<&Value>) -> Result<End> {
    ip(&format!("netns add {name}"));
    let list: Value = serde_json::from_str(&fs::read_to_string(CONFLIST)?)?;
    let mut result = Value::Null;
    for plugin in list["plugins"].as_array().context("a list of plugins")? {
        let mut configuration = plugin.clone();
        for key in ["cniVersion", "name"] {
            configuration[key] = list[key].clone();
        }
        if !result.is_null() {
            configuration["prevResult"] = result;
        }
        if let Some(config) = runtime_config.filter(|_| plugin["capabilities"].is_object()) {
            configuration["runtimeConfig"] = config.clone();
        }
        result = add(name, &configuration)?;
    }
    let address = result["ips"][0]["address"].as_str().context("an address")?;
    let address = address.split('/').next().unwrap_or_default().parse()?;
    Ok(End { netns: format!("/run/netns/{name}").into(), address })
}

fn add(pod: &str, configuration: &Value) -> Result<Value> {
    let kind = configuration["type"].as_str().context("a plugin has a type")?;
    let paths = [PathBuf::from(BIN_DIR), PathBuf::from(CNI_PLUGINS)];
    let program = paths.iter().map(|dir| dir.join(kind)).find(|path| path.exists());
    let program = program.with_context(|| format!("find the plugin {kind}"))?;
    let mut child = Command::new(&program)
        .env_clear()
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", format!("demo-{pod}"))
        .env("CNI_NETNS", format!("/run/netns/{pod}"))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", format!("{BIN_DIR}:{CNI_PLUGINS}"))
        .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"))
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(configuration.to_string().as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{kind} ADD: {text}");
    Ok(serde_json::from_str(&text)?)
}
