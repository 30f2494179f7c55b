// SPDX-License-Identifier: Apache-2.0

//! Promises that hold for any text: `parse` answers, and what it answers is in order; and for any
//! settings: what is printed reads back as the same.
//!
//! Arbitrary text hardly ever gets past the TOML parser, so half of the cases are put together
//! from pieces of our own documents.

#![expect(clippy::panic, reason = "clippy.toml lets tests do so, but not the functions they share")]

use proptest::prelude::*;
use proptest::sample::select;
use settings_model::{docs_page, explain, merge, parse};

const PIECES: &[&str] = &[
    "[settings.sluice]",
    "[sluice]",
    "[[sluice]]",
    "[settings.sluice.bandwidth]",
    "[sluice.cni]",
    "[settings]",
    "sluice",
    "settings",
    "bandwidth",
    "cni",
    "version",
    "enabled",
    "burst",
    "mode",
    "class",
    "name",
    "namespaces",
    "max-pods",
    "value",
    "kubernetes",
    "[[sluice.bandwidth.class]]\n",
    "namespaces = ['a*']\n",
    "egress = '1M'\n",
    "'*'",
    "default-egress",
    "max-egress",
    "conf-dir",
    ".",
    " = ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\t",
    "# é\n",
    "true",
    "1",
    "1.5",
    "2",
    "0x1",
    "inf",
    "1979-05-27",
    "\"500Mbit\"",
    "'5ms'",
    "\"chain\"",
    "\"/a\\u0000\"",
    "\"\"\"",
    "'''",
    "\"",
    "'",
    "ü",
    "\u{feff}",
    "_second_",
];

fn check(text: &str) {
    let Err(problems) = parse("user-data", text) else {
        return;
    };
    let places: Vec<_> = problems.iter().map(|p| (p.line, p.column)).collect();
    assert!(!places.is_empty(), "an error without a problem");
    assert!(places.is_sorted(), "{places:?}");
    let lines = text.split('\n').count();
    assert!(places.iter().all(|(line, column)| (1..=lines).contains(line) && *column >= 1));
    assert_eq!(problems.to_string().lines().count(), places.len());
    let shown = problems.render_with_caret(&[("user-data", text)]);
    assert_eq!(shown.lines().count(), 3 * places.len());
    assert!(!shown.contains(|c: char| c.is_control() && !"\n\t".contains(c)), "{shown:?}");
    assert_eq!(problems.to_json().as_array().map(Vec::len), Some(places.len()));
}

/// A few values for every key, by the path that `docs_page` lists it under.
fn values(key: &str) -> &'static [&'static str] {
    match key.rsplit('.').next().unwrap_or(key) {
        "version" => &["1"],
        "weight" | "max-weight" => &["1", "100", "10_000"],
        "enabled" | "node-share" | "ecn" | "custom-networking" | "pod-security-groups" => {
            &["true", "false"]
        }
        "default-egress" | "default-ingress" | "egress" | "ingress" => {
            &["'unlimited'", "'1kbit'", "'10M'", "'1.5Gibit'", "'1e9'"]
        }
        "max-egress" | "max-ingress" => &["'unlimited'", "'2Gibit'", "'100Gbit'"],
        "max-floor" | "floor-egress" | "floor-ingress" => &["'1kbit'", "'5Mibit'", "'100M'"],
        "max-burst" => &["'500ms'", "'1s'", "'64MiB'"],
        "burst" => &["'1ns'", "'5 ms'", "'0.5s'", "'4KiB'", "'64MiB'"],
        "latency-target" => &["'1ms'", "'1.5ms'", "'100ms'"],
        "count" => &["'l2'"],
        "guard" => &["'policy-only'", "'own-clsact'"],
        "node-egress" | "node-ingress" => &["'auto'", "'100Gbit'", "'1P'"],
        "namespaces" | "pods" => &["['*']", "['a-*', '*-b']", "['web']", "['db-?', 'x.y']"],
        "mode" => &["'chain'", "'off'"],
        "conf-dir" | "bin-dir" => &["'/'", "'/a b/\\'", "\"/'\\u0007\\n\\\"\\u007f\"", "'/größe'"],
        "upstream-bandwidth" => &["'replace'", "'keep'"],
        "warm-prefix-target" => &["1", "16"],
        "value" => &["'auto'", "1", "0x3a", "1_000"],
        "warm-ip-target" | "minimum-ip-target" => &["0", "1", "1000"],
        "max-eni" => &["0", "1", "100"],
        "ip-family" => &["'ipv4'", "'ipv6'"],
        "kubelet" => &["'auto'", "'nodeadm'", "'config-dir'", "'env-file'", "'none'"],
        "metrics-listen" => &["'off'", "'0.0.0.0:1'", "'[::1]:65535'"],
        "on-invalid" => &["'last-good'", "'defaults'", "'fail'"],
        "name" => &["'a'", "'b-1'", "'c'"],
        other => panic!("no values for {other}"),
    }
}

