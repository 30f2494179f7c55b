// SPDX-License-Identifier: Apache-2.0
//! docs/troubleshooting.md, made from the table of codes (`make golden` rewrites it),
//! and that nothing else names a code which is not there: alerts, dashboard,
//! documents, the code itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::code::{ANY, AREAS, Code};

/// Stands for wherever these pages are served: they have no address of their own.
const SITE: &str = "https://sluice.invalid/docs";

const HEAD: &str = include_str!("page.md");

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, rename = "for")]
    after: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let rules: Rules =
        serde_saphyr::from_str(&read("packaging/prometheus/sluice-alerts.yaml")).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

fn page() -> String {
    let mut text = HEAD.to_owned();
    // Writing to a string cannot fail.
    text += "\n## Alerts\n";
    for rule in rules() {
        let _ = write!(text, "\n### {}\n\n{}\n", rule.alert, section_of_alert(&rule));
    }
    for (area, codes) in AREAS {
        let _ = write!(text, "\n## {area}\n");
        for code in *codes {
            let _ = write!(text, "\n### {}\n\n{}\n", code.name, section(code));
        }
    }
    text
}

fn section_of_alert(rule: &Rule) -> String {
    let plain = |key: &str| {
        let text = rule.annotations[key].replace("{{ $labels.instance }}", "the node");
        let text =
            text.replace("{{ $value }}", "N").replace("{{ $value | humanizeDuration }}", "N");
        text.replace("{{ $labels.", "").replace(" }}", "")
    };
    let after = rule.after.as_ref().map(|after| format!(", for {after}")).unwrap_or_default();
    let codes = codes().into_iter().filter(|code| code.alert() == Some(&rule.alert));
    let codes: Vec<_> = codes.map(|code| format!("[{0}](#{0})", code.name)).collect();
    let codes =
        if codes.is_empty() { String::new() } else { format!(" Codes: {}.", codes.join(", ")) };
    let Rule { expr, labels, .. } = rule;
    format!(
        "{}. {}\n\n{}: `{expr}`{after}.{codes}",
        plain("summary"),
        plain("description"),
        capital(&labels["severity"])
    )
}

fn section(code: &Code) -> String {
    let except = if code.except.is_empty() { String::new() } else { format!("; {}", code.except) };
    let by = match (code.alert(), code.is_of_doctor()) {
        (Some(_), true) => "status and doctor",
        (Some(_), false) => "status",
        (None, _) => "doctor",
    };
    let Code { severity, meaning, next_step, .. } = code;
    let alert = code.alert().map(|alert| format!(" Alert: [{alert}](#{}).", alert.to_lowercase()));
    format!(
        "{}{except}. Found by {by}.{}\n\n{meaning}\n\n**What to do:** {next_step}",
        capital(&severity.to_string()),
        alert.unwrap_or_default()
    )
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

fn codes() -> Vec<&'static Code> {
    AREAS.iter().flat_map(|(_, codes)| *codes).copied().collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

#[test]
fn page_is_made_from_the_table() {
    let file = repository().join("docs/troubleshooting.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&file, page()).unwrap();
    }
    assert_eq!(fs::read_to_string(file).unwrap(), page(), "UPDATE_GOLDEN=1 rewrites");
}

/// A heading's own link is its text in small letters.
#[test]
fn each_alert_links_to_its_section() {
    let page = read("docs/troubleshooting.md");
    assert!(rules().len() > 10);
    for rule in rules() {
        let link = format!("{SITE}/troubleshooting.md#{}", rule.alert.to_lowercase());
        assert_eq!(rule.annotations.get("runbook_url"), Some(&link), "{}", rule.alert);
        assert!(page.contains(&format!("\n### {}\n", rule.alert)), "{}", rule.alert);
    }
}

#[test]
fn each_code_is_there_once_and_says_what_to_do() {
    let names: BTreeSet<_> = codes().iter().map(|code| code.name).collect();
    assert_eq!(names.len(), codes().len());
    for code in codes() {
        let words = code.name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        assert!(words && code.meaning.ends_with('.') && !code.next_step.is_empty(), "{code:?}");
        assert!(!code.next_step.contains(['|', '\n']) && !code.meaning.contains('|'), "{code:?}");
    }
}

/// `code="…"`, `code=~"…"` and `code!~"…"` in PromQL, as the alternatives in them.
fn asked_for(text: &str) -> Vec<&str> {
    let after = text.split("code").skip(1);
    let values = after.filter_map(|rest| {
        let rest = rest.trim_start_matches(['=', '!', '~']).trim_start_matches('\\');
        rest.strip_prefix('"')?.split_once(['"', '\\']).map(|(value, _)| value)
    });
    values.flat_map(|value| value.split('|')).collect()
}

#[test]
fn each_code_of_status_has_an_alert_and_no_other_is_asked_for() {
    let alerts = read("packaging/prometheus/sluice-alerts.yaml");
    let named: BTreeSet<_> = codes().iter().filter_map(|code| code.alert()).collect();
    for alert in named {
        assert!(alerts.contains(&format!("- alert: {alert}\n")), "there is no alert {alert}");
    }
    let own = codes().into_iter().filter(|code| code.alert().is_some_and(|alert| alert != ANY));
    let own: Vec<_> = own.map(|code| code.name).collect();
    let rest = format!("sluice_degraded{{code!~\"{}\"}} > 0", own.join("|"));
    assert!(alerts.contains(&rest), "{ANY} should be on {rest}");
    let of_status: BTreeSet<_> =
        codes().iter().filter(|code| code.alert().is_some()).map(|code| code.name).collect();
    let tests = read("packaging/prometheus/sluice-alerts.test.yaml");
    for text in [&alerts, &tests, &read("packaging/grafana/sluice.json")] {
        let asked = asked_for(text);
        let unknown: Vec<_> = asked.iter().filter(|code| !of_status.contains(*code)).collect();
        assert_eq!(unknown, [] as [&&str; 0]);
    }
    assert!(asked_for(&tests).len() > 3 && asked_for(&alerts).len() > own.len());
}

/// promtool runs these, in tests/tests/agent/metrics.rs.
#[test]
fn each_alert_is_fired_by_a_test() {
    let tests = read("packaging/prometheus/sluice-alerts.test.yaml");
    for Rule { alert, .. } in rules() {
        let counted = tests.contains(&format!("{{alertname=\"{alert}\"}}', value: "));
        let mut cases = tests.split("      - alertname: ").skip(1);
        let expected = cases.any(|case| case.starts_with(&alert) && case.contains("exp_alerts:"));
        assert!(counted || expected, "no test fires {alert}");
    }
}

/// The sources of this crate, but for the table and its tests.
fn sources(dir: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else if !path.ends_with("trouble/code.rs") && !path.ends_with("trouble/page.rs") {
            let text = fs::read_to_string(&path).unwrap();
            texts.push(text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned());
        }
    }
}

/// One that is never reported the compiler finds.
#[test]
fn no_code_is_spelt_out_for_the_journal() {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    assert!(texts.len() > 100);
    for code in codes() {
        let spelt = format!("CODE = \"{}\"", code.name);
        assert!(!texts.iter().any(|text| text.contains(&spelt)), "{spelt}");
    }
}
