// SPDX-License-Identifier: Apache-2.0
//! A list's text, taken apart as far as the entries of `plugins`, and put
//! together again with or without ours.

use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{self, Array, Members, kind_of, place_of};
use super::rates::StaticRates;

/// The entry. It carries no settings, so a change of settings never touches the file.
pub const ENTRY: &str = concat!(
    r#"{"type":"sluice","capabilities":"#,
    r#"{"bandwidth":true,"io.kubernetes.cri.pod-annotations":true}}"#
);
/// Real ones have a few thousand bytes.
pub const MOST_BYTES: usize = 1 << 20;
const TYPE: &str = "sluice";
/// The upstream plugin; two limiters on one veth are one too many.
const UPSTREAM: &str = "bandwidth";
const CILIUM: &str = "cilium-cni";

/// Why a text cannot be edited, and where; lines and columns are counted from 1, columns in bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} column {column}: {problem}")]
pub struct Invalid {
    pub line: usize,
    pub column: usize,
    pub problem: ListProblem,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListProblem {
    #[error("not JSON: {0}")]
    NotJson(String),
    #[error("more than {MOST_BYTES} bytes, the most that is read")]
    TooLarge,
    #[error("a byte order mark; no runtime reads it: only UTF-8 without one is allowed")]
    ByteOrderMark,
    #[error("not UTF-8, the only encoding of JSON")]
    NotUtf8,
    #[error("{0}; only an object is a CNI configuration list")]
    NotAnObject(&'static str),
    #[error("no \"plugins\": only a list can be chained to")]
    NoList,
    #[error("\"plugins\" is {0}; only an array is allowed")]
    PluginsNotAnArray(&'static str),
    #[error("\"plugins\" holds no plugin to be chained after")]
    NoPlugin,
    #[error("entry {0} of \"plugins\" is {1}; only an object is allowed")]
    EntryNotAnObject(usize, &'static str),
    #[error("entry {0} of \"plugins\" has no \"type\"")]
    NoType(usize),
    #[error("the \"type\" of entry {0} of \"plugins\" is {1}; only a string is allowed")]
    TypeNotAString(usize, &'static str),
    #[error(
        "a runtime takes a .conf or .json for one plugin's configuration, which has no chain; \
         only a .conflist is one, with the plugin in its \"plugins\""
    )]
    OnePlugin,
}

/// A file's bytes as the text that can be edited, if they are one.
pub fn decode(bytes: Vec<u8>) -> Result<String, Invalid> {
    let at_start = |problem| Invalid { line: 1, column: 1, problem };
    if bytes.len() > MOST_BYTES {
        return Err(at_start(ListProblem::TooLarge));
    }
    if [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"].iter().any(|mark| bytes.starts_with(mark)) {
        return Err(at_start(ListProblem::ByteOrderMark));
    }
    String::from_utf8(bytes).map_err(|e| {
        let (line, column) = place_of(e.as_bytes(), e.utf8_error().valid_up_to());
        Invalid { line, column, problem: ListProblem::NotUtf8 }
    })
}

/// The text with our entry once: where it stands, if that is behind another plugin; else in the
/// place of the upstream plugin's, which is taken out; else as the last one.
pub fn add(text: &str) -> Result<String, Invalid> {
    let list = List::find(text)?;
    let Some(main) = list.position(Kind::Other, 0) else {
        return Err(list.invalid(list.opening, ListProblem::NoPlugin));
    };
    let place = list.position(Kind::Own, main).or_else(|| list.position(Kind::Upstream, main));
    let own = |index: usize, kind| {
        let there = &text[list.entries[index].range.clone()];
        match kind {
            Kind::Other => Some(there),
            _ if place != Some(index) => None,
            Kind::Own if is_entry(there) => Some(there),
            _ => Some(ENTRY),
        }
    };
    Ok(list.print(own, place.is_none()))
}

/// Whether it says what ours does: a writer that prints the whole list has its own way to do so.
fn is_entry(text: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    value(text).is_some_and(|value_there| Some(value_there) == value(ENTRY))
}

/// The text without our entry; the same text if it has none.
pub fn remove(text: &str) -> Result<String, Invalid> {
    let list = List::find(text)?;
    if list.position(Kind::Own, 0).is_none() {
        return Ok(text.to_owned());
    }
    let foreign = |index: usize, kind| {
        (kind != Kind::Own).then_some(&text[list.entries[index].range.clone()])
    };
    Ok(list.print(foreign, false))
}

/// Whether our entry is in it.
pub fn has_entry(text: &str) -> Result<bool, Invalid> {
    Ok(List::find(text)?.position(Kind::Own, 0).is_some())
}

/// Whether the upstream plugin's entry is in it.
pub fn has_upstream(text: &str) -> Result<bool, Invalid> {
    Ok(List::find(text)?.position(Kind::Upstream, 0).is_some())
}

/// Whether Cilium's plugin is in it, alone or chained.
pub fn has_cilium(text: &str) -> bool {
    let name = |entry: &Entry| entry.members.last_of_any_case("type").and_then(json::string);
    let entries = List::find(text).map(|list| list.entries).unwrap_or_default();
    entries.iter().any(|entry| name(entry).is_some_and(|name| name == CILIUM))
}

/// The rates that the upstream plugin's entry gives every pod; none where there is no such entry.
pub fn upstream_rates(text: &str) -> Result<StaticRates, Invalid> {
    let entries = List::find(text)?.entries;
    let upstream = entries.iter().filter(|entry| entry.kind == Kind::Upstream);
    let all = upstream.map(|entry| StaticRates::of(&entry.members));
    Ok(all.fold(StaticRates::default(), StaticRates::or))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Own,
    Upstream,
    Other,
}

pub(super) struct Entry<'a> {
    range: Range<usize>,
    kind: Kind,
    pub(super) members: Members<'a>,
}

/// Where the entries of `plugins` stand in the text.
pub(super) struct List<'a> {
    text: &'a str,
    /// Of `plugins`.
    opening: usize,
    pub(super) entries: Vec<Entry<'a>>,
}

impl<'a> List<'a> {
    pub(super) fn find(text: &'a str) -> Result<Self, Invalid> {
        let members = top_level(text)?;
        let invalid = |at, problem| invalid(text, at, problem);
        let plugins = members
            .last("plugins")
            .ok_or_else(|| invalid(start(text, text), ListProblem::NoList))?;
        let opening = start(text, plugins.get());
        let array = Array::parse(plugins).ok_or_else(|| {
            invalid(opening, ListProblem::PluginsNotAnArray(kind_of(plugins.get())))
        })?;
        let entry = |(index, raw)| Entry::find(text, index + 1, raw);
        let entries = array.0.into_iter().enumerate().map(entry).collect::<Result<_, _>>()?;
        Ok(Self { text, opening, entries })
    }

