// SPDX-License-Identifier: Apache-2.0
//! Locks between processes of ours. Whoever can open a file can hold it by flock(2), reading is enough; so
//! they are files that only root can open, in a directory that only root can enter. No wait is without an
//! end, and whoever waited in vain learns who holds the lock.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_WRLCK, O_DIRECTORY, O_NOFOLLOW, SEEK_SET, flock};
use nix::unistd::geteuid;
use rustix::fs::{major, minor};

/// How often a busy lock is tried; most are held for a few milliseconds. flock(2) itself knows no deadline.
const STEP: Duration = Duration::from_micros(500);

/// A lock was not to be had in time.
#[derive(Debug, thiserror::Error)]
#[error("lock {}: waited {waited:?}; held by {holder}", path.display())]
pub struct Busy {
    path: PathBuf,
    waited: Duration,
    holder: String,
}

/// A file that is there to be locked. Whoever has got the lock holds it until the file is closed, by
/// whatever end of the process.
#[derive(Clone, Debug)]
pub struct Lock(PathBuf);

impl Lock {
    pub fn new(dir: &Path, name: &str) -> Self {
        Self(dir.join(name))
    }

    /// For one alone.
    pub fn take(&self, patience: Duration) -> Result<File> {
        self.acquire(patience, File::try_lock)
    }

    /// For any number at once, and no one alone.
    pub fn share(&self, patience: Duration) -> Result<File> {
        self.acquire(patience, File::try_lock_shared)
    }

    /// One byte of the file for one alone, which leaves nothing behind however many places there are
    /// (fcntl(2), F_OFD_SETLK). Whoever asks at `place` waits for no one at another.
    pub fn take_place(&self, place: i64, patience: Duration) -> Result<File> {
        let byte = flock {
            l_type: F_WRLCK as i16,
            l_whence: SEEK_SET as i16,
            l_start: place,
            l_len: 1,
            l_pid: 0,
        };
        self.acquire(patience, |file| match fcntl(file, FcntlArg::F_OFD_SETLK(&byte)) {
            Ok(_) => Ok(()),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(TryLockError::WouldBlock),
            Err(e) => Err(TryLockError::Error(e.into())),
        })
    }

    fn acquire(
        &self,
        patience: Duration,
        attempt: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<File> {
        let file = self.open().with_context(|| format!("open the lock {}", self.0.display()))?;
        wait(&file, &self.0, patience, attempt)?;
        // For a process that cannot read /proc/locks; the lock works without.
        let _ = file.set_len(0).and_then(|()| (&file).write_all(own_name().as_bytes()));
        Ok(file)
    }

    fn open(&self) -> io::Result<File> {
        if let Some(dir) = self.0.parent() {
            private_directory(dir)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(O_NOFOLLOW).open(&self.0)?;
        make_private(&file, 0o600).map(|()| file)
    }
}

/// None for a lock that is busy, to those who do something else meanwhile and come again.
pub fn unless_busy<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(e) if e.is::<Busy>() => Ok(None),
        result => result.map(Some),
    }
}

/// The same for a file that is not ours to make.
pub fn wait(
    file: &File,
    path: &Path,
    patience: Duration,
    attempt: impl Fn(&File) -> Result<(), TryLockError>,
) -> Result<()> {
    let began = Instant::now();
    loop {
        match attempt(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if began.elapsed() < patience => std::thread::sleep(STEP),
            Err(TryLockError::WouldBlock) => {
                let (path, holder) = (path.to_owned(), holder(file, path));
                return Err(Busy { path, waited: patience, holder }.into());
            }
            Err(TryLockError::Error(e)) => {
                return Err(Error::from(e).context(format!("lock {}", path.display())));
            }
        }
    }
}

/// A directory that no one but its owner can enter. One that is there is made so, unless it belongs to
/// another user.
pub fn private_directory(dir: &Path) -> io::Result<()> {
    dir.parent().map_or(Ok(()), fs::create_dir_all)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let flags = O_DIRECTORY | O_NOFOLLOW;
    let open = OpenOptions::new().read(true).custom_flags(flags).open(dir);
    open.and_then(|open| make_private(&open, 0o700)).map_err(|e| {
        let what = format!("{e}: {} must be a directory of root's, mode 0700", dir.display());
        io::Error::new(e.kind(), what)
    })
}

