// SPDX-License-Identifier: Apache-2.0

//! A problem as a terminal shows it: the message, the line, and a mark below what is meant.
//!
//! Never prints control characters of a document: they could move the cursor or worse.

use std::fmt::Write;

use crate::text::problem::{Problem, Problems};
use crate::text::source::without_mark;

/// Longer lines, e.g. base64, are shown around the mark only.
const MOST_SHOWN: usize = 120;
/// How much of a long line stays visible before the mark.
const LEAD: usize = 40;

impl Problem {
    /// The message, its line in `text` and a mark; the message alone if `text` has no such line.
    pub fn render_with_caret(&self, text: &str) -> String {
        let mut shown = format!("{self}\n");
        let mut lines = without_mark(text).split('\n');
        let Some(line) = lines.nth(self.line.saturating_sub(1)) else { return shown };
        let line = line.strip_suffix('\r').unwrap_or(line);
        let before = self.column.saturating_sub(1);
        let skipped =
            if line.chars().count() > MOST_SHOWN { before.saturating_sub(LEAD) } else { 0 };
        let line: String = line.chars().skip(skipped).take(MOST_SHOWN).map(printable).collect();
        let lead = pad(&line, before - skipped);
        let mark = "^".repeat(self.width.min(MOST_SHOWN.saturating_sub(before - skipped)).max(1));
        // Writing to a string cannot fail.
        let _ = writeln!(shown, "{:5} | {line}\n      | {lead}{mark}", self.line);
        shown
    }
}

impl Problems {
    /// Every problem with its line; `texts` are the documents as `merge` took them.
    pub fn render_with_caret(&self, texts: &[(&str, &str)]) -> String {
        let text = |source: &str| texts.iter().find(|(name, _)| *name == source);
        let render = |problem: &Problem| match text(&problem.source) {
            Some((_, text)) => problem.render_with_caret(text),
            None => format!("{problem}\n"),
        };
        self.iter().map(render).collect()
    }
}

/// Stands in for what a terminal would obey or not show: controls, direction marks and the like.
fn printable(c: char) -> char {
    let plain = c.escape_debug().len() == 1 || "\t'\"\\".contains(c);
    if plain { c } else { '\u{fffd}' }
}

/// Blanks as wide as the line's first characters; a tab stays one, so it is as wide as above.
fn pad(line: &str, length: usize) -> String {
    let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
    line.chars().map(blank).chain(std::iter::repeat(' ')).take(length).collect()
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn shown(text: &str) -> String {
        parse("t", text).expect_err("problems").render_with_caret(&[("t", text)])
    }

    #[test]
    fn mark_is_below_what_is_meant() {
        assert_eq!(
            shown("\u{feff}[sluice.cni]\r\n\tmöde = 'off'\r\n"),
            "t:2:3: not valid TOML at \"ö\": invalid unquoted key, expected letters, numbers, `-`, `_`\n\
             \x20   2 | \tmöde = 'off'\n\
             \x20     | \t ^\n"
        );
        assert_eq!(
            shown("sluice.version = 1\n[sluice.cni]\n\tmode = 'on'\n"),
            "t:3:9 sluice.cni.mode: \"on\" is not allowed; use \"chain\", \"standalone\" or \"off\"\n\
             \x20   3 | \tmode = 'on'\n\
             \x20     | \t       ^^^^\n"
        );
    }

    #[test]
    fn long_line_is_shown_around_the_mark() {
        let text = format!("x = '{}'; y = '{}'", "x".repeat(300), "y".repeat(300));
        let shown = shown(&text);
        let [line, mark] = [1, 2].map(|n| shown.lines().nth(n).unwrap_or_default());
        assert_eq!(line.chars().count(), 128);
        assert_eq!(line.chars().nth(48), Some(';'));
        assert!(
            mark.strip_prefix(&" ".repeat(6)).is_some_and(|m| m.find('^') == Some(42)),
            "{shown}"
        );
    }

    #[test]
    fn terminal_is_safe_from_the_document() {
        let shown = shown("x = 1\nsluice = '\u{1b}[31m'\u{7}\u{202e}\r!\r\n");
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}', '\r']), "{shown:?}");
    }

    #[test]
    fn text_of_another_document_is_never_shown() {
        let problems = parse("t", "sluice = 1\n").expect_err("problem");
        assert_eq!(problems.render_with_caret(&[("u", "x")]), problems.to_string());
        let only = problems.iter().next().expect("one");
        assert_eq!(only.render_with_caret("").lines().count(), 3);
    }
}
