// SPDX-License-Identifier: Apache-2.0
//! Over random settings: every format says the same, aws-node starts with it,
//! and user data gives the settings back.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;
use tests::cluster_config::{Desk, Env, env, from_base64, set_by_kubectl, terraform, yaml};
use tests::command::{json as parsed, text};

use crate::document;

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
        enis in prop::option::of(0..9u16),
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
        add("max-pods.max-eni", enis.map(|n| n.to_string()));
        add("max-pods.value", pods.filter(|_| !foreign).map(|pods| pods.to_string()));
        add("cni.upstream-bandwidth", upstream.map(quoted));
        add("bandwidth.class", class.map(|name| {
            format!("[{{ name = '{name}', namespaces = ['a-*', '*-b'], egress = '1.5Gibit' }}]")
        }));
        text.extend(pods.filter(|_| foreign).map(|n| format!("settings.kubernetes.max-pods = {n}\n")));
        text
    }
}

/// What aws-node must have, said again.
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
    if max_pods["max-eni"] != 0 {
        put("MAX_ENI", &max_pods["max-eni"]);
    }
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
        if os == "al2023" && !(standalone && settings["max-pods"]["ip-family"] == "ipv6") {
            let class = yaml(&desk.config(&format!("karpenter {options}")));
            // Karpenter appends how to join.
            let own = class["spec"]["userData"].as_str().expect("text");
            prop_assert!(!own.contains("NodeConfig"), "{own}");
            prop_assert_eq!(&desk.settings_of(own), &settings, "{}", own);
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
        prop_assert!(output.status.success() && output.stdout.ends_with(b": no differences\n"), "{}", text(&output));
    }
}
