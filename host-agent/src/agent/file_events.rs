// SPDX-License-Identifier: Apache-2.0
//! Files that the agent watches: records of pods, the settings in force,
//! the runtime's result cache, the directory of conflists, what k3s writes. The last
//! three are foreign and may appear late, so the agent looks for them until they are there.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use settings_model::Settings;

use crate::host::paths::Paths;
use crate::pod::record::Claim;
use crate::settings::k3s;

const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a file reported.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    RecordWritten(Claim),
    RecordRemoved(Claim),
    Settings,
    /// What `sluice boot` has left, which comes after the settings.
    Boot,
    /// A file of the result cache, which may have gone.
    Cached(PathBuf),
    Conflist,
    /// Where k3s has CNI.
    K3s,
    /// A pin was removed, or the directory of pins.
    Unpinned,
    /// More happened than could be held.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WatchedDir {
    Records,
    State,
    Cache,
    Conflists,
    K3s,
    Pins,
    /// A directory above one of the foreign ones that is not there yet.
    Above,
}

pub struct Watches {
    inotify: Inotify,
    paths: Paths,
    watched: HashMap<WatchDescriptor, (WatchedDir, PathBuf)>,
    looked: Option<Instant>,
}

impl Watches {
    pub fn open(paths: &Paths) -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .context("watch the agent's files")?;
        let watched = HashMap::new();
        let mut watches = Self { inotify, paths: paths.clone(), watched, looked: None };
        let pods = paths.pods_dir();
        fs::create_dir_all(&pods).with_context(|| format!("create {}", pods.display()))?;
        let state = paths.settings_in_force();
        watches.watch(WatchedDir::State, state.parent().unwrap_or(&state))?;
        watches.watch(WatchedDir::Records, &pods)?;
        watches.watch_pins()?;
        Ok(watches)
    }

    /// Again after the directory was made again; a watch that is there stays.
    pub fn watch_pins(&mut self) -> Result<()> {
        let dir = self.paths.pin_dir();
        self.watch(WatchedDir::Pins, &dir)
    }

    /// Watches the directories that these settings name, as soon as they are there; says whether one
    /// has appeared, which may hold files already.
    pub fn find(&mut self, settings: &Settings) -> bool {
        let mut found = false;
        if self.next().is_some_and(|when| when > Instant::now()) {
            return found;
        }
        let first = self.looked.replace(Instant::now()).is_none();
        let conflists = self.paths.resolve(settings.cni.conf_dir.as_ref());
        let (cache, k3s) = (self.paths.result_cache(), k3s::config(&self.paths));
        let mut places = vec![(WatchedDir::Cache, cache), (WatchedDir::Conflists, conflists)];
        // It comes with a directory above it, or not at all.
        places.extend(k3s.parent().filter(|_| first).map(|dir| (WatchedDir::K3s, dir.to_owned())));
        for (place, dir) in places {
            let there = self.watched.values().any(|watched| *watched == (place, dir.clone()));
            if !there && self.watch_from_above(place, &dir) {
                self.forget_others(place, &dir);
                found = true;
            }
        }
        if self.is_there(WatchedDir::K3s) && self.next().is_none() {
            self.forget_others(WatchedDir::Above, Path::new(""));
        }
        found
    }

    /// Where the directory is not there, watches the nearest one above it: when something new appears
    /// there, it looks again. It tries all once more after that, for what appeared meanwhile.
    fn watch_from_above(&mut self, place: WatchedDir, dir: &Path) -> bool {
        for above in dir.ancestors().skip(1) {
            if self.watch(place, dir).is_ok() {
                return true;
            }
            if self.watched.values().any(|(_, watched)| watched == above) {
                break;
            }
            if self.watch(WatchedDir::Above, above).is_ok() {
                return self.watch_from_above(place, dir);
            }
        }
        false
    }

    /// When [`Self::find`] has to look again; None when all is found.
    pub fn next(&self) -> Option<Instant> {
        let missing = !self.is_there(WatchedDir::Cache) || !self.is_there(WatchedDir::Conflists);
        self.looked.filter(|_| missing).map(|looked| looked + LOOK_EVERY)
    }

    fn is_there(&self, place: WatchedDir) -> bool {
        self.watched.values().any(|(watched, _)| *watched == place)
    }

    fn watch(&mut self, place: WatchedDir, dir: &Path) -> Result<()> {
        let news = match place {
            WatchedDir::Above => AddWatchFlags::IN_CREATE,
            _ => AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE,
        };
        let flags = news
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let watch = self.inotify.add_watch(dir, flags);
        let watch = watch.with_context(|| format!("watch {}", dir.display()))?;
        self.watched.insert(watch, (place, dir.to_owned()));
        Ok(())
    }

    fn forget_others(&mut self, place: WatchedDir, dir: &Path) {
        let old = self.watched.iter().filter(|(_, (p, d))| *p == place && d != dir);
        for watch in old.map(|(watch, _)| *watch).collect::<Vec<_>>() {
            self.watched.remove(&watch);
            // It may have gone by itself, with its directory.
            let _ = self.inotify.rm_watch(watch);
        }
    }

    /// Everything that is there to read.
    pub fn read(&mut self) -> Result<Vec<News>> {
        let events = match self.inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN) => return Ok(Vec::new()),
            Err(e) => return Err(e).context("watch the agent's files"),
        };
        Ok(events.into_iter().filter_map(|event| self.news(event)).collect())
    }

    fn news(&mut self, event: InotifyEvent) -> Option<News> {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return Some(News::Lost);
        }
        if event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF) {
            return self.lose(event.wd);
        }
        let (place, dir) = self.watched.get(&event.wd)?;
        let path = dir.join(event.name?);
        let removed = event.mask.contains(AddWatchFlags::IN_DELETE);
        match place {
            WatchedDir::Records if removed => Claim::parse(&path).map(News::RecordRemoved),
            WatchedDir::Records => Claim::parse(&path).map(News::RecordWritten),
            WatchedDir::State if removed => None,
            WatchedDir::State if path == self.paths.settings_in_force() => Some(News::Settings),
            WatchedDir::State => (path == self.paths.boot_file()).then_some(News::Boot),
            WatchedDir::Cache => Some(News::Cached(path)),
            WatchedDir::Conflists => Some(News::Conflist),
            WatchedDir::K3s => (path == k3s::config(&self.paths)).then_some(News::K3s),
            WatchedDir::Pins => removed.then_some(News::Unpinned),
            WatchedDir::Above => {
                self.looked = None;
                None
            }
        }
    }

    /// The directory was removed or renamed; another one of that name may appear.
    fn lose(&mut self, watch: WatchDescriptor) -> Option<News> {
        let (place, _) = self.watched.remove(&watch)?;
        // Fails where it has gone.
        let _ = self.inotify.rm_watch(watch);
        self.looked = None;
        match place {
            WatchedDir::Conflists => Some(News::Conflist),
            WatchedDir::Pins => Some(News::Unpinned),
            _ => None,
        }
    }
}

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
