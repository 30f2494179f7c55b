// SPDX-License-Identifier: Apache-2.0
//! The settings as a document of only those keys that a layer gives, so
//! that user data stays small. Read on its own, or above the layers that the
//! keys come from, it gives the same settings.

use std::fmt::Write;

use serde_json::Value;
use settings_model::Effective;

/// Every value stands on one line, in quotes where it is text: so the document can be put into
/// formats that end a text at a line of their own.
pub(super) fn of(effective: &Effective) -> String {
    let mut text = "[settings.sluice]\nversion = 1\n".to_owned();
    let mut open = String::new();
    for entry in effective.to_json().as_array().into_iter().flatten() {
        let given = !entry["origin"].is_null();
        let path = entry["key"].as_str().filter(|_| given).and_then(|key| key.rsplit_once('.'));
        let Some((table, key)) = path else { continue };
        if open != table {
            table.clone_into(&mut open);
            text.push_str(&header(table));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key} = {}", value(&entry["value"]));
    }
    text
}

fn header(table: &str) -> String {
    match table.starts_with("bandwidth.class.") {
        true => "\n[[settings.sluice.bandwidth.class]]\n".into(),
        false => format!("\n[settings.sluice.{table}]\n"),
    }
}

/// JSON of the kinds that settings have (text, numbers, switches, lists of them) is TOML, but for
/// DEL. What YAML takes for the end of a line is escaped too, and what HCL takes for a template.
fn value(value: &Value) -> String {
    let escaped = |c: char| match c {
        '\u{7f}' | '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
            format!("\\u{:04x}", c as u32)
        }
        c => c.into(),
    };
    let text: String = value.to_string().chars().map(escaped).collect();
    text.replace("${", "\\u0024{").replace("%{", "\\u0025{")
}
