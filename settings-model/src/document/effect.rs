// SPDX-License-Identifier: Apache-2.0

//! Keys that are understood and do nothing: before what they ask for is built, or while that is off.
//!
//! Owns the lists of them; a feature that is built removes its keys.

use crate::Settings;
use crate::document::print::rows;
use crate::text::code;
use crate::text::problem::{Finding, Refusal};
use crate::text::reader::Notes;

/// Keys that nothing acts upon yet. One that is set to other than its default gets a warning.
pub(crate) const WITHOUT_EFFECT: &[&str] = &["bandwidth.count"];

/// What node share does, while it is off; of classes as well.
const OF_NODE_SHARE: [&str; 7] = [
    "node-egress",
    "node-ingress",
    "weight",
    "max-weight",
    "max-floor",
    "floor-egress",
    "floor-ingress",
];

/// Warns of each key that is set to something and does nothing.
pub(crate) fn check(settings: &Settings, notes: &mut Notes) {
    let defaults = rows(&Settings::default());
    let off = settings.bandwidth.node_share != Some(true);
    for (key, value) in rows(settings) {
        let Some(given) = notes.given.get(&key) else { continue };
        let set = !defaults.contains(&(key.clone(), value));
        let last = key.rsplit('.').next().unwrap_or_default();
        let message = match key.as_str() {
            key if WITHOUT_EFFECT.contains(&key) => {
                "understood, but without effect in this version"
            }
            key if key.starts_with("bandwidth.") && off && OF_NODE_SHARE.contains(&last) => {
                "understood, but without effect while bandwidth.node-share is not true"
            }
            _ => continue,
        };
        if set {
            let why = Refusal::new(code::WITHOUT_EFFECT, message);
            notes.report.warn(Finding::new(given.place, &given.path, why));
        }
    }
}
