// SPDX-License-Identifier: Apache-2.0
//! Generations: each set of settings that was to be put in force on this node,
//! one file each. It is on the disk before anything is applied, but gets its name
//! only when it is known what became of it: `good` after all was read back, else
//! `failed`. A power cut before that leaves the last good one, and no new one.
//! Where the disk takes none (full, read-only) memory does, until the node restarts.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use serde::{Deserialize, Serialize};

use crate::host::file::{self, Staged};
use crate::host::paths::Paths;
use crate::settings::document::Document;

/// Enough to look back at; older ones are removed.
const KEPT: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Applied and read back.
    Good,
    /// Could not be applied and was undone; `reason` says why.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub number: u64,
    pub verdict: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The documents that the settings came from, lowest layer first.
    pub documents: Vec<Document>,
}

/// Where they are: on the disk, or in memory as long as that cannot be written.
pub struct Generations {
    disk: PathBuf,
    memory: PathBuf,
}

/// A generation that is to be put in force.
pub struct Begun {
    pub number: u64,
    /// Why it is in memory only.
    pub not_stored: Option<Error>,
    staged: Option<Staged>,
}

impl Generations {
    pub fn new(paths: &Paths) -> Self {
        Self { disk: paths.generations_dir(), memory: paths.generations_in_memory() }
    }

    /// All that can be read, oldest first. What cannot (a disk fault: no write of ours leaves half
    /// a file) is reported and left out.
    pub fn list(&self) -> Vec<Generation> {
        let mut found = [of(&self.memory), of(&self.disk)].concat();
        found.sort_by_key(|generation| generation.number);
        found.dedup_by_key(|generation| generation.number);
        found
    }

    /// The newest good one.
    pub fn last_good(&self) -> Option<Generation> {
        last_good(self.list())
    }

    /// The generation of these documents: the newest one if it is good and holds just them, else a
    /// new one, which is good as soon as it is `put`. Memory takes it where the disk cannot, unless there
    /// is a good one on the disk that may be fallen back to.
    pub fn begin(&self, documents: &[Document], falls_back: bool) -> Result<Begun> {
        let newest = self.list().into_iter().next_back();
        let is_same = |g: &&Generation| g.verdict == Verdict::Good && g.documents == documents;
        let same = newest.as_ref().filter(is_same).map(|same| same.number);
        let is_on_disk = |number: &u64| path(&self.disk, *number).exists();
        // One in memory was numbered when the disk could perhaps not even be read.
        let stored = same.filter(|number| !path(&self.memory, *number).exists());
        if let Some(number) = stored.filter(is_on_disk) {
            return Ok(Begun { number, not_stored: None, staged: None });
        }
        let next = newest.map(|newest| newest.number + 1);
        let number = same.filter(|number| !is_on_disk(number)).or(next).unwrap_or(1);
        let text = text(number, Verdict::Good, None, documents)?;
        match stage(&self.disk, number, &text) {
            Ok(staged) => Ok(Begun { number, not_stored: None, staged: Some(staged) }),
            Err(why) if falls_back && last_good(of(&self.disk)).is_some() => Err(why),
            Err(why) => {
                let staged = Some(stage(&self.memory, number, &text)?);
                Ok(Begun { number, not_stored: Some(why), staged })
            }
        }
    }

    /// The only step after which it can be fallen back to.
    pub fn is_good(&self, begun: Begun) -> Result<()> {
        let is_stored = begun.staged.is_some() && begun.not_stored.is_none();
        begun.staged.map_or(Ok(()), Staged::put)?;
        if is_stored {
            // As a rule there is none, and one that stays is older.
            let _ = fs::remove_dir_all(&self.memory);
        }
        self.prune(begun.number)
    }

    pub fn has_failed(&self, number: u64, documents: &[Document], reason: String) -> Result<()> {
        let text = text(number, Verdict::Failed, Some(reason), documents)?;
        file::replace(&path(&self.disk, number), text.as_bytes(), 0o644)
    }