/// Every key but those of classes, which come in numbers.
fn plain_keys() -> Vec<String> {
    let page = docs_page();
    let keys = page.lines().filter_map(|line| line.strip_prefix("- `")?.split_once('`'));
    let keys = keys.map(|(key, _)| key.to_owned()).filter(|key| explain(key).is_some());
    keys.filter(|key| key.contains('.') && !key.contains("class[]")).collect()
}

prop_compose! {
    fn any_class(name: &'static str)(
        namespaces in select(values("namespaces")),
        pods in prop::option::of(select(values("pods"))),
        egress in select(values("egress")),
        ingress in prop::option::of(select(values("ingress"))),
        max in prop::option::of(select(values("max-egress"))),
        max_burst in prop::option::of(select(values("max-burst"))),
    ) -> String {
        let line = |key: &str, value: Option<&str>| value.map(|v| format!("{key} = {v}\n")).unwrap_or_default();
        format!("[[sluice.bandwidth.class]]\nname = {name}\nnamespaces = {namespaces}\negress = {egress}\n")
            + &line("pods", pods) + &line("ingress", ingress) + &line("max-egress", max)
            + &line("max-burst", max_burst)
    }
}

prop_compose! {
    /// A document of good values; rules over several keys may still refuse it.
    fn any_document()(
        chosen in prop::sample::subsequence(plain_keys(), 0..20),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 20),
        classes in (prop::option::of(any_class("'a'")), prop::option::of(any_class("'b-1'"))),
    ) -> String {
        let line = |(key, pick): (&String, &prop::sample::Index)| {
            format!("sluice.{key} = {}\n", pick.get(values(key)))
        };
        let lines: String = chosen.iter().zip(&picks).map(line).collect();
        let lines = format!("sluice.version = 1\n{lines}");
        // Dotted keys close a table for headers, so classes are given as a layer of their own.
        let classes = [classes.0, classes.1].into_iter().flatten().collect::<String>();
        format!("{lines}\u{0}[sluice]\nversion = 1\n{classes}")
    }
}

proptest! {
    #[test]
    fn any_text_has_an_answer(text in "(?s).*") {
        check(&text);
    }

    #[test]
    fn any_mix_of_our_pieces_has_an_answer(pieces in prop::collection::vec(select(PIECES), 0..40)) {
        check(&pieces.concat());
    }

    #[test]
    fn any_value_of_any_key_has_an_answer(
        section in select(&["sluice", "settings.sluice"][..]),
        key in select(&[
            "version", "bandwidth", "bandwidth.burst", "bandwidth.default-egress", "cni.bin-dir",
            "bandwidth.class", "bandwidth.latency-target", "max-pods.value", "agent.metrics-listen",
        ][..]),
        value in "(?s).*",
    ) {
        check(&format!("{section}.version = 1\n{section}.{key} = {value:?}\n"));
    }

    #[test]
    fn settings_survive_printing(document in any_document()) {
        let (keys, classes) = document.split_once('\u{0}').unwrap_or_default();
        let layers = [("keys", keys), ("classes", classes)];
        let Ok(effective) = merge(&layers) else { return Ok(()) };
        let printed = effective.settings.to_toml();
        let read = merge(&[("printed", &printed)]);
        prop_assert_eq!(read.as_ref().map(|read| &read.settings), Ok(&effective.settings), "{}", printed);
        let values = |e: settings_model::Effective| e.entries().into_iter().map(|e| (e.key, e.value)).collect::<Vec<_>>();
        prop_assert_eq!(read.map(values), Ok(values(effective.clone())));
        prop_assert_eq!(merge(&[layers[0], layers[1], layers[0]]).map(|e| e.settings), Ok(effective.settings));
    }

    #[test]
    fn layers_of_any_text_have_an_answer(texts in prop::collection::vec(prop::collection::vec(select(PIECES), 0..20), 0..4)) {
        let texts: Vec<_> = texts.iter().map(|pieces| pieces.concat()).collect();
        let layers: Vec<_> = texts.iter().map(|text| ("t", text.as_str())).collect();
        if let Err(problems) = merge(&layers) {
            prop_assert!(problems.iter().count() > 0);
        }
    }

    #[test]
    fn any_key_is_explained_or_not(key in "[a-z.\\[\\]]{0,30}") {
        let _ = explain(&key);
    }
}

/// Else the property above would hold for want of settings.
#[test]
fn most_documents_of_good_values_are_good() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let good = (0..100).filter(|_| {
        let document = any_document().new_tree(&mut runner).expect("document").current();
        let (keys, classes) = document.split_once('\u{0}').unwrap_or_default();
        merge(&[("keys", keys), ("classes", classes)]).is_ok()
    });
    let good = good.count();
    assert!(good >= 60, "{good} of 100");
}
