// SPDX-License-Identifier: Apache-2.0
//! Which file of the directory is chained to. A runtime takes the first by name
//! (go-cni, opts.go, loadFromConfDir), and if that is broken none. Multus puts
//! itself first and runs another network for the pod's main interface; the list
//! of that one is the one to be chained to.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::json::{Members, string};
use super::list::{Invalid, List, top_level};

/// A file's path and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    pub path: PathBuf,
    pub text: String,
}

/// Files in the runtime's order, or why one cannot be read.
type Files = [Result<TextFile, String>];

/// What a file of multus says of the main network.
enum Delegate {
    /// `clusterNetwork`: a path, as its container sees it, or a network's name.
    Named(String),
    /// `delegates` hold a copy of the next file, which its daemon follows.
    Next,
}

/// The file to be edited; None where there is none.
pub fn choose<'f>(dir: &Path, files: &'f Files) -> Result<Option<&'f TextFile>, String> {
    let Some(first) = files.first() else { return Ok(None) };
    let first = first.as_ref().map_err(Clone::clone)?;
    let invalid = |e: Invalid| format!("edit {}: {e}", first.path.display());
    let Some(delegate) = delegate(first).map_err(invalid)? else { return Ok(Some(first)) };
    let missing = |wanted: String| {
        format!(
            "{}: multus runs {wanted}; only a .conflist in {} can be chained to",
            first.path.display(),
            dir.display()
        )
    };
    match delegate {
        Delegate::Next => match next(&files[1..]) {
            Some(file) => file.as_ref().map(Some).map_err(Clone::clone),
            None => Err(missing("a network that no other file holds".into())),
        },
        Delegate::Named(name) => match named(dir, &files[1..], &name) {
            Some(file) => Ok(Some(file)),
            None => Err(missing(format!("\"clusterNetwork\" {name:?}"))),
        },
    }
}

/// Whether a runtime takes this file for a list.
pub fn is_list(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("conflist"))
}

/// None for what is not multus'.
fn delegate(file: &TextFile) -> Result<Option<Delegate>, Invalid> {
    let members = if is_list(&file.path) {
        List::find(&file.text)?.entries.into_iter().next().map(|main| main.members)
    } else {
        Some(top_level(&file.text)?)
    };
    let multus = members.filter(is_multus);
    Ok(multus.map(|members| match members.last("clusterNetwork").and_then(string) {
        Some(name) if !name.is_empty() => Delegate::Named(name),
        _ => Delegate::Next,
    }))
}

fn is_multus(members: &Members) -> bool {
    let kind = members.last_of_any_case("type").and_then(string);
    matches!(kind.as_deref(), Some("multus" | "multus-shim"))
}

/// Multus' own rule: the first one that is not its own; .json does not count.
fn next(others: &Files) -> Option<&Result<TextFile, String>> {
    others.iter().find(|file| match file {
        Ok(file) => {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with("00-multus") && !name.ends_with(".json")
        }
        Err(_) => true,
    })
}

/// A path into this directory, whatever it is mounted on, or a network's name.
fn named<'f>(dir: &Path, others: &'f Files, name: &str) -> Option<&'f TextFile> {
    let mut readable = others.iter().filter_map(|file| file.as_ref().ok());
    if !name.contains('/') {
        return readable.find(|file| {
            let members = is_list(&file.path).then(|| Members::parse(&file.text).ok()).flatten();
            members.and_then(|members| members.last("name").and_then(string)).as_deref()
                == Some(name)
        });
    }
    let path = Path::new(name);
    let in_dir = path.parent()?.ends_with(dir.strip_prefix("/").unwrap_or(dir));
    readable.find(|file| in_dir && file.path.file_name() == path.file_name())
}
