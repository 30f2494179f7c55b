// SPDX-License-Identifier: Apache-2.0
//! `sluice max-pods` as people and programs use it, on the node and off it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tests::command::{executable, text};

const CSV: &str = include_str!("../../../data/ec2-instances.csv");

fn run(arguments: &[&str]) -> Output {
    Command::new(executable("sluice")).args(arguments).output().expect("run sluice")
}

fn max_pods(arguments: &[&str]) -> String {
    let output = run(&[&["max-pods"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What standard error says.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A node with these files below a root of its own.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("make a root");
    for (file, text) in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make directories");
        fs::write(path, text).expect("write a file");
    }
    root
}

fn on(root: &Path, arguments: &[&str]) -> Output {
    run(&[&["--root", root.to_str().expect("UTF-8"), "max-pods"], arguments].concat())
}

#[test]
fn every_type_is_listed_with_its_numbers() {
    let all: Value = serde_json::from_str(&max_pods(&["--all", "--json"])).expect("JSON");
    let all = all["types"].as_array().expect("types").clone();
    let expected = CSV.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |at: usize| fields[at].parse::<u64>().ok();
        let (enis, ipv4, vcpus) = (number(1).unwrap(), number(2).unwrap(), number(5));
        let supported = fields[3] == "nitro" || fields[4] == "true";
        let standard = enis * (ipv4 - 1) + 2;
        let prefixes = if supported { enis * (ipv4 - 1) * 16 + 2 } else { standard };
        let cap = if vcpus > Some(30) { 250 } else { 110 };
        let capped = if supported { prefixes.min(cap) } else { standard.min(1000) };
        json!({
            "instance_type": fields[0], "standard": standard, "prefix_delegation": prefixes,
            "capped": capped, "vcpus": vcpus, "prefix_delegation_supported": supported,
        })
    });
    let expected: Vec<_> = expected.collect();
    assert_eq!(all.len(), expected.len());
    for (row, expected) in all.iter().zip(&expected) {
        assert_eq!(row, expected);
    }
    assert_eq!(max_pods(&["--all"]).lines().count(), expected.len() + 1);
}

#[test]
fn explanation_shows_every_number_of_a_t3a_medium() {
    let explained = max_pods(&["--instance-type", "t3a.medium", "--explain"]);
    let lines: Vec<&str> = explained.lines().collect();
    assert_eq!(
        lines[..7],
        [
            "17",
            "",
            "instance type      t3a.medium",
            "standard           3 ENIs × (6 − 1) addresses + 2 = 17",
            "prefix delegation  3 ENIs × (6 − 1) prefixes × 16 addresses + 2 = 242, capped to 110",
            "cap                none but Sluice's own, 1000: secondary addresses are the limit",
            "max-pods           min(17, 1000) = 17",
        ]
    );
    assert_eq!(max_pods(&["--instance-type", "t3a.medium", "--prefix-delegation"]), "110\n");
}

