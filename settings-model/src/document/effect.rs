// SPDX-License-Identifier: Apache-2.0

//! Keys that are understood before what they ask for is built.
//!
//! Owns the list of them; a feature that is built removes its keys.

use crate::Settings;
use crate::document::print::rows;
use crate::text::code;
use crate::text::problem::{Finding, Refusal};
use crate::text::reader::Notes;

/// Keys that nothing acts upon yet. One that is set to other than its default gets a warning.
pub(crate) const WITHOUT_EFFECT: &[&str] = &["bandwidth.count"];

/// Warns of each key in `WITHOUT_EFFECT` that is set to something.
pub(crate) fn check(settings: &Settings, notes: &mut Notes) {
    let defaults = rows(&Settings::default());
    for (key, value) in rows(settings) {
        let Some(given) = notes.given.get(&key) else { continue };
        let set = !defaults.contains(&(key.clone(), value));
        if set && WITHOUT_EFFECT.contains(&key.as_str()) {
            let message = "understood, but without effect in this version";
            let why = Refusal::new(code::WITHOUT_EFFECT, message);
            notes.report.warn(Finding::new(given.place, &given.path, why));
        }
    }
}
