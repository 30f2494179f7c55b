// SPDX-License-Identifier: Apache-2.0
//! What a packet that was shaped carries in tc_index, for tests that forge it.

use crate::command::{json, run};
use crate::node::PIN_DIR;

/// Of this slot's egress (0) or ingress (1), from the map that the agent keeps the secret in (bpf's proof.rs).
pub fn proof_of(slot: u64, direction: u64) -> u64 {
    let pin = format!("{PIN_DIR}/proof");
    let dump = json(&run("bpftool", &["-j", "map", "dump", "pinned", &pin]));
    let bytes = dump[0]["value"].as_array().expect("bytes")[..8].iter().rev();
    let hex: String = bytes.map(|byte| byte.as_str().expect("hex").replace("0x", "")).collect();
    let number = u64::from_str_radix(&hex, 16).expect("a number");
    1 + number % (65535 - 2 * 1024) + 2 * slot + direction
}
