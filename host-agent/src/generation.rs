// SPDX-License-Identifier: Apache-2.0
//! Generations: each set of settings that was to be put in force on this node,
//! one file each. It is on the disk before anything is applied, but gets its name
//! only when it is known what became of it: `good` after all was read back, else
//! `failed`. A power cut before that leaves the last good one, and no new one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::file::{self, Staged};
use crate::layers::Document;

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

/// The directory of generations.
pub struct Generations {
    dir: PathBuf,
}

impl Generations {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// All that can be read, oldest first. What cannot (a disk fault: no write of ours leaves half
    /// a file) is told and left out.
    pub fn list(&self) -> Result<Vec<Generation>> {
        let mut found = Vec::new();
        for path in self.files()? {
            match read(&path) {
                Ok(generation) => found.push(generation),
                Err(error) => log::warn!("{error:#}; left out"),
            }
        }
        found.sort_by_key(|generation| generation.number);
        Ok(found)
    }

    /// The newest good one.
    pub fn last_good(&self) -> Result<Option<Generation>> {
        Ok(self.list()?.into_iter().rfind(|generation| generation.verdict == Verdict::Good))
    }

    /// The generation of these documents: the newest one if it is good and holds just them, else a
    /// new one, which is good as soon as it is `put`.
    pub fn begin(&self, documents: &[Document]) -> Result<(u64, Option<Staged>)> {
        let newest = self.list()?.into_iter().next_back();
        let number = newest.as_ref().map_or(1, |newest| newest.number + 1);
        if let Some(same) =
            newest.filter(|g| g.verdict == Verdict::Good && g.documents == documents)
        {
            return Ok((same.number, None));
        }
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let text = text(number, Verdict::Good, None, documents)?;
        Ok((number, Some(file::stage(&self.path(number), text.as_bytes(), 0o644)?)))
    }

    /// The only step after which it can be fallen back to.
    pub fn is_good(&self, number: u64, staged: Option<Staged>) -> Result<()> {
        staged.map_or(Ok(()), Staged::put)?;
        self.prune(number)
    }

    pub fn has_failed(&self, number: u64, documents: &[Document], reason: String) -> Result<()> {
        let text = text(number, Verdict::Failed, Some(reason), documents)?;
        file::replace(&self.path(number), text.as_bytes(), 0o644)
    }

    /// Called when `newest` has just become good, so no older one is needed to fall back to.
    fn prune(&self, newest: u64) -> Result<()> {
        let old = newest.saturating_sub(KEPT as u64);
        for generation in self.list()?.iter().filter(|generation| generation.number <= old) {
            let path = self.path(generation.number);
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number}.json"))
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let attempt = || format!("list {}", self.dir.display());
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(attempt)?,
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let paths = paths.collect::<std::io::Result<Vec<_>>>().with_context(attempt)?;
        let is_generation = |path: &PathBuf| path.extension().is_some_and(|e| e == "json");
        Ok(paths.into_iter().filter(is_generation).collect())
    }
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
        let generations = Generations::new(dir.path().join("generations"));
        (dir, generations)
    }

    fn documents(text: &str) -> Vec<Document> {
        vec![Document { name: "user-data".into(), text: text.into() }]
    }

    fn good(generations: &Generations, text: &str) -> u64 {
        let (number, staged) = generations.begin(&documents(text)).unwrap();
        generations.is_good(number, staged).unwrap();
        number
    }

    fn failed(generations: &Generations, text: &str) -> u64 {
        let (number, _staged) = generations.begin(&documents(text)).unwrap();
        generations.has_failed(number, &documents(text), "disk full".into()).unwrap();
        number
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
        assert_eq!(generations.last_good().unwrap(), None);
        good(&generations, "a");
        failed(&generations, "b");
        let begun = generations.begin(&documents("c")).unwrap();
        assert_eq!((begun.0, begun.1.is_some()), (3, true));
        let last_good = generations.last_good().unwrap().unwrap();
        assert_eq!(last_good.documents, documents("a"));
        let all = generations.list().unwrap();
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
        fs::write(generations.path(77), "{").unwrap();
        let numbers: Vec<u64> = generations.list().unwrap().iter().map(|g| g.number).collect();
        assert_eq!(numbers, [5, 6, 7, 8, 9]);
    }
}
