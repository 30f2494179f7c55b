// SPDX-License-Identifier: Apache-2.0
//! Everything at once, at random: see the module `chaos` for what is done, and
//! its `pace` for CHAOS_SECONDS, CHAOS_SEED and CHAOS_PACE.

use tests::chaos;
use tests::node::with_node;

#[test]
fn pods_keep_their_limits_and_nothing_is_left_whatever_is_killed_or_taken_off() {
    with_node(chaos::run);
}
