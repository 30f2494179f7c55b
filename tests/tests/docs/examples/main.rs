// SPDX-License-Identifier: Apache-2.0
//! What `examples/` shows, read by real parsers of its formats; its shell
//! commands by bash, its settings by `sluice check`.

mod flatcar;
mod karpenter;
mod managed;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tests::cluster_config::Desk;
use tests::command::{executable, output, text};

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(example(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Every text below a value, in the order in which it is written.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => vec![],
    }
}

/// What stands between `open` and `close`, wherever it is in a text.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> BTreeSet<&'a str> {
    text.split(open).skip(1).filter_map(|rest| Some(rest.split_once(close)?.0.trim())).collect()
}

fn expect_bash(commands: &[&str]) {
    let parsed = output("bash", &["-n", "-c", &commands.join("\n")]);
    assert!(parsed.status.success() && parsed.stderr.is_empty(), "{}", text(&parsed));
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|v| v.as_str().expect("a text")).collect()
}

#[test]
fn packer_template_is_hcl_whose_references_are_declared() {
    let source = read("packer/eks-al2023.pkr.hcl");
    let template: Value = hcl::from_str(&source).expect("HCL");
    let declared: BTreeSet<_> =
        template["variable"].as_object().expect("variables").keys().map(String::as_str).collect();
    let used: BTreeSet<_> = source
        .split("var.")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
        .collect();
    assert_eq!(used, declared);
    assert_eq!(template["build"]["sources"][0], "source.amazon-ebs.node");
    assert_eq!(
        template["source"]["amazon-ebs"]["node"]["metadata_options"]["http_tokens"],
        "required"
    );
    expect_bash(&strings(&template["build"]["provisioner"]["shell"]["inline"]));
}

#[test]
fn image_builder_component_has_the_phases_and_actions_that_there_are() {
    let source = read("image-builder/sluice.yaml");
    let component: Value = serde_saphyr::from_str(&source).expect("YAML");
    assert_eq!(component["schemaVersion"], 1.0);
    let phases = component["phases"].as_array().expect("phases");
    let names: Vec<_> = phases.iter().map(|phase| phase["name"].as_str().unwrap_or("")).collect();
    assert_eq!(names, ["build", "validate", "test"]);
    for step in phases.iter().flat_map(|phase| phase["steps"].as_array().expect("steps")) {
        match step["action"].as_str() {
            Some("ExecuteBash") => expect_bash(&strings(&step["inputs"]["commands"])),
            Some("S3Download") => assert!(step["inputs"][0]["destination"].is_string(), "{step}"),
            other => panic!("{other:?} is no action that is known here"),
        }
    }
    let parameters = component["parameters"].as_array().expect("parameters");
    let declared: BTreeSet<_> = parameters
        .iter()
        .flat_map(|parameter| parameter.as_object().expect("one name").keys().map(String::as_str))
        .collect();
    let phases = component["phases"].to_string();
    assert_eq!(between(&phases, "{{", "}}"), declared);
    assert!(texts(&component).iter().all(|text| !text.is_empty()));
}

#[test]
fn settings_of_examples_and_of_packages_are_valid() {
    for file in ["packer/settings.toml", "flatcar/settings.toml", "../packaging/defaults.toml"] {
        expect_settings(&example(file));
    }
}

/// `sluice check` says nothing but what it read: neither a problem, nor a warning, nor that there is no part of ours.
fn expect_settings(document: &Path) {
    let sluice = executable("sluice");
    let sluice = sluice.to_str().expect("path is UTF-8");
    let checked = output(sluice, &["check", document.to_str().expect("path is UTF-8")]);
    let said = String::from_utf8_lossy(&checked.stdout);
    let read = said.lines().count() == 1 && said.contains(" for sluice; limits: ");
    let fine = checked.status.success() && checked.stderr.is_empty() && read;
    assert!(fine, "{}: {}", document.display(), text(&checked));
}

/// User data that is valid, and limits pods.
fn expect_limits(user_data: &str) {
    assert!(user_data.len() <= 16 * 1024, "EC2 takes no more than 16 KiB");
    let desk = Desk::with("");
    expect_settings(&desk.put("document", user_data.as_bytes()));
    let settings = desk.settings_of(user_data);
    assert_ne!(settings["bandwidth"]["default-egress"], "unlimited", "{user_data}");
}

/// The commands that comments show (`#   aws …`), or a Markdown file (indented by four).
fn commands<'a>(text: &'a str, indent: &'a str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(indent)).collect()
}

/// Documents of YAML in types that know the fields of their API, and refuse others.
fn documents<T: DeserializeOwned>(source: &str) -> Vec<T> {
    serde_saphyr::from_multiple(source).unwrap_or_else(|e| panic!("{e}"))
}

fn document<T: DeserializeOwned>(source: &str) -> T {
    let mut all = documents(source);
    assert_eq!(all.len(), 1);
    all.remove(0)
}
