// SPDX-License-Identifier: Apache-2.0
//! Carries a part of a plan out: each file replaced whole, read back, and undone in
//! reverse order when a later one fails; then what is obsolete removed, the
//! same way. What is already as planned is not touched, so applying twice
//! changes nothing.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::boot::part::{FileContent, Part, Plugin};
use crate::host::file;
use crate::host::lock::Lock;

/// What was there before.
enum Before {
    Directory(PathBuf),
    NoFile(PathBuf),
    File {
        path: PathBuf,
        content: Vec<u8>,
        mode: u32,
    },
    /// An empty one, which has gone.
    RemovedDirectory {
        path: PathBuf,
        mode: u32,
    },
}

/// One file of a part, the plugin among them.
enum Planned<'p> {
    Plugin(&'p Plugin),
    File(&'p FileContent),
}

impl Planned<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Plugin(plugin) => &plugin.to,
            Self::File(file) => &file.path,
        }
    }

    fn is_there(&self) -> std::io::Result<bool> {
        match self {
            Self::Plugin(plugin) => file::same(&plugin.from, &plugin.to),
            Self::File(file) => match fs::read(&file.path) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
                held => Ok(held? == file.content),
            },
        }
    }

    fn put(&self, mode: Option<u32>) -> Result<()> {
        match self {
            Self::Plugin(plugin) => file::copy(&plugin.from, &plugin.to, mode.unwrap_or(0o755)),
            Self::File(file) => file::replace(&file.path, &file.content, mode.unwrap_or(file.mode)),
        }
    }
}

/// Longer than the agent takes to keep a conflist.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Applies it; gives the paths that were written. `alone` is held meanwhile: the agent keeps the conflist
/// too.
pub fn apply(part: &Part, alone: &Lock) -> Result<Vec<PathBuf>> {
    let _alone = alone.take(PATIENCE)?;
    let mut done = Vec::new();
    let mut changed = Vec::new();
    let all = part.plugin.iter().map(Planned::Plugin).chain(part.files.iter().map(Planned::File));
    for wanted in all {
        match write(&wanted, &mut done) {
            Ok(true) => changed.push(wanted.path().to_owned()),
            Ok(false) => {}
            Err(first) => return Err(undo(done, for_people(first))),
        }
    }
    for path in &part.obsolete {
        match remove(path, &mut done) {
            Ok(true) => log::info!("removed {}", path.display()),
            Ok(false) => {}
            Err(first) => return Err(undo(done, for_people(first))),
        }
    }
    Ok(changed)
}

/// What to look at where the node's configuration cannot be written.
fn for_people(error: anyhow::Error) -> anyhow::Error {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let forbidden = [ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied];
    if io.is_none_or(|io| !forbidden.contains(&io.kind())) {
        return error;
    }
    anyhow!("{error:#}; under systemd ReadWritePaths= of the unit says what may be written")
}

/// Whether anything was there that could be removed.
fn remove(path: &Path, done: &mut Vec<Before>) -> Result<bool> {
    let attempt = || format!("remove {}", path.display());
    let before = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Ok(found) if found.is_dir() => {
            let mode = found.permissions().mode() & 0o7777;
            return Ok(remove_directory(path, mode, done));
        }
        found => found.with_context(attempt).and_then(|_| read(path))?,
    };
    fs::remove_file(path).with_context(attempt)?;
    done.push(before);
    Ok(true)
}

/// One that is empty and stays does no harm: a unit's ReadWritePaths= may hold on to it.
fn remove_directory(path: &Path, mode: u32, done: &mut Vec<Before>) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => done.push(Before::RemovedDirectory { path: path.to_owned(), mode }),
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => return false,
        Err(e) => {
            log::warn!("remove {}: {e}; it stays", path.display());
            return false;
        }
    }
    true
}

fn write(wanted: &Planned, done: &mut Vec<Before>) -> Result<bool> {
    let path = wanted.path();
    if wanted.is_there().with_context(|| format!("read {}", path.display()))? {
        return Ok(false);
    }
    let before = read(path)?;
    make_parents(path, done)?;
    // A file keeps its mode; a new one gets ours.
    let mode = if let Before::File { mode, .. } = &before { Some(*mode) } else { None };
    done.push(before);
    wanted.put(mode)?;
    if !wanted.is_there().with_context(|| format!("read back {}", path.display()))? {
        bail!("read back {}: it does not hold what was written", path.display());
    }
    Ok(true)
}

fn read(path: &Path) -> Result<Before> {
    let read = || -> std::io::Result<Before> {
        let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
        Ok(Before::File { path: path.to_owned(), content: fs::read(path)?, mode })
    };
    match read() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Before::NoFile(path.to_owned())),
        result => result.with_context(|| format!("read {}", path.display())),
    }
}

fn make_parents(path: &Path, done: &mut Vec<Before>) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        fs::create_dir(dir).with_context(|| format!("create {}", dir.display()))?;
        done.push(Before::Directory(dir.to_owned()));
    }
    Ok(())
}

