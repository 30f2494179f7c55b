// SPDX-License-Identifier: Apache-2.0
//! Compiles the programs of the policy agent's double.

use std::process::Command;
use std::{env, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("OUT_DIR is set by cargo"));
    let status = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-Wall", "-Werror"])
        .args(["-I/usr/include/x86_64-linux-gnu", "-c", "fixtures/policy.bpf.c", "-o"])
        .arg(out.join("policy.bpf.o"))
        .status()
        .expect("run clang");
    assert!(status.success(), "compile fixtures/policy.bpf.c: {status}");
    println!("cargo::rerun-if-changed=fixtures/policy.bpf.c");
}
