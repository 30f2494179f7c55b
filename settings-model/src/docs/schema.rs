// SPDX-License-Identifier: Apache-2.0

//! JSON Schema of a document, for editors and pipelines.
//!
//! Strict inside our table, silent about every other one. It knows less than the rules: ranges of
//! quantities and what several keys mean together are left to `merge`.

use serde_json::{Map, Value, json};

use crate::docs::keys::{KEYS, Key, SECTIONS};
use crate::sections::class::MOST_CLASSES;

/// JSON Schema 2020-12 of a document of version 1.
pub fn schema() -> Value {
    let ours = json!({ "$ref": "#/$defs/sluice" });
    // A `settings` that is no table is foreign.
    let settings = json!({ "properties": { "sluice": ours } });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sluice settings, version 1",
        "type": "object",
        "properties": { "settings": settings, "sluice": ours },
        "$defs": { "sluice": section("") },
    })
}

/// The schema of a table: its keys and the tables below it.
fn section(name: &str) -> Value {
    let keys = KEYS.iter().filter(|key| key.section() == name);
    let mut properties: Map<_, _> =
        keys.clone().map(|key| (key.last().to_owned(), of(key))).collect();
    let required: Vec<_> = keys.filter(|key| key.is_required()).map(Key::last).collect();
    for (below, _) in SECTIONS.iter().filter(|(below, _)| parent(below) == Some(name)) {
        let last = below.rsplit('.').next().unwrap_or(below);
        let (key, value) = match last.strip_suffix("[]") {
            Some(key) => (key, list(section(below))),
            None => (last, section(below)),
        };
        properties.insert(key.to_owned(), value);
    }
    let meaning = SECTIONS.iter().find(|(section, _)| *section == name).map(|(_, meaning)| meaning);
    json!({
        "description": meaning,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The section that a section is in; our table itself is in none.
fn parent(name: &str) -> Option<&str> {
    match name {
        "" => None,
        name => Some(name.rsplit_once('.').map_or("", |(parent, _)| parent)),
    }
}

fn list(item: Value) -> Value {
    json!({ "type": "array", "maxItems": MOST_CLASSES, "items": item })
}

fn of(key: &Key) -> Value {
    let mut schema = key.shape.schema();
    let value = |text| crate::document::print::from_toml(text);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), key.meaning.into());
        schema.insert("examples".to_owned(), value(key.example).into_iter().collect());
        key.default.and_then(value).map(|default| schema.insert("default".to_owned(), default));
    }
    schema
}
