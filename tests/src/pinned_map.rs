// SPDX-License-Identifier: Apache-2.0
//! What a pinned BPF map holds, by bpftool's word.

use std::path::Path;

use serde_json::Value;

use crate::command::{json, run};

/// Which entries of a map count.
#[derive(Clone, Copy, Debug)]
pub enum Held {
    /// Of a hash: each.
    AnyEntry,
    /// Of an array, whose entries are all there always.
    NotZero,
}

/// The entries that count, for messages.
pub fn held(pin: &Path, held: Held) -> Vec<String> {
    let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let counts = |entry: &&Value| match held {
        Held::AnyEntry => true,
        Held::NotZero => is_not_zero(&entry["value"]),
    };
    let dump = dump(pin);
    let entries = dump.as_array().expect("entries").iter();
    entries.filter(counts).map(|entry| format!("{name} {}", entry["key"])).collect()
}

/// The words of 64 bits that an array's entry begins with.
pub fn words(pin: &Path, index: usize, count: usize) -> Vec<u64> {
    let key = (index as u32).to_ne_bytes().map(|byte| byte.to_string());
    let pin = pin.to_str().expect("a path in UTF-8");
    let ask = [&["-j", "map", "lookup", "pinned", pin, "key"], &key.each_ref().map(|it| &**it)[..]];
    let entry = json(&run("bpftool", &ask.concat()));
    let digits = entry["value"].as_array().expect("bytes of an entry").iter();
    let byte = |digits: &Value| {
        let digits = digits.as_str().and_then(|digits| digits.strip_prefix("0x"));
        u8::from_str_radix(digits.expect("a byte"), 16).expect("two digits")
    };
    let bytes: Vec<u8> = digits.map(byte).collect();
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    bytes.chunks_exact(8).take(count).map(word).collect()
}

fn dump(pin: &Path) -> Value {
    let pin = pin.to_str().expect("a path in UTF-8");
    json(&run("bpftool", &["-j", "map", "dump", "pinned", pin]))
}

/// Bytes as bpftool prints them: strings of two digits.
fn is_not_zero(value: &Value) -> bool {
    value.as_array().is_some_and(|bytes| bytes.iter().any(|byte| byte != "0x00"))
}
