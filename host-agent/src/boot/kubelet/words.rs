// SPDX-License-Identifier: Apache-2.0
//! How systemd takes lines apart: words of a command or of Environment=, and
//! the assignments of an environment file. Reads no file and knows no key.

use std::iter::Peekable;
use std::str::Chars;

/// `KEY=value`, and the line where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) line: usize,
}

/// Words, without their quotes and escapes (systemd's extract-word.c, EXTRACT_UNQUOTE and
/// EXTRACT_RELAX).
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\\', _) => word.get_or_insert_default().extend(chars.next().map(unescape)),
            ('"' | '\'', None) => {
                quote = Some(c);
                // An empty word is one too, if it is quoted.
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn unescape(c: char) -> char {
    match c {
        'n' => '\n',
        't' => '\t',
        's' => ' ',
        other => other,
    }
}

/// The assignments of an environment file (systemd's env-file.c).
pub(super) fn environment_file(text: &str) -> Vec<KeyValue> {
    let mut reader = Reader { chars: text.chars().peekable(), line: 1 };
    let mut found = Vec::new();
    while let Some(c) = reader.chars.peek().copied() {
        match c {
            '#' | ';' => reader.skip_line(),
            c if c.is_whitespace() => {
                reader.next();
            }
            _ => found.extend(reader.key_value()),
        }
    }
    found
}

struct Reader<'t> {
    chars: Peekable<Chars<'t>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|c| c != '\n') {}
    }

    fn key_value(&mut self) -> Option<KeyValue> {
        let (mut key, line) = (String::new(), self.line);
        loop {
            match self.next()? {
                '\n' => return None,
                '=' => break,
                c => key.push(c),
            }
        }
        Some(KeyValue { key: key.trim_end().to_owned(), value: self.value(), line })
    }

    /// Up to the end of the line; white space at both ends does not count, unless it is quoted.
    fn value(&mut self) -> String {
        let (mut value, mut kept) = (String::new(), 0);
        while let Some(c) = self.next() {
            match c {
                '\n' => break,
                '\'' => {
                    while let Some(c) = self.next().filter(|c| *c != '\'') {
                        value.push(c);
                    }
                }
                '"' => self.double_quoted(&mut value),
                '\\' => value.extend(self.next().filter(|c| *c != '\n')),
                c if c.is_whitespace() => {
                    if !value.is_empty() {
                        value.push(c);
                    }
                    continue;
                }
                c => value.push(c),
            }
            kept = value.len();
        }
        value.truncate(kept);
        value
    }

    fn double_quoted(&mut self, value: &mut String) {
        while let Some(c) = self.next().filter(|c| *c != '"') {
            match (c, self.chars.peek()) {
                ('\\', Some('"' | '\\' | '`' | '$')) => value.extend(self.next()),
                ('\\', Some('\n')) => {
                    self.next();
                }
                (c, _) => value.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_systemd_does() {
        for (text, words) in [
            ("", &[][..]),
            ("  a  b\tc ", &["a", "b", "c"]),
            ("'a b' \"c d\"e f''", &["a b", "c de", "f"]),
            (r#""A=x y" B=\"z\s'"#, &["A=x y", "B=\"z "]),
            ("'' a", &["", "a"]),
        ] {
            assert_eq!(split(text), words, "{text}");
        }
    }

    #[test]
    fn environment_files_are_read_as_systemd_does() {
        let text = "# comment\n; comment\n\nA=1\n B = x y  \nC='a # b' \nD=\"a\\\"b\\\n c\" tail\nE=x\\\n\
                    y\nnonsense\nF=\nG=\"\"\n";
        let found = environment_file(text);
        let found: Vec<_> =
            found.iter().map(|a| (a.key.as_str(), a.value.as_str(), a.line)).collect();
        let expected = [
            ("A", "1", 4),
            ("B", "x y", 5),
            ("C", "a # b", 6),
            ("D", "a\"b c tail", 7),
            ("E", "xy", 9),
            ("F", "", 12),
            ("G", "", 13),
        ];
        assert_eq!(found, expected);
    }
}
