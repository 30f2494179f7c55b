// SPDX-License-Identifier: Apache-2.0
//! Why a pod has the limits it has: every source in its order, with its value
//! and its place, the maximum that may lower the one that wins, and how the limit
//! is enforced. Pure.

use std::cmp::Reverse;
use std::fmt::Write;

use serde::Serialize;
use settings_model::{Effective, Limit as Choice};

use crate::host::logging::harmless;
use crate::pod::annotations::{EGRESS_BURST, INGRESS_BURST, LATENCY_TARGET, WEIGHT};
use crate::pod::direction::Direction;
use crate::pod::limit::{Limit, Origin};
use crate::pod::record::Arrival;
use crate::pod::sources::{Level, Sources};
use crate::pod::time_to_live::TimeToLive;
use crate::status::text::{duration, short};
use crate::status::{GuardLine, Line, PodStatus, Status};

/// One interface of a pod.
#[derive(Debug, Serialize)]
pub struct Trace {
    pub namespace: String,
    pub pod: String,
    pub container_id: String,
    pub interface: String,
    pub host_interface: Option<String>,
    pub slot: u16,
    pub came: Arrival,
    /// Seconds until an override ends.
    pub live_ends_in: Option<u64>,
    /// False where `bandwidth.enabled` is, so that no source counts.
    pub enabled: bool,
    pub egress: Traced,
    pub ingress: Traced,
    pub guard: Option<GuardLine>,
}

#[derive(Debug, Serialize)]
pub struct Traced {
    /// Highest first.
    pub sources: Vec<LimitSource>,
    /// None where the settings have no maximum for this pod.
    pub maximum: Option<Maximum>,
    /// How a limit queues here: `burst` and `latency-target`.
    pub queue: Vec<Queueing>,
    /// The sources have changed since the limit was put in force.
    pub stale: bool,
    pub enforced: Line,
    pub drops: Vec<Drop>,
}

/// A source of what a limit is.
#[derive(Debug, Serialize)]
pub struct LimitSource {
    pub origin: Origin,
    /// None: it says nothing about this pod.
    pub value: Option<String>,
    /// Which settings, which annotation.
    pub place: Option<String>,
    pub wins: bool,
}

/// What `max-egress` or `max-ingress` has to do with it; the lowest where there are two.
#[derive(Debug, Serialize)]
pub struct Maximum {
    pub value: String,
    pub place: String,
    /// What it has lowered; None where the limit is not above it, or is an override.
    pub asked: Option<String>,
}

/// One of the settings that the node has for all pods and a pod may have for itself.
#[derive(Debug, Serialize)]
pub struct Queueing {
    pub key: &'static str,
    pub value: String,
    pub origin: Origin,
    pub place: String,
    /// What `max-burst` or `max-weight` has lowered, and its place.
    pub asked: Option<(String, String)>,
}

/// Packets that were lost for one reason.
#[derive(Debug, Serialize)]
pub struct Drop {
    pub reason: &'static str,
    pub packets: u64,
    /// How long ago the last one was, where that is known.
    pub last_ago_ns: Option<u64>,
}

/// All interfaces of the pod, the newest sandbox's first; none if it is not on this node.
pub fn trace(status: &Status, settings: &Effective, namespace: &str, pod: &str) -> Vec<Trace> {
    let same = status.pods.iter().filter(|p| p.namespace == namespace && p.pod == pod);
    let mut same: Vec<_> = same.collect();
    same.sort_by_key(|pod| Reverse(pod.host_ifindex));
    same.into_iter().map(|pod| Trace::of(status, settings, pod)).collect()
}

impl Trace {
    fn of(status: &Status, settings: &Effective, pod: &PodStatus) -> Self {
        let enabled = settings.settings.bandwidth.enabled;
        let traced = |direction, line: &Line, guard| {
            let account = Account::of(settings, pod, direction);
            let limit_bps = account.limit.map(|limit| limit.rate.bits_per_sec());
            Traced {
                stale: limit_bps != line.limit_bps,
                sources: account.sources(),
                maximum: account.maximum(),
                queue: account.queue(),
                enforced: line.clone(),
                drops: drops(line, guard, status.at_ns),
            }
        };
        Self {
            namespace: pod.namespace.clone(),
            pod: pod.pod.clone(),
            container_id: pod.container_id.clone(),
            interface: pod.interface.clone(),
            host_interface: pod.host_interface.clone(),
            slot: pod.slot,
            came: pod.came,
            live_ends_in: pod.live.map(|live| live.until.saturating_sub(status.time)),
            enabled,
            egress: traced(Direction::Egress, &pod.egress, pod.guard.as_ref()),
            ingress: traced(Direction::Ingress, &pod.ingress, None),
            guard: pod.guard.clone(),
        }
    }
}

