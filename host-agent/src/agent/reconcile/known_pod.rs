// SPDX-License-Identifier: Apache-2.0
//! What the loop knows of each pod interface beside its record: when it is to be
//! looked at, where events of it come from, and how it has fared of late.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::health::Health;
use super::pod::Seen;
use crate::host::logging::harmless;
use crate::pod::record::{Claim, Key, Record};
use crate::trouble::Trouble;
use crate::trouble::code::{self, Code};

const FIRST_RETRY: Duration = Duration::from_millis(200);
pub const RETRY: Duration = Duration::from_secs(5);

/// Events of one pod cause so many looks in a row, and then one in this time. What a pod does in its own
/// namespace must not cost the node more.
const LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const DEFERRAL_LOGGED_EVERY: Duration = Duration::from_secs(300);

/// What is known of a pod interface beside its record.
pub struct KnownPod {
    pub claim: Claim,
    /// Its record as the agent has left it, which says that no one else has written it since.
    pub left: Option<Record>,
    pub due: Option<Instant>,
    pub host_index: Option<u32>,
    pub netns: Option<i32>,
    /// When a guard of it is to be attached.
    pub guard_due: Option<Instant>,
    /// Its record is there, but not yet the word that ADD was completed.
    pub add_is_open: bool,
    pub health: Health,
    pub failures: u32,
    pub trouble: Option<Trouble>,
    /// When all looks that its events have caused would be through, one in [`LOOK_EVERY`].
    looks_until: Instant,
    /// When it was last logged that they are put off.
    deferral_logged: Option<Instant>,
}

impl KnownPod {
    pub fn new(claim: Claim) -> Self {
        Self {
            claim,
            left: None,
            due: None,
            host_index: None,
            netns: None,
            guard_due: None,
            add_is_open: false,
            health: Health::default(),
            failures: 0,
            trouble: None,
            looks_until: Instant::now(),
            deferral_logged: None,
        }
    }

    /// An event of it; says whether that was one too many, so that the look at it must wait.
    pub fn heard(&mut self, now: Instant, settle: Duration) -> bool {
        let soon = now + settle;
        let when = self.looks_until.checked_sub(LOOKS * LOOK_EVERY).map_or(soon, |e| e.max(soon));
        if self.due.is_some_and(|due| due <= when) {
            return false;
        }
        self.looks_until = self.looks_until.max(now) + LOOK_EVERY;
        self.is_due(when);
        let deferred = when > soon;
        if deferred {
            self.log_deferral(now);
        }
        deferred
    }

    fn log_deferral(&mut self, now: Instant) {
        let recent =
            |logged: Instant| now.saturating_duration_since(logged) < DEFERRAL_LOGGED_EVERY;
        if self.deferral_logged.is_none_or(|logged| !recent(logged)) {
            let what = "its devices change all the time; looked at once a second";
            self.warn("deferred", "", what);
            self.deferral_logged = Some(now);
        }
    }

    pub fn is_due(&mut self, when: Instant) {
        let when = self.health.quiet_until().map_or(when, |quiet| quiet.max(when));
        self.due = Some(self.due.map_or(when, |due| due.min(when)));
    }

    pub fn saw(&mut self, seen: &Seen, now: Instant) {
        (self.host_index, self.netns) = (seen.host_index, seen.netns);
        self.guard_due = seen.guard_due_in.map(|wait| self.guard_due.unwrap_or(now + wait));
        match &seen.failed {
            Some(e) => self.failed(e),
            None => (self.trouble, self.failures) = (None, 0),
        }
        if !seen.mended.is_empty() {
            for (direction, what) in &seen.mended {
                self.warn("mended", direction, &format!("{what}; restored"));
            }
            let what: Vec<_> = seen.mended.iter().map(|(_, what)| what.as_str()).collect();
            let what = what.join(", ");
            if let Some(quiet) = self.health.mended(now) {
                self.trouble = Some(self.trouble(code::CONTESTED, what));
                self.due = Some(quiet);
                return;
            }
        }
        if let Some(until) = seen.live_until {
            let left = SystemTime::UNIX_EPOCH + Duration::from_secs(until + 1);
            let left = left.duration_since(SystemTime::now()).unwrap_or_default();
            self.is_due(now + left);
        }
    }

