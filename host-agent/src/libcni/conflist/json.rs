// SPDX-License-Identifier: Apache-2.0
//! Members of an object and elements of an array as they stand in the text,
//! in order, doubles included. Nothing below them is looked at, however deep.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Keys, decoded, and values, as written.
pub struct Members<'a>(Vec<(Key, &'a RawValue)>);

/// Bytes, since a lone surrogate (`"\ud800"`) is JSON, but not a string here.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key(Vec<u8>);

pub struct Array<'a>(pub Vec<&'a RawValue>);

impl<'a> Members<'a> {
    pub fn parse(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Of equal keys the last one counts, for Go's reader as for most.
    pub fn last(&self, key: &str) -> Option<&'a RawValue> {
        let mut found = self.0.iter().rev().filter(|(found, _)| found.0 == key.as_bytes());
        found.next().map(|(_, value)| *value)
    }

    /// As Go reads a field of a struct from what it has printed with sorted keys: upper and lower case
    /// are the same, the greatest key comes last.
    pub fn last_of_any_case(&self, key: &str) -> Option<&'a RawValue> {
        let same = |found: &&(Key, _)| found.0.0.eq_ignore_ascii_case(key.as_bytes());
        self.0.iter().filter(same).max_by_key(|(found, _)| found).map(|(_, value)| *value)
    }
}

impl<'a> Array<'a> {
    /// None for what is no array.
    pub fn parse(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok().map(Self)
    }
}

/// None for what is no string. One that holds half of a surrogate pair is no one's name: empty.
pub fn string(raw: &RawValue) -> Option<String> {
    raw.get().starts_with('"').then(|| serde_json::from_str(raw.get()).unwrap_or_default())
}

/// What a value is, by its first byte.
pub fn kind_of(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a truth value",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Line and column of a byte.
pub fn place_of(text: &[u8], at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (1 + before.iter().filter(|byte| **byte == b'\n').count(), at - line_start + 1)
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Key, E> {
                Ok(Key(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
