// SPDX-License-Identifier: Apache-2.0
//! Which versions an image may have. No image is built.

use std::path::{Path, PathBuf};

use tests::command::{output, run, text};

const ALLOWED: &str = "cannot be a version; allowed are letters and digits, with one '.', '-' or '_' \
                       between them, e.g. 1.36.0-20260714";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../image-build").join(name)
}

/// What `build` says to a version, without a network: it has none to fetch anything from.
fn refusal(version: &str) -> String {
    let dir = tempfile::tempdir().expect("make a directory");
    let out = output(
        "unshare",
        &[
            "--net",
            "env",
            &format!("SLUICE_CACHE={}", dir.path().join("cache").display()),
            &format!("IMAGE_VERSION={version}"),
            script("build").to_str().expect("UTF-8"),
            "/usr/bin",
            dir.path().join("out").to_str().expect("UTF-8"),
        ],
    );
    let made = std::fs::read_dir(dir.path()).expect("list the directory").count();
    assert_eq!(made, 0, "the build has begun: {}", text(&out));
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    String::from_utf8_lossy(&out.stderr).trim_end().to_owned()
}

#[test]
fn version_that_systemd_would_misread_is_refused_before_anything_is_fetched() {
    let quoted = [
        ("1.0+2", "1.0+2"),
        ("1 0", "1\\ 0"),
        ("1.0~rc1", "1.0~rc1"),
        ("1,0", "1\\,0"),
        ("../1.0", "../1.0"),
        ("1/0", "1/0"),
        ("%A", "%A"),
        ("1\n0", "$'1\\n0'"),
        ("é", "$'\\303\\251'"),
        ("-1", "-1"),
        (".1", ".1"),
        ("_1", "_1"),
        ("1-", "1-"),
        ("1.", "1."),
        ("1_", "1_"),
        ("1..0", "1..0"),
        ("1__0", "1__0"),
    ];
    for (version, shown) in quoted {
        assert_eq!(refusal(version), format!("image: IMAGE_VERSION: {shown} {ALLOWED}"));
    }
    assert!(refusal("").starts_with("image: IMAGE_VERSION: '' is empty; allowed are"));
}

#[test]
fn version_longer_than_a_partition_name_has_room_for_is_refused_before_anything_is_fetched() {
    assert_eq!(
        refusal("1.36.0-20260714.12"),
        "image: IMAGE_VERSION: 1.36.0-20260714.12 has 18 characters; allowed are 17, the rest of a \
         partition's name has 19 of 36"
    );
}

#[test]
fn version_that_contains_what_ends_one_in_a_name_is_refused_before_anything_is_fetched() {
    for (version, ending) in [
        ("1_verity", "_verity"),
        ("1.efi", ".efi"),
        ("1.efi.2", ".efi"),
        ("1.root-x86-64", ".root-x86-64."),
        ("1.root-x86-64.2", ".root-x86-64."),
    ] {
        assert_eq!(
            refusal(version),
            format!(
                "image: IMAGE_VERSION: {version} contains {ending}, where systemd-sysupdate ends a version"
            )
        );
    }
}

#[test]
fn versions_in_use_are_accepted_up_to_the_last_character_there_is_room_for() {
    for version in
        ["1.0.0", "1.1.0", "bare", "7", "v1.2", "2026.07.14", "1.0.0-RC_1", "1.36.0-20260714.1"]
    {
        run(script("check-version").to_str().expect("UTF-8"), &[version]);
    }
}