    /// Once may be a pod that is just going.
    pub fn failed(&mut self, error: &anyhow::Error) {
        self.failures += 1;
        if self.failures == 1 {
            return self.is_due(Instant::now() + FIRST_RETRY);
        }
        let what = format!("{error:#}");
        if self.trouble.as_ref().is_none_or(|old| old.what != what) {
            self.warn(code::NOT_ENFORCED.name, "", &what);
        }
        let next_step = "`sluice doctor` shows what is in the way; it is tried again every 5 s";
        self.trouble = Some(self.trouble(code::NOT_ENFORCED, what).with_next_step(next_step));
        self.is_due(Instant::now() + RETRY);
    }

    fn trouble(&self, code: &Code, what: String) -> Trouble {
        Trouble::new(code, self.name(), what)
    }

    fn warn(&self, code: &str, direction: &str, what: &str) {
        let record = self.claim.read();
        let (namespace, pod) =
            record.map(|record| (record.namespace, record.pod)).unwrap_or_default();
        log::warn!(
            POD_NAMESPACE = namespace.as_str(),
            POD_NAME = pod.as_str(),
            DIRECTION = direction,
            CODE = code;
            "{}: {what}",
            self.name()
        );
    }

    fn name(&self) -> String {
        let key = &self.claim.key;
        match self.claim.read() {
            Ok(record) if !record.pod.is_empty() => {
                harmless(&format!("{}/{} {}", record.namespace, record.pod, key.ifname))
            }
            _ => format!("container {} {}", key.container_id, key.ifname),
        }
    }
}

/// Of those whose guard is due.
pub fn longest_without_guard(
    pods: &mut BTreeMap<Key, KnownPod>,
    now: Instant,
) -> Option<&mut KnownPod> {
    let due = pods.values_mut().filter(|pod| pod.guard_due.is_some_and(|due| due <= now));
    due.min_by_key(|pod| pod.guard_due)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_without_end_cause_a_look_a_second_and_peace_gives_the_rest_back() {
        let claim = Claim::parse("/run/sluice/pods/1@a@eth0.json".as_ref()).unwrap();
        let (mut pod, start) = (KnownPod::new(claim), Instant::now());
        pod.looks_until = start;
        // An event each millisecond, and looks when they are due.
        let mut looks = |from: u32, until: u32| {
            let mut looks = 0;
            for millis in from..until {
                let now = start + Duration::from_millis(millis.into());
                if pod.due.is_some_and(|due| due <= now) {
                    pod.due = None;
                    looks += 1;
                }
                pod.heard(now, Duration::from_millis(20));
            }
            looks
        };
        let first = looks(0, 10_000);
        assert!((LOOKS..=LOOKS + 10).contains(&first), "{first}");
        let second = looks(10_000, 20_000);
        assert!((9..=10).contains(&second), "{second}");
        let after_peace = looks(60_000, 61_000);
        assert!((LOOKS..=LOOKS + 2).contains(&after_peace), "{after_peace}");
    }

    #[test]
    fn guard_that_waits_longest_comes_first_whatever_its_pod_is_called() {
        let (now, dir) = (Instant::now(), std::path::Path::new("/run/sluice/pods"));
        let mut pods = BTreeMap::new();
        for (name, waits) in [("a", Some(5)), ("b", None), ("c", Some(9)), ("d", Some(7))] {
            let claim = Claim::parse(&dir.join(format!("1@{name}@eth0.json"))).unwrap();
            let mut pod = KnownPod::new(claim.clone());
            pod.guard_due = waits.map(|millis| now - Duration::from_millis(millis));
            pods.insert(claim.key, pod);
        }
        let mut order = Vec::new();
        while let Some(pod) = longest_without_guard(&mut pods, now) {
            pod.guard_due = None;
            order.push(pod.claim.key.container_id.clone());
        }
        assert_eq!(order, ["c", "d", "a"]);
    }
}
