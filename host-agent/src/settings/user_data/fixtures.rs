// SPDX-License-Identifier: Apache-2.0
//! Every testdata/user-data/*.in through `carrier::decode` against its
//! `.expected`. `UPDATE_GOLDEN=1` rewrites; an unpaired file fails.
//!
//! An `.in` file is text. What cannot be text is built from it: the lines
//! between `<<<` and `>>>` go through the named steps, one after the other,
//! and blocks nest:
//!
//! | step | makes of the bytes |
//! | --- | --- |
//! | `gzip` | one gzip member |
//! | `base64`, `base64-lines` | base64 on one line, or in lines of 76 letters |
//! | `crlf` | CRLF for LF |
//! | `hex` | the bytes that the hex digits stand for |
//! | `line` | the same without the last line end |
//! | `cut=N` | the same without the last N bytes |
//! | `flip=N` | the same with the N-th last byte inverted |
//! | `zeros=N` | the same with N bytes `0` behind it |

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::{Compression, write::GzEncoder};

use super::carrier::{CarrierError, Foreign, decode};

#[test]
fn user_data_gives_its_document() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/user-data");
    let entries = fs::read_dir(folder).expect("read the fixture folder");
    let stems: BTreeSet<_> = entries.map(|entry| stem(&entry.expect("an entry").path())).collect();
    let wrong: Vec<_> = stems.iter().filter_map(|stem| check(stem)).collect();
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 rewrites", wrong.join("\n"));
    assert!(stems.len() >= 30, "only {} fixtures", stems.len());
}

fn stem(path: &Path) -> PathBuf {
    let extension = path.extension().and_then(|e| e.to_str());
    assert!(matches!(extension, Some("in" | "expected")), "{} is no fixture", path.display());
    path.with_extension("")
}

/// What is wrong with one fixture, if anything.
fn check(stem: &Path) -> Option<String> {
    let Ok(recipe) = fs::read(stem.with_extension("in")) else {
        return Some(format!("{} has no .in", stem.display()));
    };
    let actual = describe(&build(&recipe));
    let expected_path = stem.with_extension("expected");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&expected_path, &actual).expect("write the expected file");
    }
    let expected = fs::read_to_string(&expected_path).unwrap_or_default();
    let path = expected_path.display();
    (expected != actual).then(|| format!("{path}\n--- expected\n{expected}--- actual\n{actual}"))
}

fn describe(raw: &[u8]) -> String {
    let content = decode(raw);
    let document = match content.document {
        Ok(None) => "no settings\n".into(),
        Ok(Some(document)) => format!("{}:\n{}", document.name("user-data"), document.text),
        Err(error) => format!("error: {}\n", chain(error)),
    };
    content.node_configs.iter().fold(document, |text, found| {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        text + end + &describe_foreign(found)
    })
}

/// With its first and last words: the whole would be a copy of the input.
fn describe_foreign(found: &Foreign) -> String {
    let place = found.part.map_or_else(|| "whole".into(), |part| format!("part {part}"));
    match &found.text {
        Ok(text) => {
            let mut words = text.split_whitespace();
            let (first, last) = (words.next(), words.next_back());
            format!("NodeConfig, {place}: {} bytes, {first:?} to {last:?}\n", text.len())
        }
        Err(why) => format!("NodeConfig, {place}: {why}\n"),
    }
}

/// As the executable prints it.
fn chain(error: CarrierError) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

fn build(recipe: &[u8]) -> Vec<u8> {
    let mut lines = recipe.split_inclusive(|byte| *byte == b'\n');
    block(&mut lines)
}

/// The bytes up to the end of the block.
fn block<'r>(lines: &mut impl Iterator<Item = &'r [u8]>) -> Vec<u8> {
    let mut built = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with(b">>>") {
            break;
        }
        match line.strip_prefix(b"<<<") {
            Some(steps) => {
                let steps = String::from_utf8_lossy(steps);
                let content = block(lines);
                built.extend(steps.split_whitespace().fold(content, |bytes, s| step(s, bytes)));
            }
            None => built.extend_from_slice(line),
        }
    }
    built
}

fn step(step: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    let (name, number) = step.split_once('=').unwrap_or((step, "0"));
    let number: usize = number.parse().expect("a number");
    let end = bytes.len();
    match name {
        "gzip" => return gzip(&bytes),
        "base64" => return BASE64_STANDARD.encode(bytes).into_bytes(),
        "base64-lines" => return base64_lines(&bytes),
        "crlf" => return String::from_utf8_lossy(&bytes).replace('\n', "\r\n").into_bytes(),
        "hex" => return hex(&bytes),
        "line" => bytes.truncate(end - 1),
        "cut" => bytes.truncate(end - number),
        "flip" => bytes[end - number] ^= 0xff,
        "zeros" => bytes.resize(end + number, b'0'),
        other => panic!("unknown step {other}"),
    }
    bytes
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

fn base64_lines(bytes: &[u8]) -> Vec<u8> {
    let letters = BASE64_STANDARD.encode(bytes).into_bytes();
    letters.chunks(76).flat_map(|line| [line, b"\n"].concat()).collect()
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let byte = |word: &str| u8::from_str_radix(word, 16).expect("two hex digits");
    text.split_whitespace().map(byte).collect()
}
