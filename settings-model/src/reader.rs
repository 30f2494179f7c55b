// SPDX-License-Identifier: Apache-2.0

//! Cursor over one table of a parsed document.
//!
//! Hands values to the rule of their key and notes what the rule refuses; keys that no section
//! asked for are unknown, so the keys a section reads are the only list of what it allows.
//! Never knows a key by name.

use toml::de::{DeTable, DeValue};

use crate::problem::{Finding, Refusal, Report, code, quote};

/// Rule of one key: a typed value, or why not.
pub(crate) type Rule<T> = fn(&DeValue<'_>) -> Result<T, Refusal>;

/// Rule of one section: asks for its keys, in any order.
pub(crate) type Section<T> = fn(&mut Table<'_, '_>) -> T;

/// A key's value, where both stand, and the key's full path.
pub(crate) struct Found<'d> {
    pub(crate) path: String,
    pub(crate) key_at: usize,
    value_at: usize,
    value: &'d DeValue<'d>,
}

/// A table being read.
pub(crate) struct Table<'r, 'd> {
    entries: &'d DeTable<'d>,
    path: String,
    key_at: usize,
    known: Vec<&'static str>,
    rest_ignored: bool,
    report: &'r mut Report,
}

/// Looks a key up without judging it.
pub(crate) fn find<'d>(entries: &'d DeTable<'d>, key: &str, path: &str) -> Option<Found<'d>> {
    let (key, value) = entries.get_key_value(key)?;
    Some(Found {
        path: path.to_owned(),
        key_at: key.span().start,
        value_at: value.span().start,
        value: value.get_ref(),
    })
}

/// Reads a table with a section's rule, then notes the keys the rule did not ask for.
pub(crate) fn open<T: Default>(found: Found<'_>, report: &mut Report, section: Section<T>) -> T {
    let DeValue::Table(entries) = found.value else {
        let refusal = wrong_type(found.value, "a table");
        report.add(Finding::new(found.value_at, found.path, refusal));
        return T::default();
    };
    let (path, key_at) = (found.path, found.key_at);
    let known = Vec::new();
    let mut table = Table { entries, path, key_at, known, rest_ignored: false, report };
    let read = section(&mut table);
    table.note_unknown();
    read
}

impl<'d> Table<'_, 'd> {
    /// The value of an optional key; `None` if it is not there or was refused.
    pub(crate) fn read<T>(&mut self, key: &'static str, rule: Rule<T>) -> Option<T> {
        let found = self.find(key)?;
        let judged = rule(found.value);
        judged.map_err(|why| self.report.add(Finding::new(found.value_at, found.path, why))).ok()
    }

    /// Like `read`, but the key must be there; `line` is what to write.
    pub(crate) fn require<T>(&mut self, key: &'static str, line: &str, rule: Rule<T>) -> Option<T> {
        if self.get(key).is_none() {
            let why = Refusal::new(code::MISSING_KEY, format!("missing; write {line}"));
            self.report.add(Finding::new(self.key_at, join(&self.path, key), why));
        }
        self.read(key, rule)
    }

    /// A sub-table; its default if it is not there.
    pub(crate) fn table<T: Default>(&mut self, key: &'static str, section: Section<T>) -> T {
        let found = self.find(key);
        found.map(|found| open(found, self.report, section)).unwrap_or_default()
    }

    /// The raw value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&'d DeValue<'d>> {
        self.entries.get(key).map(|value| value.get_ref())
    }

    /// Stops this table's unread keys from being unknown.
    pub(crate) fn ignore_rest(&mut self) {
        self.rest_ignored = true;
    }

    fn find(&mut self, key: &'static str) -> Option<Found<'d>> {
        self.known.push(key);
        find(self.entries, key, &join(&self.path, key))
    }

    fn note_unknown(self) {
        if self.rest_ignored {
            return;
        }
        for (key, value) in self.entries.iter() {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                let kind = if value.get_ref().is_table() { "table" } else { "key" };
                let message = format!("unknown {kind}; {}", advice(name, &self.known));
                let why = Refusal::new(code::UNKNOWN_KEY, message);
                self.report.add(Finding::new(key.span().start, join(&self.path, name), why));
            }
        }
    }
}

/// Appends a key to a path, quoted where TOML wants quotes.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let key = match !key.is_empty() && key.chars().all(bare) {
        true => key.to_owned(),
        false => quote(key),
    };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn advice(name: &str, known: &[&str]) -> String {
    // Cut as `quote` does: no key of ours is that long, and the distance costs length × length.
    let typed: String = name.chars().take(60).collect::<String>().to_lowercase().replace('_', "-");
    let distance = |key: &&&str| strsim::damerau_levenshtein(&typed, key);
    let nearest = known.iter().min_by_key(distance);
    match nearest.filter(|key| distance(key) <= (key.len() / 3).max(1)) {
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
