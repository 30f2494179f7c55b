// SPDX-License-Identifier: Apache-2.0
//! Addresses for pods: what max-pods promises of them, as boot leaves it for the
//! agent, and the ENIs that the double of IMDS shows.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::ask;
use crate::command::{json, wait_for};
use crate::imds::Imds;

const BOOT: &str = "/run/sluice/boot.json";
const PATIENCE: Duration = Duration::from_secs(20);

/// From now on boot has found out that kubelet takes so many pods, and that the ENIs of the node's type
/// carry so many addresses. The agent looks at once.
pub fn promise(pods: u64, capacity: u64, delegates_prefixes: bool) {
    leave(json!({"pods": pods, "told": "by a test", "instance_type": "t3a.medium",
        "capacity": capacity, "delegates_prefixes": delegates_prefixes}));
}

/// As if boot had run once more, and everything is as it was. The agent looks at once.
pub fn look() {
    leave(json(&fs::read_to_string(BOOT).expect("what boot has left"))["max_pods"].take());
}

fn leave(max_pods: Value) {
    let mut in_force = json(&fs::read_to_string(BOOT).expect("what boot has left"));
    in_force["max_pods"] = max_pods;
    fs::write("/run/boot.json", in_force.to_string()).expect("write");
    fs::rename("/run/boot.json", BOOT).expect("put it in place");
}

/// What the agent says of the node's addresses; null where nothing is promised.
pub fn capacity() -> Value {
    ask("GET", "/v1/status", "").json()["agent"]["report"]["capacity"].take()
}

/// Waits until the agent says this of the state.
pub fn wait_for_state(state: &str) -> Value {
    wait_for(&format!("{state}: {}", capacity()), PATIENCE, || {
        Some(capacity()).filter(|capacity| capacity["state"] == state)
    })
}

/// Waits until the agent sees so many addresses, used or not.
pub fn wait_for_addresses(count: u64) -> Value {
    wait_for(&format!("{count} addresses: {}", capacity()), PATIENCE, || {
        Some(capacity()).filter(|capacity| capacity["seen"]["addresses"] == count)
    })
}

/// Has the agent look at what there is now, and waits until IMDS has answered.
pub fn look_and_see() -> Value {
    let before = capacity()["seen"]["at_ns"].as_u64();
    look();
    wait_for("a look", PATIENCE, || {
        Some(capacity()).filter(|capacity| capacity["seen"]["at_ns"].as_u64() > before)
    })
}

/// IMDS shows this ENI with so many addresses of its own and secondary ones, and these prefixes.
pub fn show_eni(imds: &Imds, number: u8, addresses: u8, prefixes: &[&str]) {
    let mac = format!("02:00:00:00:00:0{number}");
    if number == 0 {
        imds.set("mac", &mac);
    }
    let of = |key: &str| format!("network/interfaces/macs/{mac}/{key}");
    let list: Vec<_> = (0..addresses).map(|last| format!("10.0.{number}.{}", last + 10)).collect();
    imds.set(&of("device-number"), &number.to_string());
    imds.set(&of("local-ipv4s"), &list.join("\n"));
    match prefixes.is_empty() {
        true => imds.unset(&of("ipv4-prefix")),
        false => imds.set(&of("ipv4-prefix"), &prefixes.join("\n")),
    }
}

/// IMDS shows it no more.
pub fn hide_eni(imds: &Imds, number: u8) {
    for key in ["device-number", "local-ipv4s", "ipv4-prefix"] {
        imds.unset(&format!("network/interfaces/macs/02:00:00:00:00:0{number}/{key}"));
    }
}