/// The settings, and who may say what they are of one direction of a pod.
struct Account<'s> {
    settings: &'s Effective,
    direction: Direction,
    sources: Sources<'s>,
    limit: Option<Limit>,
}

impl<'s> Account<'s> {
    fn of(settings: &'s Effective, pod: &PodStatus, direction: Direction) -> Self {
        let bandwidth = &settings.settings.bandwidth;
        let (namespace, name) = (&pod.namespace, &pod.pod);
        let live = pod.live.as_ref();
        let sources = Sources::of(bandwidth, direction, namespace, name, &pod.annotated, live);
        Self { settings, direction, limit: sources.limit(bandwidth), sources }
    }

    /// Where the settings say this.
    fn place(&self, key: &str) -> String {
        self.settings.origin(&format!("bandwidth.{key}")).to_string()
    }

    fn place_at(&self, level: Level, key: &str) -> String {
        match (level, self.sources.class) {
            (Level::Class, Some(class)) => self.place(&format!("class.{}.{key}", class.name)),
            _ => self.place(key),
        }
    }

    fn sources(&self) -> Vec<LimitSource> {
        let enabled = self.settings.settings.bandwidth.enabled;
        let source = |(origin, value, decides): (Origin, Option<Choice>, bool)| LimitSource {
            origin,
            value: value.map(|value| value.to_string()),
            place: value.map(|_| self.place_of(origin)),
            wins: decides && enabled,
        };
        self.sources.in_order().map(source).collect()
    }

    fn place_of(&self, origin: Origin) -> String {
        let direction = self.direction.name();
        match (origin, self.sources.class) {
            (Origin::LiveOverride, _) => "sluice limit set".into(),
            (Origin::PodAnnotation, _) => format!("kubernetes.io/{direction}-bandwidth"),
            (Origin::Class, Some(class)) => {
                format!("class {}, {}", class.name, self.place_at(Level::Class, direction))
            }
            (Origin::Class, None) => String::new(),
            (Origin::NodeDefault, _) => self.place(&format!("default-{direction}")),
            (Origin::NodeShare, _) => self.place(&format!("node-{direction}")),
        }
    }

    fn maximum(&self) -> Option<Maximum> {
        let (level, max) = self.sources.maximum()?;
        let place = self.place_at(level, &format!("max-{}", self.direction.name()));
        let asked = self.limit.and_then(|limit| limit.asked).map(|asked| asked.to_string());
        Some(Maximum { value: max.to_string(), place, asked })
    }

    fn queue(&self) -> Vec<Queueing> {
        let bandwidth = &self.settings.settings.bandwidth;
        let annotation = match self.direction {
            Direction::Egress => EGRESS_BURST,
            Direction::Ingress => INGRESS_BURST,
        };
        let own = self.sources.burst.map(|burst| burst.to_string());
        let mut burst = self.queueing("burst", own, annotation, bandwidth.burst.to_string());
        if let Some(limit @ Limit { asked_burst: Some(_), .. }) = &self.limit
            && let Some((level, _)) = self.sources.max_burst_at(limit.rate)
        {
            let asked = std::mem::replace(&mut burst.value, limit.burst.to_string());
            burst.asked = Some((asked, self.place_at(level, "max-burst")));
        }
        let own = self.sources.latency_target.map(|target| target.to_string());
        let node = bandwidth.latency_target.to_string();
        let target = self.queueing("latency-target", own, LATENCY_TARGET, node);
        [burst, target].into_iter().chain(self.weight()).chain(self.floor()).collect()
    }

    /// Of its part of the node's line.
    fn weight(&self) -> Option<Queueing> {
        let (origin, part) = self.sources.part?;
        let place = match (origin, self.sources.class) {
            (Origin::PodAnnotation, _) => WEIGHT.into(),
            (Origin::Class, Some(class)) => {
                format!("class {}, {}", class.name, self.place_at(Level::Class, "weight"))
            }
            _ => self.place("weight"),
        };
        let value = part.weight.to_string();
        let asked = self.sources.asked_weight;
        let asked = asked.map(|asked| (asked.to_string(), self.place("max-weight")));
        Some(Queueing { key: "weight", value, origin, place, asked })
    }

