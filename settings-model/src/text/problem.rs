// SPDX-License-Identifier: Apache-2.0

//! What is wrong with the settings, where, and what would be right.
//!
//! Owns the text and JSON form of a problem (`user-data:12:18 settings.sluice.cni.mode: …`).
//! Never decides what is allowed; the section files do.

use std::fmt;

use serde_json::{Value, json};

use crate::text::code;
use crate::text::source::{Place, Position, Source, name_place};

/// One thing to correct: where it is, what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How the caller named the document.
    pub source: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1; of the value, or of the key where the key is the problem.
    pub column: usize,
    /// Characters from the column on that are meant, at least 1.
    pub width: usize,
    /// Full key path as written; empty where the text is not TOML.
    pub key: String,
    /// What was found and what is allowed.
    pub message: String,
    /// One of [`code::ALL`].
    pub code: &'static str,
}

/// Something an operator should know that keeps no setting from being used.
pub type Warning = Problem;

impl Problem {
    /// The problem for programs; `file` is what the caller named the document.
    pub fn to_json(&self) -> Value {
        let Self { source, line, column, key, message, code, .. } = self;
        json!({ "code": code, "file": source, "line": line, "column": column, "key": key, "message": message })
    }
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

/// All problems of all documents, at least one, sorted by layer and position; prints one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems in the order of the documents.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// An array of all problems, for programs.
    pub fn to_json(&self) -> Value {
        self.iter().map(Problem::to_json).collect()
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
    /// Another place that matters, and what to say after it.
    other: Option<(Place, String)>,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), other: None }
    }

    /// A refusal that names another place between two pieces of text: `before at PLACEafter`.
    pub(crate) fn beside(
        code: &'static str,
        before: impl Into<String>,
        other: Place,
        after: impl Into<String>,
    ) -> Self {
        Self { code, message: before.into(), other: Some((other, after.into())) }
    }

    /// The same as a warning of its own kind.
    pub(crate) fn into_warning(self, code: &'static str, prefix: &str) -> Self {
        Self { code, message: format!("{prefix}{}", self.message), ..self }
    }

    fn message(self, here: Place, sources: &[Source<'_>]) -> String {
        match self.other {
            Some((other, after)) => self.message + &name_place(sources, other, here) + &after,
            None => self.message,
        }
    }
}

/// A refusal with its place and key path.
#[derive(Debug)]
pub(crate) struct Finding {
    place: Place,
    key: String,
    refusal: Refusal,
}

impl Finding {
    pub(crate) fn new(place: Place, key: impl Into<String>, refusal: Refusal) -> Self {
        Self { place, key: key.into(), refusal }
    }

    fn locate(self, sources: &[Source<'_>]) -> Option<Problem> {
        let source = sources.get(self.place.layer)?;
        let Position { line, column } = source.position(self.place.start);
        let (width, key, code) = (source.width(self.place), self.key, self.refusal.code);
        let message = self.refusal.message(self.place, sources);
        Some(Problem { source: source.name.to_owned(), line, column, width, key, message, code })
    }
}

/// Findings as they come up, in any order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Report {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.problems.push(finding);
    }

    pub(crate) fn warn(&mut self, finding: Finding) {
        self.warnings.push(finding);
    }

    pub(crate) fn len(&self) -> usize {
        self.problems.len()
    }

    /// Whether something at or below a key was refused.
    pub(crate) fn concerns(&self, key: &str) -> bool {
        self.problems.iter().any(|finding| finding.key.contains(key))
    }

    /// Gives the warnings if nothing was refused, else everything that was, sorted.
    pub(crate) fn finish(self, sources: &[Source<'_>]) -> Result<Vec<Warning>, Problems> {
        match self.problems.is_empty() {
            true => Ok(located(self.warnings, sources)),
            false => Err(Problems(located(self.problems, sources))),
        }
    }
}

/// More than a person reads; a document that is wrong throughout must not take long either.
const MOST_TOLD: usize = 100;

fn located(mut findings: Vec<Finding>, sources: &[Source<'_>]) -> Vec<Problem> {
    findings.sort_by_key(|finding| (finding.place.layer, finding.place.start));
    if findings.len() > MOST_TOLD {
        let rest = findings.split_off(MOST_TOLD);
        let message = format!("{} more from here on", rest.len());
        let place = rest.first().map(|finding| finding.place);
        let more = Refusal::new(code::MORE, message);
        findings.extend(place.map(|place| Finding::new(place, "", more)));
    }
    findings.into_iter().filter_map(|finding| finding.locate(sources)).collect()
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
    use crate::parse;

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
            width: 1,
            key: String::new(),
            message: "unclosed table".into(),
            code: code::SYNTAX,
        };
        assert_eq!(problem.to_string(), "user-data:3:7: unclosed table");
    }

    #[test]
    fn json_has_a_stable_shape() {
        let problems = parse("user-data", "sluice = { version = 1, wings = 4 }").expect_err("one");
        assert_eq!(
            problems.to_json(),
            json!([{
                "code": "unknown-key",
                "file": "user-data",
                "line": 1,
                "column": 25,
                "key": "sluice.wings",
                "message": "unknown key; use version, bandwidth, cni, prefix-delegation, max-pods or agent",
            }])
        );
    }

    #[test]
    fn newer_version_is_told_apart() {
        let newer = |text: &str| {
            let problems = parse("t", text).expect_err("problem");
            problems.iter().any(|problem| problem.code == code::UNSUPPORTED_VERSION)
        };
        assert!(newer("sluice.version = 2"));
        assert!(newer("sluice.version = 99999999999999999999999"));
        assert!(!newer("sluice.version = 0"));
        assert!(!newer("sluice.version = -2"));
        assert!(!newer("sluice.version = '2'"));
    }
}
