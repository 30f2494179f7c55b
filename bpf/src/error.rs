// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with BPF, by what was attempted. The few errnos that
//! people meet are translated here and nowhere else.

use std::path::PathBuf;

use crate::contract::PodEnd;
use crate::layouts::MapShape;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("load the BPF programs{}", hint(.source))]
    Load { source: libbpf_rs::Error },
    #[error(
        "{} is of a newer version of sluice, whose limits are in force; start that version, or end \
         its limits with `sluice detach`",
        dir.display()
    )]
    NewerLayout { dir: PathBuf },
    #[error(
        "{} was pinned by another build of sluice ({found}) and cannot be used by this one \
         ({needed}); end its limits with `sluice detach`, then start the agent",
        path.display()
    )]
    MapShape { path: PathBuf, found: MapShape, needed: MapShape },
    #[error("create {}", path.display())]
    CreatePinDir { path: PathBuf, source: std::io::Error },
    #[error("pin {}", path.display())]
    Pin { path: PathBuf, source: libbpf_rs::Error },
    #[error("rename a new pin to {}", path.display())]
    ReplacePin { path: PathBuf, source: std::io::Error },
    #[error("open the pin {}", path.display())]
    OpenPin { path: PathBuf, source: libbpf_rs::Error },
    #[error("attach the guard to the device with index {ifindex}")]
    Attach { ifindex: u32, source: std::io::Error },
    #[error("pin {} again", path.display())]
    PutBack { path: PathBuf, source: std::io::Error },
    #[error("pin the guard's link to {}", path.display())]
    PinLink { path: PathBuf, source: std::io::Error },
    #[error("remove the pin {}", path.display())]
    Unpin { path: PathBuf, source: std::io::Error },
    #[error("list {}", path.display())]
    List { path: PathBuf, source: std::io::Error },
    #[error("ask for a program's number")]
    ProgramId { source: std::io::Error },
    #[error("read or write the guard's slot of the device with index {ifindex}")]
    GuardSlot { ifindex: u32, source: libbpf_rs::Error },
    #[error("read or write the slot of the pod's end {end:?}")]
    PodEnd { end: PodEnd, source: libbpf_rs::Error },
    #[error("keep the proof of passage in {}", path.display())]
    Proof { path: PathBuf, source: libbpf_rs::Error },
    #[error("map the lines of slot {slot} into memory")]
    MapLine { slot: u16, source: std::io::Error },
    #[error("write {map}")]
    NodeMap { map: &'static str, source: libbpf_rs::Error },
    #[error("write {map} of slot {slot}")]
    WriteMap { map: &'static str, slot: u16, source: libbpf_rs::Error },
    #[error("read {map} of slot {slot}")]
    ReadMap { map: &'static str, slot: u16, source: libbpf_rs::Error },
    #[error("read {map} of slot {slot}: the value is not of this version's layout")]
    Layout { map: &'static str, slot: u16 },
}

impl Error {
    /// True when a pin is simply not there: the agent has not run since boot.
    pub fn is_not_pinned(&self) -> bool {
        matches!(self, Self::OpenPin { source, .. } if source.kind() == libbpf_rs::ErrorKind::NotFound)
    }
}

fn hint(source: &libbpf_rs::Error) -> &'static str {
    match source.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => " (needs CAP_BPF and CAP_NET_ADMIN)",
        _ => "",
    }
}
