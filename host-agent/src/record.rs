// SPDX-License-Identifier: Apache-2.0
//! Records of shaped pod interfaces under /run/sluice/pods. The directory is
//! also the allocation table of slots: a file is called
//! `<slot>@<container id>@<interface>.json`, so one listing under one lock
//! tells which slots are taken. A record is written before anything is
//! attached and removed last, so nothing is ever attached that no record names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bpf::{Mode, Slot};
use serde::{Deserialize, Serialize};

use crate::file;
use crate::limit::{Limit, Origin};

/// Identity of a pod interface, as the runtime names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub container_id: String,
    pub ifname: String,
}

/// What was asked for and done for one pod interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub namespace: String,
    pub pod: String,
    pub netns: PathBuf,
    pub host_ifname: String,
    pub host_ifindex: u32,
    pub egress: Shaping,
    pub ingress: Shaping,
}

/// One direction of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shaping {
    Unlimited,
    Limited {
        bits_per_sec: u64,
        origin: Origin,
        /// Absent until the attachment is complete.
        mode: Option<RecordedMode>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedMode {
    Paced,
    Policed,
}

impl From<Mode> for RecordedMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Paced => Self::Paced,
            Mode::Policed => Self::Policed,
        }
    }
}

impl Shaping {
    pub fn of(limit: Option<&Limit>, mode: Option<Mode>) -> Self {
        limit.map_or(Self::Unlimited, |limit| Self::Limited {
            bits_per_sec: limit.rate.bits_per_sec(),
            origin: limit.origin,
            mode: mode.map(RecordedMode::from),
        })
    }
}

/// The maps have no room for another pod interface.
#[derive(Debug, thiserror::Error)]
#[error("no free slot: all {} are taken", bpf::SLOTS - 1)]
pub struct NoFreeSlot;

/// The directory of records.
pub struct Records {
    dir: PathBuf,
}

/// A record's file, which holds its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub slot: Slot,
    pub key: Key,
    path: PathBuf,
}

impl Records {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Takes the lowest free slot for this interface and writes its record.
    pub fn claim(&self, key: Key, record: &Record) -> Result<Claim> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let _lock = self.lock()?;
        let claims = self.list()?;
        let slot = Slot::all()
            .find(|slot| claims.iter().all(|claim| claim.slot != *slot))
            .ok_or(NoFreeSlot)?;
        let name = format!("{}@{}@{}.json", slot.number(), key.container_id, key.ifname);
        let claim = Claim { slot, key, path: self.dir.join(name) };
        claim.write(record)?;
        Ok(claim)
    }

    /// The claim of this interface, if it has one.
    pub fn find(&self, key: &Key) -> Result<Option<Claim>> {
        Ok(self.list()?.into_iter().find(|claim| claim.key == *key))
    }

    /// All claims, by slot. A directory that is not there holds none.
    pub fn list(&self) -> Result<Vec<Claim>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("list {}", self.dir.display())),
        };
        let mut claims = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", self.dir.display()))?;
            claims.extend(Claim::parse(&entry.path()));
        }
        claims.sort_by_key(|claim| claim.slot);
        Ok(claims)
    }

    /// Held until the file is closed, by whatever end of the process; held only for a listing and
    /// one small file, so waiting needs no bound.
    fn lock(&self) -> Result<File> {
        let path = self.dir.join(".lock");
        let lock = || File::create(&path).and_then(|file| file.lock().map(|()| file));
        lock().with_context(|| format!("lock {}", path.display()))
    }
}

impl Claim {
    fn parse(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".json")?;
        let mut parts = stem.splitn(3, '@');
        let slot = Slot::new(parts.next()?.parse().ok()?)?;
        let key = Key { container_id: parts.next()?.into(), ifname: parts.next()?.into() };
        Some(Self { slot, key, path: path.to_owned() })
    }

    pub fn write(&self, record: &Record) -> Result<()> {
        file::replace(&self.path, serde_json::to_string_pretty(record)?.as_bytes(), 0o644)
    }

    pub fn read(&self) -> Result<Record> {
        let text = fs::read(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", self.path.display()))
    }

    /// Frees the slot.
    pub fn release(&self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            namespace: "default".into(),
            pod: "web".into(),
            netns: "/run/netns/web".into(),
            host_ifname: "eni1".into(),
            host_ifindex: 7,
            egress: Shaping::Unlimited,
            ingress: Shaping::Limited {
                bits_per_sec: 1000,
                origin: Origin::PodAnnotation,
                mode: Some(RecordedMode::Paced),
            },
        }
    }

    fn key(id: &str) -> Key {
        Key { container_id: id.into(), ifname: "eth0".into() }
    }

    #[test]
    fn lowest_free_slot_is_given_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().join("pods"));
        let first = records.claim(key("a"), &record()).unwrap();
        let second = records.claim(key("b"), &record()).unwrap();
        assert_eq!((first.slot.number(), second.slot.number()), (1, 2));
        first.release().unwrap();
        assert_eq!(records.claim(key("c"), &record()).unwrap().slot.number(), 1);
        assert_eq!(records.find(&key("b")).unwrap(), Some(second));
        assert_eq!(records.find(&key("a")).unwrap(), None);
    }

    #[test]
    fn full_directory_says_so() {
        let dir = tempfile::tempdir().unwrap();
        for slot in Slot::all() {
            File::create(dir.path().join(format!("{}@x{0}@eth0.json", slot.number()))).unwrap();
        }
        let error = Records::new(dir.path().into()).claim(key("a"), &record()).unwrap_err();
        assert_eq!(error.to_string(), "no free slot: all 1023 are taken");
    }

    #[test]
    fn record_reads_back_and_foreign_files_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().into());
        File::create(dir.path().join("notes.json")).unwrap();
        File::create(dir.path().join("0@x@eth0.json")).unwrap();
        let claim = records.claim(key("a"), &record()).unwrap();
        assert_eq!(records.list().unwrap(), vec![claim.clone()]);
        assert_eq!(claim.read().unwrap(), record());
    }
}
