// SPDX-License-Identifier: Apache-2.0
//! A document taken apart: prose, and blocks of code, fenced or indented.

use std::fs;
use std::path::{Path, PathBuf};

use super::{entries, repository};

pub struct Page {
    /// In the repository.
    pub path: PathBuf,
    /// Without the blocks, paragraphs apart.
    pub prose: String,
    pub blocks: Vec<Block>,
}

pub struct Block {
    /// Where in which file, for messages.
    pub place: String,
    /// What a fence says that it holds; None where it is indented.
    pub language: Option<String>,
    pub text: String,
}

impl Page {
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let path = path.strip_prefix(repository()).expect("in the repository").to_owned();
        let (mut prose, mut blocks) = (String::new(), Vec::new());
        let mut lines = text.lines().enumerate().peekable();
        let mut is_after_blank = true;
        while let Some((number, line)) = lines.next() {
            let mut held = Vec::new();
            let language = line.trim_start().strip_prefix("```").map(str::to_owned);
            if language.is_some() {
                held.extend(lines.by_ref().map(|(_, l)| l).take_while(|l| l.trim() != "```"));
            } else if is_after_blank && is_indented(line) {
                held.push(line);
                let goes_on = |(_, line): &(usize, &str)| line.is_empty() || is_indented(line);
                while let Some((_, line)) = lines.next_if(goes_on) {
                    held.push(line);
                }
            } else {
                prose += line;
            }
            prose.push('\n');
            is_after_blank = line.is_empty() || !held.is_empty();
            if !held.is_empty() || language.is_some() {
                let place = format!("{}:{}", path.display(), number + 1);
                blocks.push(Block { place, language, text: dedented(&held) });
            }
        }
        Self { path, prose, blocks }
    }

    /// Every document of the repository.
    pub fn all() -> Vec<Self> {
        let mut paths = Vec::new();
        find(&repository(), &mut paths);
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Those that describe what is: the changelog names what was.
    pub fn current() -> Vec<Self> {
        let mut pages = Self::all();
        pages.retain(|page| page.path != Path::new("CHANGELOG.md"));
        pages
    }

    /// The folder of an example, where its commands are run; others are run in the root.
    pub fn example(&self) -> Option<&str> {
        self.path.parent()?.to_str().filter(|folder| folder.starts_with("examples"))
    }

    /// Prose without code, and the code in it: spans that may go on in the next line.
    pub fn spans(&self) -> (String, Vec<String>) {
        let (mut prose, mut code) = (String::new(), Vec::new());
        for paragraph in self.prose.split("\n\n") {
            let mut pieces = paragraph.split('`');
            while let Some(piece) = pieces.next() {
                prose += piece;
                code.extend(pieces.next().map(|span| span.replace('\n', " ")));
            }
            prose.push_str("\n\n");
        }
        (prose, code)
    }

    /// As GitHub makes them of headings.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        let anchor = |heading: &str| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        };
        headings.map(anchor).collect()
    }
}

fn is_indented(line: &str) -> bool {
    line.starts_with("    ") && !line.trim().is_empty()
}

fn dedented(lines: &[&str]) -> String {
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let least = lines.iter().filter(|line| !line.is_empty()).map(indent).min().unwrap_or(0);
    let text: String =
        lines.iter().map(|line| format!("{}\n", &line[least.min(line.len())..])).collect();
    text.trim_end().to_owned() + "\n"
}

/// Without page.md, which is the head of docs/troubleshooting.md.
fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != ".git" {
            find(&path, found);
        } else if name.ends_with(".md") && name != "page.md" {
            found.push(path);
        }
    }
}
