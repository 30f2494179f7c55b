// SPDX-License-Identifier: Apache-2.0

//! Keys that take one of a few words.
//!
//! Owns how such a key is read and printed; which words there are is said where the type is.

use toml::de::DeValue;

use crate::text::code;
use crate::text::problem::{Refusal, quote};
use crate::text::reader::{any_of, wrong_type};

/// A type whose values are words.
pub(crate) trait Word: Copy + PartialEq + 'static {
    /// Every word with its value.
    const WORDS: &'static [(&'static str, Self)];
}

/// Gives a fieldless enum its words, a rule can read them, and `Display` prints them.
macro_rules! words {
    ($kind:ident: $($text:literal = $value:ident),+) => {
        impl $crate::values::words::Word for $kind {
            const WORDS: &'static [(&'static str, Self)] = &[$(($text, Self::$value)),+];
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$value => $text),+ })
            }
        }
    };
}

pub(crate) use words;

/// Rule of a key that takes one of a type's words.
pub(crate) fn word<T: Word>(value: &DeValue<'_>) -> Result<T, Refusal> {
    let Some(text) = value.as_str() else {
        return Err(wrong_type(value, &allowed::<T>()));
    };
    let known = T::WORDS.iter().find(|(word, _)| *word == text);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let message = format!("{} is not allowed; use {}", quote(text), allowed::<T>());
        Refusal::new(code::NOT_ALLOWED, message)
    })
}

/// The words of a type.
pub(crate) fn spellings<T: Word>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

fn allowed<T: Word>() -> String {
    let quoted: Vec<_> = spellings::<T>().iter().map(|word| format!("{word:?}")).collect();
    any_of(&quoted.iter().map(String::as_str).collect::<Vec<_>>())
}
