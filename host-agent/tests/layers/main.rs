// SPDX-License-Identifier: Apache-2.0
//! The tree of src/: few rooms, each on a floor of its own, and no file that
//! uses what stands above it, or one that uses it. ARCHITECTURE.md draws it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml lets tests do so, but not the functions they share"
)]

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use source::Crate;

/// A room, and what it may use: what stands below it, as far as it is named here.
type Room = (&'static str, &'static [&'static str]);

/// From the top to the ground.
const ROOMS: &[Room] = &[
    (
        "cli",
        &[
            "agent",
            "agent/reconcile",
            "api",
            "doctor",
            "status",
            "boot",
            "cluster_config",
            "standalone",
            "addresses",
            "pod",
            "libcni",
            "settings",
            "netlink",
            "host",
        ],
    ),
    (
        "agent",
        &[
            "agent/reconcile",
            "api",
            "status",
            "standalone",
            "addresses",
            "pod",
            "settings",
            "netlink",
            "imds",
            "host",
            "trouble",
        ],
    ),
    // The agent's report and its troubles are made here.
    (
        "agent/reconcile",
        &[
            "agent/chain_entry",
            "status",
            "addresses",
            "pod",
            "libcni",
            "settings",
            "netlink",
            "host",
            "trouble",
        ],
    ),
    ("agent/chain_entry", &["libcni", "host", "trouble"]),
    ("api", &["status", "pod", "settings", "host"]),
    ("doctor", &["pod", "libcni", "settings", "netlink", "host", "trouble"]),
    ("status", &["addresses", "pod", "settings", "netlink", "host", "trouble"]),
    ("boot", &["standalone", "addresses", "libcni", "settings", "imds", "host", "trouble"]),
    ("cni", &["pod", "settings", "netlink", "host"]),
    ("cluster_config", &["addresses"]),
    ("standalone", &["libcni", "netlink", "imds", "host", "trouble"]),
    ("addresses", &["libcni", "settings", "imds", "host", "trouble"]),
    ("pod", &["netlink", "host", "trouble"]),
    ("libcni", &["host"]),
    ("settings", &["imds", "host", "trouble"]),
    ("netlink", &["host"]),
    ("imds", &["host"]),
    ("host", &[]),
    ("trouble", &[]),
];

/// More than this, and no one keeps them in mind.
const MOST_ROOMS: usize = 18;

fn ours() -> Crate {
    Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// The room of a file; None for lib.rs, which only lists them.
fn room(file: &str) -> Option<&str> {
    let folders = ROOMS.iter().map(|(room, _)| *room).filter(|room| room.contains('/'));
    let within = |room: &&str| file.strip_prefix(*room).is_some_and(|rest| rest.starts_with('/'));
    let top = file.split_once('/').map_or(file, |(top, _)| top).trim_end_matches(".rs");
    folders.into_iter().find(within).or((top != "lib").then_some(top))
}

/// Room, room, and a file of the first that uses one of the second.
fn between_rooms<'f>(
    uses: &BTreeMap<&'f str, BTreeSet<&'f str>>,
) -> BTreeMap<(&'f str, &'f str), (&'f str, &'f str)> {
    let all = uses.iter().flat_map(|(file, used)| used.iter().map(|other| (*file, *other)));
    let rooms = all.filter_map(|(file, other)| Some(((room(file)?, room(other)?), (file, other))));
    rooms.filter(|((from, to), _)| from != to).collect()
}

#[test]
fn top_modules_are_few_and_each_has_its_floor() {
    let source = ours();
    let tops: BTreeSet<&str> = source.top_modules().into_iter().map(String::as_str).collect();
    assert!(tops.len() <= MOST_ROOMS, "{} top modules", tops.len());
    let listed: BTreeSet<&str> =
        ROOMS.iter().map(|(room, _)| *room).filter(|room| !room.contains('/')).collect();
    assert_eq!(tops, listed);
}

#[test]
fn a_room_may_use_what_stands_below_it_only() {
    for (floor, (room, may)) in ROOMS.iter().enumerate() {
        let below: Vec<&str> = ROOMS[floor + 1..].iter().map(|(room, _)| *room).collect();
        let above: Vec<_> = may.iter().filter(|used| !below.contains(used)).collect();
        assert!(above.is_empty(), "{room} may use {above:?}, which do not stand below it");
    }
}

#[test]
fn no_import_runs_upwards() {
    let source = ours();
    let uses = source.uses();
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 400, "the text is not read any more");
    let found = between_rooms(&uses);
    let may: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let forbidden: Vec<_> = found
        .iter()
        .filter(|((from, to), _)| !may[from].contains(to))
        .map(|(_, files)| files)
        .collect();
    assert!(forbidden.is_empty(), "imports that the table does not allow: {forbidden:#?}");
    let allowed = ROOMS.iter().flat_map(|(room, may)| may.iter().map(|used| (*room, *used)));
    let unused: Vec<_> = allowed.filter(|pair| !found.contains_key(pair)).collect();
    assert!(unused.is_empty(), "allowed, but of no use any more: {unused:?}");
}

#[test]
fn no_file_uses_one_that_uses_it() {
    let source = ours();
    let mut uses = source.uses();
    // What uses nothing that is left is in no circle, and neither is what nothing left uses.
    loop {
        let before = uses.len();
        uses.retain(|_, used| !used.is_empty());
        let used: BTreeSet<&str> = uses.values().flatten().copied().collect();
        uses.retain(|file, _| used.contains(file));
        let left: BTreeSet<&str> = uses.keys().copied().collect();
        uses.values_mut().for_each(|used| used.retain(|file| left.contains(file)));
        if uses.len() == before {
            break;
        }
    }
    assert!(uses.is_empty(), "circles of files: {uses:#?}");
}

fn of_repository(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(path).expect("a document")
}

/// What stands below a heading.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let (_, rest) = text.split_once(heading).expect("the heading");
    rest.split("\n## ").next().unwrap_or_default()
}

