// SPDX-License-Identifier: Apache-2.0
//! What is where in each format.

use serde_json::{Value, json};
use tests::cluster_config::{Desk, kubectl_calls, set_by_kubectl, terraform, yaml};
use tests::command::json as parsed;

use crate::document;

#[test]
fn aws_node_of_a_cluster_without_prefixes_is_told_so() {
    let off = set_by_kubectl(&Desk::with("").config("env"));
    let expected = [
        ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "false"),
        ("ENABLE_BANDWIDTH_PLUGIN", "false"),
        ("ENABLE_POD_ENI", "false"),
        ("ENABLE_PREFIX_DELEGATION", "false"),
    ];
    assert_eq!(off, expected.map(|(name, value)| (name.into(), value.into())).into());
}

#[test]
fn ip_family_is_shown_but_not_set() {
    let text =
        document("sluice.prefix-delegation.enabled = true\nsluice.max-pods.ip-family = 'ipv6'\n");
    let desk = Desk::with(&text);
    let script = desk.config("env");
    assert!(script.contains(
        "# EKS has set, by the cluster's IP family: ENABLE_IPv4=false ENABLE_IPv6=true\n"
    ));
    assert!(!set_by_kubectl(&script).contains_key("ENABLE_IPv6"));
    let cluster = yaml(&desk.config("eksctl"));
    assert_eq!(cluster["kubernetesNetworkConfig"], json!({ "ipFamily": "IPv6" }));
    let names = cluster["addons"].as_array().expect("add-ons").iter().map(|addon| &addon["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["vpc-cni", "coredns", "kube-proxy"]);
    assert_eq!(cluster["iam"], json!({ "withOIDC": true }));
    let plain = yaml(&Desk::with("").config("eksctl"));
    assert_eq!((plain.get("kubernetesNetworkConfig"), plain.get("iam")), (None, None));
}

#[test]
fn upstream_plugin_is_switched_off_only_where_ours_takes_its_place() {
    for (lines, set) in [
        ("", true),
        ("sluice.cni.upstream-bandwidth = 'keep'\n", false),
        ("sluice.cni.mode = 'off'\n", false),
        ("sluice.bandwidth.enabled = false\n", false),
    ] {
        let desk = Desk::with(&document(lines));
        let env = set_by_kubectl(&desk.config("env"));
        assert_eq!(env.contains_key("ENABLE_BANDWIDTH_PLUGIN"), set, "{lines}");
        let kept = desk.config("").contains("ENABLE_BANDWIDTH_PLUGIN stays as it is");
        assert_eq!(kept, lines.contains("keep"), "{lines}");
    }
}

#[test]
fn every_launch_template_asks_for_imdsv2_from_the_host_alone() {
    let desk = Desk::with("");
    let template = parsed(&desk.config("launch-template"));
    let options = json!({ "HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1 });
    assert_eq!(template["MetadataOptions"], options);
    let resources = terraform(&desk.config("terraform"));
    let options = json!({ "http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1 });
    assert_eq!(resources["aws_launch_template"]["sluice"]["metadata_options"], options);
    let class = yaml(&desk.config("karpenter"));
    let options = json!({ "httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1 });
    assert_eq!(class["spec"]["metadataOptions"], options);
    assert_eq!(template.get("NetworkInterfaces"), None);
}

#[test]
fn standalone_node_gets_prefixes_for_its_pods_at_launch() {
    for (lines, options, key, count) in [
        ("sluice.max-pods.value = 58\n", "", "Ipv4PrefixCount", 4),
        ("sluice.max-pods.value = 1\n", "", "Ipv4PrefixCount", 1),
        ("sluice.max-pods.value = 34\n", "", "Ipv4PrefixCount", 2),
        ("sluice.max-pods.value = 35\n", "", "Ipv4PrefixCount", 3),
        // Six addresses on an interface, one its own.
        ("", "--instance-type t3a.medium", "Ipv4PrefixCount", 5),
        ("sluice.max-pods.value = 110\n", "--instance-type t3a.medium", "Ipv4PrefixCount", 5),
        // 110 pods, two of which have the node's address.
        ("", "--instance-type m5.xlarge", "Ipv4PrefixCount", 7),
        (
            "sluice.prefix-delegation.enabled = true\nsluice.max-pods.ip-family = 'ipv6'\n",
            "",
            "Ipv6PrefixCount",
            1,
        ),
    ] {
        let desk = Desk::with(&document(&format!("sluice.cni.mode = 'standalone'\n{lines}")));
        let template = parsed(&desk.config(&format!("launch-template {options}")));
        assert_eq!(
            template["NetworkInterfaces"],
            json!([{ "DeviceIndex": 0, key: count }]),
            "{lines}"
        );
        let resources = terraform(&desk.config(&format!("terraform {options}")));
        let key = if key.contains('6') { "ipv6_prefix_count" } else { "ipv4_prefix_count" };
        let interface = &resources["aws_launch_template"]["sluice"]["network_interfaces"];
        assert_eq!(interface, &json!({ "device_index": 0, key: count }), "{lines}");
        if key == "ipv4_prefix_count" {
            let class = yaml(&desk.config(&format!("karpenter {options}")));
            assert_eq!(class["spec"]["ipPrefixCount"], count, "{lines}");
        }
    }
}

#[test]
fn aws_node_is_kept_off_standalone_nodes() {
    let desk =
        Desk::with(&document("sluice.cni.mode = 'standalone'\nsluice.max-pods.value = 58\n"));
    let ours =
        json!({ "key": "sluice.dev/network", "operator": "NotIn", "values": ["standalone"] });
    let calls = kubectl_calls(&desk.config("env"));
    let [call] = &calls[..] else { panic!("not one call: {calls:?}") };
    let target =
        ["patch", "daemonset", "aws-node", "-n", "kube-system", "--type", "json", "--patch"];
    assert_eq!(call[..8], target);
    let path = "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                /nodeSelectorTerms/0/matchExpressions/-";
    assert_eq!(parsed(&call[8]), json!([{ "op": "add", "path": path, "value": ours }]));
    let addon = parsed(&desk.config("addon"));
    let terms = &addon["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"];
    let expressions = terms[0]["matchExpressions"].as_array().expect("expressions");
    assert!(expressions.contains(&ours));
    // Those of the chart, which ours replace.
    let chart = [
        ("kubernetes.io/os", "In", json!(["linux"])),
        ("kubernetes.io/arch", "In", json!(["amd64", "arm64"])),
        ("eks.amazonaws.com/compute-type", "NotIn", json!(["fargate", "hybrid", "auto"])),
    ];
    let chart = chart.map(
        |(key, operator, values)| json!({ "key": key, "operator": operator, "values": values }),
    );
    assert_eq!(expressions[..3], chart);
    let labels = &yaml(&desk.config("eksctl"))["managedNodeGroups"][0]["labels"];
    assert_eq!(labels, &json!({ "sluice.dev/network": "standalone" }));
}

#[test]
fn number_of_pods_is_karpenters_only_if_it_is_one_for_all() {
    let prefixes = "sluice.prefix-delegation.enabled = true\n";
    let taken =
        "sluice.max-pods.custom-networking = true\nsluice.max-pods.pod-security-groups = true\n";
    let kubelet = |lines: &str, options: &str| {
        let output = Desk::with(&document(lines)).try_config(&format!("karpenter {options}"));
        let said = String::from_utf8_lossy(&output.stdout).replace("\n  # ", " ");
        let warned = String::from_utf8_lossy(&output.stderr).contains("Karpenter gives each node");
        let class = yaml(&String::from_utf8(output.stdout).expect("UTF-8"));
        (class["spec"]["kubelet"]["maxPods"].clone(), said, warned)
    };
    for (lines, counted, rule) in [
        (
            prefixes.to_owned(),
            "without prefixes",
            "min(vcpus > 30 ? 250 : 110, default_enis * (ips_per_eni - 1) * 16 + 2)",
        ),
        (
            format!("{prefixes}{taken}"),
            "without prefixes",
            "min(vcpus > 30 ? 250 : 110, (default_enis - 2) * (ips_per_eni - 1) * 16 + 2)",
        ),
        (taken.into(), "with all ENIs", "(default_enis - 2) * (ips_per_eni - 1) + 2"),
        (
            "sluice.max-pods.max-eni = 2\n".into(),
            "with all ENIs",
            "min(default_enis, 2) * (ips_per_eni - 1) + 2",
        ),
        (
            format!("{prefixes}sluice.max-pods.ip-family = 'ipv6'\n"),
            "without prefixes",
            "vcpus > 30 ? 250 : 110",
        ),
    ] {
        let (pods, said, warned) = kubelet(&lines, "");
        assert_eq!((pods, warned), (Value::Null, true), "{lines}");
        assert!(said.contains(&format!("counted {counted} (aws/")), "{said}");
        assert!(said.contains(&format!("    maxPods: \"{rule}\"\n")), "{said}");
    }
    let (pods, said, warned) = kubelet("", "");
    assert_eq!((pods, warned), (Value::Null, false));
    assert!(said.contains("one number for all instance types.\n"), "{said}");
    for (lines, options, pods) in [
        ("sluice.max-pods.value = 58\n", "", 58),
        (prefixes, "--instance-type t3a.medium", 110),
        ("", "--instance-type t3a.medium", 17),
    ] {
        let (found, said, warned) = kubelet(lines, options);
        assert_eq!((found, warned), (pods.into(), false), "{lines}");
        assert!(!said.contains("not here"), "{said}");
        // nodeadm's formula, which it does not put on a maxPods that is given.
        let memory = format!("    kubeReserved:\n      memory: {}Mi\n", 11 * pods + 255);
        assert!(said.contains(&memory), "{said}");
    }
}

#[test]
fn names_and_image_go_where_each_format_has_them() {
    let desk = Desk::with("");
    let class = yaml(&desk.config("karpenter --cluster-name prod-1"));
    assert_eq!(class["apiVersion"], "karpenter.k8s.aws/v1");
    assert_eq!(class["kind"], "EC2NodeClass");
    let spec = &class["spec"];
    assert_eq!(spec["amiFamily"], "AL2023");
    assert_eq!(spec["role"], "KarpenterNodeRole-prod-1");
    let terms = json!([{ "tags": { "karpenter.sh/discovery": "prod-1" } }]);
    assert_eq!(
        (&spec["subnetSelectorTerms"], &spec["securityGroupSelectorTerms"]),
        (&terms, &terms)
    );
    let cluster = yaml(&desk.config("eksctl"));
    assert_eq!(cluster["metadata"], json!({ "name": "prod", "region": "eu-central-1" }));
    for name in ["", "-a", "a b", "a\"", "a:b"] {
        let mut command = desk.command();
        command.args(["cluster-config", "karpenter", "--cluster-name", name]);
        assert_eq!(command.output().expect("run sluice").status.code(), Some(2), "{name:?}");
    }
}
