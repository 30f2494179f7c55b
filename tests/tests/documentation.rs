// SPDX-License-Identifier: Apache-2.0
//! Every test that a document names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn coexistence() -> String {
    fs::read_to_string(repository().join("docs/coexistence.md")).expect("the document")
}

/// Rows of the table: cells without the outer ones. Head and rule are no rows.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let lines = document.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = lines.map(|line| line.split(" | ").map(str::trim).collect::<Vec<_>>());
    cells.filter(|cells| cells[0].parse::<u32>().is_ok()).collect()
}

/// `file::name`; a file without a directory is one of tests/tests.
fn named(document: &str) -> BTreeSet<(String, String)> {
    let spans = document.split('`').skip(1).step_by(2);
    let names = spans.filter_map(|span| {
        let (file, name) = span.split_once(".rs::")?;
        let file = format!("{file}.rs");
        Some((if file.contains('/') { file } else { format!("tests/tests/{file}") }, name.into()))
    });
    names.collect()
}

fn is_test(file: &str, name: &str) -> bool {
    let text = fs::read_to_string(repository().join(file)).unwrap_or_default();
    let function = format!("fn {name}(");
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.starts_with(&function));
    // An attribute or two may stand between them.
    at.is_some_and(|at| lines[at.saturating_sub(3)..at].contains(&"#[test]"))
}

#[test]
fn every_test_that_the_table_of_collisions_names_is_there() {
    let document = coexistence();
    let named = named(&document);
    assert!(named.len() > 40, "only {} tests are named", named.len());
    let missing: Vec<_> = named.iter().filter(|(file, name)| !is_test(file, name)).collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let document = fs::read_to_string(repository().join("SECURITY.md")).expect("the document");
    let named = named(&document);
    assert!(named.len() > 40, "only {} tests are named", named.len());
    let missing: Vec<_> = named.iter().filter(|(file, name)| !is_test(file, name)).collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}

#[test]
fn each_line_of_the_threat_model_has_a_test_or_says_why_not() {
    let document = fs::read_to_string(repository().join("SECURITY.md")).expect("the document");
    let (_, model) = document.split_once("## Threat model").expect("the threat model");
    let rows = model.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows: Vec<Vec<_>> = rows.skip(2).map(|row| row.split(" | ").collect()).collect();
    assert!(rows.len() > 20, "only {} rows", rows.len());
    for row in rows {
        let [who, may, _, shown] = row[..] else { panic!("not four cells: {row:?}") };
        assert!(!who.is_empty() && !may.is_empty() && !shown.is_empty(), "{row:?}");
        let told = shown.contains(".rs::") || shown.contains("docs/");
        assert!(told, "neither a test nor a place that says why: {row:?}");
    }
}

#[test]
fn all_48_collisions_are_told_each_with_a_test_or_why_there_is_none() {
    let document = coexistence();
    let rows = rows(&document);
    let numbers: Vec<u32> = rows.iter().filter_map(|row| row[0].parse().ok()).collect();
    assert_eq!(numbers, (1..=48).collect::<Vec<_>>());
    for row in rows {
        let [_, collision, outcome, shown] = row[..] else { panic!("not four cells: {row:?}") };
        assert!(!collision.is_empty() && !outcome.is_empty(), "{row:?}");
        let why = ["not built yet", "not shown here", "does not arise"];
        assert!(shown.contains(".rs::") || why.iter().any(|w| shown.contains(w)), "{row:?}");
    }
}

#[test]
fn every_test_of_coexistence_is_in_the_table() {
    let document = coexistence();
    let dir = fs::read_dir(repository().join("tests/tests")).expect("list the tests");
    let files = dir.map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("coexistence"))
    });
    for path in files {
        let text = fs::read_to_string(&path).expect("read a test");
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tests = text.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split_once('('));
        for (name, _) in tests {
            assert!(document.contains(&format!("`{file}::{name}`")), "{file}::{name} is not there");
        }
    }
}
