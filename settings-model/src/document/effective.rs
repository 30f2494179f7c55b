// SPDX-License-Identifier: Apache-2.0

//! Layers of documents merged into what is in force, with where each value comes from.
//!
//! Later layers win key by key; classes are merged by name. All problems of all layers are reported at
//! once.
//! Never reads a file: the caller brings the texts, lowest layer first.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::Settings;
use crate::document::effect;
use crate::document::print::{rows, toml_value};
use crate::document::rules;
use crate::document::{self, Draft};
use crate::sections::max_pods::PodLimit;
use crate::text::problem::{Problems, Warning};
use crate::text::reader::{Alias, Notes};
use crate::text::source::{Place, Source};
use crate::text::syntax;

/// Old keys that still work: path inside our table, path of the successor in the same section.
///
/// None yet. A key that gets a new name is put here, so that images and user data need not change
/// on the same day.
pub(crate) const DEPRECATED: &[Alias] = &[];

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The values.
    pub settings: Settings,
    /// What an operator should know all the same, by layer and position.
    pub warnings: Vec<Warning>,
    origins: BTreeMap<String, Origin>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built in: no layer gives the key.
    Default,
    /// Written in a document.
    Written {
        /// How the caller named it.
        source: String,
        /// Line, from 1.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Written { source, line } => write!(f, "{source}:{line}"),
        }
    }
}

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path inside our table, e.g. `bandwidth.class.batch.egress`.
    pub key: String,
    /// The value as TOML.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl Effective {
    /// Where a key's value comes from; the path is as in [`Entry`].
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// How many keys the documents give; none where they do not have our table.
    pub fn keys_given(&self) -> usize {
        match self.origin("version") {
            Origin::Default => 0,
            Origin::Written { .. } => self.origins.len(),
        }
    }

    /// Every value, section by section.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |(key, value): (String, _)| {
            let (value, origin) = (toml_value(&value), self.origin(&key));
            Entry { key, value, origin }
        };
        rows(&self.settings).into_iter().map(entry).collect()
    }

    /// The same as an array for programs; `origin` is null for a default.
    pub fn to_json(&self) -> Value {
        let entry = |(key, value): (String, Value)| {
            let origin = match self.origin(&key) {
                Origin::Default => Value::Null,
                Origin::Written { source, line } => json!({ "file": source, "line": line }),
            };
            json!({ "key": key, "value": value, "origin": origin })
        };
        rows(&self.settings).into_iter().map(entry).collect()
    }
}

/// Merges layers, lowest first; each is how messages name it, and its text.
///
/// No layer at all, or none with our table, gives the defaults. Fails with all problems of all
/// layers; a layer that is not TOML, or a table of a newer version, is not judged beyond that.
pub fn merge(layers: &[(&str, &str)]) -> Result<Effective, Problems> {
    merge_with(layers, DEPRECATED)
}

fn merge_with(layers: &[(&str, &str)], aliases: &'static [Alias]) -> Result<Effective, Problems> {
    let sources: Vec<_> = layers.iter().map(|(name, text)| Source::new(name, text)).collect();
    let mut notes = Notes { aliases, ..Notes::default() };
    let mut draft = Draft::default();
    for (layer, source) in sources.iter().enumerate() {
        notes.layer = layer;
        match syntax::read(source, layer, &mut notes.report) {
            Some(document) => document::read(&document, &mut notes, &mut draft),
            None => notes.unread = true,
        }
    }
    // What an unread layer says is not known, so neither is what all of them say.
    if !notes.unread {
        rules::check(&draft, &mut notes);
    }
    finish(draft, notes, &sources)
}

