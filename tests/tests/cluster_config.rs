// SPDX-License-Identifier: Apache-2.0
//! What `sluice cluster-config` prints means the same to every reader, and
//! what the settings mean; user data in it gives the settings back.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use tests::cluster_config::{
    Desk, Env, env, from_base64, kubectl_calls, set_by_kubectl, terraform, yaml,
};
use tests::command::{executable, json as parsed, run, text};

const HEAD: &str = "[settings.sluice]\nversion = 1\n";

fn document(lines: &str) -> String {
    format!("sluice.version = 1\n{lines}")
}

/// Directories that trouble shells, TOML, YAML and HCL.
const NASTY: &[&str] = &[
    "/etc/cni/net.d",
    "/${var.x}/%{if}/$${y}/\\\\n",
    "/it's \\\"quoted\\\" # not a comment",
    "/\\u0007\\t\\n--SLUICE--\\nEOT\\nMIME-Version: 1.0",
    "/größe\\u0085\\u2028\\u2029\\u007f\\ufeff: - {}",
];

prop_compose! {
    /// Settings that are allowed, over all that matters to the cluster and some that does not.
    fn settings()(
        delegates: bool,
        warm_prefixes in prop::option::of(1..=16u16),
        warm in prop_oneof![Just(0u16), 1..=1000u16],
        minimum in prop_oneof![Just(0u16), 1..=1000u16],
        family in prop::option::of(select(&["ipv4", "ipv6"][..])),
        custom in prop::option::of(any::<bool>()),
        groups in prop::option::of(any::<bool>()),
        pods in prop::option::of(1..=1000u16),
        foreign: bool,
        mode in select(&["chain", "chain", "off", "standalone"][..]),
        upstream in prop::option::of(select(&["replace", "keep"][..])),
        shapes: bool,
        dir in select(NASTY),
        class in prop::option::of(select(&["batch", "b-1"][..])),
    ) -> String {
        // What settings-model refuses.
        let minimum = if warm == 0 { 0 } else { minimum };
        let family = family.filter(|family| delegates || *family == "ipv4");
        let custom = custom.filter(|_| family != Some("ipv6"));
        let mut text = document(&format!(
            "sluice.prefix-delegation.enabled = {delegates}\nsluice.cni.mode = '{mode}'\n\
             sluice.cni.conf-dir = \"{dir}\"\nsluice.bandwidth.enabled = {shapes}\n"
        ));
        let mut add = |key: &str, value: Option<String>| {
            text.extend(value.map(|value| format!("sluice.{key} = {value}\n")));
        };
        let quoted = |text: &str| format!("'{text}'");
        add("prefix-delegation.warm-prefix-target", warm_prefixes.map(|n| n.to_string()));
        add("prefix-delegation.warm-ip-target", (warm > 0).then(|| warm.to_string()));
        add("prefix-delegation.minimum-ip-target", (minimum > 0).then(|| minimum.to_string()));
        add("max-pods.ip-family", family.map(quoted));
        add("max-pods.custom-networking", custom.map(|on| on.to_string()));
        add("max-pods.pod-security-groups", groups.map(|on| on.to_string()));
        add("max-pods.value", pods.filter(|_| !foreign).map(|pods| pods.to_string()));
        add("cni.upstream-bandwidth", upstream.map(quoted));
        add("bandwidth.class", class.map(|name| {
            format!("[{{ name = '{name}', namespaces = ['a-*', '*-b'], egress = '1.5Gibit' }}]")
        }));
        text.extend(pods.filter(|_| foreign).map(|n| format!("settings.kubernetes.max-pods = {n}\n")));
        text
    }
}

/// What aws-node must have, said anew.
fn wanted(settings: &Value) -> Env {
    let (delegation, max_pods) = (&settings["prefix-delegation"], &settings["max-pods"]);
    let mut env = Env::new();
    let mut put = |name: &str, value: &Value| {
        let text = value.as_str().map_or(value.to_string(), Into::into);
        env.insert(name.into(), text);
    };
    put("ENABLE_PREFIX_DELEGATION", &delegation["enabled"]);
    if delegation["enabled"] == true {
        put("WARM_IP_TARGET", &delegation["warm-ip-target"]);
        put("MINIMUM_IP_TARGET", &delegation["minimum-ip-target"]);
        if delegation["warm-ip-target"] == 0 {
            put("WARM_PREFIX_TARGET", &delegation["warm-prefix-target"]);
        }
    }
    put("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", &max_pods["custom-networking"]);
    if max_pods["custom-networking"] == true {
        put("ENI_CONFIG_LABEL_DEF", &"topology.kubernetes.io/zone".into());
    }
    put("ENABLE_POD_ENI", &max_pods["pod-security-groups"]);
    let cni = &settings["cni"];
    if cni["mode"] == "chain"
        && cni["upstream-bandwidth"] == "replace"
        && settings["bandwidth"]["enabled"] == true
    {
        put("ENABLE_BANDWIDTH_PLUGIN", &"false".into());
    }
    env
}

