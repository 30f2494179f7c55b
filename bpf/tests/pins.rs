// SPDX-License-Identifier: Apache-2.0
//! Loading, and what [`bpf::Pins`] does to the maps, in a BPF file system of
//! this thread.
#![allow(clippy::expect_used, reason = "clippy's exception for tests leaves out helper functions")]

mod bpffs;

use std::path::Path;

use bpf::{Pins, Slot};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

fn slot(number: u16) -> Slot {
    Slot::new(number).expect("a slot")
}

/// Numbers of the slot's tables of flows, for egress, ingress and the guard.
fn tables(dir: &Path, slot: Slot) -> [Option<Vec<u8>>; 3] {
    let flows = MapHandle::from_pinned_path(dir.join("flows")).expect("flows");
    [0, 1, 2].map(|direction| {
        let key = (u32::from(slot.number()) * 3 + direction).to_ne_bytes();
        flows.lookup(&key, MapFlags::ANY).expect("look up")
    })
}

#[test]
fn slots_get_their_tables_of_flows_once() {
    let dir = bpffs::load();
    let pins = Pins::open(&dir).expect("open");
    let slots = [slot(500), slot(501)];
    assert_eq!(slots.map(|slot| tables(&dir, slot)), [[None, None, None], [None, None, None]]);
    pins.make_flows_for(&slots).expect("make");
    let made = slots.map(|slot| tables(&dir, slot));
    for [egress, ingress, guard] in &made {
        assert!(egress.is_some() && ingress.is_some() && egress != ingress, "{made:?}");
        assert_eq!(*guard, None);
    }
    pins.make_flows_for(&slots).expect("make again");
    pins.clear(slots[0]).expect("clear");
    assert_eq!(slots.map(|slot| tables(&dir, slot)), made);
}
