// SPDX-License-Identifier: Apache-2.0

//! What a key means, for a person: one key, one section, or all of them as a page.
//!
//! Never holds a fact of its own; `keys.rs` does.

use std::fmt::Write;

use crate::docs::keys::{KEYS, Key, SECTIONS};
use crate::text::code;
use crate::text::reader::distance;

const WITHOUT_EFFECT: &str = "none in this version; understood and checked";

/// What a key or section means, with unit, default, range and example; None if there is none.
///
/// Takes a path inside our table or from the root, and a class by any name: `bandwidth.burst`,
/// `settings.sluice.bandwidth.burst`, `bandwidth.class.batch.egress`.
pub fn explain(key: &str) -> Option<String> {
    let path = inner_path(key);
    let known = KEYS.iter().find(|key| key.name == path);
    known.map(explain_key).or_else(|| explain_section(&path))
}

/// The key or section that this one was meant to be: the same last part somewhere else, or a slip of the finger.
pub fn meant(key: &str) -> Option<&'static str> {
    let path = inner_path(key);
    let names = || KEYS.iter().map(|key| key.name).chain(SECTIONS.iter().map(|(name, _)| *name));
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let elsewhere = names().find(|name| !name.is_empty() && last(name) == last(&path));
    let nearest = names().min_by_key(|name| distance(&path, name));
    let is_near = |name: &&str| distance(&path, name) <= (name.len() / 4).max(1);
    nearest.filter(is_near).or(elsewhere)
}

/// The path as the table of keys has it.
fn inner_path(key: &str) -> String {
    let root = ["settings.sluice", "sluice"].iter().find_map(|root| key.strip_prefix(root));
    let inner = match root {
        Some("") => "",
        Some(rest) => rest.strip_prefix('.').unwrap_or(key),
        None => key,
    };
    let mut parts: Vec<_> = inner.split('.').collect();
    match parts.as_mut_slice() {
        ["class" | "class[]", ..] => return inner_path(&format!("bandwidth.{inner}")),
        ["bandwidth", class, ..] if class.starts_with("class") => {
            let is_any = std::mem::replace(class, "class[]") == "class[]";
            // A class by its name: the name is one part more.
            if parts.len() == 4 || parts.len() == 3 && !is_any && !is_class_key(&parts) {
                parts.remove(2);
            }
        }
        _ => (),
    }
    parts.join(".")
}

fn is_class_key(parts: &[&str]) -> bool {
    KEYS.iter().any(|key| key.name == parts.join("."))
}

fn explain_key(key: &Key) -> String {
    let name = key.name;
    let mut text = format!("{name}\n\n{}\n\n", key.meaning);
    let mut line = |what: &str, said: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {what:8} {said}");
    };
    line("allowed", &key.shape.allowed());
    key.shape.unit().into_iter().for_each(|unit| line("unit", unit));
    key.shape.range().into_iter().for_each(|range| line("range", &range));
    line("default", key.default.unwrap_or("none"));
    line("example", &format!("{} = {}", key.last(), key.example));
    if !key.has_effect() {
        line("effect", WITHOUT_EFFECT);
    }
    text
}

fn explain_section(path: &str) -> Option<String> {
    let (name, meaning) = SECTIONS.iter().find(|(name, _)| *name == path)?;
    let title = if name.is_empty() { "settings.sluice" } else { name };
    let mut text = format!("{title}\n\n{meaning}\n\n");
    let keys = KEYS.iter().filter(|key| key.section() == *name).map(|key| key.name);
    let below = SECTIONS.iter().map(|(section, _)| *section);
    let below = below.filter(|section| name.is_empty() && !section.is_empty());
    for key in keys.chain(below) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {key}");
    }
    Some(text)
}

/// Markdown: each section with an example and its keys, then every code of a problem.
pub fn docs_page() -> String {
    let mut text = String::new();
    for (name, meaning) in SECTIONS {
        let keys = || KEYS.iter().filter(|key| key.section() == *name);
        let path = format!("settings.sluice{}{name}", if name.is_empty() { "" } else { "." });
        let table = match path.strip_suffix("[]") {
            Some(list) => format!("[[{list}]]"),
            None => format!("[{path}]"),
        };
        let example: String =
            keys().map(|key| format!("    {} = {}\n", key.last(), key.example)).collect();
        // Writing to a string cannot fail.
        let _ = write!(text, "## `{table}`\n\n{meaning}\n\n    {table}\n{example}\n");
        keys().for_each(|key| text.push_str(&item(key)));
        text.push('\n');
    }
    text.push_str("## Codes of problems\n\n| code | meaning |\n| --- | --- |\n");
    for (code, meaning) in code::ALL {
        let _ = writeln!(text, "| `{code}` | {meaning} |");
    }
    text
}

