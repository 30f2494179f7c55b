// SPDX-License-Identifier: Apache-2.0
//! docs/troubles.md, made from the table of codes (`make golden` rewrites it),
//! and that nothing else names a code which is not there: alerts, dashboard,
//! documents, the code itself.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::code::{ANY, AREAS, Code};

const HEAD: &str = "# Codes of trouble

Every code that `sluice status`, `sluice doctor`, the journal (`CODE=`) and the metric `sluice_degraded` have for something that is
wrong: one name for each fact, whoever finds it. This page is made from the table in the code by `make golden`.

What status lists is in `sluice_degraded` too, and has an alert of `packaging/prometheus/sluice-alerts.yaml`; without an agent there
are no metrics, so `agent-not-running` has the one on the scrape. What only doctor finds takes a look at devices, programs and files
that the agent does not take. A report has what was seen, and its next step with names and numbers.

| severity | means |
| --- | --- |
| fault | a limit or network policy is not in force where it should be, or pods cannot start |
| degraded | in force, but not as well, or not against everyone |
| note | good to know |
";

fn page() -> String {
    let mut text = HEAD.to_owned();
    for (area, codes) in AREAS {
        text += &format!(
            "\n## {area}\n\n| code | severity | found by | alert | meaning | next step |\n\
             | --- | --- | --- | --- | --- | --- |\n"
        );
        for code in *codes {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", row(code));
        }
    }
    text
}

fn row(code: &Code) -> String {
    let except = if code.except.is_empty() { String::new() } else { format!("; {}", code.except) };
    let by = match (code.alert(), code.is_of_doctor()) {
        (Some(_), true) => "status, doctor",
        (Some(_), false) => "status",
        (None, _) => "doctor",
    };
    let Code { name, severity, meaning, next_step, .. } = code;
    let alert = code.alert().map(|alert| format!("`{alert}`")).unwrap_or_default();
    format!("| `{name}` | {severity}{except} | {by} | {alert} | {meaning} | {next_step} |")
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
    let file = repository().join("docs/troubles.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&file, page()).unwrap();
    }
    assert_eq!(fs::read_to_string(file).unwrap(), page(), "UPDATE_GOLDEN=1 rewrites");
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
