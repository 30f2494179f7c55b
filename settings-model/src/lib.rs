// SPDX-License-Identifier: Apache-2.0

//! What an operator may write: TOML text in, typed [`Settings`] out, or all [`Problems`] at once.
//!
//! Owns the names, defaults and rules of our table, `[settings.sluice]` or top-level `[sluice]`;
//! everything outside that table belongs to others and is ignored.
//! Never reads a file, never probes the host, knows nothing of bpf or netlink.

#![forbid(unsafe_code)]

mod bandwidth;
mod burst;
mod cni;
mod problem;
mod quantity;
mod rate;
mod reader;
mod syntax;

use toml::de::{DeInteger, DeTable, DeValue};

pub use bandwidth::Bandwidth;
pub use burst::{Burst, BurstTime, ByteCount};
pub use cni::{Cni, CniMode};
pub use problem::{Problem, Problems, code};
pub use quantity::QuantityError;
pub use rate::{Limit, Rate};

use problem::{Finding, Lines, Refusal, Report};
use reader::{Found, Table};

/// Everything an operator can set; the default is what holds without any document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `[settings.sluice.bandwidth]`: how pods are shaped.
    pub bandwidth: Bandwidth,
    /// `[settings.sluice.cni]`: how the agent joins the CNI chain.
    pub cni: Cni,
}

/// Reads one document; `source` is how messages name it, e.g. `user-data`.
///
/// A document without our table gives the defaults. Fails with all problems, sorted by position;
/// text that is not TOML, or a table of another version, is not judged beyond that.
pub fn parse(source: &str, text: &str) -> Result<Settings, Problems> {
    // The byte order mark is not a column.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::new(text);
    let mut report = Report::default();
    let settings = match syntax::read(text, &lines, &mut report) {
        Some(document) => read_document(&document, &lines, &mut report),
        None => Settings::default(),
    };
    report.finish(source, &lines, settings)
}

fn read_document(document: &DeTable<'_>, lines: &Lines<'_>, report: &mut Report) -> Settings {
    let outer = document.get("settings").and_then(|v| v.get_ref().as_table());
    let nested = outer.and_then(|table| reader::find(table, "sluice", "settings.sluice"));
    let top = reader::find(document, "sluice", "sluice");
    match (nested, top) {
        (None, None) => Settings::default(),
        (Some(only), None) | (None, Some(only)) => reader::open(only, report, read_settings),
        (Some(nested), Some(top)) => read_both(nested, top, lines, report),
    }
}

/// Two spellings of our table are fine as long as they mean the same.
fn read_both(
    nested: Found<'_>,
    top: Found<'_>,
    lines: &Lines<'_>,
    report: &mut Report,
) -> Settings {
    let mut places = [&nested, &top].map(|table| (table.key_at, table.path.clone()));
    places.sort_unstable();
    let [(first_at, first), (second_at, second)] = places;
    let settings = reader::open(nested, report, read_settings);
    let other = reader::open(top, report, read_settings);
    if report.is_empty() && settings != other {
        let place = lines.place(first_at);
        let message =
            format!("differs from [{first}] at {place}; keep one of the two or make them equal");
        let refusal = Refusal::new(code::TABLES_DIFFER, message);
        report.add(Finding::new(second_at, second, refusal));
    }
    settings
}

fn read_settings(table: &mut Table<'_, '_>) -> Settings {
    table.require("version", "version = 1", read_version);
    if table.get("version").is_some_and(is_other_version) {
        // What other versions allow is not known here, so the rest is not judged.
        table.ignore_rest();
        return Settings::default();
    }
    Settings {
        bandwidth: table.table("bandwidth", bandwidth::read),
        cni: table.table("cni", cni::read),
    }
}

fn read_version(value: &DeValue<'_>) -> Result<(), Refusal> {
    match value {
        DeValue::Integer(number) if is_one(number) => Ok(()),
        DeValue::Integer(number) => Err(Refusal::new(
            code::UNSUPPORTED_VERSION,
            format!("found {number}; this release understands version = 1"),
        )),
        other => Err(reader::wrong_type(other, "the number 1, without quotes or decimals")),
    }
}

fn is_other_version(value: &DeValue<'_>) -> bool {
    matches!(value, DeValue::Integer(number) if !is_one(number))
}

fn is_one(number: &DeInteger<'_>) -> bool {
    u64::from_str_radix(number.as_str(), number.radix()) == Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> String {
        parse("user-data", text).expect_err("problems").to_string()
    }

    #[test]
    fn empty_document_gives_defaults() {
        assert_eq!(parse("user-data", ""), Ok(Settings::default()));
    }

    #[test]
    fn misspelt_key_names_its_place_and_the_likely_one() {
        let text = "[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n  defualt-egress = \"1Mbit\"\n";
        assert_eq!(
            messages(text),
            "user-data:4:3 settings.sluice.bandwidth.defualt-egress: unknown key; \
             did you mean \"default-egress\"?\n"
        );
    }

    #[test]
    fn other_version_is_the_only_problem_told() {
        assert_eq!(
            messages("sluice = { version = 2, wings = 4 }"),
            "user-data:1:22 sluice.version: found 2; this release understands version = 1\n"
        );
    }

    #[test]
    fn problems_carry_stable_codes() {
        let problems = parse("x", "sluice = { wings = 4 }").expect_err("problems");
        let codes: Vec<_> = problems.iter().map(|p| p.code).collect();
        assert_eq!(codes, [code::MISSING_KEY, code::UNKNOWN_KEY]);
    }
}
