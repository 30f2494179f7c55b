// SPDX-License-Identifier: Apache-2.0
//! What documents link to is there.

use std::path::Path;

use super::page::Page;
use super::repository;

/// Targets that are in the repository.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    let targets = prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    targets.filter(|target| !target.starts_with("http"))
}

/// What is wrong with a link.
fn judged(page: &Page, link: &str) -> Option<String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = repository().join(page.path.parent().unwrap_or(Path::new("")));
    let path = if file.is_empty() { repository().join(&page.path) } else { folder.join(file) };
    let Ok(path) = path.canonicalize() else { return Some("no such file".into()) };
    let root = repository().canonicalize().expect("the repository");
    let Ok(inside) = path.strip_prefix(root) else { return Some("outside of this".into()) };
    let target = || Page::read(&repository().join(inside));
    let is_there = anchor.is_empty() || target().anchors().iter().any(|it| it == anchor);
    (!is_there).then(|| format!("no heading #{anchor}"))
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let (mut seen, mut bad) = (0, Vec::new());
    for page in Page::all() {
        for link in links(&page.spans().0) {
            seen += 1;
            bad.extend(
                judged(&page, link).map(|why| format!("{}: {link}: {why}", page.path.display())),
            );
        }
    }
    assert!(seen > 150 && bad.is_empty(), "of {seen} links: {bad:#?}");
}

/// By a path from the root, as in prose and in code.
#[test]
fn every_page_that_a_document_names_is_there() {
    let mut bad = Vec::new();
    for page in Page::current() {
        let (prose, code) = page.spans();
        let words = prose.split_whitespace().chain(code.iter().map(String::as_str));
        for word in words {
            let Some(end) = word.find(".md").filter(|_| word.starts_with("docs/")) else {
                continue;
            };
            if !repository().join(&word[..end + 3]).exists() {
                bad.push(format!("{}: {word}", page.path.display()));
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}
