// SPDX-License-Identifier: Apache-2.0
//! What documents say is so: links, commands and settings work, every test that one names is there, and every
//! file of tests is run.

mod commands;
mod links;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use page::Page;
use tests::command::{executable, run};

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

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = folder.read_dir().unwrap_or_else(|e| panic!("list {}: {e}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path())
}

/// Files of tests by the name that their target is to have, as paths in the repository: what lies in an area.
fn files_of_tests() -> BTreeMap<String, String> {
    let areas = entries(&repository().join("tests/tests")).collect::<Vec<_>>();
    let tests = areas.iter().flat_map(|area| entries(area));
    let named = tests.map(|test| {
        let file = if test.is_dir() { test.join("main.rs") } else { test.clone() };
        let name = test.file_stem().expect("a name").to_string_lossy().into_owned();
        let path = file.strip_prefix(repository()).expect("in the repository").to_string_lossy();
        (name, path.into_owned())
    });
    named.collect()
}

/// `file::name`; a file without a directory is one of tests/tests, in whatever area.
fn named(document: &str) -> BTreeSet<(String, String)> {
    let files = files_of_tests();
    let spans = document.split('`').skip(1).step_by(2);
    let names = spans.filter_map(|span| {
        let (file, name) = span.split_once(".rs::")?;
        let path = if file.contains('/') { None } else { files.get(file).cloned() };
        Some((path.unwrap_or_else(|| format!("{file}.rs")), name.into()))
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
        let justified = shown.contains(".rs::") || shown.contains("docs/");
        assert!(justified, "neither a test nor a place that says why: {row:?}");
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
        let why = ["not shown here", "does not arise"];
        assert!(shown.contains(".rs::") || why.iter().any(|w| shown.contains(w)), "{row:?}");
    }
}

#[test]
fn no_document_says_of_anything_that_it_is_not_built_yet() {
    let pages = Page::all();
    let found = pages.iter().filter(|page| page.prose.contains("not built yet"));
    let found: Vec<_> = found.map(|page| page.path.display()).collect();
    assert!(pages.len() > 40 && found.is_empty(), "{found:?}");
}

/// Codes whose remedy tests/agent/remedies.rs does not run, and why.
const WITHOUT_REMEDY_TEST: [(&str, &[&str]); 4] = [
    (
        "another kernel, or one with other settings",
        &[
            "no-fq",
            "no-classful-root",
            "no-clsact",
            "no-cls-bpf",
            "no-tcx",
            "not-tried",
            "kernel-too-old",
            "not-jited",
            "slow-clock",
            "bpffs-missing",
            "bpffs-hidden",
            "policed",
            "deaf",
            "guard-off",
            "ingress-guard-off",
        ],
    ),
    (
        "nothing to do, or nothing that a test could be quick with",
        &[
            "jit-hardened",
            "not-ready",
            "program-outdated",
            "link-left",
            "temporary-left",
            "contested",
            "dodged",
            "not-adopted",
            "attach-incomplete",
            "plugin-differs",
            "node-busy",
        ],
    ),
    (
        "a foreign program, device or component, which its owner has to change",
        &[
            "too-many-filters",
            "shaper-hidden",
            "guard-hidden",
            "guard-behind",
            "ingress-bypassed",
            "policy-bypassed",
            "policy-perhaps-bypassed",
            "policy-missing",
            "ingress-qdisc",
            "priority-taken",
            "handle-one-taken",
            "upstream-bandwidth",
            "xdp-on-pod",
            "netkit",
            "cilium-present",
            "cilium-exclusive",
            "cilium-bandwidth",
            "policy-outdated",
            "calico-present",
            "upstream-rates",
            "upstream-replaced",
        ],
    ),
    (
        "devices, file systems, kubelet, AWS: other tests make the trouble and see it end",
        &[
            "not-enforced",
            "settings-not-stored",
            "conflist-not-written",
            "plugin-not-installed",
            "max-pods",
            "kubelet-not-configured",
            "kubelet-not-restarted",
            "ip-mismatch",
            "ip-exhausted",
            "ip-filling",
            "standalone",
            "other-network",
            "no-prefixes",
            "no-imds",
            "accept-ra",
        ],
    ),
];

#[test]
fn each_code_has_a_test_of_its_remedy_or_a_reason_for_none() {
    let read = |file: &str| fs::read_to_string(repository().join(file)).expect("a file");
    let page = read("docs/troubleshooting.md");
    let headings = page.lines().filter_map(|line| line.strip_prefix("### "));
    let codes: BTreeSet<_> =
        headings.filter(|heading| !heading.contains(char::is_uppercase)).collect();
    let tests = read("tests/tests/agent/remedies.rs");
    let remedied = codes.iter().copied().filter(|code| tests.contains(&format!("\"{code}\"")));
    let without = WITHOUT_REMEDY_TEST.iter().flat_map(|(_, codes)| *codes).copied();
    let all: Vec<_> = remedied.clone().chain(without).collect();
    assert!(remedied.count() >= 25, "{all:?}");
    assert_eq!(all.len(), codes.len(), "each once: {all:?}");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), codes);
}

