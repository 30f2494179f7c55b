// SPDX-License-Identifier: Apache-2.0
//! One interface of a pod as its record and counters have it, and what that
//! says in words.

use std::collections::BTreeMap;

use bpf::Counters;
use serde::{Deserialize, Serialize};
use settings_model::{Bandwidth, Limit};

use super::node_share::PodShare;
use crate::host::logging::harmless;
use crate::pod::asked::{Annotated, Override, as_text};
use crate::pod::limit::Origin;
use crate::pod::record::{Arrival, Guard, Mode, Shaping};
use crate::pod::wanted::Wanted;
use crate::trouble::some;

/// One interface of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    pub namespace: String,
    /// Empty where the runtime gives no name.
    pub pod: String,
    pub container_id: String,
    pub interface: String,
    /// None as long as nothing was ever attached.
    pub host_interface: Option<String>,
    /// The higher, the newer.
    pub host_ifindex: Option<u32>,
    pub slot: u16,
    pub came: Arrival,
    /// The interface whose slot this one shares.
    pub main: Option<String>,
    pub annotated: Annotated,
    /// An override, for a while.
    pub live: Option<Override>,
    pub egress: Line,
    pub ingress: Line,
    /// None without a limit on egress.
    pub guard: Option<GuardLine>,
    /// None without a limit on ingress, and as long as the agent has not seen the pod.
    #[serde(default)]
    pub bypassed: Option<Bypassed>,
}

/// How a pod's limits are enforced, the worse of its two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodState {
    Unlimited,
    Paced,
    Policed,
    Guarded,
    /// A limit is not enforced where it should be.
    Broken,
}

impl PodState {
    pub const ALL: [Self; 5] =
        [Self::Paced, Self::Policed, Self::Guarded, Self::Unlimited, Self::Broken];

    pub fn name(self) -> &'static str {
        match self {
            Self::Unlimited => "unlimited",
            Self::Paced => "paced",
            Self::Policed => "policed",
            Self::Guarded => "guarded",
            Self::Broken => "broken",
        }
    }
}

/// One direction of one pod. Packets and bytes (of L2 frames) are counted since ADD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub limit_bps: Option<u64>,
    pub origin: Option<Origin>,
    /// What was asked for, where a maximum has lowered it: a rate or "unlimited".
    #[serde(with = "as_text", default)]
    pub asked: Option<Limit>,
    /// Of an interval; None in what was read once.
    pub measured_bps: Option<u64>,
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub dropped_packets: u64,
    pub dropped_bytes: u64,
    /// Of the dropped ones: those that a queue above the latency target cost.
    pub aqm_dropped_packets: u64,
    /// Of the dropped ones: those that came before there was a table of flows.
    pub unready_dropped_packets: u64,
    /// Not among the dropped but the sent ones: those that fq dropped below. None where it was not read.
    #[serde(default)]
    pub fq_dropped_packets: Option<u32>,
    pub marked_packets: u64,
    /// Sum of what every sent packet was made to wait.
    pub wait_ns: u64,
    /// Mean time for which a packet of the interval waited; None if there was none.
    pub mean_wait_ns: Option<u64>,
    /// When a packet was last dropped, by reason.
    pub last_drops: Drops,
    /// How long packets waited; only what is paced is. None without a limit.
    pub delays: Option<Waits>,
    /// Of the node's line; None where pods do not share that.
    #[serde(default)]
    pub share: Option<PodShare>,
    /// `paced`, `policed` or `guarded`.
    pub mode: Option<String>,
    /// Whether the limit is not enforced where it should be.
    pub broken: bool,
    /// Why the mode is what it is, or what is wrong.
    pub reason: String,
}

/// Times in nanoseconds since the node started; None if it never happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    pub horizon_at_ns: Option<u64>,
    pub aqm_at_ns: Option<u64>,
}

/// Packets by how long they waited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Upper bound in nanoseconds (None: no bound) and number of packets up to it from the bound
    /// before.
    pub buckets: Vec<(Option<u64>, u64)>,
}