fn finish(draft: Draft, mut notes: Notes, sources: &[Source<'_>]) -> Result<Effective, Problems> {
    let Draft { mut settings, foreign_max_pods } = draft;
    effect::check(&settings, &mut notes);
    if let (PodLimit::Auto, Some((count, given))) = (settings.max_pods.value, foreign_max_pods) {
        settings.max_pods.value = PodLimit::Count(count);
        notes.given.insert("max-pods.value".to_owned(), given);
    }
    let located = |place: Place| {
        let source = sources.get(place.layer)?;
        Some(Origin::Written { source: source.name.to_owned(), line: source.line(place.start) })
    };
    let origins = notes.given.into_iter();
    let origins = origins.filter_map(|(key, given)| Some((key, located(given.place)?))).collect();
    let warnings = notes.report.finish(sources)?;
    Ok(Effective { settings, warnings, origins })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RENAMED: &[Alias] = &[("bandwidth.egress-default", "bandwidth.default-egress")];

    fn with_alias(text: &str) -> Result<Effective, String> {
        merge_with(&[("t", text)], RENAMED).map_err(|problems| problems.to_string())
    }

    #[test]
    fn deprecated_key_works_and_names_its_successor() {
        let text = "sluice.version = 1\nsluice.bandwidth.egress-default = '1Mbit'\n";
        let effective = with_alias(text).expect("settings");
        assert_eq!(effective.settings.bandwidth.default_egress.to_string(), "1Mbit");
        assert_eq!(effective.origin("bandwidth.default-egress").to_string(), "t:2");
        let warnings: Vec<_> = effective.warnings.iter().map(ToString::to_string).collect();
        let expected = "t:2:18 sluice.bandwidth.egress-default: deprecated; use \"default-egress\"";
        assert_eq!(warnings, [expected]);
    }

    #[test]
    fn deprecated_key_beside_its_successor_is_refused() {
        let text = "sluice.version = 1\nsluice.bandwidth.default-egress = '1Mbit'\n\
                    sluice.bandwidth.egress-default = '1Mbit'\n";
        let expected = "t:3:18 sluice.bandwidth.egress-default: \"egress-default\" is an old name of \
                        \"default-egress\", which is given too; keep \"default-egress\"\n";
        assert_eq!(with_alias(text), Err(expected.to_owned()));
    }

    #[test]
    fn deprecated_key_is_judged_like_its_successor_and_never_suggested() {
        let text = "sluice.version = 1\nsluice.bandwidth.egress-default = 1\nsluice.bandwidth.egress-defaul = 1\n";
        let problems = with_alias(text).expect_err("problems");
        assert!(
            problems.contains("t:2:35 sluice.bandwidth.egress-default: 1 has no unit; use"),
            "{problems}"
        );
        assert!(
            problems.contains("t:3:18 sluice.bandwidth.egress-defaul: unknown key; use enabled"),
            "{problems}"
        );
    }

    #[test]
    fn no_layer_gives_the_defaults() {
        let effective = merge(&[]).expect("defaults");
        assert_eq!(effective.settings, Settings::default());
        assert!(effective.entries().iter().all(|entry| entry.origin == Origin::Default));
    }

    #[test]
    fn json_has_values_and_their_origins() {
        let effective = merge(&[("t", "sluice.version = 1\nsluice.max-pods.value = 58\n")]);
        let listed = effective.expect("settings").to_json();
        let entry =
            |key: &str| listed.as_array()?.iter().find(|entry| entry["key"] == key).cloned();
        let expected =
            json!({ "key": "max-pods.value", "value": 58, "origin": { "file": "t", "line": 2 } });
        assert_eq!(entry("max-pods.value"), Some(expected));
        let expected = json!({ "key": "bandwidth.burst", "value": "5ms", "origin": null });
        assert_eq!(entry("bandwidth.burst"), Some(expected));
    }

    #[test]
    fn keys_are_counted_where_there_is_our_table() {
        for (text, keys) in [
            ("", 0),
            ("[settings.kubernetes]\nmax-pods = 58\n", 0),
            ("[settings.sluice]\nversion = 1\n", 1),
            ("[settings.sluice]\nversion = 1\nbandwidth.burst = '1ms'\ncni.mode = 'off'\n", 3),
        ] {
            assert_eq!(merge(&[("t", text)]).expect("settings").keys_given(), keys, "{text}");
        }
    }

    #[test]
    fn later_layer_wins_key_by_key() {
        let low =
            "sluice.version = 1\n[sluice.bandwidth]\ndefault-egress = '1Mbit'\nburst = '1ms'\n";
        let high = "settings.sluice.version = 1\n[settings.sluice.bandwidth]\nburst = '2ms'\n";
        let effective =
            merge(&[("low", low), ("none", "x = 1"), ("high", high)]).expect("settings");
        let given = effective.entries().into_iter().filter(|e| e.origin != Origin::Default);
        let given: Vec<_> =
            given.map(|e| format!("{} = {} {}", e.key, e.value, e.origin)).collect();
        assert_eq!(
            given,
            ["bandwidth.default-egress = \"1Mbit\" low:3", "bandwidth.burst = \"2ms\" high:3"]
        );
    }
}