    /// What the pod is promised of that line, before it is lowered for others.
    fn floor(&self) -> Option<Queueing> {
        let floor = self.sources.part?.1.floor?;
        let key = format!("floor-{}", self.direction.name());
        let place = match (floor.origin, self.sources.class) {
            (Origin::Class, Some(class)) => {
                format!("class {}, {}", class.name, self.place_at(Level::Class, &key))
            }
            _ => format!("sluice.dev/{}-floor", self.direction.name()),
        };
        let asked = self.sources.asked_floor.map(|it| (it.to_string(), self.place("max-floor")));
        let value = floor.rate.to_string();
        Some(Queueing { key: "floor", value, origin: floor.origin, place, asked })
    }

    fn queueing(
        &self,
        key: &'static str,
        own: Option<String>,
        annotation: &str,
        node: String,
    ) -> Queueing {
        let origin = if own.is_some() { Origin::PodAnnotation } else { Origin::NodeDefault };
        let place = own.as_ref().map_or_else(|| self.place(key), |_| annotation.into());
        Queueing { key, value: own.unwrap_or(node), origin, place, asked: None }
    }
}

fn drops(line: &Line, guard: Option<&GuardLine>, at_ns: u64) -> Vec<Drop> {
    let ago = |at: Option<u64>| at.map(|at| at_ns.saturating_sub(at));
    let shaped = [
        ("horizon", line.horizon_dropped_packets(), ago(line.last_drops.horizon_at_ns)),
        ("aqm", line.aqm_dropped_packets, ago(line.last_drops.aqm_at_ns)),
        ("unready", line.unready_dropped_packets, None),
        ("fq", line.fq_dropped_packets.unwrap_or(0).into(), None),
    ];
    // Where the guard enforces, the line's counters are its own.
    let guarded = line.mode.as_deref() == Some("guarded");
    let shaped = shaped.into_iter().filter(|_| !guarded);
    let alone = ("guard", line.dropped_packets, ago(line.last_drops.horizon_at_ns));
    let guard = guard.map(|guard| ("guard", guard.dropped_packets, ago(guard.last_drop_at_ns)));
    let guard = guard.or(guarded.then_some(alone));
    let lost = shaped.chain(guard).filter(|(_, packets, _)| *packets > 0);
    lost.map(|(reason, packets, last_ago_ns)| Drop { reason, packets, last_ago_ns }).collect()
}

/// For people.
pub fn text(traces: &[Trace]) -> String {
    let several = traces.windows(2).any(|pair| pair[0].container_id != pair[1].container_id);
    traces.iter().map(|trace| trace.text(several)).collect::<Vec<_>>().join("\n")
}

impl Trace {
    /// `several` sandboxes have the pod's name.
    fn text(&self, several: bool) -> String {
        let came = match self.came {
            Arrival::Added { took_ns: Some(ns) } => format!("by ADD in {}", duration(ns)),
            Arrival::Added { took_ns: None } => "by an ADD that was not completed".into(),
            Arrival::Adopted { .. } => "found by the agent in the runtime's result cache".into(),
            Arrival::Along => "made by the ADD of another interface of the pod".into(),
        };
        let host = self
            .host_interface
            .as_deref()
            .map_or(String::new(), |name| format!(", {name} on the host"));
        let mut text = format!(
            "{} {}{host}; slot {}; {came}\n",
            harmless(&format!("{}/{}", self.namespace, self.pod)),
            self.interface,
            self.slot
        );
        if several {
            text += &format!("container {}\n", self.container_id);
        }
        if !self.enabled {
            text += "shaping is off: bandwidth.enabled is false\n";
        }
        for (name, traced) in [("egress", &self.egress), ("ingress", &self.ingress)] {
            traced.write(&mut text, name, self.live_ends_in);
        }
        if let Some(guard) = &self.guard {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "guard: {} ({})", guard.state, guard.reason);
        }
        text + &format!(
            "{ANNOTATIONS} `sluice limit set {}/{}`, or restart it\n",
            self.namespace, self.pod
        )
    }
}