/// The first error stays on top; what could not be undone is listed after it.
fn undo(done: Vec<Before>, first: anyhow::Error) -> anyhow::Error {
    let undone = done.into_iter().rev().map(undo_one);
    let errors: Vec<String> = undone.filter_map(Result::err).map(|e| format!("{e:#}")).collect();
    if errors.is_empty() { first } else { anyhow!("{first:#}; and then: {}", errors.join("; ")) }
}

fn undo_one(before: Before) -> Result<()> {
    match before {
        Before::Directory(dir) => {
            fs::remove_dir(&dir).with_context(|| format!("remove {}", dir.display()))
        }
        Before::NoFile(path) => match fs::remove_file(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.with_context(|| format!("remove {}", path.display())),
        },
        Before::File { path, content, mode } => {
            if fs::read(&path).is_ok_and(|now| now == content) {
                return Ok(());
            }
            file::replace(&path, &content, mode)
        }
        Before::RemovedDirectory { path, mode } => {
            let make = || {
                fs::DirBuilder::new().mode(mode).create(&path)?;
                // The mode above is subject to the umask.
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            };
            make().with_context(|| format!("create {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(part: &Part) -> Result<Vec<PathBuf>> {
        let locks = tempfile::tempdir().unwrap();
        super::apply(part, &Lock::new(locks.path(), "files"))
    }

    fn content(path: PathBuf, content: &str) -> FileContent {
        FileContent { path, content: content.into(), mode: 0o644 }
    }

    #[test]
    fn applying_twice_changes_nothing_the_second_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        let plan = Part { files: vec![content(path.clone(), "x")], ..Part::default() };
        assert_eq!(apply(&plan).unwrap(), [path]);
        assert_eq!(apply(&plan).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn failure_of_a_later_file_restores_the_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        fs::write(&old, "before").unwrap();
        let blocked = old.join("below-a-file");
        let plan = Part {
            files: vec![
                content(old.clone(), "after"),
                content(dir.path().join("new/file"), "x"),
                content(blocked, "y"),
            ],
            ..Part::default()
        };
        let error = apply(&plan).unwrap_err();
        assert!(format!("{error:#}").contains("below-a-file"), "{error:#}");
        assert_eq!(fs::read_to_string(&old).unwrap(), "before");
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["old"]);
    }

    #[test]
    fn obsolete_files_go_and_their_directories_if_nothing_else_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let [empty, shared] = ["empty", "shared"].map(|name| dir.path().join(name));
        let ours = [empty.join("ours"), shared.join("ours")];
        ours.iter().for_each(|file| {
            fs::create_dir(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        });
        fs::write(shared.join("theirs"), "y").unwrap();
        let obsolete = [&ours[..], &[empty.clone(), shared.clone(), dir.path().join("none")]];
        let plan = Part { obsolete: obsolete.concat(), ..Part::default() };
        assert_eq!(apply(&plan).unwrap(), [] as [PathBuf; 0]);
        assert!(!empty.exists() && shared.join("theirs").exists() && !ours[1].exists());
        apply(&plan).unwrap();
    }

    #[test]
    fn read_only_file_system_is_told_with_what_to_look_at() {
        let read_only = std::io::Error::from(ErrorKind::ReadOnlyFilesystem);
        let error = Err::<(), _>(read_only).context("write /etc/x").unwrap_err();
        assert_eq!(
            format!("{:#}", for_people(error)),
            "write /etc/x: read-only filesystem or storage medium; under systemd ReadWritePaths= of \
             the unit says what may be written"
        );
        assert_eq!(for_people(anyhow!("other")).to_string(), "other");
    }

    #[test]
    fn failed_removal_brings_back_what_was_removed_before() {
        let dir = tempfile::tempdir().unwrap();
        let (made, gone) = (dir.path().join("made"), dir.path().join("gone"));
        let file = gone.join("file");
        fs::create_dir(&gone).unwrap();
        fs::write(&file, "before").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(&gone, fs::Permissions::from_mode(0o750)).unwrap();
        // Its name is longer than any name may be.
        let impossible = dir.path().join("x".repeat(300));
        let plan = Part {
            files: vec![content(made.clone(), "x")],
            obsolete: vec![file.clone(), gone.clone(), impossible],
            ..Part::default()
        };
        let error = format!("{:#}", apply(&plan).unwrap_err());
        assert!(error.ends_with("xxx: File name too long (os error 36)"), "{error}");
        assert!(!made.exists());
        assert_eq!(fs::read_to_string(&file).unwrap(), "before");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&file), mode(&gone)), (0o640, 0o750));
    }

    #[test]
    fn replaced_file_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-aws.conflist");
        fs::write(&path, "a").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        apply(&Part { files: vec![content(path.clone(), "b")], ..Part::default() }).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    }
}
