// SPDX-License-Identifier: Apache-2.0
//! Which files of a crate a file uses: `use` lines and paths in the text, those
//! of tests left out. Reads Rust as far as it needs to: names, `::` and braces.
//! A name that a module passes on (`pub use`) stands for the file it is of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module: its path below the crate, `["pod", "record"]`; the crate itself is empty.
pub type Module = Vec<String>;

/// A file's own text, as tokens without comments, strings and tests.
struct Source {
    file: String,
    tokens: Vec<String>,
    /// `mod x;`, and whether for tests only.
    children: BTreeMap<String, bool>,
}

pub struct Crate {
    modules: BTreeMap<Module, Source>,
}

impl Crate {
    pub fn read(root: &Path) -> Crate {
        let mut modules = BTreeMap::new();
        read_module(root, root.join("lib.rs"), Vec::new(), &mut modules);
        Crate { modules }
    }

    pub fn top_modules(&self) -> Vec<&String> {
        self.modules[&Vec::new()].children.keys().collect()
    }

    /// From each file to those that it uses.
    pub fn uses(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let of = |(module, source): (_, &'_ _)| (self.file(module), self.used_by(module, source));
        self.modules.iter().map(of).collect()
    }

    fn file(&self, module: &Module) -> &str {
        &self.modules[module].file
    }

    fn used_by(&self, module: &Module, source: &Source) -> BTreeSet<&str> {
        let paths = paths(&source.tokens);
        let absolute = paths.iter().filter_map(|path| self.absolute(module, source, path));
        let targets = absolute.map(|path| self.file(&self.home(&path, 0)));
        targets.filter(|file| *file != source.file).collect()
    }

    /// From the crate's root; None for what is of another crate.
    fn absolute(&self, module: &Module, source: &Source, path: &UsedPath) -> Option<Module> {
        let (first, rest) = path.names.split_first()?;
        let base: Module = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" if path.inline > 0 => module.clone(),
            "super" => module.split_last()?.1.into(),
            name if path.inline == 0 && source.children.contains_key(name) => {
                return Some([module.as_slice(), &path.names].concat());
            }
            _ => return None,
        };
        // `super::super` leaves an inline module, or two files.
        let ups = rest.iter().take_while(|name| *name == "super").count();
        let kept = base.len() - if path.inline > 0 { ups - ups.min(path.inline - 1) } else { ups };
        Some([&base[..kept], &rest[ups..]].concat())
    }

    /// The module that a path leads into, past names that are passed on.
    fn home(&self, path: &[String], steps: usize) -> Module {
        let longest = (0..=path.len()).rev().find(|end| self.modules.contains_key(&path[..*end]));
        let (module, rest) = path.split_at(longest.unwrap_or_default());
        let source = &self.modules[module];
        let passed = rest.first().and_then(|name| self.passed_on(module, source, name));
        match passed {
            Some(path) if steps < 8 => self.home(&path, steps + 1),
            _ => module.to_vec(),
        }
    }

    fn passed_on(&self, module: &[String], source: &Source, name: &String) -> Option<Module> {
        let module = module.to_vec();
        let passed = paths(&source.tokens).into_iter().filter(|path| path.is_public);
        let mut named = passed
            .filter(|path| path.names.last() == Some(name) || path.alias.as_ref() == Some(name));
        named.find_map(|path| self.absolute(&module, source, &path))
    }
}

fn read_module(root: &Path, path: PathBuf, module: Module, modules: &mut BTreeMap<Module, Source>) {
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (tokens, children) = without_tests(tokens(&text));
    for child in children.iter().filter(|(_, tests_only)| !**tests_only).map(|(name, _)| name) {
        let module = [module.as_slice(), std::slice::from_ref(child)].concat();
        let file = root.join(module.join("/")).with_extension("rs");
        let folder = root.join(module.join("/")).join("mod.rs");
        read_module(root, if file.exists() { file } else { folder }, module, modules);
    }
    let file = path.strip_prefix(root).expect("below the root").display().to_string();
    modules.insert(module, Source { file, tokens, children });
}

/// A path as it is written.
#[derive(Debug, PartialEq)]
struct UsedPath {
    names: Vec<String>,
    alias: Option<String>,
    is_public: bool,
    /// How many inline modules it stands in.
    inline: usize,
}

