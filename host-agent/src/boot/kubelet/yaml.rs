// SPDX-License-Identifier: Apache-2.0
//! YAML, and JSON with it, as a tree that knows its lines: what nodeadm and
//! kubelet are configured in. An alias is a second way to one node, so no text
//! grows while it is read. Knows no key of either; writes nothing.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Far more than a configuration has; deeper ones would be a danger to the stack.
const MOST_DEEP: usize = 64;

/// A value and the line where it begins.
#[derive(Debug)]
pub struct Yaml {
    line: usize,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Null,
    Text(String),
    List(Vec<Rc<Yaml>>),
    /// Keys and values by turns.
    Map(Vec<Rc<Yaml>>),
}

impl Yaml {
    /// The first document of a text, as the parsers of Kubernetes take it; Err says what is wrong.
    pub fn read(text: &str) -> Result<Rc<Self>, String> {
        let mut tree = Tree::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                format!("line {line} column {column}: {}", error.info())
            })?;
            if matches!(event, Event::DocumentEnd) {
                break;
            }
            tree.take(event, span)?;
        }
        Ok(tree.root.unwrap_or_else(|| Rc::new(Self { line: 1, value: Value::Null })))
    }

    /// The line where the value begins, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// What lies at the end of these keys; None where there is nothing, or null.
    pub fn at(&self, keys: &[&str]) -> Option<&Self> {
        let found = keys.iter().try_fold(self, |yaml, key| yaml.get(key))?;
        (!matches!(found.value, Value::Null)).then_some(found)
    }

    /// A text, or a number or word as it is written.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> impl Iterator<Item = &Self> {
        let items = if let Value::List(items) = &self.value { items.as_slice() } else { &[] };
        items.iter().map(Rc::as_ref)
    }

    /// Of equal keys the last one; a map that is merged in (`<<`) has what is not here.
    fn get(&self, key: &str) -> Option<&Self> {
        let mut map = self;
        loop {
            let Value::Map(pairs) = &map.value else { return None };
            let of = |wanted: &str| {
                let mut found = pairs.chunks_exact(2).rev();
                found.find_map(|pair| match pair {
                    [key, value] if key.text() == Some(wanted) => Some(value.as_ref()),
                    _ => None,
                })
            };
            match (of(key), of("<<")) {
                (Some(found), _) => return Some(found),
                (None, Some(merged)) => map = merged,
                (None, None) => return None,
            }
        }
    }
}

/// A tree while it grows, without recursion.
#[derive(Default)]
struct Tree {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Yaml>>,
    root: Option<Rc<Yaml>>,
}

/// A list or map whose end has not come yet.
struct Open {
    line: usize,
    anchor: usize,
    is_map: bool,
    items: Vec<Rc<Yaml>>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), String> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_null = style == ScalarStyle::Plain
                    && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Value::Null } else { Value::Text(text.into_owned()) };
                self.add(Rc::new(Yaml { line, value }), anchor);
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let known = known.ok_or_else(|| format!("line {line}: an alias to itself"))?;
                self.add(known, 0);
            }
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, false)?,
            Event::MappingStart(anchor, _) => self.begin(line, anchor, true)?,
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, line: usize, anchor: usize, is_map: bool) -> Result<(), String> {
        if self.open.len() == MOST_DEEP {
            return Err(format!("line {line}: nested more than {MOST_DEEP} levels deep"));
        }
        self.open.push(Open { line, anchor, is_map, items: Vec::new() });
        Ok(())
    }

    fn end(&mut self) {
        let Some(Open { line, anchor, is_map, items }) = self.open.pop() else { return };
        let value = if is_map { Value::Map(items) } else { Value::List(items) };
        self.add(Rc::new(Yaml { line, value }), anchor);
    }

    fn add(&mut self, yaml: Rc<Yaml>, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, yaml.clone());
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(yaml),
            None => self.root = Some(yaml),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, keys: &[&str]) -> Option<(String, usize)> {
        let yaml = Yaml::read(text).unwrap();
        yaml.at(keys).map(|y| (y.text().unwrap_or("no text").to_owned(), y.line()))
    }

    #[test]
    fn values_are_found_with_their_lines_however_they_are_written() {
        for (text, line) in [
            ("# comment\na:\n  b: 58\n", 3),
            ("---\na: {b: '58'}\n---\na: {b: 1}\n", 2),
            ("{\"a\":\n{\"b\": 58}}", 2),
            ("x: &x\n  b: 58\na: *x\n", 2),
            ("x: &x\n  b: 58\na:\n  <<: *x\n  c: 1\n", 2),
            ("a:\n  b: 1\n  b: 58\n", 3),
        ] {
            assert_eq!(found(text, &["a", "b"]), Some(("58".into(), line)), "{text}");
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_or_null_is() {
        for text in ["", "a:\n", "a: {b: null}", "a: {b: ~}", "a: [b]", "a: b", "- a"] {
            assert_eq!(found(text, &["a", "b"]), None, "{text}");
        }
        assert_eq!(found("a: {b: 'null'}", &["a", "b"]), Some(("null".into(), 1)));
    }

    #[test]
    fn items_are_those_of_a_list() {
        let yaml = Yaml::read("a: [x, 'y z']\nb: c\n").unwrap();
        let items = |key| yaml.at(&[key]).unwrap().items().filter_map(Yaml::text).collect();
        let (a, b): (Vec<_>, Vec<_>) = (items("a"), items("b"));
        assert_eq!((a, b), (vec!["x", "y z"], vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let error = |text: &str| Yaml::read(text).map(|_| ()).unwrap_err();
        assert_eq!(
            error("a: b\nc: [\n"),
            "line 3 column 1: while parsing a node, did not find expected node content"
        );
        assert_eq!(error("a: &a\n  b: *a\n"), "line 2: an alias to itself");
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(error(&deep), "line 1: nested more than 64 levels deep");
    }

    #[test]
    fn aliases_of_aliases_take_no_room() {
        let mut text = String::from("a0: &a0 [x, x]\n");
        for n in 1..60 {
            text += &format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}]\n", n - 1);
        }
        assert_eq!(Yaml::read(&text).unwrap().at(&["a59"]).unwrap().items().count(), 4);
    }
}