fn make_private(file: &File, mode: u32) -> io::Result<()> {
    let found = file.metadata()?;
    let (owner, own) = (found.uid(), geteuid().as_raw());
    if owner != own {
        let what = format!("it belongs to user {owner}, not to {own}; remove it");
        return Err(io::Error::new(ErrorKind::PermissionDenied, what));
    }
    match found.mode() & 0o7777 == mode {
        true => Ok(()),
        false => file.set_permissions(Permissions::from_mode(mode)),
    }
}

/// As the kernel knows it. A confined unit may not see that (ProcSubset=pid), and then as the one that
/// took the lock last has written into it.
fn holder(file: &File, path: &Path) -> String {
    let table = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pids = file.metadata().map(|meta| pids(&table, meta.dev(), meta.ino()));
    let names: Vec<_> = pids.unwrap_or_default().iter().map(|pid| name(pid)).collect();
    match (names.as_slice(), fs::read_to_string(path)) {
        ([], Ok(text)) if !text.is_empty() => format!("{text} or another"),
        ([], _) => "an unknown process".into(),
        (names, _) => names.join(", "),
    }
}

/// `1: FLOCK  ADVISORY  WRITE 1234 00:1a:4711 0 EOF`; those that wait have `->` behind the number
/// (fs/locks.c, lock_get_status).
fn pids(table: &str, dev: u64, inode: u64) -> Vec<String> {
    let file = format!("{:02x}:{:02x}:{inode}", major(dev), minor(dev));
    let holds = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&file.as_str())
    };
    let pid = |line: &str| line.split_whitespace().nth(4).unwrap_or_default().to_owned();
    table.lines().filter(holds).map(pid).collect()
}

fn name(pid: &str) -> String {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match command.trim() {
        "" => format!("process {pid}"),
        command => format!("process {pid} ({command})"),
    }
}

fn own_name() -> String {
    name(&std::process::id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn holder_is_named_with_the_lock_and_the_time_that_was_waited() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::new(&dir.path().join("locks"), "pods");
        let held = lock.share(NONE).unwrap();
        assert!(lock.share(NONE).is_ok());
        let patience = Duration::from_millis(20);
        let error = lock.take(patience).unwrap_err();
        let expected = format!(
            "lock {}: waited 20ms; held by {}",
            dir.path().join("locks/pods").display(),
            own_name()
        );
        assert_eq!(error.to_string(), expected);
        assert!(unless_busy(Err::<(), _>(error)).unwrap().is_none());
        drop(held);
        assert!(lock.take(NONE).is_ok());
    }

    #[test]
    fn only_the_owner_can_open_what_is_locked_however_it_was_found() {
        let dir = tempfile::tempdir().unwrap();
        let locks = dir.path().join("locks");
        fs::create_dir(&locks).unwrap();
        fs::write(locks.join("agent"), "").unwrap();
        for path in [&locks, &locks.join("agent")] {
            fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        }
        drop(Lock::new(&locks, "agent").take(NONE).unwrap());
        assert_eq!((mode(&locks), mode(&locks.join("agent"))), (0o700, 0o600));
    }

    #[test]
    fn no_symlink_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let (before, link) = (mode(&elsewhere), dir.path().join("locks"));
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        let error = format!("{:#}", Lock::new(&link, "boot").take(NONE).unwrap_err());
        assert!(error.ends_with("must be a directory of root's, mode 0700"), "{error}");
        assert_eq!(mode(&elsewhere), before);
        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("new"), link.join("boot")).unwrap();
        assert!(Lock::new(&link, "boot").take(NONE).is_err());
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn holders_are_found_in_the_kernels_table_and_not_those_that_wait() {
        let table = "1: POSIX  ADVISORY  WRITE 7 00:1a:4711 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 8 00:1a:4711 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 00:1a:4711 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 10 00:1a:4711 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 11 00:1b:4711 0 EOF\n";
        assert_eq!(pids(table, 0x1a, 4711), ["8", "10"]);
    }
}
