// SPDX-License-Identifier: Apache-2.0
//! Rates and waiting times between two pictures of the node. Pure.

use std::collections::HashMap;

use super::{Line, PodStatus};
use crate::status::Pods;

/// Enters into `pods`, read at `at_ns`, what was measured since `before`. A pod that is new has
/// nothing measured yet.
pub fn measure(before: &Pods, at_ns: u64, pods: &mut [PodStatus]) {
    let elapsed_ns = at_ns.saturating_sub(before.at_ns);
    let known: HashMap<_, _> = before.pods.iter().map(|pod| (identity(pod), pod)).collect();
    for pod in pods {
        let Some(then) = known.get(&identity(pod)) else { continue };
        measure_line(&mut pod.egress, &then.egress, elapsed_ns);
        measure_line(&mut pod.ingress, &then.ingress, elapsed_ns);
        if let (Some(guard), Some(then)) = (&mut pod.guard, &then.guard) {
            guard.measured_bps = bits_per_sec(then.passed_bytes, guard.passed_bytes, elapsed_ns);
        }
    }
}

/// The same attachment, so that its counters have only gone up.
fn identity(pod: &PodStatus) -> (u16, String, String, String) {
    (pod.slot, pod.namespace.clone(), pod.pod.clone(), pod.interface.clone())
}

fn measure_line(line: &mut Line, before: &Line, elapsed_ns: u64) {
    line.measured_bps = bits_per_sec(before.sent_bytes, line.sent_bytes, elapsed_ns);
    let wait_ns = line.wait_ns.saturating_sub(before.wait_ns);
    let packets = line.sent_packets.saturating_sub(before.sent_packets);
    line.mean_wait_ns = wait_ns.checked_div(packets);
    if let (Some(share), Some(before)) = (&mut line.share, &before.share) {
        share.measured_bps = bits_per_sec(before.sent_bytes, share.sent_bytes, elapsed_ns);
        share.mean_wait_ns = share.wait_ns.saturating_sub(before.wait_ns).checked_div(packets);
    }
}

fn bits_per_sec(before: u64, after: u64, elapsed_ns: u64) -> Option<u64> {
    let bits = u128::from(after.saturating_sub(before)) * 8;
    let per_sec = (bits * 1_000_000_000).checked_div(elapsed_ns.into())?;
    u64::try_from(per_sec).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::node_share::PodShare;
    use crate::status::node_share::tests::share;
    use crate::status::text::tests::pod;

    fn at(at_ns: u64, sent_bytes: u64, sent_packets: u64, wait_ns: u64) -> Pods {
        let mut pod = pod();
        pod.egress = Line { sent_bytes, sent_packets, wait_ns, ..pod.egress };
        Pods { at_ns, node_share: Default::default(), pods: vec![pod], degraded: Vec::new() }
    }

    fn measured(before: &Pods, mut after: Pods) -> (Option<u64>, Option<u64>) {
        measure(before, after.at_ns, &mut after.pods);
        let egress = &after.pods[0].egress;
        (egress.measured_bps, egress.mean_wait_ns)
    }

    #[test]
    fn rate_is_bytes_over_the_interval_and_wait_the_mean_of_its_packets() {
        let measured = measured(&at(0, 0, 10, 5_000), at(500_000_000, 1_250_000, 14, 9_000));
        assert_eq!(measured, (Some(20_000_000), Some(1_000)));
    }

    #[test]
    fn what_of_the_wait_is_for_the_node_is_measured_apart() {
        let (mut before, mut after) = (at(0, 0, 10, 5_000), at(1_000_000_000, 9, 20, 95_000));
        before.pods[0].egress.share = Some(PodShare { sent_bytes: 0, wait_ns: 1_000, ..share() });
        after.pods[0].egress.share = Some(PodShare { sent_bytes: 125, wait_ns: 51_000, ..share() });
        measure(&before, after.at_ns, &mut after.pods);
        let share = after.pods[0].egress.share.as_ref().unwrap();
        assert_eq!((share.measured_bps, share.mean_wait_ns), (Some(1_000), Some(5_000)));
        assert_eq!(after.pods[0].egress.mean_wait_ns, Some(9_000));
    }

    #[test]
    fn idle_pod_has_a_rate_of_nothing_and_no_wait() {
        assert_eq!(measured(&at(0, 7, 10, 5_000), at(1, 7, 10, 5_000)), (Some(0), None));
    }

    #[test]
    fn another_pod_in_the_same_slot_is_not_measured_against_the_first() {
        let mut after = at(500, 1_000_000, 10, 0);
        after.pods[0].pod = "other".into();
        assert_eq!(measured(&at(0, 0, 0, 0), after), (None, None));
    }

    #[test]
    fn no_time_at_all_gives_no_rate() {
        assert_eq!(measured(&at(5, 0, 0, 0), at(5, 9, 1, 0)).0, None);
    }
}
