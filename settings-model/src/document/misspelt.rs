// SPDX-License-Identifier: Apache-2.0

//! Tables whose name is nearly that of ours.
//!
//! To TOML they are foreign, so all limits in them would go unread without a word. Other foreign tables
//! are no concern of ours.

use toml::de::{DeTable, DeValue};

use crate::text::code;
use crate::text::problem::{Finding, Refusal};
use crate::text::reader::{Notes, distance, join};
use crate::text::source::Place;

const NESTED: &str = "settings.sluice";
const TOP: &str = "sluice";

/// Slips of the finger in one name; more make another word (`source`).
const MOST_SLIPS: usize = 2;
/// A word of its own, and a section of systemd's units.
const FOREIGN_WORD: &str = "slice";
/// What makes a top-level table ours whose name alone does not.
const SECTIONS: [&str; 5] = ["bandwidth", "cni", "prefix-delegation", "max-pods", "agent"];

/// A table that is meant as ours: its path and offsets, and the name that it should have.
struct Misspelt {
    path: String,
    span: std::ops::Range<usize>,
    meant: &'static str,
}

/// Whether there is such a table.
pub(crate) fn is_in(document: &DeTable<'_>) -> bool {
    !all(document).is_empty()
}

/// Refuses each.
pub(crate) fn refuse(document: &DeTable<'_>, notes: &mut Notes) {
    for Misspelt { path, span, meant } in all(document) {
        let message = format!("unknown table; did you mean [{meant}]?");
        let why = Refusal::new(code::MISSPELT_TABLE, message);
        notes.report.add(Finding::new(Place::new(notes.layer, span), path, why));
        notes.unread = true;
    }
}

fn all(document: &DeTable<'_>) -> Vec<Misspelt> {
    let mut found = Vec::new();
    for (key, value) in document.iter().filter(|(_, value)| is_table(value.get_ref())) {
        let (name, span) = (key.get_ref().as_ref(), key.span());
        if distance(name, "settings") <= MOST_SLIPS {
            found.extend(below(name, span, value.get_ref()));
        } else if let Some(meant) = meant_at_top(name, value.get_ref()) {
            found.push(Misspelt { path: join("", name), span, meant });
        }
    }
    found
}

/// In `[settings]`, or in what is nearly called that.
fn below(outer: &str, outer_span: std::ops::Range<usize>, value: &DeValue<'_>) -> Vec<Misspelt> {
    let entries = tables(value).flat_map(|table| table.iter());
    let ours = entries.filter(|(key, value)| {
        distance(key.get_ref(), TOP) <= MOST_SLIPS && is_table(value.get_ref())
    });
    let wrong = ours.filter(|(key, _)| outer != "settings" || key.get_ref() != TOP);
    let misspelt = wrong.map(|(key, _)| Misspelt {
        path: join(&join("", outer), key.get_ref()),
        span: if outer == "settings" { key.span() } else { outer_span.clone() },
        meant: NESTED,
    });
    misspelt.collect()
}

