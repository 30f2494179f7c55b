// SPDX-License-Identifier: Apache-2.0
//! Every file of testdata/conflist (a directory stands for a whole net.d)
//! against what is expected of it, with the entry as `@entry@`: the file that
//! is edited and its new text, or the exact error. `UPDATE_GOLDEN=1` rewrites;
//! an expected file without its case fails. And properties, over these and
//! over lists made at random.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;
use settings_model::Settings;

use super::{ENTRY, add, decode, has_entry, has_upstream, remove};
use crate::libcni::entry;
use crate::libcni::files::active_conflist;

const EXPECTED: &str = "expected";
/// Where multus' paths lead to.
const CONF_DIR: &str = "etc/cni/net.d";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/conflist")
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).expect("read a fixture folder");
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn cases() -> BTreeSet<String> {
    names(&folder()).into_iter().filter(|name| name != EXPECTED).collect()
}

/// Files of a case, by name.
fn files(case: &str) -> Vec<(String, Vec<u8>)> {
    let path = folder().join(case);
    let read = |name: &str, path: PathBuf| (name.to_owned(), fs::read(path).unwrap());
    if path.is_dir() {
        names(&path).iter().map(|name| read(name, path.join(name))).collect()
    } else {
        vec![read(case, path)]
    }
}

/// The same with this directory in the place of the usual one.
fn here(text: &str, dir: &Path) -> String {
    let network = |path: &str| format!(r#""clusterNetwork":"{path}/"#);
    let (host, dir) = (format!("/host/{CONF_DIR}"), dir.display());
    let text = text.replace(&network(&host), &network(&format!("/host{dir}")));
    text.replace(&network(&format!("/{CONF_DIR}")), &network(&dir.to_string()))
}

/// What becomes of a case's directory: name and text of the one file that is edited, or the error.
fn edited(case: &str, settings: &Settings) -> String {
    let root = tempfile::tempdir().unwrap();
    // The end of this path is what a path of multus' container is compared with.
    let dir = root.path().join(CONF_DIR);
    fs::create_dir_all(&dir).unwrap();
    for (name, bytes) in files(case) {
        let bytes = match String::from_utf8(bytes) {
            Ok(text) if name.contains("multus") => here(&text, &dir).into_bytes(),
            Ok(text) => text.into_bytes(),
            Err(e) => e.into_bytes(),
        };
        fs::write(dir.join(name), bytes).unwrap();
    }
    let edit = || entry::edited(settings, &active_conflist(&dir)?);
    let said = match edit() {
        Ok(None) => "nothing to edit\n".into(),
        Ok(Some(file)) => {
            let name = file.path.file_name().unwrap().to_str().unwrap();
            format!("{name}:\n{}", file.text)
        }
        Err(e) => format!("error: {e:#}\n"),
    };
    said.replace(&format!("{}/", dir.display()), "").replace(&dir.display().to_string(), "DIR")
}

#[test]
fn every_real_list_gives_its_expected_text_or_error() {
    let expected_dir = folder().join(EXPECTED);
    let mut wrong = Vec::new();
    for case in cases() {
        let actual = edited(&case, &Settings::default()).replace(ENTRY, "@entry@");
        let path = expected_dir.join(&case);
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            fs::create_dir_all(&expected_dir).unwrap();
            fs::write(&path, &actual).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if expected != actual {
            wrong.push(format!("{case}\n--- expected\n{expected}--- actual\n{actual}"));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 rewrites", wrong.join("\n"));
    assert_eq!(names(&expected_dir), cases(), "expected files and cases");
    assert!(cases().len() >= 50, "only {} cases", cases().len());
}

/// What every edit promises of any text.
fn check(text: &str) {
    let Ok(added) = add(text) else { return };
    assert_eq!(add(&added).as_ref(), Ok(&added), "adding twice");
    assert!(!has_upstream(&added).unwrap() && has_entry(&added).unwrap());
    let removed = remove(text).unwrap();
    assert!(!has_entry(&removed).unwrap());
    if !has_upstream(text).unwrap() {
        // Byte for byte, but for entries of ours that were there before.
        assert_eq!(remove(&added).unwrap(), removed);
    }
    assert_eq!(without_limiters(&added), without_limiters(text), "a foreign value changed");
    let kinds = kinds(&added);
    assert_eq!(kinds.iter().filter(|kind| *kind == "sluice").count(), 1);
    assert_ne!(kinds.first().map(String::as_str), Some("sluice"), "first in the chain");
}

fn kinds(text: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(text).unwrap();
    let plugins = list["plugins"].as_array().unwrap().iter();
    plugins.map(|plugin| plugin["type"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The list as values, without our entry and upstream's. None for what only Go would read.
fn without_limiters(text: &str) -> Option<Value> {
    let mut list: Value = serde_json::from_str(text).ok()?;
    let is_limiter = |kind: &Value| kind == "sluice" || kind == "bandwidth";
    list["plugins"].as_array_mut()?.retain(|plugin| !is_limiter(&plugin["type"]));
    Some(list)
}

#[test]
fn removing_gives_back_every_byte() {
    let mut whole = 0;
    for (name, bytes) in cases().iter().flat_map(|case| files(case)) {
        let Ok(text) = decode(bytes) else { continue };
        let foreign = |result: Result<bool, _>| result == Ok(false);
        if foreign(has_entry(&text)) && foreign(has_upstream(&text)) && add(&text).is_ok() {
            let added = add(&text).unwrap();
            assert_ne!(added, text, "{name}");
            assert_eq!(remove(&added).unwrap(), text, "{name}");
            assert_eq!(remove(&text).unwrap(), text, "{name}");
            whole += 1;
        }
        // The rest needs values, which Rust has not for half a surrogate pair.
        if serde_json::from_str::<Value>(&text).is_ok() {
            check(&text);
        }
    }
    assert!(whole >= 25, "only {whole} lists");
}

/// Else two writers, each with its own way to print a list, would never end.
#[test]
fn entry_that_another_writer_has_printed_in_its_own_way_is_left_as_it_is() {
    let ours = add(r#"{"plugins":[{"type":"ptp"}]}"#).expect("a list");
    let value: Value = serde_json::from_str(&ours).expect("JSON");
    let printed = serde_json::to_string_pretty(&value).expect("JSON");
    assert_ne!(printed, ours);
    assert_eq!(add(&printed), Ok(printed.clone()));
    let changed = printed.replace("true", "false");
    assert!(add(&changed).is_ok_and(|text| text.contains(ENTRY)));
}

fn space() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[ \t\r\n]{0,3}").unwrap()
}

/// Values as a person might write them.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        proptest::string::string_regex("-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,3})?(e[+-]?[0-9])?")
            .unwrap(),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just(r#""\u0073luice""#.to_owned()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![Just("plugins"), Just("x"), Just("//")];
        let member = (key, space(), inner.clone())
            .prop_map(|(key, space, value)| format!("\"{key}\":{space}{value}"));
        prop_oneof![
            (proptest::collection::vec(inner, 0..4), space())
                .prop_map(|(all, space)| format!("[{space}{}{space}]", all.join(","))),
            (proptest::collection::vec(member, 0..3), space())
                .prop_map(|(all, space)| format!("{{{}{space}}}", all.join(&format!(",{space}")))),
        ]
    })
}

fn entry(kind: impl Strategy<Value = &'static str>) -> impl Strategy<Value = String> {
    (kind, value(), space(), space(), any::<bool>()).prop_map(|(kind, other, a, b, first)| {
        let kind = format!("\"type\"{a}:{b}\"{kind}\"");
        let other = format!("\"other\":{other}");
        let (one, two) = if first { (kind, other) } else { (other, kind) };
        format!("{{{b}{one}{a},{b}{two}{a}}}")
    })
}

fn list(kind: fn() -> BoxedStrategy<&'static str>) -> impl Strategy<Value = String> {
    let entries = proptest::collection::vec((entry(kind()), space(), space()), 1..6);
    (entries, space(), value(), space(), any::<bool>()).prop_map(|(entries, a, other, b, last)| {
        let entries =
            entries.iter().map(|(entry, before, after)| [before, &**entry, after].concat());
        let entries: Vec<_> = entries.collect();
        let plugins = format!("\"plugins\"{a}:{b}[{}]", entries.join(","));
        let other = format!("\"other\"{b}:{other}");
        let (one, two) = if last { (other, plugins) } else { (plugins, other) };
        format!("{a}{{{b}{one}{a},{two}{b}}}{a}")
    })
}

fn foreign() -> BoxedStrategy<&'static str> {
    prop_oneof![Just("ptp"), Just("portmap"), Just("aws-cni"), Just("tuning")].boxed()
}

fn all() -> BoxedStrategy<&'static str> {
    prop_oneof![foreign(), Just("sluice"), Just("bandwidth")].boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_foreign_list_comes_back_byte_for_byte(text in list(foreign)) {
        let added = add(&text).unwrap();
        prop_assert_ne!(&added, &text);
        prop_assert_eq!(remove(&added).unwrap(), text.as_str());
        check(&text);
    }

    #[test]
    fn any_list_with_limiters_keeps_all_that_is_foreign(text in list(all)) {
        let main = kinds(&text).iter().any(|kind| kind != "sluice" && kind != "bandwidth");
        prop_assert_eq!(add(&text).is_ok(), main);
        check(&text);
    }
}
