// SPDX-License-Identifier: Apache-2.0

//! Every document in testdata/valid and testdata/invalid against its `.expected`.
//!
//! Valid: the effective settings, one key per line. Invalid: the exact messages.
//! `UPDATE_GOLDEN=1` rewrites the expected files; read the difference before you commit it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml lets tests do so, but not the functions they share"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use settings_model::{Settings, parse};

#[test]
fn valid_documents_give_their_settings() {
    check_all("valid", |text| match parse("user-data", text) {
        Ok(settings) => effective(&settings),
        Err(problems) => panic!("a valid document has problems:\n{problems}"),
    });
}

#[test]
fn invalid_documents_give_their_messages() {
    check_all("invalid", |text| match parse("user-data", text) {
        Ok(settings) => panic!("an invalid document is accepted as\n{}", effective(&settings)),
        Err(problems) => problems.to_string(),
    });
}

fn effective(settings: &Settings) -> String {
    let Settings { bandwidth, cni } = settings;
    format!(
        "bandwidth.enabled = {}\nbandwidth.default-egress = {}\nbandwidth.default-ingress = {}\n\
         bandwidth.burst = {}\ncni.mode = {:?}\ncni.conf-dir = {}\ncni.bin-dir = {}\n",
        bandwidth.enabled,
        bandwidth.default_egress,
        bandwidth.default_ingress,
        bandwidth.burst,
        cni.mode,
        cni.conf_dir.display(),
        cni.bin_dir.display(),
    )
}

fn check_all(folder: &str, render: fn(&str) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
    let stems = stems(&folder);
    assert!(!stems.is_empty(), "{} has no fixtures", folder.display());
    let wrong: Vec<_> = stems.iter().filter_map(|stem| check(stem, render)).collect();
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 rewrites", wrong.join("\n"));
}

/// Each pair of `.toml` and `.expected` without its ending, also if one of the two is missing.
fn stems(folder: &Path) -> BTreeSet<PathBuf> {
    let stem = |path: PathBuf| match path.extension().and_then(|e| e.to_str()) {
        Some("toml" | "expected") => path.with_extension(""),
        _ => panic!("{} is neither .toml nor .expected", path.display()),
    };
    let entries = fs::read_dir(folder).expect("read fixture folder");
    entries.map(|entry| stem(entry.expect("read fixture entry").path())).collect()
}

/// What is wrong with one fixture, if anything.
fn check(stem: &Path, render: fn(&str) -> String) -> Option<String> {
    let expected_path = stem.with_extension("expected");
    let Ok(text) = fs::read_to_string(stem.with_extension("toml")) else {
        return Some(format!("{} has no .toml", expected_path.display()));
    };
    let actual = render(&text);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&expected_path, &actual).expect("write expected file");
    }
    match fs::read_to_string(&expected_path) {
        Ok(expected) if expected == actual => None,
        Ok(expected) => {
            let path = expected_path.display();
            Some(format!("{path}\n--- expected\n{expected}--- actual\n{actual}"))
        }
        Err(_) => Some(format!("{} has no .expected", stem.display())),
    }
}
