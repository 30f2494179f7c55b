// SPDX-License-Identifier: Apache-2.0
//! Records of shaped pod interfaces under /run/sluice/pods. The directory is
//! also the allocation table of slots: a file is called
//! `<slot>@<container id>@<interface>.json`, so one listing under one lock
//! shows which slots are taken. A record is written before anything is
//! attached and removed last, so nothing is ever attached that no record names.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bpf::Slot;
use serde::{Deserialize, Serialize};
use settings_model::{Bandwidth, Limit as Choice};

use crate::host::file;
use crate::host::lock::Lock;
use crate::host::logging::harmless;
use crate::host::paths::Paths;
use crate::netlink::Gso;
use crate::pod::asked::{Annotated, Override, as_text};
use crate::pod::direction::Direction;
use crate::pod::limit::{Limit, Origin};
use crate::pod::wanted::Wanted;

/// Identity of a pod interface, as the runtime names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub container_id: String,
    pub ifname: String,
}

/// What was asked for and done for one pod interface. Pods without a limit have a record too, so
/// that new settings can give them one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub namespace: String,
    pub pod: String,
    pub netns: PathBuf,
    /// Name of the CNI network, whose GC may judge this interface. None in records of older versions,
    /// which no GC touches.
    #[serde(default)]
    pub network: Option<String>,
    pub annotated: Annotated,
    /// An override, for a while.
    pub live: Option<Override>,
    /// How this interface came to have a record.
    pub came: Arrival,
    /// The interface whose ADD made this one too, and whose slot it shares; None for an interface
    /// that the runtime knows of.
    pub main: Option<String>,
    /// None as long as nothing was ever attached.
    pub host: Option<HostEnd>,
    pub egress: Shaping,
    pub ingress: Shaping,
    /// None without a limit on egress.
    pub guard: Option<Guard>,
    /// Why ADD has let the pod start without the limits that it may have; None once it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<String>,
    /// None without a limit on ingress, and in records of older versions.
    #[serde(default)]
    pub ingress_guard: Option<IngressGuard>,
}

/// How a record came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// By ADD, in this time. None: ADD was not completed.
    Added { took_ns: Option<u64> },
    /// The chain missed it; the agent found it in the runtime's result cache, perhaps made by a chain
    /// with the upstream bandwidth plugin, whose limits ours take the place of.
    Adopted { beside_upstream: bool },
    /// It came with the interface that `main` names.
    Along,
}

/// The veth's end on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEnd {
    pub ifname: String,
    pub ifindex: u32,
}

/// One direction of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shaping {
    Unlimited,
    Limited {
        bits_per_sec: u64,
        origin: Origin,
        /// What was asked for, where a maximum has lowered it. Absent from records of older versions.
        #[serde(with = "as_text", default, skip_serializing_if = "Option::is_none")]
        asked: Option<Choice>,
        /// Absent until the attachment is complete.
        mode: Option<Mode>,
        /// Of the device that sends in this direction, before we clamped it.
        gso_before: Gso,
    },
}

/// How a limit is enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Paced,
    Policed,
    /// By the guard alone, because of what this says.
    Guarded(String),
}

impl From<bpf::Mode> for Mode {
    fn from(mode: bpf::Mode) -> Self {
        match mode {
            bpf::Mode::Paced => Self::Paced,
            bpf::Mode::Policed => Self::Policed,
        }
    }
}

/// Where the guard is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// Not yet anywhere: the agent puts it there, for a tcx link takes 15 ms.
    Pending,
    /// A tcx link at the head of the host end's ingress.
    Tcx,
    /// A filter in front of the others, on the clsact of network policy.
    Clsact,
    /// Nowhere, and why.
    Off(String),
}

/// The guard on the pod's own end, and that end as the program knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressGuard {
    /// Inode of the pod's network namespace.
    pub netns: u32,
    /// Inside that.
    pub ifindex: u32,
    pub state: Guard,
}

impl IngressGuard {
    pub fn end(&self) -> bpf::PodEnd {
        bpf::PodEnd { netns: self.netns, ifindex: self.ifindex }
    }
}

impl Shaping {
    pub fn of(limit: &Limit, mode: Option<Mode>, gso_before: Gso) -> Self {
        let bits_per_sec = limit.rate.bits_per_sec();
        let Limit { origin, asked, .. } = *limit;
        Self::Limited { bits_per_sec, origin, asked, mode, gso_before }
    }

    pub fn is_unlimited(&self) -> bool {
        *self == Self::Unlimited
    }

    pub fn gso_before(&self) -> Option<Gso> {
        match self {
            Self::Unlimited => None,
            Self::Limited { gso_before, .. } => Some(*gso_before),
        }
    }
}