impl Traced {
    fn write(&self, text: &mut String, name: &str, live_ends_in: Option<u64>) {
        let line = &self.enforced;
        let limit = line.limit_bps.map_or("unlimited".into(), short);
        let mode =
            line.mode.as_deref().unwrap_or(if line.limit_bps.is_some() { "broken" } else { "-" });
        let _ = writeln!(text, "{name}: {limit}; {mode} ({})", line.reason);
        for source in &self.sources {
            let mark = if source.wins { "->" } else { "  " };
            let value = source.value.as_deref().unwrap_or("-");
            let mut place = source.place.clone().unwrap_or_default();
            if let (Origin::LiveOverride, Some(_), Some(seconds)) =
                (source.origin, &source.value, live_ends_in)
            {
                let ends =
                    TimeToLive::left(seconds).map_or("now".into(), |left| format!("in {left}"));
                let _ = write!(place, ", ends {ends}");
            }
            let row = format!("  {mark} {:<15} {value:<11} {place}", source.origin.to_string());
            let _ = writeln!(text, "{}", row.trim_end());
        }
        if let Some(Maximum { value, place, asked }) = &self.maximum {
            let (mark, lowers) = match asked {
                Some(asked) => ("->", format!(", lowers {asked}")),
                None => ("  ", String::new()),
            };
            let _ = writeln!(text, "  {mark} {:<15} {value:<11} {place}{lowers}", "maximum");
        }
        for Queueing { key, value, place, asked, .. } in
            self.queue.iter().filter(|_| line.limit_bps.is_some())
        {
            let lowered = asked.as_ref().map_or(String::new(), |(asked, by)| {
                format!(": {asked}, lowered by max-{key}, {by}")
            });
            let _ = writeln!(text, "     {key:<15} {value:<11} {place}{lowered}");
        }
        if self.stale {
            *text += "  not what the sources say: the limit in force is older than they are\n";
        }
        if let Some(delays) = &line.delays {
            let within = |percent| {
                delays
                    .percentile_ns(percent)
                    .map(|ns| format!("{percent} % within {}", duration(ns)))
            };
            let waits: Vec<String> = [50, 99].into_iter().filter_map(within).collect();
            if !waits.is_empty() {
                let _ = writeln!(text, "  held back: {}", waits.join(", "));
            }
        }
        if let Some(share) = &line.share {
            let wait = match share.mean_wait_ns {
                Some(ns) => format!("; packets wait {} for the node", duration(ns)),
                None => String::new(),
            };
            let _ = writeln!(text, "  share now: {}{wait}", short(share.now_bps));
        }
        for drop in &self.drops {
            let ago = drop
                .last_ago_ns
                .map_or(String::new(), |ns| format!(", the last {} ago", duration(ns)));
            let _ =
                writeln!(text, "  dropped: {} packets, {}{ago}", drop.packets, why(drop.reason));
        }
    }
}

/// The runtime hands them over at ADD, and reports no change of them.
const ANNOTATIONS: &str =
    "annotations: as they were when the pod started; to change a running pod's limit:";

