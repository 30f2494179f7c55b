// SPDX-License-Identifier: Apache-2.0
//! Compiles the programs of the policy agent's double, of the benchmarks' peers and of others on a node, and what sends
//! and receives inside a sandbox.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out = std::env::var_os("OUT_DIR").expect("OUT_DIR is set by cargo");
    for name in ["policy", "edt", "foreign", "calico"] {
        compile(name, &PathBuf::from(&out));
    }
    let source = "fixtures/peer.c";
    let words = ["-static", "-Os", "-s", "-Wall", "-Werror", source, "-o"];
    let status = Command::new("cc").args(words).arg(Path::new(&out).join("peer")).status();
    assert!(status.expect("run cc").success(), "compile {source}");
    println!("cargo::rerun-if-changed={source}");
}

fn compile(name: &str, out: &Path) {
    let source = format!("fixtures/{name}.bpf.c");
    let arch =
        std::env::var("CARGO_CFG_TARGET_ARCH").expect("CARGO_CFG_TARGET_ARCH is set by cargo");
    let headers = format!("-I/usr/include/{arch}-linux-gnu");
    let status = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"])
        .args([&headers, "-c", &source, "-o"])
        .arg(out.join(format!("{name}.bpf.o")))
        .status()
        .expect("run clang");
    assert!(status.success(), "compile {source}: {status}");
    println!("cargo::rerun-if-changed={source}");
}