#[test]
fn every_test_of_coexistence_is_in_the_table() {
    let document = coexistence();
    let files = files_of_tests();
    let files: Vec<_> = files.iter().filter(|(name, _)| name.starts_with("coexistence")).collect();
    assert!(files.len() >= 6, "{files:?}");
    for (file, path) in files {
        let text = fs::read_to_string(repository().join(path)).expect("read a test");
        let tests = text.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split_once('('));
        for (name, _) in tests {
            assert!(
                document.contains(&format!("`{file}.rs::{name}`")),
                "{file}.rs::{name} is not there"
            );
        }
    }
}

/// A command that is new has a page in the packages, and no unit names one that is not there.
#[test]
fn every_command_has_a_man_page_that_packages_bring_and_units_name() {
    let dir = tempfile::tempdir().expect("make a directory");
    let man = dir.path().to_str().expect("path is UTF-8");
    run(executable("sluice").to_str().expect("path is UTF-8"), &["generate", "man", man]);
    let made = entries(dir.path()).map(|page| page.file_name().expect("a name").to_owned());
    let made: BTreeSet<_> = made.map(|page| page.to_string_lossy().into_owned()).collect();
    assert!(made.contains("sluice.1") && made.contains("sluice-limit-set.1"), "{made:?}");
    let contents = fs::read_to_string(repository().join("tests/packages/contents"));
    let contents = contents.expect("what packages hold");
    let brought = contents.lines().filter_map(|line| line.strip_prefix("/usr/share/man/man1/"));
    let brought = brought.filter_map(|page| page.strip_suffix(".gz")).map(str::to_owned);
    assert_eq!(brought.collect::<BTreeSet<_>>(), made);
    let mut named = 0;
    for unit in entries(&repository().join("packaging/systemd")) {
        let text = fs::read_to_string(&unit).expect("a unit");
        let says = text.lines().find_map(|line| line.strip_prefix("Documentation="));
        for page in says.unwrap_or_else(|| panic!("{}", unit.display())).split(' ') {
            let page = page.strip_prefix("man:").and_then(|page| page.strip_suffix("(1)"));
            let page = page.unwrap_or_else(|| panic!("{}: {says:?}", unit.display()));
            assert!(made.contains(&format!("{page}.1")), "{page}");
            named += 1;
        }
    }
    assert!(named >= 4);
}

/// Cargo finds no tests in folders by itself: one that is not listed would never run, and no one would see.
#[test]
fn every_file_of_tests_is_a_target_of_its_own_name() {
    let manifest = fs::read_to_string(repository().join("tests/Cargo.toml")).expect("the manifest");
    let targets = manifest.split("[[test]]\n").skip(1).map(|target| {
        let value = |key| {
            let line = target.lines().find_map(|line| line.strip_prefix(key)?.strip_suffix('"'));
            line.unwrap_or_else(|| panic!("no {key}…\" in {target}")).to_owned()
        };
        (value("name = \""), format!("tests/{}", value("path = \"")))
    });
    assert_eq!(targets.collect::<BTreeMap<_, _>>(), files_of_tests());
}