impl Record {
    /// Of a pod that nothing is known of, with nothing attached: who it is and what it asks for goes
    /// over that.
    pub fn blank(came: Arrival) -> Self {
        Self {
            namespace: String::new(),
            pod: String::new(),
            netns: PathBuf::new(),
            network: None,
            annotated: Annotated::default(),
            live: None,
            came,
            main: None,
            host: None,
            egress: Shaping::Unlimited,
            ingress: Shaping::Unlimited,
            guard: None,
            admitted: None,
            ingress_guard: None,
        }
    }

    pub fn is_unlimited(&self) -> bool {
        self.egress.is_unlimited() && self.ingress.is_unlimited()
    }

    /// What these settings, and whatever was said about this pod, give it.
    pub fn wanted(&self, bandwidth: &Bandwidth) -> Wanted {
        Wanted::of(bandwidth, &self.namespace, &self.pod, &self.annotated, self.live.as_ref())
    }

    /// How long its ADD took, if it was by that and has finished.
    pub fn took_ns(&self) -> Option<u64> {
        match self.came {
            Arrival::Added { took_ns } => took_ns,
            _ => None,
        }
    }

    /// The record of another interface of the same pod, that came with this one.
    pub fn for_other(&self, main: &str) -> Self {
        let Self { namespace, pod, netns, network, annotated, live, .. } = self.clone();
        let main = Some(main.into());
        let blank = Self::blank(Arrival::Along);
        Self { namespace, pod, netns, network, annotated, live, main, ..blank }
    }

    pub fn directions(&self) -> [(Direction, &Shaping); 2] {
        [(Direction::Egress, &self.egress), (Direction::Ingress, &self.ingress)]
    }
}

/// Of a verb: the agent holds a pod for milliseconds, and a runtime waits for two minutes and more.
pub const VERBS_WAIT: Duration = Duration::from_secs(30);
/// For a listing and one small file.
const RECORDS_WAIT: Duration = Duration::from_secs(10);

/// The maps have no room for another pod interface.
#[derive(Debug, thiserror::Error)]
#[error("no free slot: all {} are taken", bpf::SLOTS - 1)]
pub struct NoFreeSlot;

/// The directory of records.
pub struct Records {
    dir: PathBuf,
    pods: Lock,
    containers: Lock,
    records: Lock,
}

/// A record's file, which holds its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub slot: Slot,
    pub key: Key,
    path: PathBuf,
}

impl Records {
    pub fn new(paths: &Paths) -> Self {
        Self {
            dir: paths.pods_dir(),
            pods: paths.pods_lock(),
            containers: paths.containers_lock(),
            records: paths.records_lock(),
        }
    }

    /// Takes the lowest free slot for this interface, or that of the one it came with, and writes its
    /// record. What a writer that was killed has left of this container goes on the way.
    pub fn claim(&self, key: Key, record: &Record) -> Result<Claim> {
        let _lock = self.lock()?;
        let claims = self.list_without_unfinished(&key)?;
        let main = record.main.as_ref().and_then(|main| {
            let key = Key { container_id: key.container_id.clone(), ifname: main.clone() };
            claims.iter().find(|claim| claim.key == key)
        });
        let free = || Slot::all().find(|slot| claims.iter().all(|claim| claim.slot != *slot));
        let slot = main.map(|main| main.slot).or_else(free).ok_or(NoFreeSlot)?;
        let name = format!("{}@{}@{}.json", slot.number(), key.container_id, key.ifname);
        let claim = Claim { slot, key, path: self.dir.join(name) };
        claim.write(record)?;
        Ok(claim)
    }

    /// The same for many interfaces at once, with one listing; those that have a record are left out.
    /// Also gives the names of the pods that found no free slot.
    pub fn claim_all(&self, wanted: Vec<(Key, Record)>) -> Result<(Vec<Claim>, Vec<String>)> {
        let _lock = self.lock()?;
        let taken = self.list()?;
        let keys: BTreeSet<_> = taken.iter().map(|claim| &claim.key).collect();
        let slots: BTreeSet<_> = taken.iter().map(|claim| claim.slot).collect();
        let mut free = Slot::all().filter(|slot| !slots.contains(slot));
        let (mut claims, mut without) = (Vec::new(), Vec::new());
        for (key, record) in wanted.into_iter().filter(|(key, _)| !keys.contains(key)) {
            let Some(slot) = free.next() else {
                without.push(harmless(&format!("{}/{}", record.namespace, record.pod)));
                continue;
            };
            let name = format!("{}@{}@{}.json", slot.number(), key.container_id, key.ifname);
            let claim = Claim { slot, key, path: self.dir.join(name) };
            claim.write(&record)?;
            claims.push(claim);
        }
        Ok((claims, without))
    }