/// What the host's end says of what the pod sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardLine {
    /// `tcx`, `clsact`, `pending` or `off`.
    pub state: String,
    pub reason: String,
    pub measured_bps: Option<u64>,
    /// All that it let pass.
    pub passed_bytes: u64,
    /// What came past the pod's own shaper, the dropped ones included.
    pub unshaped_packets: u64,
    pub dropped_packets: u64,
    /// When it last dropped one: nanoseconds since the node started.
    pub last_drop_at_ns: Option<u64>,
}

/// What reached the pod without passing its shaper on the host's end; the guard in the pod polices it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypassed {
    /// State of that guard: `tcx`, `clsact`, `pending` or `off`.
    pub guard: String,
    pub reason: String,
    /// Dropped ones included.
    pub packets: u64,
    pub bytes: u64,
    pub dropped_packets: u64,
    /// When one was last dropped: nanoseconds since the node started.
    pub last_drop_at_ns: Option<u64>,
}

impl Waits {
    fn of(delays: &bpf::Delays, sent_packets: u64) -> Self {
        let mut before = 0;
        let mut bucket = |bound, within: u64| {
            let packets = within.saturating_sub(before);
            before = before.max(within);
            (bound, packets)
        };
        let bounded = bpf::DELAY_BOUNDS_NS.into_iter().zip(delays.within(sent_packets));
        let mut buckets: Vec<_> =
            bounded.map(|(bound, within)| bucket(Some(bound), within)).collect();
        buckets.push(bucket(None, sent_packets));
        Self { buckets }
    }

    /// Upper bound of the bucket that holds this percentile; None in the last one, or without packets.
    pub fn percentile_ns(&self, percent: u64) -> Option<u64> {
        let all: u64 = self.buckets.iter().map(|(_, packets)| packets).sum();
        let mut seen = 0;
        let reached = self.buckets.iter().find(|(_, packets)| {
            seen += packets;
            all > 0 && u128::from(seen) * 100 >= u128::from(all) * u128::from(percent)
        });
        reached.and_then(|(bound, _)| *bound)
    }
}

/// How much of a container's id is shown, as the runtimes' tools do.
const SHORT_ID: usize = 13;

/// Which of these need their container's id to be distinct: those that the runtime gave no name,
/// and of several sandboxes of one name all but the newest. A pod that was deleted by force comes
/// again before the old sandbox has gone.
pub fn need_container(pods: &[PodStatus]) -> Vec<bool> {
    let name = |pod: &PodStatus| (pod.namespace.clone(), pod.pod.clone(), pod.interface.clone());
    let age = |pod: &PodStatus| (pod.host_ifindex, pod.slot);
    let mut newest = BTreeMap::new();
    for pod in pods {
        let seen = newest.entry(name(pod)).or_insert(age(pod));
        *seen = age(pod).max(*seen);
    }
    pods.iter().map(|pod| pod.pod.is_empty() || newest.get(&name(pod)) != Some(&age(pod))).collect()
}

impl PodStatus {
    /// For people: no name can act on a terminal.
    pub fn name(&self) -> String {
        match self.pod.is_empty() {
            true => format!("container {}", self.short_id()),
            false => harmless(&format!("{}/{}", self.namespace, self.pod)),
        }
    }

    pub fn short_id(&self) -> &str {
        self.container_id.get(..SHORT_ID).unwrap_or(&self.container_id)
    }

    /// What these settings, and whatever was said about this pod, give it.
    pub fn wanted(&self, bandwidth: &Bandwidth) -> Wanted {
        Wanted::of(bandwidth, &self.namespace, &self.pod, &self.annotated, self.live.as_ref())
    }

    pub fn state(&self) -> PodState {
        self.egress.state().max(self.ingress.state())
    }

