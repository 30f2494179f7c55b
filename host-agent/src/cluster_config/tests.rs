// SPDX-License-Identifier: Apache-2.0
//! Whole outputs: each testdata/cluster-config/CASE has `settings.toml`, and
//! beside it what the formats make of it, for Amazon Linux 2023 or, in a case
//! named so, Bottlerocket. `UPDATE_GOLDEN=1` rewrites; a file that is no
//! format's fails. What the outputs mean is tests/tests/settings/cluster_config/'.

use std::fs;
use std::path::{Path, PathBuf};

use settings_model::merge;

use super::cluster::Cluster;
use super::user_data::Os;
use super::*;

const DESCRIBED: &str = r#"{"cluster": {"name": "prod", "arn": "arn:aws:eks:eu-central-1:1:cluster/prod",
    "endpoint": "https://ENDPOINT.eks.amazonaws.com", "certificateAuthority": {"data": "Q0E="},
    "kubernetesNetworkConfig": {"serviceIpv4Cidr": "10.100.0.0/16", "ipFamily": "ipv4"}}}"#;

#[test]
fn what_is_no_description_of_a_cluster_is_refused() {
    for (from, to, why) in [
        ("{", "[", "this is not what `aws eks describe-cluster"),
        ("prod\", \"arn", "pr\\\"od\", \"arn", "cannot be from EKS"),
        ("eu-central-1", "", "arn has no region"),
        ("serviceIpv4Cidr", "other", "no serviceIpv4Cidr"),
    ] {
        let error = Cluster::read(&DESCRIBED.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// Every format by the name of its file, as it is printed.
fn outputs(settings: &str, os: Os) -> Vec<(&'static str, String)> {
    let cluster = Cluster::read(DESCRIBED).unwrap();
    let effective = merge(&[("settings.toml", settings)]).unwrap();
    let wanted = ClusterNeeds::new(&effective, None);
    let template = launch_template::text(&wanted, os, &cluster, "ami-0123456789abcdef0");
    let karpenter = karpenter::text(&wanted, "CLUSTER", os);
    let karpenter = karpenter.map(|text| ("karpenter.yaml", text));
    let mut outputs = vec![
        ("overview.txt", overview::text(&wanted)),
        ("env.sh", env::text(&wanted)),
        ("addon.json", addon::text(&wanted)),
        ("terraform.tf", terraform::text(&wanted, os).unwrap()),
        ("launch-template.json", template.unwrap()),
        ("eksctl.yaml", eksctl::text(&wanted, &cluster, "lt-0123456789abcdef0")),
    ];
    assert_eq!(karpenter.is_err(), os == Os::Bottlerocket);
    outputs.extend(karpenter);
    outputs
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    paths
}

/// What is wrong with one case, if anything.
fn check(case: &Path) -> Vec<String> {
    let settings = fs::read_to_string(case.join("settings.toml")).unwrap();
    let os = if case.ends_with("bottlerocket") { Os::Bottlerocket } else { Os::Al2023 };
    let outputs = outputs(&settings, os);
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    for (name, actual) in &outputs {
        let path = case.join(name);
        if update {
            fs::write(&path, actual).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if expected != *actual {
            wrong.push(format!("{}\n--- actual\n{actual}", path.display()));
        }
    }
    assert_eq!(entries(case).len(), outputs.len() + 1, "unused files in {}", case.display());
    wrong
}

#[test]
fn outputs_are_as_reviewed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cluster-config");
    let cases = entries(&folder);
    let wrong: Vec<_> = cases.iter().flat_map(|case| check(case)).collect();
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 rewrites", wrong.join("\n"));
    assert_eq!(cases.len(), 3);
}

#[test]
fn comments_are_wrapped_between_words_and_lose_none() {
    let text = "word ".repeat(60) + &"x".repeat(120) + " end";
    let lines = comment(4, &text);
    assert!(lines.lines().all(|line| line.starts_with("    # ")));
    assert!(lines.lines().all(|line| line.len() <= 100 || line.ends_with(&"x".repeat(120))));
    let words = lines.replace("    # ", " ");
    assert!(words.split_whitespace().eq(text.split_whitespace()));
}

#[test]
fn warnings_of_the_instance_type_are_notes() {
    let effective = merge(&[("t", "sluice = { version = 1, prefix-delegation.enabled = true }")]);
    let micro = Instance::find("t1.micro").unwrap();
    let notes = ClusterNeeds::new(&effective.unwrap(), Some(&micro)).notes;
    let said = "t1.micro cannot have delegated prefixes (xen hypervisor): pods have secondary \
                addresses, which are fewer";
    assert!(notes.iter().any(|note| note == said), "{notes:?}");
}
