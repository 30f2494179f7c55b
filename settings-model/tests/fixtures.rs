// SPDX-License-Identifier: Apache-2.0

//! Every document in testdata/vN/valid, invalid and layers against what is expected of it.
//!
//! Valid: warnings, then the effective settings with their origins. Invalid: the exact problems.
//! `UPDATE_GOLDEN=1` rewrites the expected files; read the difference before you commit it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml lets tests do so, but not the functions they share"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use settings_model::{Effective, Problems, code, docs_page, explain, merge, parse, schema};

#[test]
fn valid_documents_give_their_settings() {
    check_all("v1/valid", |text| match merge(&[("user-data", text)]) {
        Ok(effective) => {
            check_round_trip(&effective);
            describe(&effective)
        }
        Err(problems) => panic!("a valid document has problems:\n{problems}"),
    });
}

#[test]
fn invalid_documents_give_their_messages() {
    check_all("v1/invalid", |text| match parse("user-data", text) {
        Ok(settings) => panic!("an invalid document is accepted as\n{}", settings.to_toml()),
        Err(problems) => describe_problems(&problems),
    });
}

#[test]
fn layers_give_their_settings_or_messages() {
    let folder = testdata().join("v1/layers");
    let cases = fs::read_dir(&folder).expect("read layers");
    let cases = cases.map(|case| case.expect("read case").path());
    let wrong: Vec<_> = cases.filter_map(|case| check_case(&case)).collect();
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 rewrites", wrong.join("\n"));
}

#[test]
fn every_version_folder_is_tested() {
    let folders = fs::read_dir(testdata()).expect("read testdata");
    let folders = folders.map(|folder| folder.expect("read folder").path());
    let mut folders: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert_eq!(folders, ["described", "v1"].map(|name| testdata().join(name)));
}

#[test]
fn every_code_is_met_by_a_fixture() {
    let folders = ["v1/valid", "v1/invalid"].map(|folder| testdata().join(folder));
    let stems = folders.iter().flat_map(|folder| stems(folder));
    let expected = stems.map(|stem| fs::read_to_string(stem.with_extension("expected")));
    let expected: String = expected.collect::<Result<_, _>>().expect("read expected");
    let starts: BTreeSet<_> = expected.lines().filter_map(|line| line.split_once(": ")).collect();
    let starts: BTreeSet<_> = starts.iter().map(|(start, _)| *start).collect();
    let met = |code: &str| starts.contains(code) || starts.contains(&*format!("warning {code}"));
    let unmet: Vec<_> = code::ALL.iter().map(|(code, _)| *code).filter(|code| !met(code)).collect();
    // No key is deprecated yet; `effective.rs` tests that with a key of its own.
    assert_eq!(unmet, [code::DEPRECATED_KEY]);
}

const KEYS_HEAD: &str = "# Settings, version 1

Keys of `[settings.sluice]`, or of a top-level `[sluice]`, which means the same. This page is made from the model by
`make golden`; `sluice settings explain KEY` says the same of one key, `sluice settings schema` gives a JSON Schema.
Other tables are not ours and are ignored; but one that is nearly called so (`[settings.slucie]`, `[Settings.Sluice]`, `[sluce]`) is an error.
Each example gives all keys of its section, most with another value than their default; a document needs `version` and what it changes.

";

/// What people and programs read about the keys, so that a change of it shows in a diff.
#[test]
fn keys_are_told_as_before() {
    let page = docs_page();
    let keys = page.lines().filter_map(|line| line.strip_prefix("- `")?.split_once('`'));
    let explained = keys.filter_map(|(key, _)| explain(key)).collect::<Vec<_>>().join("\n");
    let schema = format!("{:#}\n", schema());
    let keys = format!("{KEYS_HEAD}{page}");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let descriptions = testdata().join("described");
    let descriptions = [
        (docs, keys),
        (descriptions.join("explain.txt"), explained),
        (descriptions.join("schema.json"), schema),
    ];
    let wrong = descriptions.iter().filter_map(|(file, text)| compare(file, text));
    assert_eq!(wrong.collect::<Vec<_>>(), [] as [String; 0]);
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn check_round_trip(effective: &Effective) {
    let printed = effective.settings.to_toml();
    assert_eq!(parse("printed", &printed).as_ref(), Ok(&effective.settings), "{printed}");
}

/// Warnings and every value; the origin where it is not the default.
fn describe(effective: &Effective) -> String {
    let warnings = effective.warnings.iter().map(|w| format!("warning {}: {w}\n", w.code));
    let entries = effective.entries().into_iter().map(|entry| {
        let line = format!("{} = {}", entry.key, entry.value);
        match entry.origin.to_string().as_str() {
            "default" => format!("{line}\n"),
            origin => format!("{line}  # {origin}\n"),
        }
    });
    warnings.chain(entries).collect()
}

fn describe_problems(problems: &Problems) -> String {
    problems.iter().map(|problem| format!("{}: {problem}\n", problem.code)).collect()
}

fn check_case(case: &Path) -> Option<String> {
    let files = fs::read_dir(case).expect("read case").map(|file| file.expect("file").path());
    let mut files: Vec<_> = files.filter(|file| !file.ends_with("expected")).collect();
    files.sort();
    let name = |file: &PathBuf| file.file_stem().expect("stem").to_string_lossy().into_owned();
    let read = |file: &PathBuf| fs::read_to_string(file).expect("read layer");
    assert!(files.iter().all(|file| file.extension().is_some_and(|e| e == "toml")), "{files:?}");
    let layers: Vec<_> = files.iter().map(|file| (name(file), read(file))).collect();
    let layers: Vec<_> = layers.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let actual = match merge(&layers) {
        Ok(effective) => describe(&effective),
        Err(problems) => describe_problems(&problems),
    };
    compare(&case.join("expected"), &actual)
}

fn check_all(folder: &str, render: fn(&str) -> String) {
    let folder = testdata().join(folder);
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
    compare(&expected_path, &render(&text))
}

fn compare(expected_path: &Path, actual: &str) -> Option<String> {
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(expected_path, actual).expect("write expected file");
    }
    let path = expected_path.display();
    match fs::read_to_string(expected_path) {
        Ok(expected) if expected == actual => None,
        Ok(expected) => Some(format!("{path}\n--- expected\n{expected}--- actual\n{actual}")),
        Err(_) => Some(format!("{path} is not there")),
    }
}
