// SPDX-License-Identifier: Apache-2.0
//! What is secret about a boot: the number by which the guards know what has
//! passed a shaper (police.h, proof_of), and the key of the flows' hash. The same
//! for every load: what an older one has let pass is still under way then, and a
//! flow keeps its bucket. They are kept in a pinned map that no program uses.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, MapType};

use crate::contract::SLOTS;
use crate::{Error, Result};

const KEY: [u8; 4] = [0; 4];
const BYTES: usize = 16;

pub(crate) struct Secrets {
    pub(crate) proof_base: u32,
    pub(crate) hash_key: u64,
}

/// Those in force, made by the first load.
pub(crate) fn secrets(pin: &Path) -> Result<Secrets> {
    let kept = |source| Error::Proof { path: pin.to_owned(), source };
    let map = match MapHandle::from_pinned_path(pin) {
        Ok(map) => map,
        Err(e) if e.kind() == ErrorKind::NotFound => make(pin).map_err(kept)?,
        Err(e) => return Err(kept(e)),
    };
    let value = map.lookup(&KEY, MapFlags::ANY).map_err(kept)?.unwrap_or_default();
    let layout = Error::Layout { map: "proof", slot: 0 };
    let bytes: [u8; BYTES] = value.try_into().map_err(|_| layout)?;
    let number = u128::from_ne_bytes(bytes);
    let (base, key) = (number as u64, (number >> 64) as u64);
    // Such that no entry makes it 0 or more than 16 bits.
    let proof_base = 1 + (base % u64::from(u16::MAX - 2 * SLOTS)) as u32;
    Ok(Secrets { proof_base, hash_key: key })
}

fn make(pin: &Path) -> libbpf_rs::Result<MapHandle> {
    let options =
        bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as u64, ..Default::default() };
    let size = BYTES as u32;
    let mut map = MapHandle::create(MapType::Array, Some("sluice_proof"), 4, size, 1, &options)?;
    map.update(&KEY, &random()?, MapFlags::ANY)?;
    map.pin(pin)?;
    Ok(map)
}

fn random() -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
