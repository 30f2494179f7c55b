// SPDX-License-Identifier: Apache-2.0

//! Finds our table in a document, and the reader for its version.
//!
//! Owns the two places where our table may stand, and the one foreign key that is honoured. Tells
//! a text that gives our table from one that does not.
//! Never judges any other table, unless it is nearly called as ours.

pub(crate) mod effect;
pub(crate) mod effective;
pub(crate) mod misspelt;
pub(crate) mod print;
pub(crate) mod rules;
pub(crate) mod v1;

use toml::de::{DeInteger, DeTable, DeValue};

use crate::Settings;
use crate::sections::max_pods;
use crate::text::code;
use crate::text::problem::{Finding, Refusal};
use crate::text::reader::{self, Found, Given, Notes, Table};

/// The versions that `read_table` has a reader for, as messages say it.
const UNDERSTOOD: &str = "this program understands version 1";

/// Kubernetes' own key for what we call `max-pods.value`.
pub(crate) const FOREIGN_MAX_PODS: &str = "settings.kubernetes.max-pods";

/// What settings say, before the rules that need all layers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    pub(crate) settings: Settings,
    /// `settings.kubernetes.max-pods` of the last layer that has it.
    pub(crate) foreign_max_pods: Option<(max_pods::PodCount, Given)>,
}

/// What a text is, as far as it can be read as TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// It is TOML from beginning to end.
    pub is_toml: bool,
    /// It gives our table, or a key of it, in whatever spelling.
    pub ours: bool,
    /// It gives some other `settings`: a document of the kind that may hold ours.
    pub settings: bool,
    /// It gives a table whose name is nearly that of ours.
    pub misspelt: bool,
}

/// Looks for our table in a text that may be anything, e.g. a single line of something else.
pub fn sight(text: &str) -> Sighting {
    let (document, errors) = DeTable::parse_recoverable(text);
    let document = document.get_ref();
    let settings = document.get("settings").map(|value| value.get_ref());
    let nested = settings.and_then(|settings| first_table(settings)?.get("sluice"));
    let found = [nested, document.get("sluice")];
    let ours = found.into_iter().flatten().any(|value| first_table(value.get_ref()).is_some());
    let settings = !ours && settings.is_some_and(|value| first_table(value).is_some());
    let misspelt = misspelt::is_in(document);
    Sighting { is_toml: errors.is_empty(), ours, settings, misspelt }
}

/// A table, or the first one of an array of tables, which is meant as one.
fn first_table<'d>(value: &'d DeValue<'d>) -> Option<&'d DeTable<'d>> {
    match value {
        DeValue::Table(table) => Some(table),
        DeValue::Array(array) => array.iter().find_map(|item| item.get_ref().as_table()),
        _ => None,
    }
}

/// Reads one document over what lower layers said.
pub(crate) fn read(document: &DeTable<'_>, notes: &mut Notes, draft: &mut Draft) {
    let outer = document.get("settings").and_then(|v| v.get_ref().as_table());
    refuse_array(document, notes);
    misspelt::refuse(document, notes);
    let nested =
        outer.and_then(|table| reader::find(table, "sluice", "settings.sluice", notes.layer));
    let top = reader::find(document, "sluice", "sluice", notes.layer);
    match (nested, top) {
        (None, None) => (),
        (Some(only), None) | (None, Some(only)) => open(only, notes, &mut draft.settings),
        (Some(nested), Some(top)) => read_both(nested, top, notes, &mut draft.settings),
    }
    if let Some(outer) = outer {
        read_foreign_max_pods(outer, notes, draft);
    }
}

fn open(found: Found<'_>, notes: &mut Notes, settings: &mut Settings) {
    reader::open(found, String::new(), notes, settings, read_table);
}

/// `[[settings]]` is no `[settings]`, and our table in it would go unread.
fn refuse_array(document: &DeTable<'_>, notes: &mut Notes) {
    let found = reader::find(document, "settings", "settings", notes.layer);
    let Some(found) = found.filter(|found| found.value.as_table().is_none()) else { return };
    if first_table(found.value).is_some_and(|table| table.contains_key("sluice")) {
        let refusal = reader::wrong_type(found.value, "a table, [settings]");
        notes.report.add(Finding::new(found.key_place, found.path, refusal));
    }
}

/// Two spellings of our table are fine as long as they mean the same.
fn read_both(nested: Found<'_>, top: Found<'_>, notes: &mut Notes, settings: &mut Settings) {
    let mut places = [&nested, &top].map(|table| (table.key_place, table.path.clone()));
    places.sort_unstable();
    let [(first_at, first), (second_at, second)] = places;
    let problems = notes.report.len();
    let lower = (settings.clone(), notes.given.clone());
    open(nested, notes, settings);
    let (mut other, given) = (lower.0, std::mem::replace(&mut notes.given, lower.1));
    open(top, notes, &mut other);
    notes.given = given;
    if notes.report.len() == problems && *settings != other {
        let (before, after) =
            (format!("differs from [{first}]"), "; keep one of the two or make them equal");
        let refusal = Refusal::beside(code::TABLES_DIFFER, before, first_at, after);
        notes.report.add(Finding::new(second_at, second, refusal));
    }
}