fn meant_at_top(name: &str, value: &DeValue<'_>) -> Option<&'static str> {
    let has_section = || tables(value).any(|table| SECTIONS.iter().any(|s| table.contains_key(*s)));
    match distance(name, TOP) {
        _ if name == TOP => None,
        // In quotes, or with another sign for the dot.
        _ if distance(name, NESTED) <= MOST_SLIPS => Some(NESTED),
        0 | 1 if distance(name, FOREIGN_WORD) > 0 => Some(TOP),
        slips => (slips <= MOST_SLIPS && has_section()).then_some(TOP),
    }
}

/// A table, or those of an array, which may be meant as one.
fn tables<'v, 'd>(value: &'v DeValue<'d>) -> impl Iterator<Item = &'v DeTable<'d>> {
    let items = value.as_array().into_iter().flat_map(|array| array.iter());
    value.as_table().into_iter().chain(items.filter_map(|item| item.get_ref().as_table()))
}

fn is_table(value: &DeValue<'_>) -> bool {
    tables(value).next().is_some()
}

#[cfg(test)]
mod tests {
    use crate::{parse, sight};

    fn messages(text: &str) -> String {
        parse("user-data", text).expect_err(text).to_string()
    }

    #[test]
    fn misspelt_table_names_its_place_and_the_right_one() {
        let nested = "unknown table; did you mean [settings.sluice]?";
        let top = "unknown table; did you mean [sluice]?";
        for (text, place, meant) in [
            ("[settings.sluise]\nversion = 1", "1:11 settings.sluise", nested),
            ("[setting.sluice]\nversion = 1", "1:2 setting.sluice", nested),
            ("[Settings.Sluice]\nversion = 1", "1:2 Settings.Sluice", nested),
            ("[settings.SLUICE]", "1:11 settings.SLUICE", nested),
            ("x = 1\n[settings.slucie.bandwidth]\nburst = '1ms'", "2:11 settings.slucie", nested),
            ("[[settings.sluise.class]]\nname = 'x'", "1:12 settings.sluise", nested),
            ("[[settings]]\nslucie.version = 1", "2:1 settings.slucie", nested),
            ("[seting.sluce]", "1:2 seting.sluce", nested),
            ("[\"settings.sluice\"]", "1:2 \"settings.sluice\"", nested),
            ("[settings-sluice]", "1:2 settings-sluice", nested),
            ("[sluce]\nversion = 1", "1:2 sluce", top),
            ("[Sluice]\nversion = 1", "1:2 Sluice", top),
            ("slucie.bandwidth.burst = '1ms'", "1:1 slucie", top),
            ("sluise = { version = 1 }", "1:1 sluise", top),
            ("[slice.bandwidth]", "1:2 slice", top),
            ("[sulise]\nversion = 1\n[sulise.cni]\nmode = 'off'", "1:2 sulise", top),
        ] {
            assert_eq!(messages(text), format!("user-data:{place}: {meant}\n"));
            assert!(sight(text).misspelt && !sight(text).ours, "{text}");
        }
    }

    #[test]
    fn misspelt_table_beside_ours_is_refused_and_each_is_told() {
        let ours = "[settings.sluice]\nversion = 1\n";
        let text = format!("{ours}[settings.slucie.bandwidth]\nburst = '1ms'\n[Sluice]\n");
        let expected = "user-data:3:11 settings.slucie: unknown table; did you mean [settings.sluice]?\n\
                        user-data:5:2 Sluice: unknown table; did you mean [sluice]?\n";
        assert_eq!(messages(&text), expected);
        assert!(sight(&text).ours);
    }

    #[test]
    fn foreign_table_is_no_near_miss() {
        for text in [
            "[settings.kubernetes]\nmax-pods = 9",
            "[settings.host-containers.sluice]\nenabled = true",
            "[settings.bootstrap-containers.slucie]",
            "[setting.kubernetes]",
            "[Settings]\nsluice = 'x'",
            "[settings]\nsluise = 1",
            "[slice]\nMemoryMax = 1",
            "[Slice]\nversion = 1",
            "[source.agents]",
            "[service.agent]",
            "[sluice-exporter]",
            "[x.settings.sluise]",
            "[config.sluice]",
            "sluce = 5",
            "[\"\"]",
        ] {
            assert!(parse("user-data", text).is_ok(), "{text}");
            assert!(!sight(text).misspelt, "{text}");
        }
    }

    #[test]
    fn misspelt_table_is_shown_with_a_mark() {
        let text = "[settings.slucie.bandwidth]\n";
        let shown = parse("t", text).expect_err("a problem").render_with_caret(&[("t", text)]);
        let mark = "    1 | [settings.slucie.bandwidth]\n      |           ^^^^^^\n";
        assert!(shown.ends_with(mark), "{shown}");
    }
}
