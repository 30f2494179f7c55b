// SPDX-License-Identifier: Apache-2.0

//! Our table as Bottlerocket keeps it: `settings.sluice`, a tree of JSON that comes in parts.
//!
//! A variant of one's own links [`SluiceSettingsV1`] into its settings plugin. What was read once can
//! always be read again: a setting that a call changes is judged by itself, and what several say together
//! in [`SluiceSettingsV1::check`] only, or two calls that are fine could leave settings that no one can read.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::document::effective::DEPRECATED;
use crate::document::{self, Draft, rules};
use crate::text::problem::Problems;
use crate::text::reader::Notes;
use crate::text::source::Source;
use crate::text::syntax;

/// `settings.sluice`, in whole or in part; every key in it is one of ours, with a value that it may have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SluiceSettingsV1(Map<String, Value>);

/// Why a tree is refused: a line for each setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

impl SluiceSettingsV1 {
    /// The version of this model, as Bottlerocket numbers them.
    pub const VERSION: &'static str = "v1";

    /// Whether all of it goes together, and with `others`, foreign settings by their names.
    pub fn check(&self, others: Option<&Value>) -> Result<(), Unusable> {
        let others = others.and_then(Value::as_object).cloned().unwrap_or_default();
        judge(&self.0, others, rules::check)
    }

    /// With what every table of ours must say.
    pub fn complete(mut self) -> Self {
        self.0.entry("version").or_insert(json!(1));
        self
    }
}

impl Serialize for SluiceSettingsV1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SluiceSettingsV1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut tree = Map::deserialize(deserializer)?;
        remove_unset(&mut tree);
        judge(&tree, Map::new(), |_, _| ()).map_err(D::Error::custom)?;
        Ok(Self(tree))
    }
}

/// A setting that is null is one that is not set.
fn remove_unset(tree: &mut Map<String, Value>) {
    tree.retain(|_, value| !value.is_null());
    tree.values_mut().filter_map(Value::as_object_mut).for_each(remove_unset);
}

/// Reads the tree as the document that says the same.
fn judge(
    tree: &Map<String, Value>,
    others: Map<String, Value>,
    rules: impl FnOnce(&Draft, &mut Notes),
) -> Result<(), Unusable> {
    let whole = SluiceSettingsV1(tree.clone()).complete();
    let mut settings = others;
    remove_unset(&mut settings);
    settings.insert("sluice".to_owned(), Value::Object(whole.0));
    let text = toml::to_string(&json!({ "settings": settings }));
    let text = text.map_err(|e| Unusable(format!("settings.sluice: {e}")))?;
    let source = Source::unseen(&text);
    let mut notes = Notes { aliases: DEPRECATED, ..Notes::default() };
    let mut draft = Draft::default();
    if let Some(document) = syntax::read(&source, 0, &mut notes.report) {
        document::read(&document, &mut notes, &mut draft);
        rules(&draft, &mut notes);
    }
    notes.report.finish(&[source]).map(drop).map_err(|problems| Unusable(without_places(&problems)))
}

fn without_places(problems: &Problems) -> String {
    let line = |problem: &crate::Problem| match problem.key.is_empty() {
        true => problem.message.clone(),
        false => format!("{}: {}", problem.key, problem.message),
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tree: Value) -> Result<SluiceSettingsV1, String> {
        serde_json::from_value(tree).map_err(|e: serde_json::Error| e.to_string())
    }

    #[test]
    fn every_part_of_a_good_tree_is_read_and_given_back_as_it_is() {
        for tree in [
            json!({}),
            json!({"version": 1}),
            json!({"bandwidth": {"default-egress": "500Mbit"}}),
            json!({"bandwidth": {"class": [{"name": "batch", "namespaces": ["jobs"], "egress": "1Mbit"}]}}),
            json!({"max-pods": {"value": 58}, "cni": {"mode": "off"}}),
        ] {
            let read = read(tree.clone()).expect("settings");
            assert_eq!(serde_json::to_value(&read).expect("JSON"), tree);
        }
    }

    #[test]
    fn a_bad_setting_is_named_with_what_is_allowed_and_no_place_in_a_text_that_no_one_wrote() {
        for (tree, expected) in [
            (
                json!({"bandwidth": {"defualt-egress": "1Mbit"}}),
                "settings.sluice.bandwidth.defualt-egress: unknown key; did you mean \"default-egress\"?",
            ),
            (
                json!({"cni": {"mode": "of"}, "bandwidth": {"default-egress": 5}}),
                "settings.sluice.bandwidth.default-egress: 5 has no unit; use bit, kbit, mbit, gbit or tbit, \
                 e.g. \"500Mbit\"\nsettings.sluice.cni.mode: \"of\" is not allowed; use \"chain\", \
                 \"standalone\" or \"off\"",
            ),
            (
                json!({"version": 2, "wings": 4}),
                "settings.sluice.version: found 2; this program understands version 1; a newer image is \
                 needed to read it",
            ),
            (json!({"cni": [null]}), "settings.sluice: unsupported unit type"),
        ] {
            assert_eq!(read(tree).expect_err("refused"), expected);
        }
        assert_eq!(
            read(json!(5)).expect_err("refused"),
            "invalid type: integer `5`, expected a map"
        );
    }

    /// Each call below is one that a node may get; its settings must stay readable after all of them.
    #[test]
    fn parts_that_are_fine_by_themselves_stay_readable_together() {
        let (limit, max) = (json!({"default-egress": "2Gbit"}), json!({"max-egress": "1Gbit"}));
        for part in [limit, max] {
            read(json!({ "bandwidth": part })).expect("a part");
        }
        let both = json!({"bandwidth": {"default-egress": "2Gbit", "max-egress": "1Gbit"}});
        let both = read(both).expect("both");
        let expected = "settings.sluice.bandwidth.default-egress: \"2Gbit\" is above \
                        bandwidth.max-egress = \"1Gbit\"; use at most \"1Gbit\"";
        assert_eq!(both.check(None), Err(Unusable(expected.to_owned())));
    }

    #[test]
    fn foreign_settings_are_looked_at_only_where_they_concern_ours() {
        let ours = read(json!({"max-pods": {"value": 58}})).expect("settings");
        let others =
            |count: Value| json!({"kubernetes": {"max-pods": count, "x": null}, "motd": "x"});
        assert_eq!(ours.check(Some(&others(json!(58)))), Ok(()));
        let expected = "settings.sluice.max-pods.value: found 58, but settings.kubernetes.max-pods is 60; \
                        keep one of the two or make them equal";
        assert_eq!(ours.check(Some(&others(json!(60)))), Err(Unusable(expected.to_owned())));
    }

    #[test]
    fn what_is_null_is_not_set() {
        let tree = json!({"version": null, "bandwidth": {"burst": null, "max-egress": "1Gbit"}});
        let read = read(tree).expect("settings").complete();
        let expected = json!({"version": 1, "bandwidth": {"max-egress": "1Gbit"}});
        assert_eq!(serde_json::to_value(read).expect("JSON"), expected);
    }
}
