// SPDX-License-Identifier: Apache-2.0
//! Compiles the BPF object into a skeleton, and pacing.h for the host's property tests.

#![expect(clippy::expect_used, reason = "a build script fails by panicking")]

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("OUT_DIR is set by cargo"));
    let here = env::var("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR is set by cargo");
    // The line information of the object names its sources.
    let no_paths = format!("-ffile-prefix-map={here}=bpf");
    SkeletonBuilder::new()
        .source("src/shaper.bpf.c")
        // v3: 64-bit compare-and-swap (kernel 5.12); the header path is Debian's multiarch one.
        .clang_args(["-mcpu=v3", "-Wall", "-Werror", "-I/usr/include/x86_64-linux-gnu", &no_paths])
        .build_and_generate(out.join("shaper.skel.rs"))
        .expect("compile src/shaper.bpf.c (needs clang)");
    cc::Build::new()
        .compiler("clang")
        .file("src/pacing_host.c")
        .warnings_into_errors(true)
        .compile("pacing_host");
    for file in ["contract.h", "maps.h", "pacing.h", "pacing_host.c", "shaper.bpf.c"] {
        println!("cargo::rerun-if-changed=src/{file}");
    }
}
