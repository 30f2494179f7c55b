// SPDX-License-Identifier: Apache-2.0
//! Programs of others, with all that such programs do to those that come after
//! them on the same hook.

use std::fs;

use crate::command::{run, tc};
use crate::link::index;
use crate::node::Pod;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/foreign.bpf.o"));
const PIN_DIR: &str = "/sys/fs/bpf/foreign";
const MAP_DIR: &str = "/sys/fs/bpf/foreign_maps";

/// Loads them all, and pins each under its name.
pub fn load() {
    fs::create_dir_all(PIN_DIR).expect("make a directory of pins");
    fs::write("/run/foreign.bpf.o", OBJECT).expect("write the object");
    let maps = ["pinmaps", MAP_DIR];
    run("bpftool", &[&["prog", "loadall", "/run/foreign.bpf.o", PIN_DIR][..], &maps].concat());
}

/// What arrives at this device for the pod is handed to it past its host end, from now on.
pub fn redirect_to_peer(from: &str, pod: &Pod) {
    let key = pod.address.octets().map(|byte| byte.to_string());
    let value = index(&pod.host_ifname).to_ne_bytes().map(|byte| byte.to_string());
    let map = format!("{MAP_DIR}/pods");
    let words = ["map", "update", "pinned", map.as_str(), "key"].map(str::to_owned);
    let words = [&words[..], &key, &["value".to_owned()], &value].concat();
    run("bpftool", &words.iter().map(String::as_str).collect::<Vec<_>>());
    tc(&format!("qdisc replace dev {from} clsact"));
    let program = pin("cali_tc_to_peer");
    tc(&format!(
        "filter replace dev {from} ingress prio 5 handle 5 bpf da object-pinned {program}"
    ));
}

/// Where a program is pinned.
pub fn pin(program: &str) -> String {
    format!("{PIN_DIR}/{program}")
}
