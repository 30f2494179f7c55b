// SPDX-License-Identifier: Apache-2.0
//! What `--json` prints is as docs/schema says. Of JSON Schema 2020-12 this knows the keywords that are used there, and
//! refuses others: one that it passed over would check nothing.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

/// By the command that prints it, or its file.
const TEXTS: [(&str, &str); 9] = [
    ("check", include_str!("../../docs/schema/check.json")),
    ("doctor", include_str!("../../docs/schema/doctor.json")),
    ("limit", include_str!("../../docs/schema/limit.json")),
    ("max-pods", include_str!("../../docs/schema/max-pods.json")),
    ("pods", include_str!("../../docs/schema/pods.json")),
    ("settings", include_str!("../../docs/schema/settings.json")),
    ("status", include_str!("../../docs/schema/status.json")),
    ("top", include_str!("../../docs/schema/top.json")),
    ("trace", include_str!("../../docs/schema/trace.json")),
];

/// Read once: each pod refers to several.
static SCHEMAS: LazyLock<BTreeMap<&str, Value>> = LazyLock::new(|| {
    let read = |(name, text)| {
        let schema = serde_json::from_str(text);
        (name, schema.unwrap_or_else(|e| panic!("docs/schema/{name}.json: {e}")))
    };
    TEXTS.into_iter().map(read).collect()
});

/// Panics with each place that is not as the command's schema says.
pub fn assert_valid(command: &str, printed: &Value) {
    let wrong = problems(command, schema(command), printed, command);
    assert!(wrong.is_empty(), "docs/schema/{command}.json: {wrong:#?}\nin {printed}");
}

fn schema(name: &str) -> &'static Value {
    SCHEMAS.get(name).unwrap_or_else(|| panic!("docs/schema has nothing of {name}"))
}

/// In the file `name`; `at` is where in what was printed.
fn problems(name: &str, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let keywords = schema.as_object().unwrap_or_else(|| panic!("{name}: {schema} is no schema"));
    keywords
        .iter()
        .flat_map(|(key, wanted)| keyword(name, schema, key, wanted, value, at))
        .collect()
}

fn keyword(
    name: &str,
    schema: &Value,
    key: &str,
    wanted: &Value,
    value: &Value,
    at: &str,
) -> Vec<String> {
    let unless =
        |is_so: bool, what: String| if is_so { vec![] } else { vec![format!("{at}: {what}")] };
    let fields = value.as_object().into_iter().flatten();
    match key {
        "$schema" | "$defs" | "title" | "description" => vec![],
        "$ref" => referred(name, wanted, value, at),
        "const" => unless(value == wanted, format!("{value}, not {wanted}")),
        "enum" => unless(list(wanted).contains(value), format!("{value} is none of {wanted}")),
        "type" => unless(is_of_type(value, wanted), format!("{value} is no {wanted}")),
        "required" => {
            let missing = |key: &&Value| value.is_object() && value.get(text(key)).is_none();
            let missing = list(wanted).iter().filter(missing);
            missing.map(|key| format!("{at}: no {key}")).collect()
        }
        "properties" => fields
            .filter_map(|(key, value)| Some((key, value, wanted.get(key)?)))
            .flat_map(|(key, value, schema)| problems(name, schema, value, &format!("{at}.{key}")))
            .collect(),
        "additionalProperties" if *wanted == json!(false) => fields
            .filter(|(key, _)| schema["properties"].get(key).is_none())
            .map(|(key, _)| format!("{at}: {key:?} is not in the schema"))
            .collect(),
        "items" => value
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .flat_map(|(index, value)| problems(name, wanted, value, &format!("{at}[{index}]")))
            .collect(),
        "anyOf" => {
            let mut each = list(wanted).iter().map(|schema| problems(name, schema, value, at));
            let nearest = each.clone().min_by_key(Vec::len).unwrap_or_default();
            if each.any(|wrong| wrong.is_empty()) { vec![] } else { nearest }
        }
        other => panic!("docs/schema/{name}.json: {other:?}: {wanted} is not known here"),
    }
}

/// `#/$defs/NAME`, of this file or of another one before it.
fn referred(name: &str, reference: &Value, value: &Value, at: &str) -> Vec<String> {
    let (file, def) = text(reference).split_once("#/$defs/").expect("a reference to $defs");
    let name = if file.is_empty() { name } else { file.trim_end_matches(".json") };
    let found = schema(name)["$defs"].get(def).unwrap_or_else(|| panic!("{name}: no {def}"));
    problems(name, found, value, at)
}

fn is_of_type(value: &Value, wanted: &Value) -> bool {
    let is = |name: &Value| match text(name) {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other:?} is not known here"),
    };
    wanted.as_array().map_or_else(|| is(wanted), |types| types.iter().any(is))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(schema: Value, value: Value) -> Vec<String> {
        problems("status", &schema, &value, "it")
    }

    #[test]
    fn each_keyword_is_checked() {
        let object = json!({
            "type": "object", "properties": { "a": { "type": ["integer", "null"] } }, "required": ["a"],
            "additionalProperties": false,
        });
        let trouble = json!({ "$ref": "#/$defs/severity" });
        for (schema, value, expected) in [
            (&object, json!({ "a": 1 }), ""),
            (&object, json!({ "a": null }), ""),
            (&object, json!({ "a": "1" }), r#"it.a: "1" is no ["integer","null"]"#),
            (&object, json!({ "a": 1.5 }), r#"it.a: 1.5 is no ["integer","null"]"#),
            (&object, json!({ "a": 1, "b": 1 }), r#"it: "b" is not in the schema"#),
            (&object, json!({}), r#"it: no "a""#),
            (&json!({ "items": { "const": 1 } }), json!([1, 2]), "it[1]: 2, not 1"),
            (&json!({ "anyOf": [object, { "const": 1 }] }), json!(1), ""),
            (&json!({ "anyOf": [object, { "const": 1 }] }), json!({ "a": 1 }), ""),
            (&json!({ "anyOf": [{ "const": 2 }] }), json!(1), "it: 1, not 2"),
            (&trouble, json!("fault"), ""),
            (&trouble, json!("bad"), r#"it: "bad" is none of ["fault","degraded","note"]"#),
        ] {
            assert_eq!(wrong(schema.clone(), value).join("; "), expected, "{schema}");
        }
    }

    #[test]
    #[should_panic(expected = "\"maxLength\": 3 is not known here")]
    fn other_keywords_are_refused() {
        wrong(json!({ "maxLength": 3 }), json!(""));
    }
}
