// SPDX-License-Identifier: Apache-2.0

//! The texts that settings come from, and the way from byte offsets to lines and columns.
//!
//! Never knows what a text means.

use std::fmt;
use std::ops::Range;

/// A stretch of the text of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) layer: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Place {
    pub(crate) fn new(layer: usize, span: Range<usize>) -> Self {
        Self { layer, start: span.start, end: span.end }
    }
}

/// One layer: how the caller named it, its text, and where each line starts.
#[derive(Debug)]
pub(crate) struct Source<'t> {
    pub(crate) name: &'t str,
    pub(crate) text: &'t str,
    starts: Vec<usize>,
    /// No person has seen this text, so its lines and columns say nothing.
    unseen: bool,
}

/// A line and a column in characters, both from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The byte order mark is not a column.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

impl<'t> Source<'t> {
    pub(crate) fn new(name: &'t str, text: &'t str) -> Self {
        let text = without_mark(text);
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(after_breaks).collect();
        Self { name, text, starts, unseen: false }
    }

    /// A text that was made of something else.
    pub(crate) fn unseen(text: &'t str) -> Self {
        Self { unseen: true, ..Self::new("", text) }
    }

    /// Line of a byte offset.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// Line and column of a byte offset; past the end counts as the end.
    pub(crate) fn position(&self, at: usize) -> Position {
        let line = self.line(at);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        // An offset inside a character counts as behind it.
        let end = (at..=self.text.len()).find(|at| self.text.is_char_boundary(*at));
        let before = self.text.get(start..end.unwrap_or(self.text.len())).unwrap_or_default();
        let before = before.chars().count();
        Position { line, column: before + 1 }
    }

    /// Characters from `start` to `end`, no further than the line goes, at least 1.
    pub(crate) fn width(&self, place: Place) -> usize {
        let found = self.text.get(place.start..place.end).unwrap_or_default();
        found.lines().next().unwrap_or_default().trim_end().chars().count().max(1)
    }
}

/// How a message at one place names another, ` at` included; nothing where that is no help.
pub(crate) fn name_place(sources: &[Source<'_>], other: Place, here: Place) -> String {
    let source = sources.get(other.layer).filter(|source| !source.unseen);
    let Some(source) = source else { return String::new() };
    let position = source.position(other.start);
    match other.layer == here.layer {
        true => format!(" at {position}"),
        false => format!(" at {}:{}:{}", source.name, position.line, position.column),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let source = Source::new("t", "ab\näöü = 1\n");
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(2), Position { line: 1, column: 3 });
        assert_eq!(source.position(3), Position { line: 2, column: 1 });
        assert_eq!(source.position(10), Position { line: 2, column: 5 });
    }

    #[test]
    fn offsets_past_the_end_and_inside_characters_are_placed() {
        let source = Source::new("t", "ä");
        assert_eq!(source.position(1), Position { line: 1, column: 2 });
        assert_eq!(source.position(99), Position { line: 1, column: 2 });
        assert_eq!(Source::new("t", "").position(0), Position { line: 1, column: 1 });
    }

    #[test]
    fn width_ends_with_the_line() {
        let source = Source::new("t", "äb\r\ncd");
        assert_eq!(source.width(Place::new(0, 0..3)), 2);
        assert_eq!(source.width(Place::new(0, 0..7)), 2);
        assert_eq!(source.width(Place::new(0, 5..5)), 1);
        assert_eq!(source.width(Place::new(0, 99..120)), 1);
    }
}
