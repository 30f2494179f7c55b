// SPDX-License-Identifier: Apache-2.0
//! Our place in the chain of a real containerd 1.6, 1.7 and 2.1: between the
//! real upstream plugins at every version of the CNI spec that both speak, with
//! and without the pod's annotations, and asked for its status.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::command::{age, run};
use tests::containerd::{Containerd, PodSpec};
use tests::sluice_node::{
    AFTER, BEFORE, EGRESS, INGRESS, PORTMAP, SLUICE, SluiceNode, TUNING, conflist, on_each_release,
};

const LIMITS: [Option<u64>; 2] = [Some(20_000_000), Some(30_000_000)];
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Without the agent, which has a say of its own in what is in the conflist.
fn on_each(test: impl Fn(Containerd, &mut SluiceNode) + Sync) {
    on_each_release(&conflist("1.0.0", "node", &[PORTMAP]), "", |release, node| {
        node.end_agent(Signal::SIGTERM);
        test(release, node);
    });
}

/// With the annotations of [`LIMITS`].
fn limited(name: &str) -> PodSpec {
    PodSpec::new("default", name).annotation(EGRESS, "20M").annotation(INGRESS, "30M")
}

/// What containerd and its core plugins (1.1.1, with 2.1: 1.9.1) speak; an empty one is none at all.
fn versions(release: Containerd) -> &'static [&'static str] {
    match release {
        Containerd::Bookworm16 | Containerd::Trixie17 => &["", "0.3.0", "0.3.1", "0.4.0", "1.0.0"],
        Containerd::Sid21 => &["", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }
}

#[test]
fn result_of_upstreams_plugins_is_the_same_before_and_after_us_at_every_version() {
    let chains: [(&str, &[&str]); 2] = [
        ("first", &[BEFORE, SLUICE, AFTER, PORTMAP, TUNING]),
        ("last", &[PORTMAP, TUNING, BEFORE, SLUICE]),
    ];
    on_each(|release, node| {
        for version in versions(release) {
            for (place, chain) in chains {
                node.write_conflist(&conflist(version, "node", chain));
                let pod = node.run(&limited("a"));
                let came = node.gate("before").received("ADD", &pod.id)["prevResult"].clone();
                let went = match place {
                    "first" => node.gate("after").received("ADD", &pod.id)["prevResult"].clone(),
                    _ => node.cached_result("node", &pod.id),
                };
                println!("{release:?} {version:?} {place}: {went}");
                assert_eq!(went, came, "{version:?} {place}");
                check_shape(&node.cached_result("node", &pod.id), version);
                assert_eq!(node.limits("a"), LIMITS, "{version:?} {place}");
                let sysctl = node.run_in(&pod, "cat /proc/sys/net/core/somaxconn");
                assert_eq!(sysctl, "512\n");
                node.remove(&pod.id);
            }
        }
        node.nothing_left();
    });
}

/// A result of that version, with nothing in it that came later. Without a version it is the oldest.
fn check_shape(result: &Value, version: &str) {
    let spoken = if version.is_empty() { "0.1.0" } else { version };
    assert_eq!(result["cniVersion"], spoken, "{result}");
    assert_eq!(result["ip4"].is_object(), spoken == "0.1.0", "{result}");
    assert_eq!(result["interfaces"].is_array(), spoken != "0.1.0", "{result}");
    let with_family = ["0.3.0", "0.3.1", "0.4.0"].contains(&spoken);
    assert_eq!(result["ips"][0]["version"] == "4", with_family, "{result}");
    let later = ["mtu", "socketPath", "pciID"];
    let mut interfaces = result["interfaces"].as_array().into_iter().flatten();
    let has_later = interfaces.any(|one| later.iter().any(|key| one.get(key).is_some()));
    assert!(!has_later || version == "1.1.0", "{result}");
}

#[test]
fn newest_of_the_lists_versions_is_spoken_where_containerd_reads_that_list() {
    on_each(|release, node| {
        let text = conflist("1.0.0", "node", &[BEFORE, SLUICE, AFTER]);
        let several =
            "\"cniVersion\": \"1.0.0\",\n  \"cniVersions\": [\"0.4.0\", \"1.0.0\", \"1.1.0\"]";
        node.write_conflist(&text.replace("\"cniVersion\": \"1.0.0\"", several));
        let pod = node.run(&limited("a"));
        let received = node.gate("after").received("ADD", &pod.id);
        let spoken = if release == Containerd::Sid21 { "1.1.0" } else { "1.0.0" };
        assert_eq!(received["cniVersion"], spoken);
        assert_eq!(
            received["prevResult"],
            node.gate("before").received("ADD", &pod.id)["prevResult"]
        );
        assert_eq!(node.limits("a"), LIMITS);
        node.remove(&pod.id);
        node.nothing_left();
    });
}

#[test]
fn pods_annotations_may_be_handed_to_us_or_not() {
    let with = format!(r#""capabilities":{{"bandwidth":true,"{ANNOTATIONS}":true}}"#);
    let ours = format!(r#"{{"type":"sluice",{with}}}"#);
    let after = format!(r#"{{"type":"after",{with}}}"#);
    on_each(|_, node| {
        for entry in [SLUICE, &ours] {
            node.write_conflist(&conflist("1.0.0", "node", &[entry, &after]));
            let limited = node.run(&limited("limited"));
            let received = node.gate("after").received("ADD", &limited.id)["runtimeConfig"].clone();
            assert_eq!(received[ANNOTATIONS][EGRESS], "20M", "{received}");
            let other =
                node.run(&PodSpec::new("default", "other").annotation("example.com/a", "b"));
            let none = node.run(&PodSpec::new("default", "none"));
            let received = node.gate("after").received("ADD", &none.id)["runtimeConfig"].clone();
            assert_eq!(received, serde_json::json!({ANNOTATIONS: null}));
            assert_eq!(node.limits("limited"), LIMITS);
            assert_eq!(node.limits("other"), [None; 2]);
            assert_eq!(node.limits("none"), [None; 2]);
            for pod in [limited, other, none] {
                node.stop(&pod.id);
                node.remove(&pod.id);
            }
            node.nothing_left();
        }
    });
}

#[test]
fn node_is_ready_by_our_status_too_where_containerd_asks_for_it() {
    on_each(|release, node| {
        let newest = versions(release).last().expect("a version");
        node.write_conflist(&conflist(newest, "node", &[PORTMAP, SLUICE]));
        let asks = release == Containerd::Sid21;
        let pins = "sluice: open the pin /sys/fs/bpf/sluice/v2/lines; No such file or directory (os error 2)";
        let settings = node.runtime.host_path("/run/sluice/settings.toml");
        run("touch", &[settings.to_str().expect("UTF-8")]);
        let path = node.runtime.host_path("/sys/fs/bpf/sluice/v2");
        let aside = path.with_file_name("aside");
        assert!(node.runtime.status().expect("the status").ready);
        fs::rename(&path, &aside).expect("take it away");
        let without = node.runtime.status().expect("the status");
        println!("{release:?}: {} {} {}", without.ready, without.reason, without.message);
        assert_eq!(without.ready, !asks, "{without:?}");
        if asks {
            assert_eq!(without.reason, "NetworkPluginNotReady");
            assert_eq!(without.message, format!("Network plugin returns error: {pins}"));
        }
        // A node whose agent does not come, or which has no settings, is not held for ever.
        age(&settings);
        assert!(node.runtime.status().expect("the status").ready);
        fs::rename(&settings, settings.with_file_name("aside")).expect("take it away");
        assert!(node.runtime.status().expect("the status").ready);
        fs::rename(settings.with_file_name("aside"), &settings).expect("restore it");
        fs::rename(&aside, &path).expect("restore it");
        assert!(node.runtime.status().expect("the status").ready);
    });
}