fn item(key: &Key) -> String {
    let range = key.shape.range().map(|range| format!("; {range}")).unwrap_or_default();
    let effect = if key.has_effect() { "" } else { " *No effect in this version.*" };
    let default = match key.default {
        Some(default) => format!(" Default: `{default}`."),
        None => String::new(),
    };
    let (name, allowed) = (key.name, key.shape.allowed());
    let [allowed, meaning] =
        [&format!("{allowed}{range}"), key.meaning].map(|text| text.replace('*', "\\*"));
    format!("- `{name}`: {meaning}{effect} Allowed: {allowed}.{default}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_that_is_none_has_the_one_that_was_meant() {
        for (key, name) in [
            ("bandwidth.brust", Some("bandwidth.burst")),
            ("burst", Some("bandwidth.burst")),
            ("settings.sluice.bandwith", Some("bandwidth")),
            ("class[].egres", Some("bandwidth.class[].egress")),
            ("something-else", None),
        ] {
            assert_eq!(meant(key), name, "{key}");
        }
        assert_eq!(explain("class[]"), explain("bandwidth.class"));
        assert!(explain("class[].egress").is_some());
    }

    #[test]
    fn key_is_explained_by_any_of_its_paths() {
        let expected = "bandwidth.node-egress\n\n\
            What the node can send, which with node-share pods share. \"auto\" is what the instance type can do now, between its baseline and its peak, or the speed of the node's uplink. What the node itself sends is taken off. No limit may be above it.\n\n\
            \x20 allowed  a number with bit, kbit, mbit, gbit, tbit, Kibit, Mibit or Gibit, or a Kubernetes quantity with a suffix (\"10M\", \"1Gi\", \"1e9\"); or \"auto\"\n\
            \x20 unit     bits per second\n\
            \x20 range    1kbit to 1000Tbit or \"auto\"\n\
            \x20 default  \"auto\"\n\
            \x20 example  node-egress = \"10Gbit\"\n";
        for root in ["", "sluice.", "settings.sluice."] {
            let explained = explain(&format!("{root}bandwidth.node-egress"));
            assert_eq!(explained.as_deref(), Some(expected), "{root}");
        }
    }

    #[test]
    fn class_key_is_explained_with_and_without_a_name() {
        let expected = explain("bandwidth.class[].egress");
        assert!(expected.is_some());
        for path in
            ["bandwidth.class.egress", "bandwidth.class.batch.egress", "bandwidth.class[2].egress"]
        {
            assert_eq!(explain(path), expected, "{path}");
        }
        let section = explain("bandwidth.class[]");
        assert!(section.is_some());
        assert_eq!(explain("sluice.bandwidth.class"), section);
        assert_eq!(explain("bandwidth.class.batch"), section);
    }

    #[test]
    fn section_lists_its_keys() {
        let expected = "max-pods\n\nHow many pods the node takes, what of the cluster that depends on, and where kubelet gets the number.\n\n\
                        \x20 max-pods.value\n\x20 max-pods.kubelet\n\x20 max-pods.ip-family\n\
                        \x20 max-pods.custom-networking\n\x20 max-pods.pod-security-groups\n\x20 max-pods.max-eni\n";
        assert_eq!(explain("max-pods").as_deref(), Some(expected));
        let all = explain("settings.sluice").expect("our table");
        assert!(all.contains("\n  version\n") && all.ends_with("\n  agent\n"), "{all}");
    }

    #[test]
    fn what_is_not_there_is_not_explained() {
        for key in [
            "bandwith",
            "settings",
            "bandwidth.",
            "sluicex",
            "bandwidth.class.a.b.c",
            "cni.class.mode",
        ] {
            assert_eq!(explain(key), None, "{key}");
        }
    }

    #[test]
    fn docs_page_has_each_section_key_and_code() {
        let page = docs_page();
        let lines = |start: &str| page.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(lines("- `"), KEYS.len());
        assert_eq!(lines("## `["), SECTIONS.len());
        assert_eq!(lines("| `"), code::ALL.len());
    }
}
