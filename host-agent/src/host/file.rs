// SPDX-License-Identifier: Apache-2.0
//! Files replaced whole: a temporary file beside the target, synced, renamed.
//! The temporary name ends in `.tmp`, which no CNI runtime loads, and lies in
//! the same directory, because containerd overlooks a rename into it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

const TEMPORARY: &str = ".tmp";
/// Files are compared by pieces of so many bytes.
const PIECE: usize = 1 << 16;

/// Whether a file of this name is one that was not finished.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// Replaces `path` by `content`; on failure the old file is as it was and nothing is left over.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    replace_by(path, mode, |file| file.write_all(content))
}

/// The same with what another file holds, which the kernel copies.
pub fn copy(from: &Path, path: &Path, mode: u32) -> Result<()> {
    let all = |to: &mut File| File::open(from).and_then(|mut from| io::copy(&mut from, to));
    replace_by(path, mode, |file| all(file).map(drop))
}

/// Whether two files hold the same. One that is not there holds nothing, not even nothing.
pub fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = match (File::open(one), File::open(other)) {
        (Err(e), _) | (_, Err(e)) if e.kind() == ErrorKind::NotFound => return Ok(false),
        (one, other) => (one?, other?),
    };
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) =
        (BufReader::with_capacity(PIECE, one), BufReader::with_capacity(PIECE, other));
    loop {
        let (a, b) = (one.fill_buf()?, other.fill_buf()?);
        let length = a.len().min(b.len());
        if length == 0 || a[..length] != b[..length] {
            return Ok(a.len() == b.len() && length == 0);
        }
        one.consume(length);
        other.consume(length);
    }
}

fn replace_by(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    stage_by(path, mode, write)?.put()
}

/// What a file is to hold, beside it and on the disk already; in place it is after `put`.
#[must_use]
pub struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

/// All that a full disk or a power cut can be in the way of, before the file is replaced.
pub fn stage(path: &Path, content: &[u8], mode: u32) -> Result<Staged> {
    stage_by(path, mode, |file| file.write_all(content))
}

fn stage_by(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<Staged> {
    let staged = Staged { temporary: temporary(path), path: path.into() };
    staged.or_nothing(write_synced(&staged.temporary, mode, write))?;
    Ok(staged)
}

impl Staged {
    pub fn put(self) -> Result<()> {
        let renamed = fs::rename(&self.temporary, &self.path);
        self.or_nothing(renamed.and_then(|()| sync_directory(&self.path)))
    }

    fn or_nothing(&self, result: io::Result<()>) -> Result<()> {
        result
            .inspect_err(|_| {
                // May never have been made, or be renamed already; the first error is the one to report.
                let _ = fs::remove_file(&self.temporary);
            })
            .with_context(|| format!("write {}", self.path.display()))
    }
}

/// The same for a file that others write too: gives what it held until then, whoever wrote that and
/// however late. A file that has gone meanwhile is not made.
pub fn exchange(path: &Path, content: &[u8], mode: u32) -> Result<Vec<u8>> {
    let temporary = temporary(path);
    let swap = || match renameat_with(CWD, &temporary, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        // Some file systems cannot; then what comes between here and there is lost.
        Err(Errno::INVAL | Errno::NOSYS) => Ok(false),
        Err(e) => Err(io::Error::from(e)),
    };
    let exchange = || {
        write_synced(&temporary, mode, |file| file.write_all(content))?;
        if swap()? {
            let before = fs::read(&temporary)?;
            fs::remove_file(&temporary)?;
            return Ok(before);
        }
        let before = fs::read(path)?;
        fs::rename(&temporary, path)?;
        Ok(before)
    };
    let before = exchange().inspect_err(|_: &std::io::Error| {
        let _ = fs::remove_file(&temporary);
    });
    let before = before.and_then(|before| sync_directory(path).map(|()| before));
    before.with_context(|| format!("write {}", path.display()))
}

/// One name for all attempts, so that what a killed one left is overwritten by the next.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{TEMPORARY}"))
}

fn write_synced(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // The mode above is subject to the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    write(&mut file)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn exchange_gives_what_was_there_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-aws.conflist");
        fs::write(&path, "before").unwrap();
        assert_eq!(exchange(&path, b"after", 0o600).unwrap(), b"before");
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"after".to_vec(), 0o600));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn copies_are_the_same_to_the_last_byte_and_what_is_not_there_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to, empty] = ["from", "to", "empty"].map(|name| dir.path().join(name));
        let mut content = vec![7; 3 * PIECE + 1];
        fs::write(&from, &content).unwrap();
        fs::write(&empty, "").unwrap();
        assert!(!same(&from, &to).unwrap() && !same(&to, &to).unwrap());
        copy(&from, &to, 0o755).unwrap();
        assert_eq!((fs::read(&to).unwrap(), mode(&to)), (content.clone(), 0o755));
        assert!(same(&from, &to).unwrap() && same(&empty, &empty).unwrap());
        assert!(!same(&from, &empty).unwrap());
        *content.last_mut().unwrap() = 8;
        fs::write(&to, &content).unwrap();
        assert!(!same(&from, &to).unwrap());
    }

    #[test]
    fn file_that_has_gone_is_not_made_by_an_exchange() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-aws.conflist");
        let error = exchange(&path, b"after", 0o644).unwrap_err();
        assert!(
            format!("{error:#}").ends_with("No such file or directory (os error 2)"),
            "{error:#}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