/// validateEnvVars of the VPC CNI, which compares text.
fn starts(env: &Env) -> bool {
    let zero = |name| env.get(name).map_or("0", String::as_str) <= "0";
    let none = zero("WARM_PREFIX_TARGET") && zero("WARM_IP_TARGET") && zero("MINIMUM_IP_TARGET");
    env["ENABLE_PREFIX_DELEGATION"] != "true" || !none
}

fn number(env: &Env, name: &str) -> u32 {
    env.get(name).map_or(0, |text| text.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_format_says_the_same_of_aws_node(document in settings()) {
        let desk = Desk::with(&document);
        let settings = desk.settings_of(&document);
        let addon = parsed(&desk.config("addon"));
        let resources = terraform(&desk.config("terraform --instance-type m5.large"));
        let values = &resources["aws_eks_addon"]["vpc_cni"]["configuration_values"];
        prop_assert_eq!(&parsed(values.as_str().expect("text")), &addon);
        let cluster = yaml(&desk.config("eksctl"));
        prop_assert_eq!(&cluster["addons"][0]["name"], "vpc-cni");
        let values = cluster["addons"][0]["configurationValues"].as_str().expect("text");
        prop_assert_eq!(&parsed(values), &addon);
        let script = desk.config("env");
        if settings["cni"]["mode"] == "standalone" {
            prop_assert_eq!(addon.get("env"), None);
            return Ok(());
        }
        prop_assert_eq!(&env(&addon), &wanted(&settings));
        prop_assert_eq!(&set_by_kubectl(&script), &wanted(&settings));
    }

    #[test]
    fn aws_node_starts_and_grows_with_whatever_is_printed(document in settings()) {
        let desk = Desk::with(&document.replace("'standalone'", "'chain'"));
        let env = set_by_kubectl(&desk.config("env"));
        prop_assert!(starts(&env), "{env:?}");
        let (warm, minimum) = (number(&env, "WARM_IP_TARGET"), number(&env, "MINIMUM_IP_TARGET"));
        prop_assert!(minimum == 0 || warm > 0, "frozen: {env:?}");
        prop_assert!(warm == 0 || !env.contains_key("WARM_PREFIX_TARGET"), "overridden: {env:?}");
        // Beside whatever variables were there before, which `set env` leaves as they are.
        let mut after = Env::from([("WARM_IP_TARGET".into(), "7".into()), ("WARM_PREFIX_TARGET".into(), "1".into())]);
        let without = after.clone();
        after.extend(env.clone());
        if env["ENABLE_PREFIX_DELEGATION"] == "true" {
            prop_assert!(starts(&after));
            prop_assert_eq!(number(&after, "WARM_IP_TARGET"), warm);
        } else {
            prop_assert_eq!(&after["WARM_IP_TARGET"], &without["WARM_IP_TARGET"]);
        }
    }

    #[test]
    fn user_data_in_every_format_gives_the_settings_back(
        document in settings(), os in select(&["al2023", "bottlerocket"][..]),
    ) {
        let desk = Desk::with(&document);
        let settings = desk.settings_of(&document);
        let options = format!("--os {os} --instance-type m5.large");
        let template = parsed(&desk.config(&format!("launch-template {options}")));
        let user_data = from_base64(&template["UserData"]);
        prop_assert_eq!(&desk.settings_of(&user_data), &settings, "{}", user_data);
        prop_assert_eq!(user_data.starts_with("MIME-Version: 1.0\n"), os == "al2023");
        // Ends of lines for YAML 1.1, what TOML forbids, and templates for HCL.
        let foreign = ["\u{85}", "\u{2028}", "\u{2029}", "\u{feff}", "\u{7f}", "${", "%{"];
        prop_assert!(!foreign.iter().any(|text| user_data.contains(text)), "{:?}", user_data);
        let resources = terraform(&desk.config(&format!("terraform {options}")));
        prop_assert_eq!(&from_base64(&resources["aws_launch_template"]["sluice"]["user_data"]), &user_data);
        let standalone = settings["cni"]["mode"] == "standalone";
        if !(standalone && settings["max-pods"]["ip-family"] == "ipv6") {
            let class = yaml(&desk.config(&format!("karpenter {options}")));
            prop_assert_eq!(class["spec"]["userData"].as_str(), Some(&*user_data));
            let pods = &class["spec"]["kubelet"]["maxPods"];
            let value = &settings["max-pods"]["value"];
            prop_assert!(pods == value || value == "auto");
        }
    }

    #[test]
    fn what_is_printed_passes_its_own_check(document in settings()) {
        let desk = Desk::with(&document);
        let file = desk.put("addon.json", desk.config("addon").as_bytes());
        let output = desk.try_config(&format!("--check {}", file.display()));
        prop_assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output));
    }
}

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
    }
}

