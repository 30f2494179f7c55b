// SPDX-License-Identifier: Apache-2.0
//! The number by which the ingress guard knows what has passed a pod's shaper
//! (police.h, proof_of). New at each boot and secret, and the same for every load
//! in between: what an older load has let pass is still under way then. It is
//! kept in a pinned map that no program uses.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, MapType};

use crate::contract::SLOTS;
use crate::{Error, Result};

const KEY: [u8; 4] = [0; 4];

/// The number in force, made by the first load.
pub(crate) fn base(pin: &Path) -> Result<u32> {
    let kept = |source| Error::Proof { path: pin.to_owned(), source };
    let map = match MapHandle::from_pinned_path(pin) {
        Ok(map) => map,
        Err(e) if e.kind() == ErrorKind::NotFound => make(pin).map_err(kept)?,
        Err(e) => return Err(kept(e)),
    };
    let value = map.lookup(&KEY, MapFlags::ANY).map_err(kept)?.and_then(|v| v.try_into().ok());
    Ok(value.map_or(1, u32::from_ne_bytes))
}

fn make(pin: &Path) -> libbpf_rs::Result<MapHandle> {
    let options =
        bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as u64, ..Default::default() };
    let mut map = MapHandle::create(MapType::Array, Some("sluice_proof"), 4, 4, 1, &options)?;
    map.update(&KEY, &random()?.to_ne_bytes(), MapFlags::ANY)?;
    map.pin(pin)?;
    Ok(map)
}

/// Such that no slot makes it 0 or more than 16 bits.
fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(1 + u32::from_ne_bytes(bytes) % u32::from(u16::MAX - SLOTS))
}
