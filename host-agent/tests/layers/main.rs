// SPDX-License-Identifier: Apache-2.0
//! The tree of src/: few rooms, each on a floor, and no file that uses what
//! stands above it. ARCHITECTURE.md draws it.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use source::Crate;

/// A room, and what it may use: from the top to the ground, so that nobody uses what stands above.
const ROOMS: &[(&str, &[&str])] = &[("lib.rs", &[])];

fn crate_of_ours() -> Crate {
    Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn dump() {
    let c = crate_of_ours();
    println!("{:?}", c.top_modules());
    for (a, bs) in c.uses() {
        for b in bs {
            println!("EDGE {a} {b}");
        }
    }
    let _ = ROOMS;
    let _: Option<(BTreeMap<u8, u8>, BTreeSet<u8>)> = None;
}