#[test]
fn names_and_image_go_where_each_format_has_them() {
    let desk = Desk::with("");
    let class = yaml(&desk.config("karpenter --cluster-name prod-1 --os bottlerocket"));
    assert_eq!(class["apiVersion"], "karpenter.k8s.aws/v1");
    assert_eq!(class["kind"], "EC2NodeClass");
    let spec = &class["spec"];
    assert_eq!(spec["amiFamily"], "Bottlerocket");
    assert_eq!(spec["role"], "KarpenterNodeRole-prod-1");
    let terms = json!([{ "tags": { "karpenter.sh/discovery": "prod-1" } }]);
    assert_eq!(
        (&spec["subnetSelectorTerms"], &spec["securityGroupSelectorTerms"]),
        (&terms, &terms)
    );
    let cluster = yaml(&desk.config("eksctl --cluster-name 123"));
    assert_eq!(cluster["metadata"], json!({ "name": "123", "region": "REGION" }));
    assert_eq!(yaml(&desk.config("karpenter"))["spec"]["amiFamily"], "AL2023");
    for name in ["", "-a", "a b", "a\"", "a:b"] {
        let mut command = desk.command();
        command.args(["cluster-config", "eksctl", "--cluster-name", name]);
        assert_eq!(command.output().expect("run sluice").status.code(), Some(2), "{name:?}");
    }
}

#[test]
fn bottlerocket_itself_is_told_the_number_of_pods() {
    let user_data = |lines: &str| {
        let template = Desk::with(&document(lines)).config("launch-template --os bottlerocket");
        from_base64(&parsed(&template)["UserData"])
    };
    let told = user_data("sluice.max-pods.value = 58\n");
    assert_eq!(
        told,
        format!(
            "{HEAD}\n[settings.sluice.max-pods]\nvalue = 58\n\n[settings.kubernetes]\nmax-pods = 58\n"
        )
    );
    assert_eq!(user_data(""), HEAD);
}

/// A lower layer's value would come back if the key were left out for being the default.
#[test]
fn user_data_that_undoes_the_images_settings_still_does() {
    let desk = Desk::with(&document("sluice.bandwidth.ecn = true\n"));
    desk.put(
        "root/usr/share/sluice/defaults.toml",
        document("sluice.bandwidth.ecn = false\nsluice.bandwidth.burst = '9ms'\n").as_bytes(),
    );
    let template = parsed(&desk.config("launch-template --os bottlerocket"));
    let user_data = from_base64(&template["UserData"]);
    assert_eq!(
        user_data,
        format!("{HEAD}\n[settings.sluice.bandwidth]\nburst = \"9ms\"\necn = true\n")
    );
    assert_eq!(desk.settings_of(&user_data)["bandwidth"]["ecn"], true);
}

#[test]
fn what_json_cannot_say_goes_to_standard_error() {
    let desk = Desk::with(&document("sluice.cni.mode = 'standalone'\nsluice.max-pods.value = 9\n"));
    for (format, notes) in [("addon", 1), ("launch-template", 2), ("terraform", 0), ("env", 0)] {
        let output = desk.try_config(format);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            said.lines().filter(|line| line.starts_with("sluice: info: ")).count(),
            notes,
            "{format}: {said}"
        );
    }
    let overridden = document(
        "sluice.prefix-delegation = { enabled = true, warm-prefix-target = 2, warm-ip-target = 5 }\n",
    );
    let said = text(&Desk::with(&overridden).try_config("env"));
    assert!(said.contains("warm-prefix-target: without effect"), "{said}");
    let long = document(&format!("sluice.cni.conf-dir = '/{:x<16384}'\n", ""));
    let said = text(&Desk::with(&long).try_config("env"));
    assert!(said.contains("bytes, and EC2 takes 16384: gzip it, which Sluice reads"), "{said}");
}