    /// The claim of this interface, if it has one.
    pub fn find(&self, key: &Key) -> Result<Option<Claim>> {
        Ok(self.list()?.into_iter().find(|claim| claim.key == *key))
    }

    /// This interface's claim, and those of the interfaces that came with it, which go first.
    pub fn find_all(&self, key: &Key) -> Result<Vec<Claim>> {
        let mut claims = self.list()?;
        claims.retain(|claim| claim.key.container_id == key.container_id);
        let came_along =
            |claim: &Claim| claim.read().is_ok_and(|r| r.main.as_ref() == Some(&key.ifname));
        claims.retain(|claim| claim.key == *key || came_along(claim));
        claims.sort_by_key(|claim| claim.key == *key);
        Ok(claims)
    }

    /// All claims, by slot. A directory that is not there holds none.
    pub fn list(&self) -> Result<Vec<Claim>> {
        Ok(claims(&self.files()?))
    }

    /// Whether a slot is free.
    pub fn has_room(&self) -> Result<()> {
        let taken: BTreeSet<_> = self.list()?.iter().map(|claim| claim.slot).collect();
        let free = Slot::all().any(|slot| !taken.contains(&slot));
        if free { Ok(()) } else { Err(NoFreeSlot.into()) }
    }

    /// Whether there is a directory. Without one nothing was attached since the node started.
    pub fn is_there(&self) -> bool {
        self.dir.exists()
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let error = || format!("list {}", self.dir.display());
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(error)?,
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<std::io::Result<_>>().with_context(error)
    }

    /// Held by a verb from reading the settings until its record is as it leaves it; any number of
    /// verbs at once.
    pub fn share(&self) -> Result<File> {
        self.pods.share(VERBS_WAIT)
    }

    /// Held for a moment by the one that gives slots to pods that are there already: no verb runs
    /// meanwhile.
    pub fn seize(&self, patience: Duration) -> Result<File> {
        self.pods.take(patience)
    }

    /// Held by the one that works on this container's devices, a verb or the agent, so that no record is
    /// written again that a DEL has removed. Nothing else waits for it: how long that work takes is up
    /// to the pod.
    pub fn hold(&self, container_id: &str, patience: Duration) -> Result<File> {
        self.containers.take_place(place_of(container_id), patience)
    }

    /// Writes a record again, unless it has been removed meanwhile; says whether it is there.
    pub fn rewrite(&self, claim: &Claim, record: &Record) -> Result<bool> {
        let _lock = self.lock()?;
        let there = claim.path.exists();
        if there {
            claim.write(record)?;
        }
        Ok(there)
    }

    /// Frees the slot.
    pub fn release(&self, claim: &Claim) -> Result<()> {
        let _lock = self.lock()?;
        remove(&claim.path)?;
        self.remove_unfinished(&claim.key)
    }

    /// Removes what a writer that was killed has left of this container's records.
    pub fn tidy(&self, key: &Key) -> Result<()> {
        let _lock = self.lock()?;
        self.remove_unfinished(key)
    }

    /// The same for every container; only for a holder of all records, so that no writer lives.
    pub fn tidy_all(&self) -> Result<()> {
        let _lock = self.lock()?;
        let files = self.files()?;
        files.iter().filter(|path| is_unfinished(path)).try_for_each(|path| remove(path))
    }

    /// No one is at it now: the agent writes under the lock, or while no verb runs, and a runtime calls
    /// one verb of a container after the other.
    fn remove_unfinished(&self, key: &Key) -> Result<()> {
        self.list_without_unfinished(key).map(|_| ())
    }

    fn list_without_unfinished(&self, key: &Key) -> Result<Vec<Claim>> {
        let of_container = format!("@{}@", key.container_id);
        let files = self.files()?;
        for path in files.iter().filter(|path| is_unfinished(path)) {
            if name(path).contains(&of_container) {
                remove(path)?;
            }
        }
        Ok(claims(&files))
    }

    fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        self.records.take(RECORDS_WAIT)
    }
}

/// Of a container's byte in the lock's file, which has no end: FNV-1a. Two at one place would only wait
/// for each other.
fn place_of(container_id: &str) -> i64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = container_id.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    (hash >> 2).cast_signed()
}

