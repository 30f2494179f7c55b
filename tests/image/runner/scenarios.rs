// SPDX-License-Identifier: Apache-2.0
//! What the image promises. The longest comes first, and makes an updated machine; those that need none come next, so that
//! no one waits for it.

mod ami;
mod boot;
mod executables;
mod extension;
mod power;
mod secure_boot;
mod settings;
mod slots;
pub mod updated;

use crate::scenario::Scenario;

pub fn all() -> Vec<Scenario> {
    let scenario = |name, run| Scenario { name, run, alone: false };
    vec![
        Scenario { alone: true, ..scenario("boot", boot::a_node_boots_to_its_agent) },
        scenario("ami", ami::what_ec2_needs_is_checked),
        scenario("executables", executables::every_executable_has_a_reason),
        scenario("secure-boot", secure_boot::only_what_is_signed_starts),
        scenario("never-ready", slots::an_agent_that_is_never_ready_falls_back),
        scenario("one-image", slots::a_node_with_one_image_stays_up_after_its_tries),
        scenario("pods", boot::a_pod_is_shaped_beside_policy),
        scenario("sysext", extension::an_extension_is_merged_over_another_root),
        scenario("no-imds", settings::without_imds_the_node_boots),
        scenario("bad-user-data", settings::bad_user_data_does_not_stop_the_node),
        scenario("late-imds", settings::imds_may_come_late),
        scenario("imds-off", settings::imds_that_is_off_is_said),
        scenario("update", slots::an_update_keeps_the_data_and_is_blessed),
        scenario("power-cut-1", power::after_a_cut_there_is_a_whole_image_1),
        scenario("power-cut-2", power::after_a_cut_there_is_a_whole_image_2),
        scenario("power-cut-3", power::after_a_cut_there_is_a_whole_image_3),
        scenario("power-cut-4", power::after_a_cut_there_is_a_whole_image_4),
        scenario("corrupt-update", slots::a_corrupt_update_falls_back),
    ]
}

#[cfg(test)]
mod tests {
    /// `sluice-node-retry` counts on it: its last try is +0-2.
    #[test]
    fn every_slot_begins_with_two_tries() {
        let image = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../image-build");
        for (file, line) in [
            ("mkosi.extra/etc/kernel/tries", "2"),
            ("sysupdate/30-uki.transfer", "TriesLeft=2"),
            ("sysupdate/30-uki.transfer", "TriesDone=0"),
        ] {
            let text = std::fs::read_to_string(image.join(file)).expect("read it");
            assert!(text.lines().any(|found| found == line), "{file}: {line}");
        }
        let units = image.join("mkosi.extra/usr/lib/systemd/system");
        let read = |unit: &str| std::fs::read_to_string(units.join(unit)).expect("read it");
        assert!(read("sluice-node-rearm.service").contains("_%A+2.efi"));
        let conditions = |unit: &str, sign: &str| -> Vec<_> {
            let text = read(unit);
            let lines = text.lines().filter_map(|l| l.strip_prefix("ConditionPathExistsGlob="));
            lines.map(|l| l.strip_prefix(sign).expect(sign).to_owned()).collect()
        };
        let more = conditions("sluice-node-retry.service", "!");
        assert_eq!(more, conditions("sluice-node-stay.service", "|"));
        assert_eq!(
            more,
            ["3-9].efi", "1-9][0-9]*.efi"].map(|e| format!("/boot/EFI/Linux/%M_%A+0-[{e}"))
        );
    }

    #[test]
    fn every_scenario_is_told_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/image.md");
        let text = std::fs::read_to_string(path).expect("read docs/image.md");
        let rows: String = text.lines().filter(|line| line.starts_with("| `")).collect();
        for scenario in super::all() {
            assert!(
                rows.contains(&format!("`{}`", scenario.name)),
                "{} is not reported",
                scenario.name
            );
        }
    }
}