fn why(reason: &str) -> &'static str {
    match reason {
        "horizon" => "too far ahead of their time (the queue was full)",
        "aqm" => "to keep the queue at the latency target",
        "unready" => "before there was a table of flows",
        "fq" => "by fq, whose parameters were changed, after they were counted as sent",
        _ => "by the guard on the host's end",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::asked::Override;
    use crate::status::text::tests::{pod, status};

    const SETTINGS: &str = "[sluice]\nversion = 1\n[sluice.bandwidth]\ndefault-egress = '20Mbit'\n\
                            [[sluice.bandwidth.class]]\nname = 'all'\nnamespaces = ['*']\n\
                            ingress = '20Mbit'\n";

    fn settings() -> Effective {
        settings_model::merge(&[("user-data", SETTINGS)]).unwrap()
    }

    #[test]
    fn each_source_is_told_in_order_and_the_first_wins() {
        let mut pod = pod();
        pod.live =
            Some(Override { egress: "20Mbit".parse().ok(), ingress: None, until: 1_800_000_090 });
        pod.egress.origin = Some(Origin::LiveOverride);
        pod.annotated.egress_burst = "9KB".parse().ok();
        pod.egress.dropped_packets = 5;
        pod.egress.last_drops.horizon_at_ns = Some(0);
        let traces = trace(&status(vec![pod]), &settings(), "default", "web");
        assert_eq!(
            text(&traces),
            "default/web eth0, eni1 on the host; slot 1; by ADD in 12.0ms\n\
             egress: 20Mbit; paced (fq releases each packet on time)\n\
             \x20 -> override        20Mbit      sluice limit set, ends in 1m30s\n\
             \x20    pod annotation  -\n\
             \x20    class           -\n\
             \x20    node default    20Mbit      user-data:4\n\
             \x20    burst           9KB         sluice.dev/egress-burst\n\
             \x20    latency-target  5ms         default\n\
             \x20 dropped: 5 packets, too far ahead of their time (the queue was full), the last 7ns ago\n\
             ingress: 20Mbit; paced (fq releases each packet on time)\n\
             \x20    override        -\n\
             \x20    pod annotation  -\n\
             \x20 -> class           20Mbit      class all, user-data:8\n\
             \x20    node default    unlimited   default\n\
             \x20    burst           5ms         default\n\
             \x20    latency-target  5ms         default\n\
             guard: tcx (a link at the head of the host's end)\n\
             annotations: as they were when the pod started; to change a running pod's limit: \
             `sluice limit set default/web`, or restart it\n"
        );
    }

    #[test]
    fn sandboxes_of_one_name_are_all_shown_the_newest_first() {
        let mut newer = pod();
        (newer.host_ifindex, newer.container_id) = (Some(9), "new".into());
        let text = text(&trace(&status(vec![pod(), newer]), &settings(), "default", "web"));
        let containers: Vec<_> = text.lines().filter(|l| l.starts_with("container ")).collect();
        assert_eq!(containers, ["container new", "container 0123456789abcdef"]);
    }

    #[test]
    fn maximum_is_told_with_what_it_lowers() {
        const MAXIMA: &str = "[sluice]\nversion = 1\n[sluice.bandwidth]\nmax-egress = '20Mbit'\n\
                              max-ingress = '1Gbit'\nmax-burst = '20ms'\n\
                              [[sluice.bandwidth.class]]\nname = 'all'\nnamespaces = ['*']\n\
                              max-ingress = '20Mbit'\nmax-burst = '10ms'\n";
        let settings = settings_model::merge(&[("user-data", MAXIMA)]).unwrap();
        let mut pod = pod();
        pod.annotated.egress = "1Gbit".parse().ok();
        pod.annotated.egress_burst = "64MiB".parse().ok();
        let traces = trace(&status(vec![pod.clone()]), &settings, "default", "web");
        assert!(!traces[0].egress.stale && !traces[0].ingress.stale);
        let text = text(&traces);
        let expected = "\
             \x20 -> pod annotation  1Gbit       kubernetes.io/egress-bandwidth\n\
             \x20    class           -\n\
             \x20    node default    unlimited   default\n\
             \x20 -> maximum         20Mbit      user-data:4, lowers 1Gbit\n\
             \x20    burst           10ms        sluice.dev/egress-burst: 64MiB, lowered by max-burst, \
             user-data:11\n";
        assert!(text.contains(expected), "{text}");
        let expected = "\
             \x20 -> node default    unlimited   default\n\
             \x20 -> maximum         20Mbit      user-data:10, lowers unlimited\n\
             \x20    burst           5ms         default\n";
        assert!(text.contains(expected), "{text}");

        pod.live = Some(Override { egress: "1Gbit".parse().ok(), ingress: None, until: 0 });
        pod.egress.limit_bps = Some(1_000_000_000);
        let traces = trace(&status(vec![pod]), &settings, "default", "web");
        assert!(!traces[0].egress.stale);
        let asked = traces[0].egress.maximum.as_ref().unwrap().asked.as_deref();
        assert_eq!(asked, None);
    }

    #[test]
    fn limit_that_is_older_than_its_sources_is_told() {
        let mut pod = pod();
        pod.egress.limit_bps = Some(7);
        let traces = trace(&status(vec![pod]), &settings(), "default", "web");
        assert!(traces[0].egress.stale && !traces[0].ingress.stale);
    }

    #[test]
    fn pod_of_another_node_has_no_trace() {
        assert!(trace(&status(vec![pod()]), &settings(), "default", "other").is_empty());
    }
}
