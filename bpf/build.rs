// SPDX-License-Identifier: Apache-2.0
//! Compiles the BPF objects into skeletons, pacing.h for the host's property tests and, for executables without shared
//! libraries, libelf.

#![expect(clippy::expect_used, reason = "a build script fails by panicking")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("OUT_DIR is set by cargo"));
    let here = env::var("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR is set by cargo");
    let include = format!("-I/usr/include/{}-linux-gnu", env::consts::ARCH);
    // The line information of the object names its sources.
    let no_paths = format!("-ffile-prefix-map={here}=bpf");
    for name in ["shaper", "pod_guard"] {
        SkeletonBuilder::new()
            .source(format!("src/{name}.bpf.c"))
            // v3: 64-bit compare-and-swap (kernel 5.12); the header path is Debian's multiarch one.
            .clang_args(["-mcpu=v3", "-Wall", "-Werror", &include, &no_paths])
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .expect("compile the programs (needs clang)");
    }
    cc::Build::new()
        .compiler("clang")
        .file("src/pacing_host.c")
        .warnings_into_errors(true)
        .compile("pacing_host");
    let headers = ["contract.h", "hash.h", "maps.h", "pacing.h", "police.h", "share.h"];
    for file in headers.iter().chain(&["pacing_host.c", "shaper.bpf.c", "pod_guard.bpf.c"]) {
        println!("cargo::rerun-if-changed=src/{file}");
    }
    if env::var("CARGO_CFG_TARGET_FEATURE").is_ok_and(|f| f.split(',').any(|f| f == "crt-static")) {
        compile_libelf(&libbpf_sys().join("elfutils"), &out.join("libelf"));
    }
}

/// The libelf of Debian 13 cannot be linked without shared libraries at all, that of others drags zstd in. So it is
/// made of the sources that libbpf-sys has, where `-lelf` is looked for first; its own build would want
/// autotools, and a C library with argp and obstack, which musl is not.
fn compile_libelf(elfutils: &Path, out: &Path) {
    fs::create_dir_all(out).expect("make a directory for libelf");
    fs::write(out.join("config.h"), "#include <eu-config.h>\n").expect("write libelf's config.h");
    let sources = fs::read_dir(elfutils.join("libelf")).expect("list libelf's sources");
    let sources = sources.map(|entry| entry.expect("list libelf's sources").path());
    let mut sources: Vec<_> = sources.filter(|p| p.extension().is_some_and(|e| e == "c")).collect();
    sources.sort();
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("CARGO_CFG_TARGET_ARCH is set by cargo");
    cc::Build::new()
        .std("gnu99")
        .cargo_metadata(false)
        .warnings(false)
        .files(sources)
        .includes([out, &elfutils.join("lib"), &elfutils.join("libelf")])
        // zlib.h, behind musl's own headers.
        .flags([
            "-idirafter",
            "/usr/include",
            "-idirafter",
            &format!("/usr/include/{arch}-linux-gnu"),
        ])
        .flag(format!("-ffile-prefix-map={}=elfutils", elfutils.display()))
        .flags(["-D_GNU_SOURCE", "-DHAVE_CONFIG_H", "-DHAVE_ERR_H", "-DPACKAGE=\"elfutils\""])
        .flags(["-DHAVE_DECL_MEMPCPY=1", "-DHAVE_DECL_POWEROF2=1", "-DHAVE_DECL_REALLOCARRAY=1"])
        .out_dir(out)
        .compile("elf");
    println!("cargo::rustc-link-search=native={}", out.display());
}

/// Where the crate's sources are. It has exactly one version in a build, since it links a library.
fn libbpf_sys() -> PathBuf {
    let target = env::var("TARGET").expect("TARGET is set by cargo");
    let out = Command::new(env::var_os("CARGO").expect("CARGO is set by cargo"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform", &target])
        .output()
        .expect("run cargo metadata");
    assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&out.stdout).expect("read cargo metadata");
    let packages = metadata["packages"].as_array().expect("cargo metadata has packages");
    let package = packages.iter().find(|p| p["name"] == "libbpf-sys").expect("libbpf-sys is there");
    let manifest = Path::new(package["manifest_path"].as_str().expect("a package has a manifest"));
    manifest.parent().expect("a manifest is in a directory").to_owned()
}
