// SPDX-License-Identifier: Apache-2.0
//! Programs of others, with all that such programs do to those who come after
//! them on the same hook.

use std::fs;

use crate::command::run;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/foreign.bpf.o"));
const PIN_DIR: &str = "/sys/fs/bpf/foreign";

/// Loads them all, and pins each under its name.
pub fn load() {
    fs::create_dir_all(PIN_DIR).expect("make a directory of pins");
    fs::write("/run/foreign.bpf.o", OBJECT).expect("write the object");
    run("bpftool", &["prog", "loadall", "/run/foreign.bpf.o", PIN_DIR]);
}

/// Where a program is pinned.
pub fn pin(program: &str) -> String {
    format!("{PIN_DIR}/{program}")
}
