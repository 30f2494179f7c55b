// SPDX-License-Identifier: Apache-2.0
//! Metrics as Prometheus itself reads them, and that dashboard and alerts ask
//! for nothing that the agent does not say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::addresses::{promise, show_eni, wait_for_state};
use tests::api::{Response, ask, scrape};
use tests::cni::Annotations;
use tests::command::{json, output, text, wait_for};
use tests::imds::{Address, Imds};
use tests::node::{Node, USER_DATA, with_ready_node};

const ADDRESS: &str = "127.0.0.1:9469";
const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
const LIMIT: u64 = 20_000_000;

fn packaging(path: &str) -> PathBuf {
    let tests = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    Path::new(&tests).join("../packaging").join(path)
}

fn promtool(arguments: &[&str]) {
    let output = output("promtool", arguments);
    assert!(output.status.success(), "promtool {}: {}", arguments.join(" "), text(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.is_empty(), "promtool {}: {stderr}", arguments.join(" "));
}

/// With a limited pod, and something degraded, so that every metric has a series.
fn with_scraped_node(test: impl FnOnce(&Node) + Send) {
    with_ready_node("", |node| {
        node.wait_for_api();
        let pod = node.pod("a", 2);
        node.add(&pod, Annotations { egress: LIMIT, ingress: LIMIT });
        node.guard(&pod);
        let good = fs::read_to_string(USER_DATA).expect("user data");
        fs::write(USER_DATA, good + "no-such-key = 1\n").expect("write user data");
        assert_eq!(ask("POST", "/v1/reload", "").json()["exit_status"], 78);
        let imds = Imds::start(Address::V4, None, &[]);
        show_eni(&imds, 0, 3, &[]);
        promise(5, 2, true);
        wait_for_state("mismatch");
        test(node);
    });
}

/// What is measured by these series: name and labels up to the value.
fn names(response: &Response) -> BTreeSet<String> {
    let samples = response.body.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// Every word that begins as our metrics do.
fn asked_for(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let words = text.split(word).filter(|word| word.starts_with("sluice_"));
    words.map(str::to_owned).collect()
}

#[test]
fn both_formats_are_what_prometheus_reads() {
    with_scraped_node(|_| {
        let older = scrape(ADDRESS, "text/plain");
        assert!(older.head.contains("Content-Type: text/plain; version=0.0.4"), "{}", older.head);
        fs::write("/run/older", &older.body).expect("keep the metrics");
        let checked = output("sh", &["-c", "promtool check metrics < /run/older"]);
        assert!(
            checked.status.success() && checked.stderr.is_empty(),
            "{}\n{}",
            text(&checked),
            older.body
        );
        let newer = scrape(ADDRESS, OPENMETRICS);
        let kind = "Content-Type: application/openmetrics-text; version=1.0.0";
        assert!(newer.head.contains(kind), "{}", newer.head);
        assert!(newer.body.ends_with("\n# EOF\n"), "{}", newer.body);
        assert_eq!(names(&older), names(&newer));
        // Only from a file with timestamps does promtool read this format.
        let stamped = newer.body.lines().map(|line| match line.starts_with('#') {
            true => format!("{line}\n"),
            false => format!("{line} 1700000000\n"),
        });
        fs::write("/run/newer", stamped.collect::<String>()).expect("keep the metrics");
        let to = ["tsdb", "create-blocks-from", "openmetrics", "-q", "/run/newer", "/run/blocks"];
        promtool(&to);
    });
}

#[test]
fn series_of_a_pod_end_with_the_pod() {
    with_ready_node("", |node| {
        node.wait_for_api();
        let pod = node.pod("a", 2);
        node.add(&pod, Annotations { egress: LIMIT, ingress: 0 });
        let scraped = scrape(ADDRESS, "text/plain").body;
        let limit = "sluice_pod_limit_bytes_per_second{namespace=\"default\",pod=\"a\",interface=\"eth0\",\
                     direction=\"egress\"} 2500000.0\n";
        assert!(scraped.contains(limit), "{scraped}");
        let mode = node.status(&pod)["egress"]["mode"].as_str().expect("a mode").to_owned();
        assert!(scraped.contains(&format!("sluice_pods{{state=\"{mode}\"}} 1\n")), "{scraped}");
        node.del(&pod);
        // Metrics are made once a second at most.
        wait_for("the end of the series", Duration::from_secs(10), || {
            let scraped = scrape(ADDRESS, "text/plain").body;
            (!scraped.contains("pod=\"a\"")).then_some(())
        });
    });
}

#[test]
fn address_of_the_metrics_follows_the_settings() {
    with_ready_node("", |node| {
        node.wait_for_api();
        assert_eq!(scrape(ADDRESS, "*/*").status, 200);
        let settings = fs::read_to_string(USER_DATA).expect("user data");
        let listen = |at: &str| {
            let agent = format!("[settings.sluice.agent]\nmetrics-listen = \"{at}\"\n");
            fs::write(USER_DATA, settings.clone() + &agent).expect("write user data");
            assert_eq!(ask("POST", "/v1/reload", "").json()["exit_status"], 0);
        };
        listen("127.0.0.1:9999");
        // The response to the reload comes before the move.
        wait_for("the new address", Duration::from_secs(5), || {
            let open = std::net::TcpStream::connect("127.0.0.1:9999");
            open.is_ok().then_some(())
        });
        assert_eq!(scrape("127.0.0.1:9999", "*/*").status, 200);
        assert!(std::net::TcpStream::connect(ADDRESS).is_err());
        listen("off");
        wait_for("the end of it", Duration::from_secs(5), || {
            std::net::TcpStream::connect("127.0.0.1:9999").is_err().then_some(())
        });
    });
}

#[test]
fn dashboard_and_alerts_ask_only_for_what_there_is() {
    let dashboard = fs::read_to_string(packaging("grafana/sluice.json")).expect("the dashboard");
    let panels = json(&dashboard)["panels"].as_array().map(Vec::len);
    assert!(panels > Some(5), "{panels:?} panels");
    let alerts =
        fs::read_to_string(packaging("prometheus/sluice-alerts.yaml")).expect("the alerts");
    with_scraped_node(|_| {
        let there = names(&scrape(ADDRESS, "text/plain"));
        for (file, text) in [("dashboard", dashboard), ("alerts", alerts)] {
            let asked = asked_for(&text);
            let missing: Vec<_> = asked.difference(&there).collect();
            assert!(!asked.is_empty() && missing.is_empty(), "{file}: {missing:?} of {there:?}");
        }
    });
}

#[test]
fn codes_of_what_is_degraded_are_those_of_status_and_on_their_page() {
    let docs = packaging("../docs/troubleshooting.md");
    let page = fs::read_to_string(docs).expect("the page of codes");
    with_scraped_node(|node| {
        let scraped = scrape(ADDRESS, "text/plain").body;
        let values = scraped.split("sluice_degraded{code=\"").skip(1);
        let codes: BTreeSet<_> = values.filter_map(|rest| Some(rest.split_once('"')?.0)).collect();
        let status = node.sluice_json(&["status", "--json", "--interval", "1"]);
        let degraded = status["degraded"].as_array().expect("a list");
        let of_status = degraded.iter().filter_map(|trouble| trouble["code"].as_str());
        assert_eq!(codes, of_status.collect());
        assert!(!codes.is_empty());
        for trouble in degraded {
            let code = trouble["code"].as_str().expect("a code");
            let (_, section) = page.split_once(&format!("\n### {code}\n")).expect("a section");
            let (says, _) = section.trim_start().split_once("\n").expect("a first line");
            let severity = trouble["severity"].as_str().expect("a severity");
            let by_status = says.contains("Found by status");
            assert!(says.to_lowercase().contains(severity) && by_status, "{code}: {says}");
        }
    });
}

#[test]
fn alerts_fire_when_they_should() {
    let rules = packaging("prometheus/sluice-alerts.yaml");
    let tests = packaging("prometheus/sluice-alerts.test.yaml");
    for (command, file) in [("check", rules), ("test", tests)] {
        let output = output("promtool", &[command, "rules", file.to_str().expect("UTF-8")]);
        assert!(output.status.success(), "promtool {command}: {}", text(&output));
    }
}

#[test]
fn each_panel_of_the_dashboard_has_a_question_and_a_unit() {
    let dashboard = fs::read_to_string(packaging("grafana/sluice.json")).expect("the dashboard");
    let dashboard = json(&dashboard);
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array().expect("targets");
        let expressions = targets.iter().map(|target| target["expr"].as_str());
        assert!(
            expressions.clone().count() > 0 && expressions.clone().all(|e| e.is_some()),
            "{title}"
        );
        let defaults = &panel["fieldConfig"]["defaults"];
        assert_ne!(defaults["unit"], Value::Null, "{title}");
        if panel["type"] == "stat" {
            assert_ne!(defaults["thresholds"], Value::Null, "{title}");
        }
        let legends = targets.iter().map(|target| target["legendFormat"].as_str());
        for (expression, legend) in expressions.flatten().zip(legends) {
            // A line for each pod of a cluster can be thousands.
            let of_pods = expression.contains("sluice_pod_") && !expression.starts_with("count by");
            assert!(!of_pods || expression.starts_with("topk(20, "), "{title}: {expression}");
            let names = legend.is_none_or(|it| !of_pods || it.contains("{{namespace}}/{{pod}}"));
            assert!(names, "{title}: {legend:?}");
        }
    }
    let targets = dashboard["panels"].as_array().expect("panels").iter();
    let targets = targets.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let rule = |target: &Value| {
        let expression = target["expr"].as_str().expect("text");
        let expression = expression.replace("$__rate_interval", "5m");
        serde_json::json!({ "record": "panel:value", "expr": expression })
    };
    let rules = targets
        .map(rule)
        .enumerate()
        .map(|(number, rule)| serde_json::json!({ "name": format!("{number}"), "rules": [rule] }));
    // JSON is YAML.
    let rules = serde_json::json!({ "groups": rules.collect::<Vec<_>>() });
    let dir = tempfile::tempdir().expect("make a directory");
    let file = dir.path().join("panels.yaml");
    fs::write(&file, rules.to_string()).expect("write the rules");
    let arguments = ["check", "rules", "--lint=none", file.to_str().expect("UTF-8")];
    let checked = output("promtool", &arguments);
    assert!(checked.status.success(), "{}", text(&checked));
    let kinds = dashboard["panels"].as_array().expect("panels").iter();
    let kinds: BTreeSet<_> = kinds.filter_map(|panel| panel["type"].as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(["stat", "table", "timeseries"]));
}

/// As Prometheus itself reads it, but for the discovery, which not every build of promtool has.
#[test]
fn scrape_job_is_the_one_that_alerts_ask_for() {
    let job = packaging("prometheus/sluice-scrape.yaml");
    let job = fs::read_to_string(job).expect("the job");
    let discovery = "kubernetes_sd_configs:\n      - role: node\n";
    assert!(job.contains(discovery), "{job}");
    let dir = tempfile::tempdir().expect("make a directory");
    let file = dir.path().join("job.yaml");
    let known = job.replace(discovery, "static_configs:\n      - targets: [node]\n");
    fs::write(&file, known).expect("write the job");
    let checked = output("promtool", &["check", "config", file.to_str().expect("UTF-8")]);
    assert!(checked.status.success(), "{}", text(&checked));
    assert!(job.contains("job_name: sluice\n") && job.contains("honor_labels: true\n"), "{job}");
}
