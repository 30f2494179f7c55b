// SPDX-License-Identifier: Apache-2.0

//! Cursor over one table of a parsed document.
//!
//! Hands values to the rule of their key, notes what the rule refuses and where each key was given;
//! keys that no section asked for are unknown, so the keys a section reads are the only list of
//! what it allows.
//! Never knows a key by name.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::text::code;
use crate::text::problem::{Finding, Refusal, Report, quote};
use crate::text::source::Place;

/// Rule of one key: a typed value, or why not.
pub(crate) type Rule<T> = fn(&DeValue<'_>) -> Result<T, Refusal>;

/// Rule of one section: asks for its keys, in any order, and overwrites what is given.
pub(crate) type Section<T> = fn(&mut Table<'_, '_>, &mut T);

/// A deprecated key and its successor, both as paths inside our table and in the same section.
pub(crate) type Alias = (&'static str, &'static str);

/// Where a key was given, and its path as written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) place: Place,
    pub(crate) path: String,
}

/// What reading notes besides the values, over all layers.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The layer being read.
    pub(crate) layer: usize,
    pub(crate) report: Report,
    /// Where each key got its value, by its path inside our table; the last layer wins.
    pub(crate) given: BTreeMap<String, Given>,
    /// A layer could not be read at all, so nothing can be said about keys that are missing.
    pub(crate) unread: bool,
    pub(crate) aliases: &'static [Alias],
}

/// A key's value, where both stand, and the key's full path.
pub(crate) struct Found<'d> {
    pub(crate) path: String,
    pub(crate) key_place: Place,
    pub(crate) place: Place,
    pub(crate) value: &'d DeValue<'d>,
}

/// A table being read.
pub(crate) struct Table<'r, 'd> {
    entries: &'d DeTable<'d>,
    /// As written, e.g. `settings.sluice.cni`.
    path: String,
    /// Inside our table, e.g. `cni`; empty for our table itself.
    inner: String,
    key_place: Place,
    known: Vec<&'static str>,
    outdated: Vec<&'static str>,
    rest_ignored: bool,
    pub(crate) notes: &'r mut Notes,
}

/// Looks a key up without judging it.
pub(crate) fn find<'d>(
    entries: &'d DeTable<'d>,
    key: &str,
    path: &str,
    layer: usize,
) -> Option<Found<'d>> {
    let (key, value) = entries.get_key_value(key)?;
    Some(Found {
        path: path.to_owned(),
        key_place: Place::new(layer, key.span()),
        place: Place::new(layer, value.span()),
        value: value.get_ref(),
    })
}

/// Reads a table with a section's rule, then notes the keys the rule did not ask for.
pub(crate) fn open<T>(
    found: Found<'_>,
    inner: String,
    notes: &mut Notes,
    slot: &mut T,
    section: Section<T>,
) {
    let DeValue::Table(entries) = found.value else {
        let refusal = wrong_type(found.value, "a table");
        return notes.report.add(Finding::new(found.place, found.path, refusal));
    };
    let (path, key_place) = (found.path, found.key_place);
    let (known, outdated) = (Vec::new(), Vec::new());
    let rest_ignored = false;
    let mut table = Table { entries, path, inner, key_place, known, outdated, rest_ignored, notes };
    section(&mut table, slot);
    table.note_unknown();
}

