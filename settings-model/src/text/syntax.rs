// SPDX-License-Identifier: Apache-2.0

//! From text to a TOML document, with the parser's errors as problems.
//!
//! A key given twice leaves the rest readable, so the rules still run on such a document; any
//! other error makes the tree unreliable and stands alone.
//! Never judges keys or values.

use toml::de::{DeTable, DeValue, Error};

use crate::text::code;
use crate::text::problem::{Finding, Refusal, Report, quote};
use crate::text::reader::join;
use crate::text::source::{Place, Source};

/// Enough for a person; a shell script taken for TOML has an error on every line.
const MOST_SHOWN: usize = 16;

/// To tell where a duplicate was first, the text is read once more for each; beyond this many bytes
/// that would take longer than the answer is worth.
const MOST_READ_AGAIN: usize = 4 << 20;

/// Reads the text; `None` if the tree cannot be trusted.
pub(crate) fn read<'t>(
    source: &Source<'t>,
    layer: usize,
    report: &mut Report,
) -> Option<DeTable<'t>> {
    let text = source.text;
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut trusted = errors.iter().all(is_duplicate) && errors.len() <= MOST_SHOWN;
    let errors = one_per_line(errors, source);
    let affordable = errors.len().saturating_mul(text.len()) <= MOST_READ_AGAIN;
    for (at, error) in errors.iter().take(MOST_SHOWN) {
        let duplicate = affordable.then(|| duplicate(source, layer, error)).flatten();
        trusted &= duplicate.is_some();
        report.add(duplicate.unwrap_or_else(|| {
            let message = format!("not valid TOML {}: {}", found(text, *at, error), wanted(error));
            syntax(place(layer, *at, error), message)
        }));
    }
    if let Some((at, error)) = errors.get(MOST_SHOWN) {
        let more = errors.len() - MOST_SHOWN;
        let message = format!("{more} more errors from here on; is this TOML at all?");
        report.add(syntax(place(layer, *at, error), message));
    }
    trusted.then(|| document.into_inner())
}

fn syntax(place: Place, message: String) -> Finding {
    Finding::new(place, "", Refusal::new(code::SYNTAX, message))
}

fn place(layer: usize, at: usize, error: &Error) -> Place {
    Place::new(layer, error.span().unwrap_or(at..at))
}

/// The text that the parser stumbled over, as far as it is on one line.
fn found(text: &str, at: usize, error: &Error) -> String {
    let rest = text.get(at..).unwrap_or_default();
    if rest.is_empty() || rest.starts_with(['\r', '\n']) {
        return "at the end of the line".to_owned();
    }
    let span = error.span().and_then(|span| text.get(span)).unwrap_or_default();
    match span.lines().next() {
        Some(line) => format!("at {}", quote(line)),
        None => format!("before {}", quote(rest.lines().next().unwrap_or_default())),
    }
}

/// The parser's words, but for the mistake that is made most often.
fn wanted(error: &Error) -> &str {
    let unquoted = error.message().starts_with("string values must be quoted");
    match error.span() {
        Some(span) if unquoted && span.is_empty() => "key without a value",
        Some(_) if unquoted => "text needs quotes, e.g. \"5ms\"",
        _ => error.message(),
    }
}

/// The parser reports some mistakes several times; the first of a line is the useful one.
fn one_per_line(errors: Vec<Error>, source: &Source<'_>) -> Vec<(usize, Error)> {
    let at = |error: &Error| error.span().map_or(source.text.len(), |span| span.start);
    let mut placed: Vec<_> = errors.into_iter().map(|error| (at(&error), error)).collect();
    placed.sort_by_key(|(at, _)| *at);
    placed.dedup_by_key(|(at, _)| source.line(*at));
    placed
}

fn is_duplicate(error: &Error) -> bool {
    error.message() == "duplicate key"
}

/// Tells where a key was given first, which the parser knows but does not say.
///
/// Renames the second one in a copy of the text: what is then its sibling is the first.
fn duplicate(source: &Source<'_>, layer: usize, error: &Error) -> Option<Finding> {
    const STAND_IN: &str = "_second_";
    let text = source.text;
    let span = error.span().filter(|_| is_duplicate(error))?;
    let name = key_name(text.get(span.clone())?)?;
    let renamed = format!("{}{STAND_IN}{}", text.get(..span.start)?, text.get(span.end..)?);
    let (document, _) = DeTable::parse_recoverable(&renamed);
    let (path, table) = table_of_key(document.get_ref(), span.start, "")?;
    let (first, _) = table.get_key_value(name.as_str())?;
    // Of a table's three headers the parser keeps the last, so what is found may come later.
    let first_at = Some(first.span().start).filter(|at| *at < span.start)?;
    let first = source.position(first_at);
    let message = format!("given twice, first at {first}; keep one");
    let refusal = Refusal::new(code::DUPLICATE_KEY, message);
    Some(Finding::new(Place::new(layer, span), join(&path, &name), refusal))
}

/// The key that a piece of text stands for, without its quotes and escapes.
fn key_name(raw: &str) -> Option<String> {
    let text = format!("{raw} = 0");
    let table = DeTable::parse(&text).ok()?;
    table.get_ref().keys().next().map(|key| key.get_ref().to_string())
}

/// The table that has a key at this offset, and the table's path.
fn table_of_key<'d>(
    table: &'d DeTable<'d>,
    at: usize,
    path: &str,
) -> Option<(String, &'d DeTable<'d>)> {
    if table.keys().any(|key| key.span().start == at) {
        return Some((path.to_owned(), table));
    }
    table.iter().find_map(|(key, value)| in_value(value.get_ref(), at, &join(path, key.get_ref())))
}

fn in_value<'d>(
    value: &'d DeValue<'d>,
    at: usize,
    path: &str,
) -> Option<(String, &'d DeTable<'d>)> {
    match value {
        DeValue::Table(table) => table_of_key(table, at, path),
        DeValue::Array(items) => items.iter().find_map(|item| in_value(item.get_ref(), at, path)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn messages(text: &str) -> String {
        parse("t", text).expect_err("problems").to_string()
    }

    #[test]
    fn second_key_names_the_first_even_in_an_inline_table() {
        assert_eq!(
            messages("x = [{ b = { a = 1 }, a = 2, \"a\" = 3 }]"),
            "t:1:30 x.a: given twice, first at line 1, column 23; keep one\n"
        );
    }

    #[test]
    fn dotted_key_into_a_defined_table_names_that_table() {
        assert_eq!(
            messages("[a.b]\nx = 1\n[a]\nb.y = 2\n"),
            "t:4:1 a.b: given twice, first at line 1, column 4; keep one\n"
        );
    }

    #[test]
    fn rules_do_not_run_on_a_tree_with_another_error_behind_a_duplicate() {
        assert_eq!(
            messages("x = 1\nx = 2 junk\nsluice.wings = 4\n"),
            "t:2:1 x: given twice, first at line 1, column 1; keep one\n"
        );
    }

    #[test]
    fn third_header_is_never_called_the_first() {
        assert_eq!(
            messages("[x]\n[x]\n\n[x]\n"),
            "t:2:2: not valid TOML at \"x\": duplicate key\n\
             t:4:2 x: given twice, first at line 2, column 2; keep one\n"
        );
    }

    #[test]
    fn text_that_is_no_toml_is_told_briefly() {
        let script = "echo hello\n".repeat(100);
        let lines = messages(&script);
        assert_eq!(lines.lines().count(), 17);
        assert_eq!(
            lines.lines().last(),
            Some("t:17:6: 84 more errors from here on; is this TOML at all?")
        );
    }
}
