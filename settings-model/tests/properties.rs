// SPDX-License-Identifier: Apache-2.0

//! Promises that hold for any text: `parse` answers, and what it answers is in order.
//!
//! Arbitrary text hardly ever gets past the TOML parser, so half of the cases are put together
//! from pieces of our own documents.

use proptest::prelude::*;
use proptest::sample::select;
use settings_model::parse;

const PIECES: &[&str] = &[
    "[settings.sluice]",
    "[sluice]",
    "[[sluice]]",
    "[settings.sluice.bandwidth]",
    "[sluice.cni]",
    "[settings]",
    "sluice",
    "settings",
    "bandwidth",
    "cni",
    "version",
    "enabled",
    "burst",
    "mode",
    "default-egress",
    "conf-dir",
    ".",
    " = ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\t",
    "# é\n",
    "true",
    "1",
    "1.5",
    "2",
    "0x1",
    "inf",
    "1979-05-27",
    "\"500Mbit\"",
    "'5ms'",
    "\"chain\"",
    "\"/a\\u0000\"",
    "\"\"\"",
    "'''",
    "\"",
    "'",
    "ü",
    "\u{feff}",
    "_second_",
];

fn check(text: &str) {
    let Err(problems) = parse("user-data", text) else {
        return;
    };
    let places: Vec<_> = problems.iter().map(|p| (p.line, p.column)).collect();
    assert!(!places.is_empty(), "an error without a problem");
    assert!(places.is_sorted(), "{places:?}");
    let lines = text.split('\n').count();
    assert!(places.iter().all(|(line, column)| (1..=lines).contains(line) && *column >= 1));
    assert_eq!(problems.to_string().lines().count(), places.len());
}

proptest! {
    #[test]
    fn any_text_has_an_answer(text in "(?s).*") {
        check(&text);
    }

    #[test]
    fn any_mix_of_our_pieces_has_an_answer(pieces in prop::collection::vec(select(PIECES), 0..40)) {
        check(&pieces.concat());
    }

    #[test]
    fn any_value_of_any_key_has_an_answer(
        section in select(&["sluice", "settings.sluice"][..]),
        key in select(&["version", "bandwidth", "bandwidth.burst", "bandwidth.default-egress", "cni.bin-dir"][..]),
        value in "(?s).*",
    ) {
        check(&format!("{section}.version = 1\n{section}.{key} = {value:?}\n"));
    }
}