impl<'d> Table<'_, 'd> {
    /// Overwrites `slot` if the key is there and its value is good.
    pub(crate) fn set<T>(&mut self, key: &'static str, rule: Rule<T>, slot: &mut T) {
        if let Some(value) = self.read(key, rule) {
            *slot = value;
        }
    }

    /// The value of an optional key; `None` if it is not there or was refused.
    pub(crate) fn read<T>(&mut self, key: &'static str, rule: Rule<T>) -> Option<T> {
        let Found { path, place, value, .. } = self.find(key)?;
        let given = Given { place, path: path.clone() };
        self.notes.given.insert(join(&self.inner, key), given);
        let judged = rule(value);
        judged.map_err(|why| self.notes.report.add(Finding::new(place, path, why))).ok()
    }

    /// Like `read`, but the key must be there; `line` is what to write.
    pub(crate) fn require<T>(&mut self, key: &'static str, line: &str, rule: Rule<T>) -> Option<T> {
        if self.get(key).is_none() {
            let why = Refusal::new(code::MISSING_KEY, format!("missing; write {line}"));
            self.notes.report.add(Finding::new(self.key_place, join(&self.path, key), why));
        }
        self.read(key, rule)
    }

    /// A sub-table, if it is there.
    pub(crate) fn section<T>(&mut self, key: &'static str, slot: &mut T, section: Section<T>) {
        if let Some(found) = self.find(key) {
            open(found, join(&self.inner, key), self.notes, slot, section);
        }
    }

    /// The tables of an array, if it is there; each is called by its key `name` where it has one.
    pub(crate) fn each<T>(
        &mut self,
        key: &'static str,
        name: &str,
        slot: &mut T,
        item: Section<T>,
    ) {
        let Some(Found { path, place, value, .. }) = self.find(key) else { return };
        let DeValue::Array(items) = value else {
            let refusal = wrong_type(value, "an array of tables");
            return self.notes.report.add(Finding::new(place, path, refusal));
        };
        let inner = join(&self.inner, key);
        for (index, value) in items.iter().enumerate() {
            let place = Place::new(self.notes.layer, value.span());
            let value = value.get_ref();
            let name = value.get(name).and_then(|name| name.get_ref().as_str());
            let below = |parent: &str| match name {
                Some(name) if name.len() <= LONGEST_BARE => join(parent, name),
                _ => format!("{parent}[{index}]"),
            };
            let found = Found { path: below(&path), key_place: place, place, value };
            open(found, below(&inner), self.notes, slot, item);
        }
    }

    /// Where a key was given last, in this layer or a lower one.
    pub(crate) fn given(&self, key: &str) -> Option<&Given> {
        self.notes.given.get(&join(&self.inner, key))
    }

    /// The raw value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&'d DeValue<'d>> {
        self.entries.get(key).map(|value| value.get_ref())
    }

    /// Notes that the value of a key is refused for a reason its own rule cannot know.
    pub(crate) fn refuse(&mut self, key: &str, why: Refusal) {
        let path = join(&self.path, key);
        if let Some(found) = find(self.entries, key, &path, self.notes.layer) {
            self.notes.report.add(Finding::new(found.place, path, why));
        }
    }

    /// Stops this table's unread keys from being unknown.
    pub(crate) fn ignore_rest(&mut self) {
        self.rest_ignored = true;
        self.notes.unread = true;
    }

    fn find(&mut self, key: &'static str) -> Option<Found<'d>> {
        self.known.push(key);
        let path = join(&self.path, key);
        let found = find(self.entries, key, &path, self.notes.layer);
        match self.find_outdated(key) {
            Some((old, outdated)) => Some(self.settle(key, found, old, outdated)),
            None => found,
        }
    }

    /// The value of a key under its deprecated name.
    fn find_outdated(&mut self, key: &'static str) -> Option<(&'static str, Found<'d>)> {
        let inner = join(&self.inner, key);
        let (old, _) = self.notes.aliases.iter().find(|(_, successor)| *successor == inner)?;
        let old = old.rsplit('.').next().unwrap_or(old);
        self.outdated.push(old);
        let path = join(&self.path, old);
        find(self.entries, old, &path, self.notes.layer).map(|found| (old, found))
    }

    /// Warns of a deprecated name; both names at once are refused.
    fn settle(
        &mut self,
        key: &str,
        found: Option<Found<'d>>,
        old: &str,
        outdated: Found<'d>,
    ) -> Found<'d> {
        let (place, path) = (outdated.key_place, outdated.path.clone());
        let Some(found) = found else {
            let why = format!("deprecated; use {key:?}");
            let why = Refusal::new(code::DEPRECATED_KEY, why);
            self.notes.report.warn(Finding::new(place, path, why));
            return outdated;
        };
        let why = format!("{old:?} is an old name of {key:?}, which is given too; keep {key:?}");
        let why = Refusal::new(code::DUPLICATE_KEY, why);
        self.notes.report.add(Finding::new(place, path, why));
        found
    }

    fn note_unknown(self) {
        if self.rest_ignored {
            return;
        }
        for (key, value) in self.entries.iter() {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) && !self.outdated.contains(&name) {
                let kind = if value.get_ref().is_table() { "table" } else { "key" };
                let message = format!("unknown {kind}; {}", advice(name, &self.known));
                let why = Refusal::new(code::UNKNOWN_KEY, message);
                let place = Place::new(self.notes.layer, key.span());
                self.notes.report.add(Finding::new(place, join(&self.path, name), why));
            }
        }
    }
}

/// Longer keys are none of ours; they are cut, as all text that a message shows.
const LONGEST_BARE: usize = 63;

/// Appends a key to a path, quoted where TOML requires quotes.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let key = match (1..=LONGEST_BARE).contains(&key.len()) && key.chars().all(bare) {
        true => key.to_owned(),
        false => quote(key),
    };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// How many slips of the finger a name is away from one of ours; 0 also in another letter case.
pub fn distance(name: &str, ours: &str) -> usize {
    strsim::damerau_levenshtein(&typed(name), ours)
}

/// Cut as `quote` does: no key of ours is that long, and the distance costs length × length.
fn typed(name: &str) -> String {
    name.chars().take(60).collect::<String>().to_lowercase().replace('_', "-")
}

fn advice(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().min_by_key(|key| distance(name, key));
    let near = |key: &&&str| {
        distance(name, key) <= (key.len() / 3).max(1) || typed(name).starts_with(**key)
    };
    match nearest.filter(near) {
        Some(key) => format!("did you mean {key:?}?"),
        None => format!("use {}", any_of(known)),
    }
}

/// `a, b or c`.
pub(crate) fn any_of(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => (*only).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// A value as a message shows it.
pub(crate) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Refuses a value of the wrong TOML type.
pub(crate) fn wrong_type(value: &DeValue<'_>, wanted: &str) -> Refusal {
    Refusal::new(code::WRONG_TYPE, format!("found {}; use {wanted}", describe(value)))
}

/// Rule of every switch.
pub(crate) fn boolean(value: &DeValue<'_>) -> Result<bool, Refusal> {
    value.as_bool().ok_or_else(|| wrong_type(value, "true or false, without quotes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_key_is_suggested_far_key_gets_the_list() {
        let known = ["enabled", "default-egress", "burst"];
        assert_eq!(advice("Default_Egress", &known), "did you mean \"default-egress\"?");
        assert_eq!(advice("burts", &known), "did you mean \"burst\"?");
        assert_eq!(advice("bursts-of-x", &known), "did you mean \"burst\"?");
        assert_eq!(advice("ecn", &known), "use enabled, default-egress or burst");
        assert_eq!(advice("", &["mode"]), "use mode");
    }

    #[test]
    fn path_quotes_what_toml_would_quote() {
        assert_eq!(join("", "sluice"), "sluice");
        assert_eq!(join("sluice", "a_B-1"), "sluice.a_B-1");
        assert_eq!(join("sluice", "a b"), "sluice.\"a b\"");
        assert_eq!(join("sluice", ""), "sluice.\"\"");
    }
}