fn claims(files: &[PathBuf]) -> Vec<Claim> {
    let mut claims: Vec<_> = files.iter().filter_map(|path| Claim::parse(path)).collect();
    claims.sort_by_key(|claim| claim.slot);
    claims
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn is_unfinished(path: &Path) -> bool {
    file::is_temporary(&name(path))
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}

impl Claim {
    /// By the name of its file alone, which may have gone.
    pub fn parse(path: &Path) -> Option<Self> {
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

    pub fn is_there(&self) -> bool {
        self.path.exists()
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
            network: Some("main".into()),
            annotated: Annotated { ingress: "1kbit".parse().ok(), ..Annotated::default() },
            live: Some(Override { egress: "1Mbit".parse().ok(), ingress: None, until: 7 }),
            came: Arrival::Added { took_ns: Some(1) },
            main: None,
            host: Some(HostEnd { ifname: "eni1".into(), ifindex: 7 }),
            egress: Shaping::Unlimited,
            ingress: Shaping::Limited {
                bits_per_sec: 1000,
                origin: Origin::PodAnnotation,
                asked: "2kbit".parse().ok(),
                mode: Some(Mode::Guarded("because".into())),
                gso_before: Gso { max_size: 65536, ipv4_max_size: None },
            },
            guard: Some(Guard::Off("no tcx".into())),
            admitted: None,
            ingress_guard: Some(IngressGuard { netns: 8, ifindex: 3, state: Guard::Tcx }),
        }
    }

    fn none() -> (tempfile::TempDir, Records) {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(&Paths::below(dir.path()));
        fs::create_dir_all(&records.dir).unwrap();
        (dir, records)
    }

    fn key(id: &str) -> Key {
        Key { container_id: id.into(), ifname: "eth0".into() }
    }

    #[test]
    fn lowest_free_slot_is_given_and_comes_back() {
        let (_dir, records) = none();
        let first = records.claim(key("a"), &record()).unwrap();
        let second = records.claim(key("b"), &record()).unwrap();
        assert_eq!((first.slot.number(), second.slot.number()), (1, 2));
        records.release(&first).unwrap();
        assert_eq!(records.claim(key("c"), &record()).unwrap().slot.number(), 1);
        assert_eq!(records.find(&key("b")).unwrap(), Some(second));
        assert_eq!(records.find(&key("a")).unwrap(), None);
    }

    #[test]
    fn record_that_was_removed_is_not_written_again() {
        let (_dir, records) = none();
        let claim = records.claim(key("a"), &record()).unwrap();
        assert!(records.rewrite(&claim, &record()).unwrap());
        records.release(&claim).unwrap();
        assert!(!records.rewrite(&claim, &record()).unwrap());
        assert_eq!(records.list().unwrap(), vec![]);
    }

    #[test]
    fn unfinished_records_of_a_container_go_with_it_and_no_others() {
        let (_dir, records) = none();
        let claim = records.claim(key("a"), &record()).unwrap();
        let leave = |name: &str| File::create(records.dir.join(name)).map(|_| ()).unwrap();
        let names = [".7@a@eth0.json.tmp", ".1@a@eth1.json.tmp", ".8@b@eth0.json.tmp"];
        names.into_iter().for_each(leave);
        records.release(&claim).unwrap();
        let left = || names.map(|name| records.dir.join(name).exists());
        assert_eq!(left(), [false, false, true]);
        records.tidy(&key("b")).unwrap();
        assert_eq!(left(), [false; 3]);
        names.into_iter().for_each(leave);
        records.claim(key("a"), &record()).unwrap();
        assert_eq!(left(), [false, false, true]);
        records.tidy_all().unwrap();
        assert_eq!(left(), [false; 3]);
    }

    #[test]
    fn record_of_a_version_without_networks_is_still_read() {
        let mut value = serde_json::to_value(record()).unwrap();
        value.as_object_mut().unwrap().remove("network");
        let read: Record = serde_json::from_value(value).unwrap();
        assert_eq!(read, Record { network: None, ..record() });
    }

    #[test]
    fn record_of_a_version_without_maxima_is_still_read() {
        let mut value = serde_json::to_value(record()).unwrap();
        value["ingress"]["limited"].as_object_mut().unwrap().remove("asked").unwrap();
        let read: Record = serde_json::from_value(value).unwrap();
        let Shaping::Limited { bits_per_sec: 1000, asked: None, .. } = read.ingress else {
            panic!("{:?}", read.ingress);
        };
    }

    #[test]
    fn full_directory_says_so() {
        let (_dir, records) = none();
        for slot in Slot::all() {
            File::create(records.dir.join(format!("{}@x{0}@eth0.json", slot.number()))).unwrap();
        }
        let error = records.claim(key("a"), &record()).unwrap_err();
        assert_eq!(error.to_string(), "no free slot: all 1023 are taken");
    }

    #[test]
    fn record_reads_back_and_foreign_files_are_left_out() {
        let (_dir, records) = none();
        File::create(records.dir.join("notes.json")).unwrap();
        File::create(records.dir.join("0@x@eth0.json")).unwrap();
        let claim = records.claim(key("a"), &record()).unwrap();
        assert_eq!(records.list().unwrap(), vec![claim.clone()]);
        assert_eq!(claim.read().unwrap(), record());
    }
}
