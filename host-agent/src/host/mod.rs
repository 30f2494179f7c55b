// SPDX-License-Identifier: Apache-2.0
//! The node as every part uses it: paths, whole files, locks, one capability
//! for the length of a call, what does what a unit forbids, and the log.

pub mod aide;
pub mod capability;
pub mod clock;
pub mod file;
pub mod lock;
pub mod logging;
pub mod netns;
pub mod paths;
pub mod peer;