    /// Called when `newest` has just become good, so no older one is needed to fall back to.
    fn prune(&self, newest: u64) -> Result<()> {
        let old = newest.saturating_sub(KEPT as u64);
        let mut all = self.list();
        all.retain(|generation| generation.number <= old);
        for dir in [&self.memory, &self.disk] {
            for generation in &all {
                let path = path(dir, generation.number);
                match fs::remove_file(&path) {
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    removed => {
                        removed.with_context(|| format!("remove {}", path.display()))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn of(dir: &Path) -> Vec<Generation> {
    let files = files(dir).unwrap_or_else(left_out).into_iter();
    files.filter_map(|path| read(&path).map(Some).unwrap_or_else(left_out)).collect()
}

fn last_good(all: Vec<Generation>) -> Option<Generation> {
    all.into_iter().rfind(|generation| generation.verdict == Verdict::Good)
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.json"))
}

fn stage(dir: &Path, number: u64, text: &str) -> Result<Staged> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    file::stage(&path(dir, number), text.as_bytes(), 0o644)
}

fn left_out<T: Default>(error: Error) -> T {
    log::warn!("{error:#}; left out");
    T::default()
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let attempt = || format!("list {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(attempt)?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths = paths.collect::<std::io::Result<Vec<_>>>().with_context(attempt)?;
    let is_generation = |path: &PathBuf| path.extension().is_some_and(|e| e == "json");
    Ok(paths.into_iter().filter(is_generation).collect())
}

fn text(
    number: u64,
    verdict: Verdict,
    reason: Option<String>,
    documents: &[Document],
) -> Result<String> {
    let generation = Generation { number, verdict, reason, documents: documents.to_vec() };
    Ok(serde_json::to_string_pretty(&generation)? + "\n")
}

fn read(path: &Path) -> Result<Generation> {
    let attempt = || format!("read {}", path.display());
    let text = fs::read(path).with_context(attempt)?;
    serde_json::from_slice(&text).with_context(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generations() -> (tempfile::TempDir, Generations) {
        let dir = tempfile::tempdir().unwrap();
        let generations = Generations::new(&Paths::below(dir.path()));
        (dir, generations)
    }

    fn documents(text: &str) -> Vec<Document> {
        vec![Document { name: "user-data".into(), text: text.into() }]
    }

    fn good(generations: &Generations, text: &str) -> u64 {
        let begun = generations.begin(&documents(text), true).unwrap();
        let number = begun.number;
        generations.is_good(begun).unwrap();
        number
    }

    fn failed(generations: &Generations, text: &str) -> u64 {
        let begun = generations.begin(&documents(text), true).unwrap();
        generations.has_failed(begun.number, &documents(text), "disk full".into()).unwrap();
        begun.number
    }

    #[test]
    fn unchanged_settings_make_no_new_generation() {
        let (_dir, generations) = generations();
        assert_eq!(good(&generations, "a"), 1);
        assert_eq!(good(&generations, "a"), 1);
        assert_eq!(good(&generations, "b"), 2);
        assert_eq!(good(&generations, "a"), 3);
    }

    #[test]
    fn failed_and_begun_ones_are_never_fallen_back_to() {
        let (_dir, generations) = generations();
        assert_eq!(generations.last_good(), None);
        good(&generations, "a");
        failed(&generations, "b");
        let begun = generations.begin(&documents("c"), true).unwrap();
        assert_eq!((begun.number, begun.staged.is_some()), (3, true));
        let last_good = generations.last_good().unwrap();
        assert_eq!(last_good.documents, documents("a"));
        let all = generations.list();
        assert_eq!(all.iter().map(|g| g.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(all[1].reason.as_deref(), Some("disk full"));
    }

    #[test]
    fn settings_that_failed_once_are_tried_anew() {
        let (_dir, generations) = generations();
        assert_eq!(failed(&generations, "b"), 1);
        assert_eq!(good(&generations, "b"), 2);
    }

    #[test]
    fn only_the_newest_are_kept_and_a_broken_file_is_left_out() {
        let (_dir, generations) = generations();
        for n in 0..9 {
            good(&generations, &n.to_string());
        }
        fs::write(path(&generations.disk, 77), "{").unwrap();
        let numbers: Vec<u64> = generations.list().iter().map(|g| g.number).collect();
        assert_eq!(numbers, [5, 6, 7, 8, 9]);
    }
    #[test]
    fn memory_takes_what_the_disk_cannot_and_the_disk_does_once_it_can() {
        let (dir, generations) = generations();
        good(&generations, "a");
        // Whatever is wrong with it: a file stands in for that, since root may write anywhere.
        let disk = dir.path().join("var/lib/sluice/generations");
        let aside = dir.path().join("aside");
        fs::rename(&disk, &aside).unwrap();
        fs::write(&disk, "").unwrap();
        let begun = generations.begin(&documents("b"), true).unwrap();
        assert!(begun.not_stored.is_some());
        generations.is_good(begun).unwrap();
        assert_eq!(generations.last_good().unwrap().documents, documents("b"));
        fs::remove_file(&disk).unwrap();
        fs::rename(&aside, &disk).unwrap();
        assert_eq!(good(&generations, "b"), 2);
        assert!(!generations.memory.exists());
        assert_eq!(generations.last_good().unwrap().documents, documents("b"));
    }

    #[test]
    fn good_one_on_the_disk_is_fallen_back_to_rather_than_memory_where_settings_say_so() {
        let (_dir, generations) = generations();
        good(&generations, "a");
        // No file can be written where a directory is.
        fs::create_dir(generations.disk.join(".2.json.tmp")).unwrap();
        assert!(generations.begin(&documents("b"), true).is_err());
        let begun = generations.begin(&documents("b"), false).unwrap();
        assert!(begun.number == 2 && begun.not_stored.is_some());
        generations.is_good(begun).unwrap();
        assert_eq!(generations.last_good().unwrap().documents, documents("b"));
    }
}
