//! The dependencies are as deny.toml says. This is a test, not cargo-deny itself, because building cargo-deny takes longer
//! than building the workspace. It refuses keys of deny.toml that it does not know, so that both read the same rules.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Deny {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Graph {
    targets: Vec<String>,
    #[serde(rename = "all-features")]
    _all_features: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: BTreeSet<String>,
    #[serde(rename = "private")]
    _private: Private,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Private {
    #[serde(rename = "ignore")]
    _ignore: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Bans {
    wildcards: Denied,
    multiple_versions: Denied,
    #[serde(rename = "allow-wildcard-paths")]
    _allow_wildcard_paths: bool,
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Sources {
    unknown_registry: Denied,
    unknown_git: Denied,
}

/// The only answer that this test accepts.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Denied {
    Deny,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    dependencies: Vec<Requirement>,
}

#[derive(Deserialize)]
struct Requirement {
    name: String,
    req: String,
    path: Option<String>,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn deny() -> anyhow::Result<Deny> {
    Ok(toml::from_str(&std::fs::read_to_string(root().join("deny.toml"))?)?)
}

/// What is built for the first of deny.toml's targets: the other one has the same crates.
fn packages(deny: &Deny) -> anyhow::Result<Vec<Package>> {
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--locked",
            "--format-version",
            "1",
            "--filter-platform",
            &deny.graph.targets[0],
        ])
        .current_dir(root())
        .output()?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let Metadata { packages, resolve } = serde_json::from_slice(&out.stdout)?;
    let built: BTreeSet<_> = resolve.nodes.into_iter().map(|node| node.id).collect();
    Ok(packages.into_iter().filter(|package| built.contains(&package.id)).collect())
}

/// Which of `allowed` an SPDX expression is satisfied by, if it is. `/` is how old crates write OR.
fn satisfied<'a>(expression: &'a str, allowed: &BTreeSet<String>) -> Option<Vec<&'a str>> {
    let expression = expression.trim();
    if let Some(parts) = split(expression, &[" AND "]) {
        let parts: Option<Vec<_>> =
            parts.into_iter().map(|part| satisfied(part, allowed)).collect();
        return parts.map(|parts| parts.concat());
    }
    if let Some(parts) = split(expression, &[" OR ", "/"]) {
        return parts.into_iter().find_map(|part| satisfied(part, allowed));
    }
    if let Some(inner) = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        return satisfied(inner, allowed);
    }
    allowed.contains(expression).then(|| vec![expression])
}

/// At the operators that stand outside of parentheses; none if there is none.
fn split<'a>(expression: &'a str, operators: &[&str]) -> Option<Vec<&'a str>> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0);
    for (at, letter) in expression.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        let found = operators.iter().find(|operator| expression[at..].starts_with(**operator));
        if let (0, Some(operator)) = (depth, found) {
            parts.push(&expression[from..at]);
            from = at + operator.len();
        }
    }
    parts.push(&expression[from..]);
    (parts.len() > 1).then_some(parts)
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed_and_no_licence_is_allowed_in_vain() {
    let deny = deny().unwrap();
    let mut used = BTreeSet::new();
    for package in packages(&deny).unwrap().iter().filter(|package| package.source.is_some()) {
        let licence = package.license.as_deref().unwrap_or("no licence");
        let found = satisfied(licence, &deny.licenses.allow);
        used.extend(
            found
                .unwrap_or_else(|| panic!("{} is {licence}", package.name))
                .into_iter()
                .map(String::from),
        );
    }
    let unused: Vec<_> = deny.licenses.allow.difference(&used).collect();
    assert!(unused.is_empty(), "nothing needs {unused:?}");
}

#[test]
fn expressions_of_licences_are_read_as_spdx_has_them() {
    let allowed: BTreeSet<String> = ["MIT", "Unicode-3.0"].map(String::from).into();
    for (expression, expected) in [
        ("MIT", Some(vec!["MIT"])),
        ("Apache-2.0/MIT", Some(vec!["MIT"])),
        ("LGPL-2.1-only OR BSD-2-Clause", None),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", Some(vec!["MIT", "Unicode-3.0"])),
        ("(MIT OR Apache-2.0) AND BSD-3-Clause", None),
        ("MIT OR (Apache-2.0 AND Zlib)", Some(vec!["MIT"])),
    ] {
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn no_crate_is_there_in_two_versions_but_the_listed_ones() {
    let deny = deny().unwrap();
    let Denied::Deny = deny.bans.multiple_versions;
    let packages = packages(&deny).unwrap();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in &packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let found: Vec<_> = versions.keys().copied().collect();
    let listed: Vec<_> = deny.bans.skip.iter().map(|skip| skip.name.as_str()).collect();
    assert_eq!(found, listed, "versions: {versions:?}");
    assert!(deny.bans.skip.iter().all(|skip| !skip.reason.is_empty()));
}

#[test]
fn dependencies_have_a_version_and_come_from_one_registry() {
    let deny = deny().unwrap();
    let [Denied::Deny, Denied::Deny, Denied::Deny] =
        [&deny.bans.wildcards, &deny.sources.unknown_registry, &deny.sources.unknown_git];
    let packages = packages(&deny).unwrap();
    let sources: BTreeSet<_> =
        packages.iter().filter_map(|package| package.source.as_deref()).collect();
    assert!(
        sources.len() == 1 && sources.iter().all(|source| source.starts_with("registry+")),
        "{sources:?}"
    );
    for package in packages.iter().filter(|package| package.source.is_none()) {
        let wild: Vec<_> = package
            .dependencies
            .iter()
            .filter(|one| one.req == "*" && one.path.is_none())
            .collect();
        assert!(wild.is_empty(), "{} takes any version of {}", package.name, wild[0].name);
    }
}
