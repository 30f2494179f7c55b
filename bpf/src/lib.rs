// SPDX-License-Identifier: Apache-2.0
//! All that touches BPF: loading, pinning, and the maps that both the agent
//! and the CNI plugin use. It knows slots and limits, never pods or devices.
//! Attaching is netlink's business and lives in host-agent; this crate hands
//! out program file descriptors. Only tcx links, a thing of BPF, are made here.
//!
//! Pins live in one directory named by the ABI (`/sys/fs/bpf/sluice/v2`), so
//! two layouts never meet.

mod contract;
mod error;
mod ethtool;
mod flows;
mod layouts;
mod lines;
mod node;
mod pins;
mod program;
mod proof;
mod shaper;
pub mod survey;
mod tcx;

pub use contract::{
    ABI, Counters, DELAY_BOUNDS_NS, Delays, Direction, Limit, Mode, NS_PER_BYTE_SHIFT, PodEnd,
    SLOTS, Share, Slot,
};
pub use error::Error;
pub use ethtool::Ethtool;
pub use layouts::{MapShape, newer_layout, older_layouts, remove_all_layouts, remove_layout};
pub use node::{Prefix, Routes, Where};
pub use pins::{Pins, pin_dir};
pub use shaper::load_and_pin;

/// Result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
