// SPDX-License-Identifier: Apache-2.0
//! Any bytes as user data: an answer, within the bounds, and the same one for
//! the document that came out. What is nodeadm's goes through its reader too.
#![no_main]

use host_agent::readers::Yaml;
use host_agent::readers::carrier::{MOST_INFLATED, MOST_RAW, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    let content = decode(raw);
    for text in content.node_configs.iter().filter_map(|found| found.text.as_ref().ok()) {
        assert!(text.len() <= MOST_INFLATED.max(MOST_RAW), "{} bytes", text.len());
        // It may be no YAML; it must come to an end.
        let _ = Yaml::read(text);
    }
    let Ok(Some(document)) = content.document else {
        return;
    };
    assert!(raw.len() <= MOST_RAW, "{} bytes were read", raw.len());
    assert!(document.text.len() <= MOST_INFLATED.max(MOST_RAW), "{} bytes", document.text.len());
    assert!(document.part.is_none_or(|part| part > 0), "parts are counted from 1");
    // A document without any wrapping is its own carrier.
    if document.part.is_none() && document.text.len() <= MOST_RAW {
        let again = decode(document.text.as_bytes()).document.ok().flatten();
        assert_eq!(again.as_ref(), Some(&document), "decoding is not stable");
    }
});
