// SPDX-License-Identifier: Apache-2.0
//! One pod: which limits it has, what is attached for them, and how that is
//! brought to a device. Knows one pod at a time; which pods are due is for
//! others to say.

pub mod annotations;
pub mod asked;
pub mod direction;
pub mod floors;
pub mod guard;
pub mod limit;
pub mod record;
pub mod runtime_config;
pub mod shaper;
pub mod sources;
pub mod time_to_live;
pub mod veth;
pub mod wanted;
