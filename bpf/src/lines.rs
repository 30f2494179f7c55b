// SPDX-License-Identifier: Apache-2.0
//! The map of lines, in this process' memory: a limit is written in place, and
//! the clock beside it goes on. A write of the whole value would set that back.

use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::null_mut;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::mm::{MapFlags as Sharing, ProtFlags, mmap, munmap};

use crate::contract::{Delays, Direction, LINE_BYTES, Limit, PodEnd, SLOTS, Slot};
use crate::pins::open_map;
use crate::{Error, Result};

const BYTES: usize = SLOTS as usize * 2 * LINE_BYTES;
/// Words of contract.h's struct sluice_line.
const ACCOUNT: usize = 16;
const PASSED: usize = ACCOUNT + 1;
const END: usize = ACCOUNT + 4;
const DELAYS: usize = 24;

pub(crate) struct Lines {
    map: MapHandle,
    words: &'static [AtomicU64],
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let map = open_map(path)?;
        let error = |source| Error::MapLines { path: path.to_owned(), source };
        // SAFETY: the kernel chooses an address that nothing has.
        let memory = unsafe {
            let (access, sharing) = (ProtFlags::READ | ProtFlags::WRITE, Sharing::SHARED);
            mmap(null_mut(), BYTES, access, sharing, map.as_fd(), 0)
        };
        let memory = memory.map_err(|e| error(e.into()))?;
        // SAFETY: the memory is there until `drop`, so long and page-aligned; the programs and other
        // processes write it, and so it is only ever seen as atomic words.
        let words = unsafe { slice::from_raw_parts(memory.cast::<AtomicU64>(), BYTES / 8) };
        Ok(Self { map, words })
    }

    pub(crate) fn map(&self) -> &MapHandle {
        &self.map
    }

    /// In force at once. The rate is what makes it one: it comes last, or goes first.
    pub(crate) fn set_limit(&self, slot: Slot, direction: Direction, limit: Limit) {
        let words = limit.to_words();
        let line = &self.line(slot, direction)[..words.len()];
        if limit == Limit::NONE {
            line[0].store(0, Ordering::SeqCst);
        }
        line.iter().zip(words).rev().for_each(|(word, value)| word.store(value, Ordering::SeqCst));
    }

    pub(crate) fn limit(&self, slot: Slot, direction: Direction) -> Limit {
        let line = self.line(slot, direction);
        Limit::from_words(std::array::from_fn(|word| line[word].load(Ordering::Relaxed)))
    }

    pub(crate) fn delays(&self, slot: Slot, direction: Direction) -> Delays {
        let line = &self.line(slot, direction)[DELAYS..];
        Delays::from_words(std::array::from_fn(|word| line[word].load(Ordering::Relaxed)))
    }

    /// What the guard has seen of what was charged.
    pub(crate) fn passed_bytes(&self, slot: Slot, direction: Direction) -> u64 {
        self.line(slot, direction)[PASSED].load(Ordering::Relaxed)
    }

    /// Where a guard of this slot is; what it sees elsewhere takes it longer.
    pub(crate) fn set_guard_end(&self, slot: Slot, direction: Direction, end: PodEnd) {
        let word = u64::from(end.netns) << 32 | u64::from(end.ifindex);
        self.line(slot, direction)[END].store(word, Ordering::Relaxed);
    }

    /// As new: no limit, and everything at zero.
    pub(crate) fn clear(&self, slot: Slot, direction: Direction) -> Result<()> {
        self.set_limit(slot, direction, Limit::NONE);
        let update = self.map.update(&slot.key(direction), &[0; LINE_BYTES], MapFlags::ANY);
        update.map_err(|source| Error::WriteMap { map: "lines", slot: slot.number(), source })
    }

    fn line(&self, slot: Slot, direction: Direction) -> &[AtomicU64] {
        let words = LINE_BYTES / 8;
        let first = slot.index(direction) as usize * words;
        &self.words[first..first + words]
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let memory = self.words.as_ptr().cast_mut().cast();
        // SAFETY: mapped in `open`, and no reference outlives `self`.
        let _ = unsafe { munmap(memory, BYTES) };
    }
}
