// SPDX-License-Identifier: Apache-2.0
//! A part of a plan: files, and what is obsolete beside them. Plain data.

use std::path::PathBuf;

use crate::libcni::conflist::TextFile;

/// A file and what it is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    pub path: PathBuf,
    pub content: Vec<u8>,
    pub mode: u32,
}

impl FileContent {
    pub fn of(list: TextFile) -> Self {
        Self { path: list.path, content: list.text.into(), mode: 0o644 }
    }
}

/// The plugin, from where it was shipped to where runtimes look for it. It is never read whole: it is larger than all
/// else that a boot handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    pub from: PathBuf,
    pub to: PathBuf,
}

/// What is put in place whole or not at all, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub plugin: Option<Plugin>,
    pub files: Vec<FileContent>,
    /// To be removed after that: files, and directories unless something else is in them by then.
    pub obsolete: Vec<PathBuf>,
}
