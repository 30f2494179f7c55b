// SPDX-License-Identifier: Apache-2.0
//! Our entry in somebody else's CNI configuration list: text in, text out.
//! The text is parsed only to find where the entries of `plugins` stand; what
//! is not ours is never printed anew, so order, unknown keys, number formats
//! and white space of others stay as they are. No I/O.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The entry. It carries no settings, so a change of settings never touches the file.
pub const ENTRY: &str = concat!(
    r#"{"type":"sluice","capabilities":"#,
    r#"{"bandwidth":true,"io.kubernetes.cri.pod-annotations":true}}"#
);
const TYPE: &str = "sluice";
/// The upstream plugin; two limiters on one veth are one too many.
const UPSTREAM: &str = "bandwidth";

/// Why a text cannot be edited.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("not JSON, or not a CNI configuration list")]
    Json(#[from] serde_json::Error),
    #[error("\"plugins\" is empty: there is no plugin to be chained after")]
    NoPlugins,
    #[error(
        "the upstream \"bandwidth\" plugin is in the chain: it and sluice cannot both limit a \
         pod; take it out (VPC CNI: ENABLE_BANDWIDTH_PLUGIN=false)"
    )]
    UpstreamBandwidth,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    plugins: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Plugin<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

/// The text with our entry as the last one; the same text if it is there as it should be.
pub fn add(text: &str) -> Result<String, Invalid> {
    let entries = Entries::find(text)?;
    if let Some(own) = entries.own() {
        return Ok(splice(text, own, ENTRY));
    }
    if entries.kinds.iter().any(|kind| kind == UPSTREAM) {
        return Err(Invalid::UpstreamBandwidth);
    }
    let last = entries.ranges.last().ok_or(Invalid::NoPlugins)?;
    let between = format!(",{}{ENTRY}", entries.indent(text));
    Ok(splice(text, last.end..last.end, &between))
}

/// The text without our entry; the same text if it has none.
pub fn remove(text: &str) -> Result<String, Invalid> {
    let entries = Entries::find(text)?;
    let Some(index) = entries.own_index() else {
        return Ok(text.to_owned());
    };
    let own = entries.ranges[index].clone();
    let range = match (index.checked_sub(1), entries.ranges.get(index + 1)) {
        (Some(before), _) => entries.ranges[before].end..own.end,
        (None, Some(after)) => own.start..after.start,
        (None, None) => own,
    };
    Ok(splice(text, range, ""))
}

/// Where the entries of `plugins` stand in the text.
struct Entries {
    ranges: Vec<Range<usize>>,
    kinds: Vec<String>,
}

impl Entries {
    fn find(text: &str) -> Result<Self, Invalid> {
        let list: List = serde_json::from_str(text)?;
        let start = |raw: &RawValue| raw.get().as_ptr() as usize - text.as_ptr() as usize;
        let ranges = list.plugins.iter().map(|raw| start(raw)..start(raw) + raw.get().len());
        let kinds = list.plugins.iter().map(|raw| kind(raw)).collect::<Result<_, _>>()?;
        Ok(Self { ranges: ranges.collect(), kinds })
    }

    fn own_index(&self) -> Option<usize> {
        self.kinds.iter().position(|kind| kind == TYPE)
    }

    fn own(&self) -> Option<Range<usize>> {
        self.own_index().map(|index| self.ranges[index].clone())
    }

    /// The white space that stands before the last entry.
    fn indent<'a>(&self, text: &'a str) -> &'a str {
        let before = self.ranges.last().map_or("", |last| &text[..last.start]);
        &before[before.trim_end().len()..]
    }
}

fn kind(raw: &RawValue) -> Result<String, Invalid> {
    Ok(serde_json::from_str::<Plugin>(raw.get())?.kind.into_owned())
}

fn splice(text: &str, range: Range<usize>, insert: &str) -> String {
    [&text[..range.start], insert, &text[range.end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VPC: &str = include_str!("../testdata/conflist/vpc-cni.conflist");

    #[test]
    fn entry_is_added_last_and_nothing_else_moves() {
        let text = "{\n  \"name\": \"x\",\n  \"plugins\": [\n    {\"type\": \"ptp\", \"mtu\": 1e3}\n  ]\n}\n";
        let expected = "{\n  \"name\": \"x\",\n  \"plugins\": [\n    {\"type\": \"ptp\", \"mtu\": 1e3},\n    \
                        {\"type\":\"sluice\",\"capabilities\":{\"bandwidth\":true,\
                        \"io.kubernetes.cri.pod-annotations\":true}}\n  ]\n}\n";
        assert_eq!(add(text).unwrap(), expected);
    }

    #[test]
    fn adding_twice_changes_nothing_more() {
        let once = add(VPC).unwrap();
        assert_eq!(add(&once).unwrap(), once);
    }

    #[test]
    fn removing_gives_back_every_byte() {
        assert_ne!(add(VPC).unwrap(), VPC);
        assert_eq!(remove(&add(VPC).unwrap()).unwrap(), VPC);
        assert_eq!(remove(VPC).unwrap(), VPC);
    }

    #[test]
    fn own_entry_of_another_shape_is_replaced_in_place() {
        let old = r#"{"plugins":[{"type":"ptp"},{"type":"sluice","old":1},{"type":"z"}]}"#;
        let new = format!(r#"{{"plugins":[{{"type":"ptp"}},{ENTRY},{{"type":"z"}}]}}"#);
        assert_eq!(add(old).unwrap(), new);
    }

    #[test]
    fn removing_works_first_between_and_alone() {
        let r = |text: &str| remove(text).unwrap();
        assert_eq!(
            r(r#"{"plugins":[{"type":"sluice"}, {"type":"z"}]}"#),
            r#"{"plugins":[{"type":"z"}]}"#
        );
        assert_eq!(r(r#"{"plugins":[{"type":"sluice"}]}"#), r#"{"plugins":[]}"#);
        assert_eq!(
            r(r#"{"plugins":[{"type":"a"}, {"type":"sluice"}, {"type":"z"}]}"#),
            r#"{"plugins":[{"type":"a"}, {"type":"z"}]}"#
        );
    }

    #[test]
    fn what_cannot_be_edited_says_why() {
        let message = |text: &str| add(text).unwrap_err().to_string();
        assert_eq!(message("{"), "not JSON, or not a CNI configuration list");
        assert_eq!(
            message(r#"{"plugins":[]}"#),
            "\"plugins\" is empty: there is no plugin to be chained after"
        );
        assert!(
            message(r#"{"plugins":[{"type":"ptp"},{"type":"bandwidth"}]}"#)
                .contains("ENABLE_BANDWIDTH_PLUGIN")
        );
    }
}