#[test]
fn architecture_has_the_same_table_and_a_picture_of_it() {
    let (text, picture) = (of_repository("ARCHITECTURE.md"), of_repository("docs/rooms.svg"));
    let rows = section(&text, "## The rooms of host-agent/src").lines();
    let rows =
        rows.filter_map(|row| row.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
    let rows: Vec<(&str, Vec<&str>)> = rows
        .map(|(room, rest)| {
            let may = rest.rsplit(" | ").next().unwrap_or_default();
            (room, may.split_whitespace().filter(|word| *word != "\u{2013}").collect())
        })
        .collect();
    let ours: Vec<_> = ROOMS.iter().map(|(room, may)| (*room, may.to_vec())).collect();
    assert_eq!(rows, ours);
    for (room, _) in ROOMS {
        let name = room.rsplit('/').next().unwrap_or(room);
        assert!(
            picture.contains(&format!(">{name}<")) || picture.contains(&format!(">{name} ")),
            "{name}"
        );
    }
}

#[test]
fn answers_to_a_newcomers_questions_name_files_that_are_there() {
    let text = of_repository("ARCHITECTURE.md");
    let answers = section(&text, "## Ten questions of a newcomer");
    let files: Vec<_> = answers.split('`').filter(|span| span.ends_with(".rs")).collect();
    assert!(files.len() >= 20, "only {} files are named", files.len());
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let missing: Vec<_> = files.iter().filter(|file| !src.join(file).exists()).collect();
    assert!(missing.is_empty(), "no such file: {missing:?}");
}

/// A crate of these files.
fn read(files: &[(&str, &str)]) -> (tempfile::TempDir, Crate) {
    let root = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    let source = Crate::read(root.path());
    (root, source)
}

/// Uses of one file as text, for files that the crate has beside it.
fn uses_of(text: &str) -> String {
    let (_root, source) = read(&[
        ("lib.rs", "pub mod a;\nmod b;\nmod c;\n"),
        ("a/mod.rs", text),
        ("a/child.rs", "pub struct Child;"),
        ("b.rs", "pub mod deep;\npub use deep::{Passed, Other as Renamed};"),
        ("b/deep.rs", "pub struct Passed;\npub struct Other;\npub fn call() {}"),
        ("c.rs", ""),
    ]);
    source.uses()["a/mod.rs"].iter().copied().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_way_to_name_another_file_is_seen() {
    for (text, expected) in [
        ("use crate::c;", "c.rs"),
        ("use crate::{b::deep::{self, call}, c};", "b/deep.rs c.rs"),
        ("use crate::b::Passed;", "b/deep.rs"),
        ("pub(crate) use crate::b::Renamed;", "b/deep.rs"),
        ("use crate::b::Unknown;", "b.rs"),
        ("use super::c::X as Y;", "c.rs"),
        ("fn f() { crate::b::deep::call() }", "b/deep.rs"),
        ("mod child;\nuse child::Child;", "a/child.rs"),
        ("mod child;\nfn f() -> child::Child { child::Child }", "a/child.rs"),
        ("mod child;", ""),
        ("mod inner { use super::super::c; use crate::b::deep; }", "b/deep.rs c.rs"),
        ("mod inner { use super::X; }\nstruct X;", ""),
        ("use std::c::X; use other::b;", ""),
        ("// use crate::c;\n/* use crate::b; */ const T: &str = \"crate::c::X\";", ""),
        ("const Q: char = '\"'; use crate::c; const R: &str = r#\"crate::b::X\"#;", "c.rs"),
        ("#[cfg(test)]\nmod tests { use crate::c; }\nuse crate::b;", "b.rs"),
        ("#[cfg(test)]\nuse crate::c::{X, Y};\n#[cfg(test)]\nconst N: u8 = crate::b::N;", ""),
    ] {
        assert_eq!(uses_of(text), expected, "{text}");
    }
}

#[test]
fn files_of_tests_are_not_read() {
    let files = [
        ("lib.rs", "#[cfg(test)]\nmod tests;\nmod a;"),
        ("a.rs", ""),
        ("tests.rs", "use crate::a;"),
    ];
    let (_root, source) = read(&files);
    assert_eq!(source.uses().keys().copied().collect::<Vec<_>>(), ["a.rs", "lib.rs"]);
}
