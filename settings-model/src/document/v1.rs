// SPDX-License-Identifier: Apache-2.0

//! Documents of version 1, read into the settings of today.
//!
//! When a version 2 comes, its keys go to a `v2.rs` and an arm in `mod.rs`; this file then
//! keeps reading what version 1 said into what it means, and its fixtures stay as they are.

use crate::Settings;
use crate::sections::agent;
use crate::sections::bandwidth;
use crate::sections::cni;
use crate::sections::max_pods;
use crate::sections::prefix_delegation;
use crate::text::reader::Table;

pub(crate) fn read(table: &mut Table<'_, '_>, settings: &mut Settings) {
    table.section("bandwidth", &mut settings.bandwidth, bandwidth::read);
    table.section("cni", &mut settings.cni, cni::read);
    table.section("prefix-delegation", &mut settings.prefix_delegation, prefix_delegation::read);
    table.section("max-pods", &mut settings.max_pods, max_pods::read);
    table.section("agent", &mut settings.agent, agent::read);
}