#[test]
fn node_is_asked_for_its_type_and_settings_are_those_of_the_image() {
    let node = root(&[
        ("sys/class/dmi/id/sys_vendor", "Amazon EC2\n"),
        ("sys/class/dmi/id/product_name", "m8idb.12xlarge\n"),
        ("sys/devices/system/cpu/online", "0-47\n"),
        (
            "usr/share/sluice/defaults.toml",
            "sluice.version = 1\nsluice.prefix-delegation.enabled = true\n",
        ),
    ]);
    let output = on(node.path(), &["--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["instance_type"], "m8idb.12xlarge", "{}", text(&output));
    // The table has no vCPUs for it, the kernel has.
    assert_eq!((&answer["vcpus"], &answer["max_pods"]), (&json!(48), &json!(250)));
    let document = node.path().join("user-data.toml");
    fs::write(&document, "sluice.version = 1\nsluice.max-pods.value = 58\n").expect("write");
    let output = on(node.path(), &["--user-data", document.to_str().expect("UTF-8")]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "58\n");
}

#[test]
fn what_is_not_known_is_said() {
    let output = run(&["max-pods", "--instance-type", "zz9.large"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "110\n");
    let types = CSV.lines().count() - 1;
    assert_eq!(
        said(&output),
        format!(
            "sluice: warn: instance type \"zz9.large\" is not in this image's table of {types}: 110 \
             pods are assumed, which may be more than it has addresses for; give max-pods.value, or \
             take a newer image\n"
        )
    );
    let output = on(root(&[]).path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "sluice: error: not an EC2 instance: give --instance-type TYPE\n";
    assert_eq!(said(&output), expected);
}

/// An AL2023 node before nodeadm runs; its user data is the file `user-data`.
fn al2023(user_data: &str) -> tempfile::TempDir {
    root(&[
        ("sys/class/dmi/id/sys_vendor", "Amazon EC2\n"),
        ("sys/class/dmi/id/product_name", "t3a.medium\n"),
        ("etc/cni/net.d/10-aws.conflist", r#"{"name":"aws-cni","plugins":[{"type":"aws-cni"}]}"#),
        (
            "etc/systemd/system/nodeadm-run.service",
            "[Service]\nType=oneshot\nExecStart=/usr/bin/nodeadm init --skip config \
             --config-source imds://user-data --config-source file:///etc/eks/nodeadm.d/\n",
        ),
        ("user-data", user_data),
    ])
}

fn boot(node: &Path) -> Output {
    Command::new(executable("sluice"))
        .arg("--root")
        .arg(node)
        .args(["boot", "--user-data"])
        .arg(node.join("user-data"))
        .arg("--plugin")
        .arg(executable("sluice-cni"))
        .output()
        .expect("run sluice")
}

fn in_force(node: &Path) -> Value {
    let text = fs::read(node.join("run/sluice/boot.json")).expect("what is in force");
    serde_json::from_slice(&text).expect("JSON")
}

const FRAGMENT: &str = "etc/eks/nodeadm.d/00-sluice.yaml";
const PREFIXES: &str = "[sluice]\nversion = 1\nprefix-delegation.enabled = true\n";

/// User data with a NodeConfig of this kubelet table, and our settings.
fn mime(kubelet: &str, settings: &str) -> String {
    format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"B\"\n\n--B\n\
         Content-Type: application/node.eks.aws\n\napiVersion: node.eks.aws/v1alpha1\n\
         kind: NodeConfig\nspec:\n  kubelet:\n    {kubelet}\n--B\n\
         Content-Type: application/toml\n\n{settings}\n--B--\n"
    )
}

#[test]
fn boot_tells_kubelet_the_number_and_says_where() {
    let node = al2023(PREFIXES);
    let output = boot(node.path());
    assert!(output.status.success(), "{}", text(&output));
    let fragment = fs::read_to_string(node.path().join(FRAGMENT)).expect("the fragment");
    assert!(fragment.contains("maxPods: 110"), "{fragment}");
    let said = said(&output);
    assert!(
        said.contains("sluice: info: max-pods 110: nodeadm reads /etc/eks/nodeadm.d"),
        "{said}"
    );
    let max_pods = &in_force(node.path())["max_pods"];
    assert_eq!(max_pods["pods"], 110);
    assert_eq!(max_pods["capacity"], 240);
    // The same again changes nothing; other settings change the number; none of them restore the tree.
    let again = boot(node.path());
    assert!(!String::from_utf8_lossy(&again.stderr).contains("wrote"), "{}", text(&again));
    fs::write(node.path().join("user-data"), "[sluice]\nversion = 1\n").expect("write");
    assert!(boot(node.path()).status.success());
    let fragment = fs::read_to_string(node.path().join(FRAGMENT)).expect("the fragment");
    assert!(fragment.contains("maxPods: 17"), "{fragment}");
    let none = "[sluice]\nversion = 1\nmax-pods.kubelet = 'none'\n";
    fs::write(node.path().join("user-data"), none).expect("write");
    assert!(boot(node.path()).status.success());
    assert!(!node.path().join("etc/eks").exists());
}

#[test]
fn number_of_a_node_config_holds_and_one_without_addresses_is_warned_of() {
    let node = al2023(&mime("config: {maxPods: 300}", PREFIXES));
    let output = boot(node.path());
    assert!(output.status.success(), "{}", text(&output));
    assert!(!node.path().join(FRAGMENT).exists());
    assert_eq!(in_force(node.path())["max_pods"]["pods"], 300);
    let said = said(&output);
    let warning = "gives kubelet 300 pods, but t3a.medium never has addresses for more than 242 \
                   with these settings: 58 would wait in ContainerCreating";
    assert!(said.lines().any(|l| l.contains("user-data part 1") && l.contains(warning)), "{said}");
}

/// As where Karpenter has counted without prefixes.
#[test]
fn lower_number_of_a_node_config_holds_and_is_told() {
    let node = al2023(&mime("config: {maxPods: 17}", PREFIXES));
    let output = boot(node.path());
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(in_force(node.path())["max_pods"]["pods"], 17);
    let warnings = in_force(node.path())["warnings"].to_string();
    let expected = "gives kubelet 17 pods; by these settings the node takes 110";
    assert!(warnings.contains(expected), "{warnings}");
}

#[test]
fn contradiction_is_refused_with_both_places_and_takes_no_limit_away() {
    let ours = "[sluice]\nversion = 1\nmax-pods.value = 58\nbandwidth.default-egress = '1Mbit'\n";
    let node = al2023(&mime("config: {maxPods: 110}", ours));
    let output = boot(node.path());
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    let said = said(&output);
    let first = said.lines().next().expect("an error");
    assert!(first.contains("the settings give kubelet 58 pods"), "{first}");
    assert!(first.contains("user-data part 1") && first.contains("gives it 110"), "{first}");
    let in_force = in_force(node.path());
    assert_eq!(
        (&in_force["reason"], &in_force["max_pods"]["pods"]),
        (&json!("as-asked"), &json!(110))
    );
    assert_eq!(in_force["unmet"][0]["code"], "max-pods");
    let settings = fs::read_to_string(node.path().join("run/sluice/settings.toml"));
    let settings = settings.expect("settings");
    assert!(settings.contains("default-egress = \"1Mbit\""), "{settings}");
    assert!(!node.path().join(FRAGMENT).exists());
}

/// Of user data with a NodeConfig of this kubelet table, what `check` and `boot` exit with.
fn verdicts(kubelet: &str, settings: &str) -> [Option<i32>; 2] {
    let node = al2023(&mime(kubelet, settings));
    let document = node.path().join("user-data");
    let checked = run(&["check", document.to_str().expect("UTF-8")]);
    if checked.status.code() == Some(78) {
        assert!(said(&checked).contains("user-data part 1:"), "{}", text(&checked));
    }
    [checked.status.code(), boot(node.path()).status.code()]
}

#[test]
fn check_says_of_one_document_what_boot_says_of_it() {
    let value = |lines: &str| format!("[sluice]\nversion = 1\n{lines}\n");
    for (kubelet, settings, status) in [
        ("config: {maxPods: 29}", value("max-pods.value = 58"), 78),
        ("config: {maxPods: 29}", value("max-pods.value = 58\nmax-pods.kubelet = 'none'"), 78),
        ("config: {maxPods: 58}", value("max-pods.value = 58"), 0),
        ("config: {maxPods: 29}", value(""), 0),
        ("maxPodsExpression: \"29\"", value("max-pods.value = 58"), 78),
        ("flags: [\"--max-pods=29\"]", value("max-pods.value = 58"), 78),
        ("flags: [--v=2, --max-pods, '58']", value("max-pods.value = 58"), 0),
        ("maxPodsExpression: max_pods", value("max-pods.value = 58"), 0),
        ("config: {clusterDNS: [10.0.0.10]}", value("max-pods.value = 58"), 0),
    ] {
        assert_eq!(verdicts(kubelet, &settings), [Some(status); 2], "{kubelet}: {settings}");
    }
    let both = "[settings.kubernetes]\nmax-pods = 58\n[settings.sluice]\nversion = 1\n";
    assert_eq!(verdicts("config: {maxPods: 29}", both), [Some(78); 2]);
}

#[test]
fn contradiction_of_one_document_is_a_problem_for_programs_too() {
    let ours = "[sluice]\nversion = 1\nmax-pods.value = 58\n";
    let node = al2023(&mime("config: {maxPods: 29}", ours));
    let document = node.path().join("user-data");
    let checked = run(&["check", "--json", document.to_str().expect("UTF-8")]);
    assert_eq!(checked.status.code(), Some(78), "{}", text(&checked));
    let verdict: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    let problem = &verdict["problems"][0];
    assert_eq!(
        (&problem["code"], &problem["key"], &problem["line"]),
        (&json!("max-pods-differ"), &json!("max-pods.value"), &json!(3))
    );
    assert!(problem["message"].as_str().is_some_and(|m| m.contains("gives it 29")), "{problem}");
}

#[test]
fn machine_that_is_no_instance_keeps_its_kubelet_as_it_is() {
    let node = al2023(PREFIXES);
    fs::remove_dir_all(node.path().join("sys")).expect("remove the firmware");
    assert!(boot(node.path()).status.success());
    assert!(!node.path().join("etc/eks").exists());
    assert_eq!(in_force(node.path())["max_pods"], Value::Null);
}

#[test]
fn misspelt_type_is_refused_and_one_that_is_newer_than_the_table_is_not() {
    let root = tempfile::tempdir().expect("a directory");
    for (name, meant) in
        [("m6i.larg", "m6i.large"), ("M6I.Large", "m6i.large"), ("t3a.mediun", "t3a.medium")]
    {
        let output = on(root.path(), &["--instance-type", name]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = format!("--instance-type {name}: no such type; did you mean {meant}?\n");
        assert!(said.ends_with(&expected), "{said}");
    }
    let newer = on(root.path(), &["--instance-type", "m99i.large"]);
    assert_eq!((newer.status.code(), &newer.stdout[..]), (Some(0), &b"110\n"[..]));
}
