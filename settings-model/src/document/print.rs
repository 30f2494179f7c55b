// SPDX-License-Identifier: Apache-2.0

//! Settings as text: TOML that reads back as the same settings, JSON, and rows of keys and values.
//!
//! Owns the order of sections. Each section lists its own keys, all of them, defaults included.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::Settings;
use crate::text::reader::join;

/// One table of the document.
struct Section {
    /// Its path inside our table.
    name: &'static str,
    /// The path of its keys: the same, but for one of many tables.
    path: String,
    /// Whether it is one of many of this name.
    one_of_many: bool,
    keys: Vec<(&'static str, Value)>,
}

impl Section {
    fn single(name: &'static str, keys: Vec<(&'static str, Value)>) -> Self {
        Self { name, path: name.to_owned(), one_of_many: false, keys }
    }
}

fn sections(settings: &Settings) -> Vec<Section> {
    let Settings { bandwidth, cni, prefix_delegation, max_pods, agent } = settings;
    let name = "bandwidth.class";
    let classes = bandwidth.classes.iter().map(|class| {
        let path = join(name, class.name.as_str());
        Section { name, path, one_of_many: true, keys: class.rows() }
    });
    let mut sections = vec![Section::single("bandwidth", bandwidth.rows())];
    sections.extend(classes);
    sections.push(Section::single("cni", cni.rows()));
    sections.push(Section::single("prefix-delegation", prefix_delegation.rows()));
    sections.push(Section::single("max-pods", max_pods.rows()));
    sections.push(Section::single("agent", agent.rows()));
    sections
}

/// Every key, by its path inside our table, with its value.
pub(crate) fn rows(settings: &Settings) -> Vec<(String, Value)> {
    let keys = |section: Section| {
        let Section { path, keys, .. } = section;
        keys.into_iter().map(move |(key, value)| (join(&path, key), value))
    };
    sections(settings).into_iter().flat_map(keys).collect()
}

/// A value as TOML.
pub(crate) fn toml_value(value: &Value) -> String {
    match value {
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", "))
        }
        plain => plain.to_string(),
    }
}

impl Settings {
    /// A document that says all this; reading it gives the same settings.
    pub fn to_toml(&self) -> String {
        let mut text = "[settings.sluice]\nversion = 1\n".to_owned();
        for Section { name, one_of_many, keys, .. } in sections(self) {
            let (open, close) = if one_of_many { ("[[", "]]") } else { ("[", "]") };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n{open}settings.sluice.{name}{close}");
            for (key, value) in keys {
                let _ = writeln!(text, "{key} = {}", toml_value(&value));
            }
        }
        text
    }

    /// The same as one JSON object, with a list of classes at `bandwidth.class`.
    pub fn to_json(&self) -> Value {
        let mut object = Map::from_iter([("version".to_owned(), Value::from(1))]);
        let mut classes = Vec::new();
        for Section { name, one_of_many, keys, .. } in sections(self) {
            let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            match one_of_many {
                true => classes.push(Value::Object(keys)),
                false => drop(object.insert(name.to_owned(), Value::Object(keys))),
            }
        }
        if let Some(bandwidth) = object.get_mut("bandwidth").and_then(Value::as_object_mut) {
            bandwidth.insert("class".to_owned(), Value::Array(classes));
        }
        Value::Object(object)
    }
}

/// A value from TOML, of the kinds that settings have.
pub(crate) fn from_toml(text: &str) -> Option<Value> {
    fn plain(value: toml::Value) -> Option<Value> {
        Some(match value {
            toml::Value::String(text) => text.into(),
            toml::Value::Integer(number) => number.into(),
            toml::Value::Boolean(yes) => yes.into(),
            toml::Value::Array(items) => items.into_iter().filter_map(plain).collect(),
            _ => return None,
        })
    }
    format!("x = {text}").parse::<toml::Table>().ok()?.remove("x").and_then(plain)
}

#[cfg(test)]
mod tests {
    use crate::parse;

    const DOCUMENT: &str = r#"[settings.sluice]
version = 1

[settings.sluice.bandwidth]
enabled = true
default-egress = "500Mbit"
default-ingress = "unlimited"
burst = "64KB"
latency-target = "5ms"
ecn = true
count = "l2"
guard = "policy-only"
node-egress = "auto"
node-ingress = "auto"

[[settings.sluice.bandwidth.class]]
name = "batch"
namespaces = ["batch-*", "jobs"]
pods = ["*"]
ingress = "100Mbit"

[settings.sluice.cni]
mode = "chain"
conf-dir = "/etc/cni/net.d"
bin-dir = "/opt/cni/bin"
upstream-bandwidth = "replace"

[settings.sluice.prefix-delegation]
enabled = false
warm-prefix-target = 1
warm-ip-target = 0
minimum-ip-target = 0

[settings.sluice.max-pods]
value = 58
kubelet = "auto"
ip-family = "ipv4"
custom-networking = false
pod-security-groups = false
max-eni = 0

[settings.sluice.agent]
metrics-listen = "127.0.0.1:9469"
on-invalid = "last-good"
"#;

    #[test]
    fn canonical_document_prints_as_it_is() {
        assert_eq!(parse("t", DOCUMENT).expect("settings").to_toml(), DOCUMENT);
    }

    #[test]
    fn json_is_shaped_like_the_document() {
        let json = parse("t", DOCUMENT).expect("settings").to_json();
        let document: toml::Table = DOCUMENT.parse().expect("TOML");
        let sluice = document["settings"]["sluice"].clone();
        assert_eq!(json, serde_json::to_value(sluice).expect("JSON"));
    }
}
