// SPDX-License-Identifier: Apache-2.0
//! Loading, and what [`bpf::Pins`] does to the maps, in a BPF file system of
//! this thread.
#![allow(clippy::expect_used, reason = "clippy's exception for tests leaves out helper functions")]

mod bpffs;

use std::fs;
use std::path::Path;

use bpf::{Delays, Direction, Limit, Mode, Pins, Slot};
use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

fn slot(number: u16) -> Slot {
    Slot::new(number).expect("a slot")
}

/// Numbers of the slot's tables of flows, for egress and ingress.
fn tables(dir: &Path, slot: Slot) -> [Option<Vec<u8>>; 2] {
    let flows = MapHandle::from_pinned_path(dir.join("flows")).expect("flows");
    [0, 1].map(|direction| {
        let key = (u32::from(slot.number()) * 2 + direction).to_ne_bytes();
        flows.lookup(&key, MapFlags::ANY).expect("look up")
    })
}

#[test]
fn slots_get_their_tables_of_flows_once() {
    let dir = bpffs::load();
    let pins = Pins::open(&dir).expect("open");
    let slots = [slot(500), slot(501)];
    assert_eq!(slots.map(|slot| tables(&dir, slot)), [[None, None], [None, None]]);
    pins.make_flows_for(&slots).expect("make");
    let made = slots.map(|slot| tables(&dir, slot));
    for [egress, ingress] in &made {
        assert!(egress.is_some() && ingress.is_some() && egress != ingress, "{made:?}");
    }
    pins.make_flows_for(&slots).expect("make again");
    pins.clear(slots[0]).expect("clear");
    assert_eq!(slots.map(|slot| tables(&dir, slot)), made);
}

#[test]
fn cleared_slot_is_as_new_and_its_neighbours_as_before() {
    let dir = bpffs::load();
    let pins = Pins::open(&dir).expect("open");
    let lines = lines(&dir);
    let above = [8u64, 7, 6, 5, 4, 3, 2, 1].into_iter().flat_map(u64::to_ne_bytes);
    let line: Vec<u8> = [0; 192].into_iter().chain(above).chain([0; 64]).collect();
    for number in [6u32, 7] {
        let key = (number * 2).to_ne_bytes();
        lines.update(&key, &line, MapFlags::ANY).expect("as the programs count");
    }
    pins.clear(slot(6)).expect("clear");
    assert_eq!(pins.delays(slot(6), Direction::Egress).expect("read"), Delays::default());
    let kept = pins.delays(slot(7), Direction::Egress).expect("read");
    assert_eq!(kept.longer, [36, 28, 21, 15, 10, 6, 3, 1]);
    assert_eq!(pins.delays(slot(7), Direction::Ingress).expect("read"), Delays::default());
}

fn lines(dir: &Path) -> MapHandle {
    MapHandle::from_pinned_path(dir.join("lines")).expect("lines")
}

#[test]
fn limit_is_written_and_the_rest_of_the_line_stays() {
    let dir = bpffs::load();
    let pins = Pins::open(&dir).expect("open");
    let (key, full) = (17u32.to_ne_bytes(), [7; 320]);
    lines(&dir).update(&key, &full, MapFlags::ANY).expect("as after some traffic");
    let limit = Limit { ns_per_byte: 8, horizon_ns: 9, mode: Mode::Policed, ..Limit::NONE };
    for limit in [limit, Limit::NONE] {
        pins.set_limit(slot(8), Direction::Ingress, limit).expect("set");
        assert_eq!(pins.limit(slot(8), Direction::Ingress).expect("read"), limit);
        let line = lines(&dir).lookup(&key, MapFlags::ANY).expect("read").expect("an entry");
        assert_eq!(line[64..], full[64..]);
    }
}

#[test]
fn newer_layout_is_left_in_force() {
    let dir = bpffs::load();
    let (bpffs, newer) = (Path::new(bpffs::BPFFS), dir.with_file_name("v10"));
    fs::create_dir(dir.with_file_name("v9")).expect("make a directory");
    fs::create_dir(dir.with_file_name("venerable")).expect("make a directory");
    fs::create_dir(&newer).expect("make a directory");
    assert_eq!(bpf::newer_layout(bpffs).expect("list"), Some(newer));
    let error = bpf::load_and_pin(&dir).expect_err("must be refused");
    assert_eq!(
        error.to_string(),
        "/sys/fs/bpf/sluice/v10 is of a newer version of sluice, whose limits are in force; start \
         that version, or end its limits with `sluice detach`"
    );
}

#[test]
fn older_layout_is_found_and_removed_with_all_its_pins() {
    let (dir, bpffs) = (bpffs::load(), Path::new(bpffs::BPFFS));
    assert_eq!(bpf::older_layouts(bpffs).expect("list"), Vec::<std::path::PathBuf>::new());
    let older = dir.with_file_name("v0");
    fs::rename(&dir, &older).expect("grow old");
    bpf::load_and_pin(&dir).expect("load beside it");
    fs::create_dir(older.join("links")).expect("make a directory");
    fs::rename(older.join("guard"), older.join("links/7")).expect("a pin further down");
    assert_eq!(bpf::newer_layout(bpffs).expect("list"), None);
    assert_eq!(bpf::older_layouts(bpffs).expect("list"), std::slice::from_ref(&older));
    bpf::remove_layout(&older).expect("remove");
    bpf::remove_layout(&older).expect("what is not there is no error");
    assert_eq!(bpf::older_layouts(bpffs).expect("list"), Vec::<std::path::PathBuf>::new());
    Pins::open(&dir).expect("ours is as it was");
}

#[test]
fn map_of_another_build_is_refused_with_the_remedy() {
    let dir = bpffs::load();
    fs::remove_file(dir.join("lines")).expect("unpin");
    let options =
        bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as u64, ..Default::default() };
    let mut smaller = MapHandle::create(MapType::Array, Some("lines"), 4, 256, 2048, &options)
        .expect("make a map");
    smaller.pin(dir.join("lines")).expect("pin");
    let error = bpf::load_and_pin(&dir).expect_err("must be refused");
    assert_eq!(
        error.to_string(),
        "/sys/fs/bpf/sluice/v2/lines was pinned by another build of sluice (Array, 2048 entries of \
         4 + 256 bytes, flags 0) and cannot be used by this one (Array, 2050 entries of 4 + 320 \
         bytes, flags 1024); end its limits with `sluice detach`, then start the agent"
    );
    bpf::remove_layout(&dir).expect("as detach does");
    bpf::load_and_pin(&dir).expect("load");
}
