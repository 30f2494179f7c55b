// SPDX-License-Identifier: Apache-2.0
//! Compiles the BPF objects into skeletons, and pacing.h for the host's property tests.

#![expect(clippy::expect_used, reason = "a build script fails by panicking")]

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("OUT_DIR is set by cargo"));
    let here = env::var("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR is set by cargo");
    // The line information of the object names its sources.
    let no_paths = format!("-ffile-prefix-map={here}=bpf");
    for name in ["shaper", "pod_guard"] {
        SkeletonBuilder::new()
            .source(format!("src/{name}.bpf.c"))
            // v3: 64-bit compare-and-swap (kernel 5.12); the header path is Debian's multiarch one.
            .clang_args([
                "-mcpu=v3",
                "-Wall",
                "-Werror",
                "-I/usr/include/x86_64-linux-gnu",
                &no_paths,
            ])
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .expect("compile the programs (needs clang)");
    }
    cc::Build::new()
        .compiler("clang")
        .file("src/pacing_host.c")
        .warnings_into_errors(true)
        .compile("pacing_host");
    let headers = ["contract.h", "maps.h", "pacing.h", "police.h"];
    for file in headers.iter().chain(&["pacing_host.c", "shaper.bpf.c", "pod_guard.bpf.c"]) {
        println!("cargo::rerun-if-changed=src/{file}");
    }
}