    fn invalid(&self, at: usize, problem: ListProblem) -> Invalid {
        invalid(self.text, at, problem)
    }

    /// The first of this kind, from an index on.
    fn position(&self, kind: Kind, from: usize) -> Option<usize> {
        (from..self.entries.len()).find(|index| self.entries[*index].kind == kind)
    }

    /// The text with what `keep` gives for each entry, and what stood before it; then ours.
    fn print(&self, keep: impl Fn(usize, Kind) -> Option<&'a str>, append: bool) -> String {
        let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) else {
            return self.text.to_owned();
        };
        let mut printed = String::with_capacity(self.text.len() + ENTRY.len() + 64);
        printed.push_str(&self.text[..first.range.start]);
        let head = printed.len();
        for (index, entry) in self.entries.iter().enumerate() {
            let Some(kept) = keep(index, entry.kind) else { continue };
            if printed.len() > head {
                let before = self.entries[index - 1].range.end;
                printed.push_str(&self.text[before..entry.range.start]);
            }
            printed.push_str(kept);
        }
        if append {
            printed.push(',');
            printed.push_str(self.indent(last));
            printed.push_str(ENTRY);
        }
        printed.push_str(&self.text[last.range.end..]);
        printed
    }

    /// The white space that stands before an entry.
    fn indent(&self, entry: &Entry) -> &'a str {
        let before = &self.text[..entry.range.start];
        &before[before.trim_end().len()..]
    }
}

impl<'a> Entry<'a> {
    fn find(text: &str, number: usize, raw: &'a RawValue) -> Result<Self, Invalid> {
        let from = start(text, raw.get());
        let invalid = |at, problem| invalid(text, at, problem);
        let members = Members::parse(raw.get()).map_err(|_| {
            invalid(from, ListProblem::EntryNotAnObject(number, kind_of(raw.get())))
        })?;
        let Some(kind) = members.last_of_any_case("type") else {
            return Err(invalid(from, ListProblem::NoType(number)));
        };
        let problem = || ListProblem::TypeNotAString(number, kind_of(kind.get()));
        let name = json::string(kind).ok_or_else(|| invalid(start(text, kind.get()), problem()))?;
        let kind = match name.as_str() {
            TYPE => Kind::Own,
            UPSTREAM => Kind::Upstream,
            _ => Kind::Other,
        };
        Ok(Self { range: from..from + raw.get().len(), kind, members })
    }
}