    pub fn directions(&self) -> [(&'static str, &Line); 2] {
        [("egress", &self.egress), ("ingress", &self.ingress)]
    }
}

const AS_IT_SHOULD_BE: &str = "fq releases each packet on time";

const PAST_HOST_END: &str = "packets reached the pod past its host end";

const DODGING: &str = "the pod gets round its shaper";

impl Line {
    pub(super) fn new(shaping: &Shaping, (counters, delays): &(Counters, bpf::Delays)) -> Self {
        let (limit_bps, origin, asked, (mode, reason)) = match shaping {
            Shaping::Unlimited => (None, None, None, (None, "no limit asked for".into())),
            Shaping::Limited { bits_per_sec, origin, asked, mode, .. } => {
                (Some(*bits_per_sec), Some(*origin), *asked, explain(mode.as_ref()))
            }
        };
        Self {
            limit_bps,
            origin,
            asked,
            measured_bps: None,
            sent_packets: counters.sent_packets,
            sent_bytes: counters.sent_bytes,
            dropped_packets: counters.dropped_packets,
            dropped_bytes: counters.dropped_bytes,
            aqm_dropped_packets: counters.aqm_packets,
            unready_dropped_packets: counters.unready_packets,
            fq_dropped_packets: None,
            marked_packets: counters.marked_packets,
            wait_ns: counters.sojourn_ns,
            mean_wait_ns: None,
            last_drops: Drops {
                horizon_at_ns: counters.last_horizon_ns,
                aqm_at_ns: counters.last_aqm_ns,
            },
            share: None,
            delays: limit_bps.map(|_| Waits::of(delays, counters.sent_packets)),
            broken: limit_bps.is_some() && mode.is_none(),
            mode: mode.map(str::to_owned),
            reason,
        }
    }

    /// The guard drops where the pod's own shaper should have, and did not.
    pub(super) fn tell_of_dodging(&mut self, guard: &Counters) {
        let shaped = matches!(self.mode.as_deref(), Some("paced" | "policed"));
        if !shaped || guard.dropped_packets == 0 {
            return;
        }
        self.reason = format!("{DODGING}: the guard dropped {} packets", guard.dropped_packets);
    }

    /// Paced or policed as it says is then only what passes the host's end. Where the guard in the pod
    /// stands in for the shaper everything comes to it, and nothing enforces without it.
    pub(super) fn tell_of_bypass(&mut self, bypassed: &Bypassed) {
        if self.mode.as_deref() == Some("guarded") {
            let there = ["tcx", "clsact"].contains(&bypassed.guard.as_str());
            let without = format!("{}; but the guard: {}", self.reason, bypassed.reason);
            self.tell_of_problem((!there).then_some(without));
        } else if self.limit_bps.is_some() && bypassed.is_notable(self.sent_packets) {
            let Bypassed { packets, dropped_packets, .. } = bypassed;
            self.reason = format!(
                "{}; {packets} {PAST_HOST_END}: policed, {dropped_packets} dropped",
                self.reason
            );
        }
    }

    /// fq has room for all that is admitted: it drops only where its parameters were changed.
    pub fn enter_fq_drops(&mut self, packets: Option<u32>) {
        self.fq_dropped_packets = packets;
        if let Some(packets @ 1..) = packets {
            self.reason =
                format!("{}; fq dropped {packets} packets that count as sent", self.reason);
        }
    }

    /// What is to be said of it beside its numbers.
    pub fn notes(&self) -> Vec<String> {
        let is_notable = self.broken || self.limit_bps.is_some() && self.reason != AS_IT_SHOULD_BE;
        let reason = is_notable.then(|| self.reason.clone());
        let asked = self.asked.map(|asked| format!("asked: {asked}, lowered by the maximum"));
        reason.into_iter().chain(asked).collect()
    }

    /// Rate by limit in percent; None without a limit.
    pub fn used_percent(&self) -> Option<u64> {
        let rate = u128::from(self.measured_bps.unwrap_or(0));
        self.limit_bps.map(|limit| (rate * 100 / u128::from(limit.max(1))) as u64)
    }

    /// All that was lost here.
    pub fn lost_packets(&self) -> u64 {
        self.dropped_packets + u64::from(self.fq_dropped_packets.unwrap_or(0))
    }

    /// What was found by looking comes before what the counters show.
    pub(super) fn tell_of_problem(&mut self, problem: Option<String>) {
        let Some(problem) = problem else { return };
        self.broken = true;
        self.reason = match self.reason.starts_with(DODGING) {
            true => format!("{problem}; {}", self.reason),
            false => problem,
        };
    }

    pub fn state(&self) -> PodState {
        match (self.broken, self.limit_bps, self.mode.as_deref()) {
            (true, _, _) => PodState::Broken,
            (false, None, _) => PodState::Unlimited,
            (false, Some(_), Some("guarded")) => PodState::Guarded,
            (false, Some(_), Some("policed")) => PodState::Policed,
            (false, Some(_), _) => PodState::Paced,
        }
    }

