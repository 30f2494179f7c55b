// SPDX-License-Identifier: Apache-2.0
//! Where settings come from (documents in layers, user data of any format) and
//! which of them are in force (generations). What a setting means is the
//! settings model's.

pub mod document;
pub mod generation;
pub mod in_force;
pub mod in_words;
pub mod k3s;
pub mod kubelet_start;
pub mod layers;
pub mod user_data;
