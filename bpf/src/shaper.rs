// SPDX-License-Identifier: Apache-2.0
//! Loads the object and pins it: open → re-use pinned maps → load → pin.
//! Maps that are already pinned are kept with all they hold, so a restart
//! never loses a limit or a clock. Programs are pinned under a new name and
//! renamed over the old pin, so a pin is there at every moment.

use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{OpenMapMut, ProgramMut};

use crate::pins::{POD_GUARD, open_map};
use crate::{Error, Result, flows, layouts, proof, tcx};

macro_rules! skeletons {
    ($($name:ident: $file:literal,)+) => { $(
        #[allow(clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::expect_used)]
        #[allow(clippy::panic, clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn, dead_code)]
        pub(crate) mod $name {
            include!(concat!(env!("OUT_DIR"), $file));
        }
    )+ };
}

skeletons! {
    skel: "/shaper.skel.rs",
    pod_guard: "/pod_guard.skel.rs",
}

/// Loads the programs and pins them and their maps under `dir`, keeping maps that are there. Refuses
/// beside a newer layout, and where a pinned map is of another shape.
pub fn load_and_pin(dir: &Path) -> Result<()> {
    if let Some(dir) = layouts::newer_than(dir)? {
        return Err(Error::NewerLayout { dir });
    }
    fs::create_dir_all(dir)
        .map_err(|source| Error::CreatePinDir { path: dir.to_owned(), source })?;
    let secrets = proof::secrets(&dir.join("proof"))?;
    let mut object = MaybeUninit::uninit();
    let mut open = skel::ShaperSkelBuilder::default()
        .open(&mut object)
        .map_err(|source| Error::Load { source })?;
    keep_pinned(&mut open.maps.lines, &dir.join("lines"))?;
    keep_pinned(&mut open.maps.counters, &dir.join("counters"))?;
    keep_pinned(&mut open.maps.flows, &dir.join("flows"))?;
    keep_pinned(&mut open.maps.guards, &dir.join("guards"))?;
    keep_pinned(&mut open.maps.pod_ends, &dir.join("pod_ends"))?;
    keep_pinned(&mut open.maps.unshaped, &dir.join("unshaped"))?;
    keep_pinned(&mut open.maps.routes, &dir.join("routes"))?;
    keep_pinned(&mut open.maps.uplinks, &dir.join("uplinks"))?;
    if let Some(rodata) = &mut open.maps.rodata_data {
        rodata.proof_base = secrets.proof_base;
        rodata.hash_key = secrets.hash_key;
    }
    let mut loaded = open.load().map_err(|source| Error::Load { source })?;
    // Before the programs' pins, which say that pods can come.
    flows::make_spare(&open_map(&dir.join("flows"))?)?;
    load_pod_guard(dir, secrets.proof_base)?;
    replace_pin(&mut loaded.progs.ingress_guard, &dir.join("ingress_guard"))?;
    replace_pin(&mut loaded.progs.guard, &dir.join("guard"))?;
    replace_pin(&mut loaded.progs.shape_egress, &dir.join("shape_egress"))?;
    replace_pin(&mut loaded.progs.shape_ingress, &dir.join("shape_ingress"))
}

/// The ingress guard for tcx. Where the kernel has no BTF of its own it cannot be loaded, and the
/// one for clsact has to do.
fn load_pod_guard(dir: &Path, proof_base: u32) -> Result<()> {
    let pin = dir.join(POD_GUARD);
    let mut object = MaybeUninit::uninit();
    let mut open = pod_guard::PodGuardSkelBuilder::default()
        .open(&mut object)
        .map_err(|source| Error::Load { source })?;
    let maps = &mut open.maps;
    for (map, name) in [
        (&mut maps.lines, "lines"),
        (&mut maps.pod_ends, "pod_ends"),
        (&mut maps.unshaped, "unshaped"),
    ] {
        keep_pinned(map, &dir.join(name))?;
    }
    let unused = [
        &mut maps.counters,
        &mut maps.flows,
        &mut maps.guards,
        &mut maps.routes,
        &mut maps.uplinks,
    ];
    for map in unused {
        map.set_autocreate(false).map_err(|source| Error::Load { source })?;
    }
    if let Some(rodata) = &mut maps.rodata_data {
        rodata.proof_base = proof_base;
    }
    match open.load() {
        Ok(mut loaded) => replace_pin(&mut loaded.progs.ingress_guard_tcx, &pin),
        Err(_) => tcx::remove_pin(&pin),
    }
}

/// libbpf re-uses the map at this path, or pins the new one there, when it loads.
fn keep_pinned(map: &mut OpenMapMut, path: &Path) -> Result<()> {
    layouts::check_shape(map, path)?;
    map.set_pin_path(path).map_err(|source| Error::Pin { path: path.to_owned(), source })
}

fn replace_pin(program: &mut ProgramMut, path: &Path) -> Result<()> {
    // No dot in the name: bpffs refuses those (kernel/bpf/inode.c, bpf_lookup).
    let mut new = path.as_os_str().to_owned();
    new.push("_new");
    let new = PathBuf::from(new);
    // A leftover of a load that was killed here; absent in the ordinary case.
    let _ = fs::remove_file(&new);
    program.pin(&new).map_err(|source| Error::Pin { path: new.clone(), source })?;
    fs::rename(&new, path).map_err(|source| Error::ReplacePin { path: path.to_owned(), source })
}
