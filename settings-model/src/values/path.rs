// SPDX-License-Identifier: Apache-2.0

//! Absolute paths.
//!
//! Never looks whether something is there.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::text::code;
use crate::text::problem::{Refusal, quote};
use crate::text::reader::wrong_type;

/// A path from the root, without NUL; text, as it comes from TOML.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AbsolutePath(String);

impl AbsolutePath {
    /// None if the text is empty, relative or has a NUL in it.
    pub fn new(text: &str) -> Option<Self> {
        fault(text).is_none().then(|| Self(text.to_owned()))
    }

    /// The path as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For defaults, which are good ones.
    pub(crate) fn constant(text: &'static str) -> Self {
        Self(text.to_owned())
    }
}

impl Deref for AbsolutePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl AsRef<Path> for AbsolutePath {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl From<AbsolutePath> for PathBuf {
    fn from(path: AbsolutePath) -> Self {
        path.0.into()
    }
}

fn fault(text: &str) -> Option<&'static str> {
    match text {
        "" => Some("is empty"),
        text if text.contains('\0') => Some("contains a NUL character"),
        text if !text.starts_with('/') => Some("is a relative path"),
        _ => None,
    }
}

/// Rule of a key that holds an absolute path; `example` is for the message.
pub(crate) fn absolute_path(value: &DeValue<'_>, example: &str) -> Result<AbsolutePath, Refusal> {
    let allowed = format!("an absolute path, e.g. {example:?}");
    let Some(text) = value.as_str() else {
        return Err(wrong_type(value, &allowed));
    };
    match fault(text) {
        None => Ok(AbsolutePath(text.to_owned())),
        Some(fault) => {
            let message = format!("{} {fault}; use {allowed}", quote(text));
            Err(Refusal::new(code::BAD_PATH, message))
        }
    }
}
