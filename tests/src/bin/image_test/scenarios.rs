// SPDX-License-Identifier: Apache-2.0
//! What the image promises, the longest first: two run at a time.

mod boot;
mod power;
mod settings;
mod slots;

use crate::scenario::Scenario;

pub fn all() -> Vec<Scenario> {
    let scenario = |name, run| Scenario { name, run };
    vec![
        scenario("power-cut", power::cut_at_many_points),
        scenario("never-ready", slots::an_agent_that_is_never_ready_falls_back),
        scenario("update", slots::an_update_keeps_the_data_and_is_blessed),
        scenario("corrupt-update", slots::a_corrupt_update_falls_back),
        scenario("corrupt-later", slots::a_slot_that_turns_corrupt_later_falls_back),
        scenario("pods", boot::a_pod_is_shaped_beside_policy),
        scenario("boot", boot::a_node_boots_to_its_agent),
        scenario("boot-share", boot::settings_take_little_of_the_boot),
        scenario("nvme", boot::a_node_boots_from_nvme),
        scenario("bad-user-data", settings::bad_user_data_does_not_stop_the_node),
        scenario("no-imds", settings::without_imds_the_node_boots),
        scenario("late-imds", settings::imds_may_come_late),
        scenario("imds-off", settings::imds_that_is_off_is_said),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_scenario_is_told_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/image.md");
        let text = std::fs::read_to_string(path).expect("read docs/image.md");
        let rows: String = text.lines().filter(|line| line.starts_with("| `")).collect();
        for scenario in super::all() {
            assert!(
                rows.contains(&format!("`{}`", scenario.name)),
                "{} is not told",
                scenario.name
            );
        }
    }
}