/// The members of the text's one object.
pub(super) fn top_level(text: &str) -> Result<Members<'_>, Invalid> {
    // Strict where the next one is not: with control characters in keys.
    let value: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let not_an_object = ListProblem::NotAnObject(kind_of(value.get()));
    Members::parse(value.get()).map_err(|_| invalid(text, start(text, value.get()), not_an_object))
}

fn not_json(error: &serde_json::Error) -> Invalid {
    let (line, column) = (error.line(), error.column());
    let said = error.to_string();
    let said = said.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&said);
    Invalid { line, column, problem: ListProblem::NotJson(said.to_owned()) }
}

fn invalid(text: &str, at: usize, problem: ListProblem) -> Invalid {
    let (line, column) = place_of(text.as_bytes(), at);
    Invalid { line, column, problem }
}

/// Where a part of the text begins.
fn start(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_added_last_and_nothing_else_moves() {
        let text = "{\n  \"name\": \"x\",\n  \"plugins\": [\n    {\"type\": \"ptp\", \"mtu\": 1e3}\n  ]\n}\n";
        let expected = format!(
            "{{\n  \"name\": \"x\",\n  \"plugins\": [\n    {{\"type\": \"ptp\", \"mtu\": 1e3}},\n    {ENTRY}\n  ]\n}}\n"
        );
        assert_eq!(add(text).unwrap(), expected);
    }

    /// A list of these kinds, `sluice` standing for our entry.
    fn list(kinds: &[&str]) -> String {
        let entry = |kind: &&str| match *kind {
            TYPE => ENTRY.to_owned(),
            kind => format!(r#"{{"type":"{kind}"}}"#),
        };
        let entries: Vec<_> = kinds.iter().map(entry).collect();
        format!(r#"{{"plugins":[{}]}}"#, entries.join(", "))
    }

    /// The separator that a new entry at the end has none of.
    fn tight(text: &str) -> String {
        text.replace(", {", ",{")
    }

    #[test]
    fn entry_stays_behind_the_main_plugin_and_comes_last_if_it_is_new_or_first() {
        for (before, after) in [
            (&["a", "z"][..], &["a", "z", "sluice"][..]),
            (&["a", "sluice", "z"], &["a", "sluice", "z"]),
            (&["a", "z", "sluice"], &["a", "z", "sluice"]),
            (&["sluice", "a", "z"], &["a", "z", "sluice"]),
            (&["sluice", "a", "sluice", "z"], &["a", "sluice", "z"]),
            (&["a", "sluice", "sluice", "z", "sluice"], &["a", "sluice", "z"]),
        ] {
            let added = add(&list(before)).unwrap();
            assert_eq!(tight(&added), tight(&list(after)), "{before:?}");
            assert_eq!(add(&added).unwrap(), added, "{before:?}");
        }
    }

    #[test]
    fn upstream_entry_gives_its_place_to_ours() {
        for (before, after) in [
            (&["a", "bandwidth"][..], &["a", "sluice"][..]),
            (&["a", "bandwidth", "z"], &["a", "sluice", "z"]),
            (&["a", "bandwidth", "bandwidth", "z"], &["a", "sluice", "z"]),
            (&["a", "bandwidth", "z", "sluice"], &["a", "z", "sluice"]),
            (&["a", "sluice", "z", "bandwidth"], &["a", "sluice", "z"]),
            (&["bandwidth", "a"], &["a", "sluice"]),
        ] {
            assert!(has_upstream(&list(before)).unwrap());
            assert_eq!(tight(&add(&list(before)).unwrap()), tight(&list(after)), "{before:?}");
        }
    }

    #[test]
    fn own_entry_of_another_shape_is_replaced_in_place() {
        let old = r#"{"plugins":[{"type":"ptp"},{"type":"sluice","old":1},{"type":"z"}]}"#;
        let new = format!(r#"{{"plugins":[{{"type":"ptp"}},{ENTRY},{{"type":"z"}}]}}"#);
        assert_eq!(add(old).unwrap(), new);
    }

    #[test]
    fn removing_takes_every_entry_of_ours_and_leaves_all_others() {
        for (before, after) in [
            (&["sluice", "z"][..], &["z"][..]),
            (&["sluice"], &[]),
            (&["a", "sluice", "z"], &["a", "z"]),
            (&["sluice", "a", "sluice", "sluice", "bandwidth", "sluice"], &["a", "bandwidth"]),
            (&["a", "z"], &["a", "z"]),
        ] {
            assert_eq!(remove(&list(before)).unwrap(), list(after), "{before:?}");
        }
    }

    #[test]
    fn what_go_would_read_is_what_counts() {
        let edited = |text: &str| add(text).unwrap();
        let last = r#"{"plugins":[],"plugins":[{"type":"a"}]}"#;
        let expected = format!(r#"{{"plugins":[],"plugins":[{{"type":"a"}},{ENTRY}]}}"#);
        assert_eq!(edited(last), expected);
        for own in [
            r#"{"type":"x","type":"sluice"}"#,
            r#"{"Type":"x","type":"sluice"}"#,
            r#"{"type":"sluice","TYPE":"x"}"#,
            r#"{"Type":"sluice"}"#,
            r#"{"\u0074ype":"s\u006cuice"}"#,
        ] {
            let text = format!(r#"{{"plugins":[{{"type":"a"}},{own}]}}"#);
            assert_eq!(edited(&text), format!(r#"{{"plugins":[{{"type":"a"}},{ENTRY}]}}"#));
        }
        let nested =
            r#"{"x":{"plugins":[1]},"plugins":[{"type":"a","plugins":[{"type":"sluice"}]}]}"#;
        assert!(!has_entry(nested).unwrap());
        assert!(edited(nested).ends_with(&format!("}}]}},{ENTRY}]}}")));
    }

    #[test]
    fn depth_and_half_characters_of_others_do_not_matter() {
        let deep = ["[".repeat(100_000), "]".repeat(100_000)].concat();
        let half = r#"{"type":"a","\ud800":"\udc00","x":DEEP}"#.replace("DEEP", &deep);
        let text = format!(r#"{{"plugins":[{half}]}}"#);
        assert_eq!(add(&text).unwrap(), format!(r#"{{"plugins":[{half},{ENTRY}]}}"#));
    }

    #[test]
    fn what_cannot_be_edited_says_where_and_why() {
        let not_a_list = "only an object is a CNI configuration list";
        for (text, message) in [
            ("", "line 1 column 0: not JSON: EOF while parsing a value"),
            ("{", "line 1 column 1: not JSON: EOF while parsing an object"),
            ("{\n  // x\n}", "line 2 column 3: not JSON: key must be a string"),
            ("{\"a\": 1,}", "line 1 column 9: not JSON: key must be a string"),
            ("{}\nx", "line 2 column 1: not JSON: trailing characters"),
            (
                "{\"a\0\":1}",
                "line 1 column 3: not JSON: control character (\\u0000-\\u001F) found while parsing a string",
            ),
            ("\n [1]", &format!("line 2 column 2: an array; {not_a_list}")),
            ("\"x\"", &format!("line 1 column 1: a string; {not_a_list}")),
            ("12", &format!("line 1 column 1: a number; {not_a_list}")),
            (
                "{\"type\":\"ptp\"}",
                "line 1 column 1: no \"plugins\": only a list can be chained to",
            ),
            (
                "{\n\"plugins\": {}}",
                "line 2 column 12: \"plugins\" is an object; only an array is allowed",
            ),
            (
                "{\"plugins\":[]}",
                "line 1 column 12: \"plugins\" holds no plugin to be chained after",
            ),
            (
                "{\"plugins\":[{\"type\":\"bandwidth\"}]}",
                "line 1 column 12: \"plugins\" holds no plugin to be chained after",
            ),
            (
                "{\"plugins\":[{\"type\":\"a\"},\n  7]}",
                "line 2 column 3: entry 2 of \"plugins\" is a number; only an object is allowed",
            ),
            ("{\"plugins\":[\n{}]}", "line 2 column 1: entry 1 of \"plugins\" has no \"type\""),
            (
                "{\"plugins\":[{\"type\": null}]}",
                "line 1 column 22: the \"type\" of entry 1 of \"plugins\" is null; only a string is allowed",
            ),
        ] {
            assert_eq!(add(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn bytes_that_no_runtime_reads_are_named() {
        let message = |bytes: &[u8]| decode(bytes.to_vec()).unwrap_err().to_string();
        let mark = "line 1 column 1: a byte order mark; no runtime reads it: only UTF-8 without one is allowed";
        assert_eq!(message(b"\xef\xbb\xbf{}"), mark);
        assert_eq!(message(b"\xff\xfe{\0"), mark);
        assert_eq!(
            message(b"{\n \"a\xff"),
            "line 2 column 4: not UTF-8, the only encoding of JSON"
        );
        assert_eq!(decode(vec![b' '; MOST_BYTES]).unwrap().len(), MOST_BYTES);
        assert_eq!(
            message(&vec![b' '; MOST_BYTES + 1]),
            "line 1 column 1: more than 1048576 bytes, the most that is read"
        );
    }
}
