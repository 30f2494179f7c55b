// SPDX-License-Identifier: Apache-2.0
//! Any bytes as a CNI configuration list: an error, or an edit that touches
//! nothing foreign and can be taken back.
#![no_main]

use host_agent::readers::conflist::{ENTRY, add, decode, has_entry, has_upstream, remove};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = decode(bytes.to_vec()) else { return };
    let added = match add(&text) {
        Ok(added) => added,
        Err(e) => {
            assert_eq!(e.to_string().lines().count(), 1, "{e:?}");
            assert!(e.line >= 1 && e.line <= text.split('\n').count(), "{e:?}");
            return;
        }
    };
    assert_eq!(add(&added).as_ref(), Ok(&added), "adding twice");
    assert_eq!((has_entry(&added), has_upstream(&added)), (Ok(true), Ok(false)));
    let removed = remove(&text).expect("what can be added to can be removed from");
    assert_eq!(has_entry(&removed), Ok(false));
    if has_upstream(&text) == Ok(false) {
        assert_eq!(remove(&added).as_ref(), Ok(&removed), "not what was there before");
    }
    if has_entry(&text) == Ok(false) {
        assert_eq!(removed, text, "nothing of ours, and yet changed");
    }
    same_values(&text, &added);
});

/// The same but for our entry, which is there once, and for upstream's, which are gone.
fn same_values(before: &str, after: &str) {
    // Some of what Go reads are no values here: half a surrogate pair, numbers beyond f64, great depth.
    let (Ok(before), Ok(after)) = (parse(before), parse(after)) else { return };
    let own: Value = serde_json::from_str(ENTRY).expect("our entry is JSON");
    let is_own = |entry: &Value| kind(entry) == Some("sluice");
    let entries = |list: &Value| list["plugins"].as_array().cloned().expect("a list");
    let ours: Vec<_> = entries(&after).into_iter().filter(is_own).collect();
    assert_eq!(ours, [own]);
    assert!(!is_own(&entries(&after)[0]), "first in the chain");
    let foreign = |mut list: Value| {
        let plugins = list["plugins"].as_array_mut().expect("a list");
        plugins.retain(|entry| !matches!(kind(entry), Some("sluice" | "bandwidth")));
        list
    };
    assert_eq!(foreign(before), foreign(after), "a foreign value changed");
}

fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text)
}

/// As Go reads it: whatever its case, and of several the greatest.
fn kind(entry: &Value) -> Option<&str> {
    let members = entry.as_object()?.iter();
    let kinds = members.filter(|(key, _)| key.eq_ignore_ascii_case("type"));
    kinds.max_by_key(|(key, _)| *key)?.1.as_str()
}
