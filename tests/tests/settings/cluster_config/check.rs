// SPDX-License-Identifier: Apache-2.0
//! `--check`: what aws-node has against what it should have.

use serde_json::{Value, json};
use tests::cluster_config::Desk;
use tests::command::{json as parsed, text};

use crate::document;

/// The DaemonSet as `kubectl get -o json` has it, with these variables.
fn daemon_set(env: Value) -> String {
    let other = json!({ "name": "aws-eks-nodeagent", "env": [{ "name": "WARM_IP_TARGET", "value": "99" }] });
    let ours = json!({ "name": "aws-node", "env": env });
    json!({ "kind": "DaemonSet", "spec": { "template": { "spec": { "containers": [other, ours] } } } }).to_string()
}

#[test]
fn check_names_each_difference_and_what_variables_do_to_each_other() {
    let prefixes = document("sluice.prefix-delegation.enabled = true\n");
    let variable = |name: &str, value: &str| json!({ "name": name, "value": value });
    let right =
        [variable("ENABLE_PREFIX_DELEGATION", "True"), variable("WARM_PREFIX_TARGET", "01")];
    let twice = [
        variable("ENABLE_PREFIX_DELEGATION", "false"),
        variable("WARM_PREFIX_TARGET", "1"),
        variable("ENABLE_PREFIX_DELEGATION", "true"),
    ];
    let frozen = [
        variable("ENABLE_PREFIX_DELEGATION", "true"),
        variable("WARM_PREFIX_TARGET", "1"),
        variable("MINIMUM_IP_TARGET", "10"),
    ];
    let least = [
        variable("ENABLE_PREFIX_DELEGATION", "true"),
        variable("WARM_PREFIX_TARGET", "0"),
        variable("MINIMUM_IP_TARGET", "10"),
    ];
    let zeros = [
        variable("ENABLE_PREFIX_DELEGATION", "1"),
        variable("WARM_PREFIX_TARGET", "0"),
        json!({ "name": "ENABLE_POD_ENI", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } }),
        variable("ENABLE_IPv6", "true"),
    ];
    let bounded = [&right[..], &[variable("MAX_ENI", "1")]].concat();
    let unbounded = [&right[..], &[variable("MAX_ENI", "-1")]].concat();
    let rest =
        ", which means not set; written so that an old value cannot override WARM_PREFIX_TARGET)";
    for (file, lines) in [
        (daemon_set(json!(right)), vec![]),
        (daemon_set(json!([])), vec![
            "ENABLE_PREFIX_DELEGATION: found nothing, which means \"false\", wanted \"true\" (prefix-delegation.enabled = true)".to_owned(),
            "WARM_PREFIX_TARGET: found nothing, which means \"0\", wanted \"1\" (prefix-delegation.warm-prefix-target = 1)".into(),
        ]),
        // Kubelet takes the last of one name.
        (daemon_set(json!(twice)), vec![]),
        (daemon_set(json!(frozen)), vec![
            format!("MINIMUM_IP_TARGET: found \"10\", wanted \"0\" (prefix-delegation.minimum-ip-target = 0{rest}"),
            "MINIMUM_IP_TARGET without WARM_IP_TARGET: a node never has more addresses than the minimum".into(),
        ]),
        (daemon_set(json!(zeros)), vec![
            "WARM_PREFIX_TARGET: found \"0\", wanted \"1\" (prefix-delegation.warm-prefix-target = 1)".into(),
            "ENABLE_POD_ENI: found a reference (valueFrom), which this file does not resolve, wanted \"false\" (max-pods.pod-security-groups = false)".into(),
            "ENABLE_IPv6: found \"true\", wanted \"false\" (max-pods.ip-family = \"ipv4\")".into(),
            "WARM_PREFIX_TARGET, WARM_IP_TARGET and MINIMUM_IP_TARGET are all 0: aws-node does not start so".into(),
        ]),
        // A minimum alone is enough to start with.
        (daemon_set(json!(least)), vec![
            "WARM_PREFIX_TARGET: found \"0\", wanted \"1\" (prefix-delegation.warm-prefix-target = 1)".into(),
            format!("MINIMUM_IP_TARGET: found \"10\", wanted \"0\" (prefix-delegation.minimum-ip-target = 0{rest}"),
            "MINIMUM_IP_TARGET without WARM_IP_TARGET: a node never has more addresses than the minimum".into(),
        ]),
        (daemon_set(json!(bounded)), vec![
            "MAX_ENI: found \"1\", wanted \"0\" (max-pods.max-eni = 0, which is not set: all that the instance type has)".into(),
        ]),
        (daemon_set(json!(unbounded)), vec![]),
        // The chart has WARM_PREFIX_TARGET, and the add-on no word for the family.
        (json!({ "env": { "ENABLE_PREFIX_DELEGATION": "true" } }).to_string(), vec![]),
        (json!({ "env": { "ENABLE_PREFIX_DELEGATION": "true", "WARM_IP_TARGET": "5" } }).to_string(), vec![
            format!("WARM_IP_TARGET: found \"5\", wanted \"0\" (prefix-delegation.warm-ip-target = 0{rest}"),
        ]),
    ] {
        let desk = Desk::with(&prefixes);
        let path = desk.put("found.json", file.as_bytes()).display().to_string();
        let output = desk.try_config(&format!("--check {path}"));
        let status = i32::from(!lines.is_empty());
        let lines = if lines.is_empty() { vec!["no differences".into()] } else { lines };
        let lines: String = lines.iter().map(|line| format!("{path}: {line}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), lines);
        assert_eq!(output.status.code(), Some(status), "{}", text(&output));
    }
}

#[test]
fn check_knows_what_aws_node_has_without_a_variable() {
    let custom = document("sluice.max-pods.custom-networking = true\n");
    let ipv6 = "sluice.prefix-delegation.enabled = true\nsluice.max-pods.ip-family = 'ipv6'\n";
    let ipv6 = document(ipv6);
    for (settings, name, default) in [
        (&custom, "ENI_CONFIG_LABEL_DEF", "k8s.amazonaws.com/eniConfig"),
        (&ipv6, "ENABLE_IPv4", "true"),
        (&ipv6, "ENABLE_IPv6", "false"),
    ] {
        let desk = Desk::with(settings);
        let path = desk.put("found.json", daemon_set(json!([])).as_bytes());
        let output = desk.try_config(&format!("--check {}", path.display()));
        let said = String::from_utf8_lossy(&output.stdout);
        let line = format!("{name}: found nothing, which means {default:?}, wanted ");
        assert!(said.contains(&line), "{said}");
        // The add-on has no word for the family.
        let addon = desk.put("addon.json", desk.config("addon").as_bytes());
        let output = desk.try_config(&format!("--check {}", addon.display()));
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn check_refuses_what_is_no_aws_node() {
    let shape = "neither a DaemonSet with a container aws-node (kubectl get daemonset aws-node -n \
                 kube-system -o json) nor configuration values of vpc-cni, an object with \"env\"";
    for (file, said) in [
        ("{}", shape),
        ("[]", shape),
        ("{\"kind\": \"Deployment\", \"env\": {}}", shape),
        ("{\"kind\": \"DaemonSet\"}", shape),
        (
            "{\"env\": {\"WARM_IP_TARGET\": 5}}",
            "env WARM_IP_TARGET is no text; the add-on takes text alone, also for numbers",
        ),
    ] {
        let desk = Desk::with(&document(""));
        let path = desk.put("found.json", file.as_bytes()).display().to_string();
        let output = desk.try_config(&format!("--check {path}"));
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            format!("sluice: error: read {path}: {said}\n")
        );
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn check_finds_aws_node_that_may_run_on_standalone_nodes() {
    let standalone = document("sluice.cni.mode = 'standalone'\nsluice.max-pods.value = 9\n");
    let ours =
        json!({ "key": "sluice.dev/network", "operator": "NotIn", "values": ["standalone"] });
    let other = json!({ "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] });
    let term = |expressions: &[&Value]| json!({ "matchExpressions": expressions });
    for (terms, kept_off) in [
        (json!([term(&[&other, &ours])]), true),
        (json!([term(&[&other, &ours]), term(&[&ours])]), true),
        (json!([term(&[&other, &ours]), term(&[&other])]), false),
        (json!([term(&[&other])]), false),
        (json!([]), false),
    ] {
        let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } });
        let mut set = parsed(&daemon_set(json!([])));
        set["spec"]["template"]["spec"]["affinity"] = affinity.clone();
        for file in [set, json!({ "affinity": affinity })] {
            let desk = Desk::with(&standalone);
            let path = desk.put("found.json", file.to_string().as_bytes());
            let output = desk.try_config(&format!("--check {}", path.display()));
            assert_eq!(output.status.success(), kept_off, "{file}\n{}", text(&output));
            assert_eq!(output.stdout.ends_with(b": no differences\n"), kept_off);
        }
    }
}