#[test]
fn what_cannot_be_said_is_an_error_that_says_what_to_give() {
    let standalone = document("sluice.cni.mode = 'standalone'\n");
    let none = document("");
    let ipv6 = format!(
        "{standalone}sluice.prefix-delegation.enabled = true\nsluice.max-pods.ip-family = 'ipv6'\n"
    );
    let unknown = "how many prefixes a node's first interface needs hangs on its instance type: give \
                   --instance-type, or max-pods.value";
    for (settings, arguments, status, said) in [
        (&*standalone, "launch-template", 1, unknown),
        (&standalone, "terraform", 1, unknown),
        (&standalone, "karpenter", 1, unknown),
        (
            &ipv6,
            "karpenter",
            1,
            "Karpenter has no field for the IPv6 prefix that cni.mode = \"standalone\" \
            needs: use managed nodes with `cluster-config launch-template`",
        ),
        (
            &none,
            "env --instance-type t3a.mediun",
            1,
            "instance type \"t3a.mediun\" is not in this program's table of 1391",
        ),
    ] {
        let output = Desk::with(settings).try_config(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("sluice: error: {said}\n"));
        assert_eq!(output.stdout, b"");
    }
    let output = Desk::with(&document("sluice.max-pods.value = 0\n")).try_config("env");
    assert_eq!(output.status.code(), Some(78));
    let output = Desk::with("").command().arg("cluster-config").output().expect("run sluice");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "sluice: error: find the settings (--user-data \
        names a file): no settings are in force: `sluice boot` has not run on this node\n"
    );
}

#[test]
fn neither_root_nor_a_node_is_needed() {
    let desk = Desk::with("");
    // The built one may lie where nobody else may look. By another process: a file that is open for
    // writing in a child of a test beside this one cannot be run.
    let own = desk.put("own", b"").with_file_name("sluice");
    let utf8 = |path: &Path| path.to_str().expect("path is UTF-8").to_owned();
    run("cp", &[&utf8(&executable("sluice")), &utf8(&own)]);
    run("chmod", &["755", &utf8(&own), &utf8(own.parent().expect("a directory"))]);
    let mut command = Command::new(&own);
    command.args(["cluster-config", "env", "--user-data", "/dev/null"]).uid(65534).gid(65534);
    let output = command.output().expect("run sluice");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), desk.config("env"));
}

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
    let rest = ", which is not set; else it would override WARM_PREFIX_TARGET)";
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
        // The chart has WARM_PREFIX_TARGET, and the add-on no word for the family.
        (json!({ "env": { "ENABLE_PREFIX_DELEGATION": "true" } }).to_string(), vec![]),
        (json!({ "env": { "ENABLE_PREFIX_DELEGATION": "true", "WARM_IP_TARGET": "5" } }).to_string(), vec![
            format!("WARM_IP_TARGET: found \"5\", wanted \"0\" (prefix-delegation.warm-ip-target = 0{rest}"),
        ]),
    ] {
        let desk = Desk::with(&prefixes);
        let path = desk.put("found.json", file.as_bytes()).display().to_string();
        let output = desk.try_config(&format!("--check {path}"));
        let lines: String = lines.iter().map(|line| format!("{path}: {line}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), lines);
        assert_eq!(output.status.code(), Some(i32::from(!lines.is_empty())), "{}", text(&output));
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
            assert_eq!(output.stdout.is_empty(), kept_off);
        }
    }
}

/// The blocks of docs/cluster.md that begin with this command, line by line.
fn examples(document: &str) -> Vec<(String, Vec<String>)> {
    let mut examples: Vec<(String, Vec<String>)> = Vec::new();
    let mut open = false;
    for line in document.lines() {
        let line = line.strip_prefix("    ");
        match line.map(|line| (line, line.strip_prefix("$ sluice cluster-config "))) {
            Some((_, Some(arguments))) if !arguments.contains("--check") => {
                examples.push((arguments.into(), Vec::new()));
                open = true;
            }
            Some((line, _)) if open => examples.last_mut().expect("one").1.push(line.into()),
            _ => open = false,
        }
    }
    examples
}

#[test]
fn examples_of_the_documentation_are_what_is_printed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cluster.md");
    let document = std::fs::read_to_string(file).expect("the document");
    let settings = document.split("    [settings.sluice]").nth(1).expect("settings");
    let settings = settings.split("\n\nUser data in").next().expect("settings");
    let desk = Desk::with(&format!("[settings.sluice]{}", settings.replace("\n    ", "\n")));
    let examples = examples(&document);
    let named = examples.iter().map(|(format, _)| format.as_str()).collect::<Vec<_>>();
    assert_eq!(named, ["env", "addon", "terraform", "launch-template", "karpenter", "eksctl"]);
    for (format, lines) in &examples {
        let printed = desk.config(format);
        // A line of dots stands for any; what follows comes later in the output.
        let mut rest = format!("\n{printed}");
        for block in lines.split(|line| line == "…").filter(|block| !block.is_empty()) {
            let block = format!("\n{}\n", block.join("\n"));
            let at = rest.find(&block).unwrap_or_else(|| panic!("{format}:{block}not in{rest}"));
            rest.drain(..at + block.len() - 1);
        }
    }
}
