// SPDX-License-Identifier: Apache-2.0

//! What is wrong with a document, where, and what would be right.
//!
//! Owns the text form of a problem (`user-data:12:18 settings.sluice.cni.mode: …`), its stable
//! codes, and the way from byte offsets to lines and columns.
//! Never decides what is allowed; the section files do.

use std::fmt;

/// Stable names of the kinds of problem, for programs; people get the message.
pub mod code {
    /// The text is not TOML.
    pub const SYNTAX: &str = "toml-syntax";
    /// A key or table is given twice.
    pub const DUPLICATE_KEY: &str = "duplicate-key";
    /// A key or table that our table does not have.
    pub const UNKNOWN_KEY: &str = "unknown-key";
    /// A required key is not there.
    pub const MISSING_KEY: &str = "missing-key";
    /// A value of another TOML type than the key wants.
    pub const WRONG_TYPE: &str = "wrong-type";
    /// A settings version that this release does not understand.
    pub const UNSUPPORTED_VERSION: &str = "unsupported-version";
    /// Text that is not a number followed by a unit.
    pub const NOT_A_QUANTITY: &str = "not-a-quantity";
    /// A number without a unit.
    pub const MISSING_UNIT: &str = "missing-unit";
    /// A number with a unit that the key does not take.
    pub const UNKNOWN_UNIT: &str = "unknown-unit";
    /// A quantity that is too small or too large.
    pub const OUT_OF_RANGE: &str = "out-of-range";
    /// A word that is not one of the allowed ones.
    pub const NOT_ALLOWED: &str = "not-allowed";
    /// A path that is empty, relative or impossible.
    pub const BAD_PATH: &str = "bad-path";
    /// `[settings.sluice]` and `[sluice]` are both there and mean different things.
    pub const TABLES_DIFFER: &str = "tables-differ";
}

/// One thing to correct: where it is, what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How the caller named the document.
    pub source: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1; of the value, or of the key where the key is the problem.
    pub column: usize,
    /// Full key path as written; empty where the text is not TOML.
    pub key: String,
    /// What was found and what is allowed.
    pub message: String,
    /// One of [`code`].
    pub code: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, " {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All problems of one document, at least one, sorted by position; prints one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems in the order of the document.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| writeln!(f, "{problem}"))
    }
}

impl std::error::Error for Problems {}

/// Why a value is refused; the reader adds where it stands.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: String) -> Self {
        Self { code, message }
    }
}

/// A refusal with its byte offset and key path.
#[derive(Debug)]
pub(crate) struct Finding {
    at: usize,
    key: String,
    refusal: Refusal,
}

impl Finding {
    pub(crate) fn new(at: usize, key: impl Into<String>, refusal: Refusal) -> Self {
        Self { at, key: key.into(), refusal }
    }

    fn place(self, source: &str, lines: &Lines<'_>) -> Problem {
        let Place { line, column } = lines.place(self.at);
        let Refusal { code, message } = self.refusal;
        Problem { source: source.to_owned(), line, column, key: self.key, message, code }
    }
}

/// Findings as they come up, in any order.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Finding>);

impl Report {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives `good` if nothing was found, else everything that was, sorted.
    pub(crate) fn finish<T>(
        mut self,
        source: &str,
        lines: &Lines<'_>,
        good: T,
    ) -> Result<T, Problems> {
        if self.0.is_empty() {
            return Ok(good);
        }
        self.0.sort_by_key(|finding| finding.at);
        let placed = self.0.into_iter().map(|finding| finding.place(source, lines));
        Err(Problems(placed.collect()))
    }
}

/// Where each line of a text starts.
#[derive(Debug)]
pub(crate) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

/// A line and a column, both from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl<'t> Lines<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// Line of a byte offset.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// Line and column of a byte offset; past the end counts as the end.
    pub(crate) fn place(&self, at: usize) -> Place {
        let line = self.line(at);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or_default();
        let before = rest.char_indices().take_while(|(offset, _)| start + offset < at).count();
        Place { line, column: before + 1 }
    }
}

/// Text as a message shows it: in quotes, control characters escaped, long text cut.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{:?}", format!("{}…", text.get(..cut).unwrap_or_default())),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let lines = Lines::new("ab\näöü = 1\n");
        assert_eq!(lines.place(0), Place { line: 1, column: 1 });
        assert_eq!(lines.place(2), Place { line: 1, column: 3 });
        assert_eq!(lines.place(3), Place { line: 2, column: 1 });
        assert_eq!(lines.place(10), Place { line: 2, column: 5 });
    }

    #[test]
    fn offsets_past_the_end_and_inside_characters_are_placed() {
        let lines = Lines::new("ä");
        assert_eq!(lines.place(1), Place { line: 1, column: 2 });
        assert_eq!(lines.place(99), Place { line: 1, column: 2 });
        assert_eq!(Lines::new("").place(0), Place { line: 1, column: 1 });
    }

    #[test]
    fn quoted_text_is_one_short_printable_line() {
        assert_eq!(quote("a\n\u{1b}[1m"), r#""a\n\u{1b}[1m""#);
        assert_eq!(quote(&"ü".repeat(61)), format!("\"{}…\"", "ü".repeat(60)));
        assert_eq!(quote(&"ü".repeat(60)), format!("\"{}\"", "ü".repeat(60)));
    }

    #[test]
    fn problem_without_key_prints_position_and_message() {
        let problem = Problem {
            source: "user-data".into(),
            line: 3,
            column: 7,
            key: String::new(),
            message: "unclosed table".into(),
            code: code::SYNTAX,
        };
        assert_eq!(problem.to_string(), "user-data:3:7: unclosed table");
    }
}
