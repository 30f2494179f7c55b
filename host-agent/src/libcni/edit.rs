// SPDX-License-Identifier: Apache-2.0
//! Edits of lists that others write too: what they write meanwhile is never lost.

use std::fs::{self, Metadata};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Error, Result, bail};

use super::conflist::{TextFile, decode};
use super::entry::without;
use super::files::with_entry;
use crate::host::file;

/// Writes in a row while another writer writes between them.
const ATTEMPTS: u32 = 10;
/// Takes our entry out of every list; gives how many had it. An entry of the upstream plugin that it
/// has replaced is not known any more: the VPC CNI has it written at its next start.
pub fn take_out(dir: &Path) -> Result<u64> {
    let mut written = 0;
    for found in with_entry(dir)? {
        let path = found.path.display();
        let look = || fs::metadata(&found.path);
        let meta = look().with_context(|| format!("look at {path}"))?;
        let edit = |found: TextFile| without(&found).map(|list| list.text.into_bytes());
        replace(&found, &edit(found.clone())?, &meta, edit)?;
        log::info!(
            "took our entry out of {path}; an upstream \"bandwidth\" plugin's that it had replaced comes \
             back when its owner writes the file again (VPC CNI: when aws-node starts)"
        );
        written += 1;
    }
    Ok(written)
}

/// What another writer has written since `found` was read is not lost: it is edited in its turn.
pub fn replace(
    found: &TextFile,
    content: &[u8],
    meta: &Metadata,
    edit: impl Fn(TextFile) -> Result<Vec<u8>>,
) -> Result<()> {
    let (path, mode) = (&found.path, meta.permissions().mode() & 0o7777);
    let mut expected = found.text.clone().into_bytes();
    let mut content = content.to_vec();
    for _ in 0..ATTEMPTS {
        let before = file::exchange(path, &content, mode)?;
        if before == expected {
            return Ok(());
        }
        // What cannot be edited is restored as it was, and looked at again.
        let newer = decode(before.clone()).map(|text| TextFile { path: path.clone(), text });
        let next = newer.map_err(Error::from).and_then(&edit).unwrap_or(before);
        expected = std::mem::replace(&mut content, next);
    }
    bail!("write {}: another writer changed it {ATTEMPTS} times in a row; gave up", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libcni::conflist::{ENTRY, add};

    const OLD: &str = r#"{"plugins":[{"type":"old"}]}"#;

    /// What is in the file after an edit of `OLD` while another writer has written `newer` instead.
    fn written(newer: Option<&[u8]>) -> (Result<()>, Option<Vec<u8>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-aws.conflist");
        fs::write(&path, OLD).unwrap();
        let meta = fs::metadata(&path).unwrap();
        let found = TextFile { path: path.clone(), text: OLD.into() };
        match newer {
            Some(newer) => fs::write(&path, newer).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let edit = |file: TextFile| Ok(add(&file.text)?.into_bytes());
        let result = replace(&found, add(OLD).unwrap().as_bytes(), &meta, edit);
        (result, fs::read(&path).ok())
    }

    #[test]
    fn what_somebody_writes_at_the_same_moment_is_edited_and_not_lost() {
        let newer = r#"{"plugins":[{"type":"new","mtu":1500}]}"#;
        let (result, left) = written(Some(newer.as_bytes()));
        result.unwrap();
        assert_eq!(left.unwrap(), newer.replace("}]", &format!("}},{ENTRY}]")).as_bytes());
        // It may be what we would have made of it.
        let edited = add(newer).unwrap();
        assert_eq!(written(Some(edited.as_bytes())).1.unwrap(), edited.as_bytes());
    }

    #[test]
    fn what_cannot_be_edited_is_put_back() {
        for broken in [&b"{"[..], b"\xff"] {
            let (result, left) = written(Some(broken));
            result.unwrap();
            assert_eq!(left.unwrap(), broken);
        }
    }

    #[test]
    fn list_that_has_just_gone_is_not_made_again() {
        let (result, left) = written(None);
        assert!(format!("{:#}", result.unwrap_err()).ends_with("(os error 2)"));
        assert_eq!(left, None);
    }
}
