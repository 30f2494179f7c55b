// SPDX-License-Identifier: Apache-2.0
//! Makes tables of flows. A table stays with its entry, because to put one into
//! a map of maps waits until no program can use what was there before
//! (kernel/bpf/syscall.c, maybe_wait_bpf_programs), 15 ms and more. What a table
//! holds of a slot's last pod is forgotten with the next one's first packet
//! (shaper.bpf.c), so no one has to open a table by its number, which asks for
//! CAP_SYS_ADMIN.

use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use crate::contract::{Direction, FLOWS_BYTES, Slot};
use crate::{Error, Result};

/// Slots whose tables of flows are there before a pod needs them; 16 KiB of the kernel's for each
/// table. Pods get the lowest free slot; one above these waits a little longer at ADD.
const SPARE_SLOTS: usize = 64;

/// All entries of these slots.
pub(crate) fn entries(
    slots: impl IntoIterator<Item = Slot>,
) -> impl Iterator<Item = (Slot, Direction)> {
    slots.into_iter().flat_map(|slot| Direction::BOTH.map(|direction| (slot, direction)))
}

/// Gives an empty table to every entry that has none, waiting once for all of them; 6.1 waits for
/// each, a second or two.
pub(crate) fn make(
    flows: &MapHandle,
    entries: impl IntoIterator<Item = (Slot, Direction)>,
) -> Result<()> {
    let (mut keys, mut tables, mut last) = (Vec::new(), Vec::new(), 0);
    for (slot, direction) in entries {
        let error = |source| Error::WriteMap { map: "flows", slot: slot.number(), source };
        let key = slot.key(direction);
        if flows.lookup(&key, MapFlags::ANY).map_err(error)?.is_none() {
            keys.extend(key);
            tables.push(new_table().map_err(error)?);
            last = slot.number();
        }
    }
    if tables.is_empty() {
        return Ok(());
    }
    let fds = tables.iter().flat_map(|table| table.as_fd().as_raw_fd().to_ne_bytes());
    let (fds, count) = (fds.collect::<Vec<_>>(), tables.len() as u32);
    flows
        .update_batch(&keys, &fds, count, MapFlags::ANY, MapFlags::ANY)
        .map_err(|source| Error::WriteMap { map: "flows", slot: last, source })
}

/// Makes the tables of the first slots.
pub(crate) fn make_spare(flows: &MapHandle) -> Result<()> {
    make(flows, entries(Slot::all().take(SPARE_SLOTS)))
}

fn new_table() -> libbpf_rs::Result<MapHandle> {
    let options =
        bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as u64, ..Default::default() };
    let size = FLOWS_BYTES as u32;
    MapHandle::create(MapType::Array, Some("sluice_flows"), 4, size, 1, &options)
}
