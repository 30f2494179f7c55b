// SPDX-License-Identifier: Apache-2.0
//! The guard on the host's end of a pod that has a limit on egress: a pod that
//! may change its own network cannot take it off there. It counts, and speaks
//! only when the pod sends more than its own shaper would have let through.
//!
//! With tcx it is a link at the head, which nobody else's filters can get in
//! front of by accident. Without, it is a guest on network policy's clsact: never
//! makes or removes that, never has its handle, and stands in front of it,
//! because policy's OK ends the chain (docs/decisions/0006-guard.md).
//!
//! The agent attaches it, soon after ADD: a new tcx link waits until no packet is
//! under way in the old list (kernel/bpf/tcx.c, tcx_entry_sync), ten times as
//! long as all the rest of an ADD.

use anyhow::Result;
use bpf::{Direction, Pins, Slot};
use nix::errno::Errno;

use crate::attach::End;
use crate::netlink::{FILTER_HANDLE, Filter};
use crate::record::Guard;

/// Puts the guard where this kernel and this device let it be.
pub fn attach(pins: &Pins, slot: Slot, host: &mut End) -> Result<Guard> {
    match pins.attach_guard(host.link.index, slot)? {
        true => Ok(Guard::Tcx),
        false => bring_to_front(pins, slot, host),
    }
}

/// Makes the filter the first one of clsact, where there is a clsact.
pub fn bring_to_front(pins: &Pins, slot: Slot, host: &mut End) -> Result<Guard> {
    let filters = host.netlink.ingress_filters(&host.link)?;
    let program = pins.program(Direction::Guard);
    let filter = Filter { program, name: "sluice_guard", slot: slot.number() };
    match filters.iter().position(|listed| listed.handle == FILTER_HANDLE) {
        Some(0) if filters[0].program_id == Some(pins.program_id(Direction::Guard)?) => {
            return Ok(Guard::Clsact);
        }
        Some(0) => {
            host.netlink.replace_ingress_filter(&host.link, &filter)?;
            return Ok(Guard::Clsact);
        }
        Some(_) => host.netlink.delete_ingress_filter(&host.link)?,
        None => {}
    }
    match host.netlink.add_ingress_filter(&host.link, &filter) {
        Ok(()) => Ok(Guard::Clsact),
        // No clsact, or somebody's filter of another kind has the priority that policy shares.
        Err(e) if e.errno() == Some(Errno::EINVAL) => Ok(Guard::Off(off_reason(host))),
        Err(e) => Err(e.into()),
    }
}

/// Takes it off, wherever it is; what is not there is no error.
pub fn detach(pins: &Pins, slot: Slot, host: &mut End, guard: &Guard) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    if *guard == Guard::Clsact {
        let deleted = host.netlink.delete_ingress_filter(&host.link);
        errors.extend(deleted.err().filter(|e| !e.is_not_found()).map(anyhow::Error::from));
    }
    errors.extend(pins.detach_guard(host.link.index, slot).err().map(anyhow::Error::from));
    errors
}

fn off_reason(host: &End) -> String {
    format!("no tcx in this kernel and no clsact on {} that it can share", host.link.name)
}
