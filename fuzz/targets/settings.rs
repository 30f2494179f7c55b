// SPDX-License-Identifier: Apache-2.0
//! Any text as settings: settings, or problems that have a place and are in order.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Err(problems) = settings_model::parse("user-data", text) else {
        return;
    };
    let places: Vec<_> = problems.iter().map(|p| (p.line, p.column)).collect();
    assert!(!places.is_empty(), "an error without a problem");
    assert!(places.is_sorted(), "{places:?}");
    assert!(places.iter().all(|(line, column)| *line >= 1 && *column >= 1), "{places:?}");
    assert_eq!(problems.to_string().lines().count(), places.len(), "a problem is one line");
});