/// The versions of our table; each has its reader.
enum Version {
    One,
    /// Newer than this program, with the number as written.
    Newer(String),
}

fn read_table(table: &mut Table<'_, '_>, settings: &mut Settings) {
    // A table that does not say its version gets a problem for it, and is judged by the first one.
    match table.require("version", "version = 1", version).unwrap_or(Version::One) {
        Version::One => v1::read(table, settings),
        Version::Newer(found) => {
            let message =
                format!("found {found}; {UNDERSTOOD}; a newer image is needed to read it");
            table.refuse("version", Refusal::new(code::UNSUPPORTED_VERSION, message));
            // What it allows is not known here, so the rest is not judged.
            table.ignore_rest();
        }
    }
}

fn version(value: &DeValue<'_>) -> Result<Version, Refusal> {
    let DeValue::Integer(number) = value else {
        return Err(reader::wrong_type(value, "the number 1, without quotes or decimals"));
    };
    match read_number(number) {
        Some(1) => Ok(Version::One),
        Some(0) => {
            let message = format!("found {number}; {UNDERSTOOD}; use version = 1");
            Err(Refusal::new(code::NOT_ALLOWED, message))
        }
        _ => Ok(Version::Newer(number.to_string())),
    }
}

/// Negative numbers as 0, which is no version either; None if it is too large.
fn read_number(number: &DeInteger<'_>) -> Option<u64> {
    match number.as_str().starts_with('-') {
        true => Some(0),
        false => u64::from_str_radix(number.as_str(), number.radix()).ok(),
    }
}

/// The table is foreign, so a value that is of no use is reported but not refused.
fn read_foreign_max_pods(outer: &DeTable<'_>, notes: &mut Notes, draft: &mut Draft) {
    let kubernetes = outer.get("kubernetes").and_then(|value| value.get_ref().as_table());
    let found =
        kubernetes.and_then(|table| reader::find(table, "max-pods", FOREIGN_MAX_PODS, notes.layer));
    let Some(found) = found else { return };
    match max_pods::foreign_count(found.value) {
        Ok(count) => {
            draft.foreign_max_pods = Some((count, Given { place: found.place, path: found.path }));
        }
        Err(why) => {
            let why = why.into_warning(code::NOT_HONOURED, "not honoured: ");
            notes.report.warn(Finding::new(found.place, found.path, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_table_is_found_in_every_spelling_that_toml_has_for_it() {
        for text in [
            "[settings.sluice]",
            "[sluice]",
            "[ settings . sluice . bandwidth ]",
            "[\"settings\".'sluice']",
            "[\"s\\u0065ttings\".sluice]",
            "[[settings.sluice]]",
            "[[settings]]\nsluice.version = 1",
            "settings.sluice.version = 1",
            "  \tsluice.version = 1",
            "'sluice' . version=1",
            "sluice = {}",
            "settings = { motd = 'x', sluice = { version = 1 } }",
            "settings.sluice = { version = 1 }",
            "[settings]\nsluice.version = 1",
            "[settings.kubernetes]\nmax-pods = 9\n[settings.sluice]",
        ] {
            let expected = Sighting { is_toml: true, ours: true, settings: false, misspelt: false };
            assert_eq!(sight(text), expected, "{text}");
        }
    }

    #[test]
    fn our_table_is_found_in_a_line_with_a_mistake() {
        for text in [
            "[settings.sluice",
            "[settings.sluice] x",
            "[[sluice]",
            "sluice.version = ",
            "settings.sluice.bandwidth.default-egress = 500Mbit",
            "sluice = { version = 1,",
            "settings = { sluice = { version = 1,",
        ] {
            let found = sight(text);
            assert!(found.ours && !found.is_toml, "{text}: {found:?}");
        }
    }

    #[test]
    fn what_only_mentions_us_is_not_ours() {
        for text in [
            "# [settings.sluice]",
            "sluice",
            "sluice check",
            "sluice = '/usr/bin/sluice'",
            "sluice: true",
            "--node-labels=sluice.dev/network=standalone",
            "  - sluice.dev/network=x",
            "x = \"\"\"\n[settings.sluice]\n\"\"\"",
            "[settings.kubernetes.node-labels]\nsluice.version = '1'",
            "[ -x /usr/bin/sluice ]",
            "[x.settings.sluice]",
        ] {
            assert!(!sight(text).ours, "{text}: {:?}", sight(text));
        }
        assert!(sight("[settings.kubernetes]").settings && sight("settings.motd = 'x'").settings);
    }
}