    /// Dropped because they were too far ahead of their time.
    pub fn horizon_dropped_packets(&self) -> u64 {
        let others = self.aqm_dropped_packets + self.unready_dropped_packets;
        self.dropped_packets.saturating_sub(others)
    }
}

impl GuardLine {
    pub(super) fn new(state: &Guard, unshaped: &Counters, shaped_bytes: u64) -> Self {
        let (state, reason) = match state {
            Guard::Pending => ("pending", "the agent attaches it, and has not yet".into()),
            Guard::Tcx => ("tcx", "a link at the head of the host's end".into()),
            Guard::Clsact => ("clsact", "a filter in front of network policy's".into()),
            Guard::Off(reason) => ("off", format!("{reason}: guard is off")),
        };
        Self {
            state: state.into(),
            reason,
            measured_bps: None,
            passed_bytes: shaped_bytes + unshaped.sent_bytes,
            unshaped_packets: unshaped.sent_packets + unshaped.dropped_packets,
            dropped_packets: unshaped.dropped_packets,
            last_drop_at_ns: unshaped.last_horizon_ns,
        }
    }
}

impl Bypassed {
    pub(super) fn new(state: &Guard, counters: &Counters) -> Self {
        let (guard, reason) = match state {
            Guard::Pending => ("pending", "the agent attaches it, and has not yet".into()),
            Guard::Tcx => ("tcx", "a link at the head of the pod's end".into()),
            Guard::Clsact => ("clsact", "a filter in front of all others of the pod's end".into()),
            Guard::Off(reason) => ("off", format!("{reason}: guard is off")),
        };
        Self {
            guard: guard.into(),
            reason,
            packets: counters.sent_packets + counters.dropped_packets,
            bytes: counters.sent_bytes + counters.dropped_bytes,
            dropped_packets: counters.dropped_packets,
            last_drop_at_ns: counters.last_horizon_ns,
        }
    }

    /// Whether something is handed to the pod past its host end now, and more than its limit.
    pub(super) fn is_dropping(&self, at_ns: u64) -> bool {
        const LATELY_NS: u64 = 60_000_000_000;
        self.last_drop_at_ns.is_some_and(|drop| at_ns.saturating_sub(drop) < LATELY_NS)
    }

    /// More than what is under way while the devices of a pod are changed.
    pub fn is_notable(&self, shaped_packets: u64) -> bool {
        self.dropped_packets > 0 || self.packets > 10 + shaped_packets / 100
    }
}

fn explain(mode: Option<&Mode>) -> (Option<&'static str>, String) {
    match mode {
        Some(Mode::Paced) => (Some("paced"), AS_IT_SHOULD_BE.into()),
        Some(Mode::Policed) => {
            (Some("policed"), "degraded: the kernel has no sch_fq, so excess is dropped".into())
        }
        Some(Mode::Guarded(obstacle)) => {
            (Some("guarded"), format!("degraded: {obstacle}, so the guard drops the excess"))
        }
        None => (None, "not enforced: `sluice status` says why".into()),
    }
}

/// The first few, and how many more there are.
pub fn few(names: &[String]) -> String {
    some(names)
}

/// For a message: pods by namespace and name, once each.
pub fn names<'p>(pods: impl Iterator<Item = &'p PodStatus>) -> Vec<String> {
    let all: BTreeMap<String, ()> = pods.map(|pod| (pod.name(), ())).collect();
    all.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_told_bucket_by_bucket_and_add_up_to_what_was_sent() {
        let kept = bpf::Delays { longer: [36, 35, 33, 30, 26, 21, 15, 8] };
        let delays = Waits::of(&kept, 100);
        let packets: Vec<u64> = delays.buckets.iter().map(|(_, packets)| *packets).collect();
        assert_eq!(packets, [64, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(delays.buckets[0].0, Some(250_000));
        assert_eq!(delays.buckets[8].0, None);
        assert_eq!(delays.percentile_ns(50), Some(250_000));
        assert_eq!(delays.percentile_ns(80), Some(64_000_000));
        assert_eq!(delays.percentile_ns(99), None);
        assert_eq!(Waits::of(&bpf::Delays::default(), 0).percentile_ns(50), None);
    }
}
