// SPDX-License-Identifier: Apache-2.0
//! The map of lines. A limit is written in place, through memory that the map
//! shares, and the clock beside it goes on: a write of the whole value would set
//! that back. Only the pages of one line are mapped, and only for that: the kernel
//! maps all that is asked for at once (kernel/bpf/arraymap.c, array_map_mmap).

use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::null_mut;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::mm::{MapFlags as Sharing, ProtFlags, mmap, munmap};
use rustix::param::page_size;

use crate::contract::{Delays, Direction, LINE_BYTES, Limit, PodEnd, Share, Slot};
use crate::pins::open_map;
use crate::{Error, Result};

const WORDS: usize = LINE_BYTES / 8;
/// Words of contract.h's struct sluice_line.
const ACCOUNT: usize = 16;
const PASSED: usize = ACCOUNT + 1;
const END: usize = ACCOUNT + 4;
const CLOCK: usize = 8;
const DELAYS: usize = 24;
const SHARE: usize = 32;
const PATHS: usize = SHARE + 7;

pub(crate) struct Lines(MapHandle);

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        open_map(path).map(Self)
    }

    pub(crate) fn map(&self) -> &MapHandle {
        &self.0
    }

    /// In force at once. The rate is what makes it one: it comes last, or goes first.
    pub(crate) fn set_limit(&self, slot: Slot, direction: Direction, limit: Limit) -> Result<()> {
        self.write(slot, direction, |line| {
            let words = limit.to_words();
            if limit == Limit::NONE {
                line[0].store(0, Ordering::SeqCst);
            }
            let words = line.iter().zip(words).rev();
            words.for_each(|(word, value)| word.store(value, Ordering::SeqCst));
        })
    }

    /// Where a guard of this slot is; what it sees elsewhere takes it longer.
    pub(crate) fn set_guard_end(
        &self,
        slot: Slot,
        direction: Direction,
        end: PodEnd,
    ) -> Result<()> {
        let end = u64::from(end.netns) << 32 | u64::from(end.ifindex);
        self.write(slot, direction, |line| line[END].store(end, Ordering::Relaxed))
    }

    pub(crate) fn limit(&self, slot: Slot, direction: Direction) -> Result<Limit> {
        let line = self.read(slot, direction)?;
        Ok(Limit::from_words(std::array::from_fn(|word| line[word])))
    }

    pub(crate) fn delays(&self, slot: Slot, direction: Direction) -> Result<Delays> {
        let line = self.read(slot, direction)?;
        Ok(Delays::from_words(std::array::from_fn(|word| line[DELAYS + word])))
    }

    /// What the line has of the node's, or how the node's own line is.
    pub(crate) fn share(&self, slot: Slot, direction: Direction) -> Result<Share> {
        let line = self.read(slot, direction)?;
        Ok(Share {
            last_ns: line[CLOCK + 4],
            idle_ns: line[CLOCK + 5],
            weights: (line[CLOCK + 6] >> 32) as u32,
            waited_ns: line[SHARE + 6],
        })
    }

    /// What programs remember of the node's routes and uplinks is of those before.
    pub(crate) fn forget_paths(&self) -> Result<()> {
        let next = |line: &[AtomicU64]| {
            line[PATHS].fetch_add(1, Ordering::SeqCst);
        };
        Direction::BOTH.into_iter().try_for_each(|it| self.write(Slot::NODE, it, next))
    }

    /// What the guard has seen of what was charged.
    pub(crate) fn passed_bytes(&self, slot: Slot, direction: Direction) -> Result<u64> {
        Ok(self.read(slot, direction)?[PASSED])
    }

    /// As new: no limit, and everything at zero.
    pub(crate) fn clear(&self, slot: Slot, direction: Direction) -> Result<()> {
        let update = self.0.update(&slot.key(direction), &[0; LINE_BYTES], MapFlags::ANY);
        update.map_err(|source| Error::WriteMap { map: "lines", slot: slot.number(), source })
    }

    fn read(&self, slot: Slot, direction: Direction) -> Result<[u64; WORDS]> {
        let (map, number) = ("lines", slot.number());
        let value = self.0.lookup(&slot.key(direction), MapFlags::ANY);
        let value = value.map_err(|source| Error::ReadMap { map, slot: number, source })?;
        let value = value.filter(|value| value.len() == LINE_BYTES);
        let value = value.ok_or(Error::Layout { map, slot: number })?;
        let word = |word: &[u8]| word.try_into().map_or(0, u64::from_ne_bytes);
        let mut words = value.chunks_exact(8).map(word);
        Ok(std::array::from_fn(|_| words.next().unwrap_or_default()))
    }

    fn write(
        &self,
        slot: Slot,
        direction: Direction,
        write: impl FnOnce(&[AtomicU64]),
    ) -> Result<()> {
        let at = slot.index(direction) as usize * LINE_BYTES;
        let within = at % page_size();
        let bytes = within + LINE_BYTES;
        let error = |source: rustix::io::Errno| Error::MapLine {
            slot: slot.number(),
            source: source.into(),
        };
        // SAFETY: the kernel chooses an address that nothing has.
        let memory = unsafe {
            let (access, sharing) = (ProtFlags::READ | ProtFlags::WRITE, Sharing::SHARED);
            let offset = (at - within) as u64;
            mmap(null_mut(), bytes, access, sharing, self.0.as_fd(), offset)
        };
        let memory = memory.map_err(error)?;
        // SAFETY: the memory is there until it is unmapped below, page-aligned, and has so many bytes;
        // programs and other processes write it too, so it is only ever seen as atomic words.
        let words = unsafe { slice::from_raw_parts(memory.cast::<AtomicU64>(), bytes / 8) };
        write(&words[within / 8..]);
        // SAFETY: mapped above, and no reference is left.
        unsafe { munmap(memory, bytes) }.map_err(error)
    }
}