fn paths(tokens: &[String]) -> Vec<UsedPath> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut depth = 0;
    let mut inline = Vec::new();
    while at < tokens.len() {
        let before = at.checked_sub(1).map(|i| tokens[i].as_str()).unwrap_or_default();
        let next = tokens.get(at + 1).map(String::as_str).unwrap_or_default();
        match tokens[at].as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.retain(|opened| *opened < depth + 1);
            }
            "mod" if tokens.get(at + 2).is_some_and(|t| t == "{") => inline.push(depth + 1),
            "use" => {
                let start = found.len();
                at = tree(tokens, at + 1, &mut Vec::new(), &mut found);
                for path in &mut found[start..] {
                    path.is_public = before == "pub" || before == ")";
                    path.inline = inline.len();
                }
                continue;
            }
            name if next == "::" && before != "::" && is_name(name) => {
                let mut names = vec![name.to_owned()];
                while tokens.get(at + 1).is_some_and(|t| t == "::") && is_name(&tokens[at + 2]) {
                    names.push(tokens[at + 2].clone());
                    at += 2;
                }
                found.push(UsedPath { names, alias: None, is_public: false, inline: inline.len() });
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// One tree of a `use` line; gives the place behind it.
fn tree(
    tokens: &[String],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<UsedPath>,
) -> usize {
    let held = prefix.len();
    loop {
        match tokens[at].as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens[at] != "}" {
                    at = tree(tokens, at, &mut prefix.clone(), found);
                    at += usize::from(tokens[at] == ",");
                }
                return at + 1;
            }
            name if is_name(name) || name == "*" => {
                if name != "self" || prefix.is_empty() {
                    prefix.push(name.to_owned());
                }
                at += 1;
                let end = match tokens[at].as_str() {
                    "as" => Some(at + 2),
                    "::" => None,
                    _ => Some(at),
                };
                if let Some(end) = end {
                    let alias = (end > at).then(|| tokens[at + 1].clone());
                    found.push(UsedPath {
                        names: prefix.clone(),
                        alias,
                        is_public: false,
                        inline: 0,
                    });
                    prefix.truncate(held);
                    return end;
                }
            }
            _ => return at + 1,
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// What is left without `#[cfg(test)]` items, and the files that the text names as modules.
fn without_tests(tokens: Vec<String>) -> (Vec<String>, BTreeMap<String, bool>) {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept: Vec<String> = Vec::new();
    let mut children = BTreeMap::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_test = tokens[at..].iter().take(TEST.len()).eq(TEST.iter());
        let start = at + if is_test { TEST.len() } else { 0 };
        let end = if is_test { end_of_item(&tokens, start) } else { at + 1 };
        let declared =
            tokens[start..].windows(3).take(end - start).find(|t| t[0] == "mod" && t[2] == ";");
        if let Some([_, name, _]) = declared {
            children.entry(name.clone()).or_insert(is_test);
        }
        if !is_test {
            kept.push(tokens[at].clone());
        }
        at = end;
    }
    (kept, children)
}

/// A block ends it, or else a semicolon; the braces of a `use` do not.
fn end_of_item(tokens: &[String], start: usize) -> usize {
    let mut depth = 0;
    let is_use =
        tokens[start..].iter().take_while(|token| *token != "{").any(|token| token == "use");
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.as_str() {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 && (token == ";" || token == "}" && !is_use) {
            return at + 1;
        }
    }
    tokens.len()
}

/// Names, `::` and single signs. What a comment, a string or a character holds is left out.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest).unwrap_or_else(|| {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let length = match rest.find(|c| !is_part(c)).unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                length => length,
            };
            tokens.push(rest[..length].to_owned());
            length
        });
        rest = &rest[length..];
    }
    tokens
}

/// How much of what stands here is no code.
fn skipped(rest: &str) -> Option<usize> {
    let through = |start: usize, end: &str| {
        rest[start..].find(end).map_or(rest.len(), |i| start + i + end.len())
    };
    if rest.starts_with(char::is_whitespace) {
        return Some(rest.len() - rest.trim_start().len());
    }
    if rest.starts_with("//") {
        return Some(through(0, "\n"));
    }
    if rest.starts_with("/*") {
        return Some(through(0, "*/"));
    }
    let raw = rest.strip_prefix("br").or(rest.strip_prefix('r'));
    if let Some(raw) = raw.filter(|raw| raw.trim_start_matches('#').starts_with('"')) {
        let signs = raw.len() - raw.trim_start_matches('#').len();
        let opened = rest.len() - raw.len() + signs + 1;
        return Some(through(opened, &format!("\"{}", "#".repeat(signs))));
    }
    let text = rest.strip_prefix('b').unwrap_or(rest);
    let offset = rest.len() - text.len();
    if let Some(inside) = text.strip_prefix('"') {
        return Some(offset + 1 + quoted(inside, '"'));
    }
    let mut characters = text.strip_prefix('\'')?.chars();
    let is_character = characters.next()? == '\\' || characters.next()? == '\'';
    Some(if is_character { offset + 1 + quoted(&text[1..], '\'') } else { 1 })
}

fn quoted(text: &str, end: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == end && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}
