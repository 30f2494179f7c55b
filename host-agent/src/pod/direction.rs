// SPDX-License-Identifier: Apache-2.0
//! The two directions of a pod's traffic, seen from the pod, as the maps have them.

pub use bpf::Direction;
