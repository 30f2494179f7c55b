// SPDX-License-Identifier: Apache-2.0

//! What kinds of value there are, as people and JSON Schema read it.
//!
//! Owns no rule: it says what the rules take, and tests hold the two together.

use serde_json::{Value, json};

use crate::sections::class;
use crate::sections::max_pods;
use crate::text::reader::any_of;
use crate::values::burst;
use crate::values::latency;
use crate::values::pattern;
use crate::values::quantity::Words;

/// The kind of a key's value.
pub(crate) enum Shape {
    /// The number 1.
    Version,
    /// true or false.
    Switch,
    /// One of these words.
    Words(fn() -> Vec<&'static str>),
    /// A rate, or this word.
    Rate(Option<&'static str>, Words),
    Burst,
    LatencyTarget,
    AbsolutePath,
    /// A whole number, from, to, of what.
    Count(u16, u16, &'static str),
    PodLimit,
    ClassName,
    Patterns,
    Listen,
}

/// A decimal number, then perhaps blanks.
const NUMBER: &str = "[0-9]+(\\.[0-9]+)?\\s*";
const RATE_UNIT: &str = "([bB]it|[kKmMgG]i?bit|[tT]bit)";
/// A Kubernetes quantity with a suffix.
const QUANTITY: &str = "[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)";

impl Shape {
    /// What may be written.
    pub(crate) fn allowed(&self) -> String {
        match self {
            Self::Version => "the number 1".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Words(words) => {
                let quoted: Vec<_> = words().iter().map(|word| format!("{word:?}")).collect();
                any_of(&quoted.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Self::Rate(word, words) => format!(
                "a number with {}, Kibit, Mibit or Gibit, or a Kubernetes quantity with a suffix (\"10M\", \"1Gi\", \"1e9\"){}",
                words.units.replace(" or ", ", "),
                word.map_or(String::new(), |word| format!("; or {word:?}"))
            ),
            Self::Burst => format!("a number with {}", burst::WORDS.units),
            Self::LatencyTarget => format!("a number with {}", latency::WORDS.units),
            Self::AbsolutePath => "an absolute path".to_owned(),
            Self::Count(..) => "a whole number without quotes".to_owned(),
            Self::PodLimit => "\"auto\", or a whole number without quotes".to_owned(),
            Self::ClassName => class::NAME_ALLOWED.to_owned(),
            Self::Patterns => format!("a list of patterns, each {}", pattern::ALLOWED),
            Self::Listen => "an IP address and a port, or \"off\"".to_owned(),
        }
    }

    /// What a number counts.
    pub(crate) fn unit(&self) -> Option<&'static str> {
        match self {
            Self::Rate(..) => Some("bits per second"),
            Self::Burst => Some("time or bytes"),
            Self::LatencyTarget => Some("time"),
            Self::Count(_, _, unit) => Some(unit),
            Self::PodLimit => Some("pods"),
            _ => None,
        }
    }

    /// From where to where.
    pub(crate) fn range(&self) -> Option<String> {
        match self {
            Self::Rate(_, words) => Some(words.range.to_owned()),
            Self::Burst => Some(burst::WORDS.range.to_owned()),
            Self::LatencyTarget => Some(latency::WORDS.range.to_owned()),
            Self::Count(least, most, _) => Some(format!("{least} to {most}")),
            Self::PodLimit => {
                Some(format!("{} to {}", max_pods::PODS.start(), max_pods::PODS.end()))
            }
            Self::Patterns => Some(format!("1 to {} patterns", pattern::MOST_PATTERNS)),
            _ => None,
        }
    }

    /// The same for programs; a schema can say less than the rules, but nothing else.
    pub(crate) fn schema(&self) -> Value {
        let text =
            |pattern: String| json!({ "type": "string", "pattern": format!("^({pattern})$") });
        match self {
            Self::Version => json!({ "const": 1 }),
            Self::Switch => json!({ "type": "boolean" }),
            Self::Words(words) => json!({ "enum": words() }),
            Self::Rate(word, _) => {
                let word = word.map_or(String::new(), |word| format!("|{word}"));
                text(format!("\\s*{NUMBER}{RATE_UNIT}\\s*|{QUANTITY}{word}"))
            }
            Self::Burst => text(format!("\\s*{NUMBER}([mun]?s|[kK]?B|MB|KiB|MiB)\\s*")),
            Self::LatencyTarget => text(format!("\\s*{NUMBER}[mun]?s\\s*")),
            Self::AbsolutePath => text("/[^\\u0000]*".to_owned()),
            Self::Count(least, most, _) => whole(*least, *most),
            Self::PodLimit => {
                let count = whole(*max_pods::PODS.start(), *max_pods::PODS.end());
                json!({ "anyOf": [{ "const": "auto" }, count] })
            }
            Self::ClassName => text("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?".to_owned()),
            Self::Patterns => {
                let item = text(format!("[a-z0-9.*?-]{{1,{}}}", pattern::LONGEST));
                json!({ "type": "array", "minItems": 1, "maxItems": pattern::MOST_PATTERNS, "items": item })
            }
            Self::Listen => text("off|(\\[[0-9a-fA-F:.%]+\\]|[0-9.]+):[0-9]{1,5}".to_owned()),
        }
    }
}

fn whole(least: u16, most: u16) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}
