// SPDX-License-Identifier: Apache-2.0
//! Files of the node by the paths that the node calls them, also where its
//! root is a directory: a link's absolute target lies below that root too.
//! Reads; writes nothing.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat, openat2};
use rustix::io::Errno;

use crate::host::paths::Paths;

/// No configuration is longer; what is behind that is not read.
const MOST_BYTES: u64 = 1024 * 1024;

/// A line of a file of the node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

pub(super) struct HostRoot<'p>(pub(super) &'p Paths);

impl HostRoot<'_> {
    /// None where there is no such file.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let attempt = || format!("read {}", path.display());
        let Some(file) = self.open(path, OFlags::NONBLOCK).with_context(attempt)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes).with_context(attempt)?;
        Ok(Some(bytes))
    }

    pub(super) fn read_text(&self, path: &Path) -> Result<Option<String>> {
        let bytes = self.read(path)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Names in a directory, sorted, and whether each is a directory; none where there is none.
    pub(super) fn list(&self, dir: &Path) -> Result<Vec<(String, bool)>> {
        let attempt = || format!("list {}", dir.display());
        let Some(open) = self.open(dir, OFlags::DIRECTORY).with_context(attempt)? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(open).with_context(attempt)? {
            let entry = entry.with_context(attempt)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push((name, entry.file_type().is_dir()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Whether the path itself is there, wherever it may lead.
    pub(super) fn has(&self, path: &Path) -> bool {
        fs::symlink_metadata(self.0.resolve(path)).is_ok()
    }

    /// A link to /dev/null: there is nothing of this name for systemd, further down neither.
    pub(super) fn is_masked(&self, path: &Path) -> bool {
        fs::read_link(self.0.resolve(path)).is_ok_and(|target| target == Path::new("/dev/null"))
    }

    fn open(&self, path: &Path, flags: OFlags) -> std::io::Result<Option<File>> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
        let root =
            open(self.0.resolve(Path::new("/")), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let opened = match openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            // Some sandboxes do not know it; a running node's root is its own anyway.
            Err(Errno::NOSYS) => openat(CWD, self.0.resolve(path), flags, Mode::empty()),
            opened => opened,
        };
        match opened.map_err(std::io::Error::from) {
            Ok(file) => Ok(Some(file.into())),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn absolute_link_of_an_image_leads_into_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        fs::write(dir.path().join("usr/lib/hostname"), "image").unwrap();
        symlink("/usr/lib/hostname", dir.path().join("hostname")).unwrap();
        symlink("/usr/lib", dir.path().join("lib")).unwrap();
        symlink("/dev/null", dir.path().join("masked")).unwrap();
        let root = HostRoot(&paths);
        assert_eq!(root.read_text(Path::new("/hostname")).unwrap().as_deref(), Some("image"));
        assert_eq!(root.list(Path::new("/lib")).unwrap(), [("hostname".to_owned(), false)]);
        assert_eq!(root.read(Path::new("/lib/none")).unwrap(), None);
        assert_eq!(root.list(Path::new("/hostname")).unwrap(), []);
        assert!(root.is_masked(Path::new("/masked")) && !root.is_masked(Path::new("/hostname")));
    }
}
