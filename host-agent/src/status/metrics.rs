// SPDX-License-Identifier: Apache-2.0
//! The node as metrics, made again for each scrape from one picture of it, so
//! that a pod's series end with the pod. Names and units follow Prometheus'
//! conventions; docs/metrics.md lists them.

use std::fmt::Write;
use std::time::SystemTime;

use anyhow::{Context, Result};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::addresses::capacity::{self, Capacity};
use crate::host::clock::seconds;
use crate::settings::in_force::Reason;
use crate::status::node_share::NodeLine;
use crate::status::report::AgentReport;
use crate::status::{Line, PodState, PodStatus, Status, Waits, need_container};
use crate::trouble::Trouble;

/// Upper bounds in seconds: ADD takes 2 to 20 ms as a rule, and the runtime gives up after minutes.
const ADD_BOUNDS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0];

/// What is counted since the agent started, and by nothing else.
#[derive(Clone, Debug)]
pub struct SinceStart {
    /// Seconds since 1970.
    started: u64,
    adds: Histogram,
}

impl SinceStart {
    /// From now on.
    pub fn begin() -> Self {
        Self { started: seconds(SystemTime::now()), adds: Histogram::new(ADD_BOUNDS) }
    }

    /// What the ADD of one pod interface took; each record counts once.
    pub fn observe_add(&self, took_ns: u64) {
        self.adds.observe(took_ns as f64 / 1e9);
    }
}

/// OpenMetrics text.
pub fn text(status: &Status, since_start: &SinceStart) -> Result<String> {
    let mut registry = Registry::with_prefix("sluice");
    let mut picture = Picture { status: status.clone() };
    picture.name_apart();
    registry.register_collector(Box::new(picture));
    let SinceStart { started, adds } = since_start;
    let start = ConstGauge::new(*started as f64);
    registry.register("start_time_seconds", "When the agent started, since 1970", start);
    registry.register("cni_add_seconds", "What the ADD of a pod interface took", adds.clone());
    let mut text = String::new();
    encode(&mut text, &registry).context("write the metrics")?;
    Ok(text)
}

/// The same in the text format 0.0.4, which calls a counter by its sample's name and knows neither
/// units nor the end.
pub fn older_format(openmetrics: &str) -> String {
    let counters: Vec<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len() + 16 * counters.len());
    for line in openmetrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let described = ["# HELP ", "# TYPE "].iter().find_map(|kind| {
            let (name, rest) = line.strip_prefix(kind)?.split_once(' ')?;
            counters.contains(&name).then(|| format!("{kind}{name}_total {rest}"))
        });
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", described.as_deref().unwrap_or(line));
    }
    text
}

#[derive(Debug)]
struct Picture {
    status: Status,
}

impl Picture {
    /// No two series are the same: the container's id is a label where a name is not enough, so that a
    /// pod's series stay the same pod's whatever its sandboxes are called.
    fn name_apart(&mut self) {
        let needed = need_container(&self.status.pods);
        for (pod, needed) in self.status.pods.iter_mut().zip(needed) {
            if !needed {
                pod.container_id.clear();
            }
        }
    }
}

type Labels<'l> = Vec<(&'static str, &'l str)>;
type Encoded = Result<(), std::fmt::Error>;

impl Collector for Picture {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Encoded {
        let status = &self.status;
        pods(&mut encoder, status)?;
        delays(&mut encoder, status)?;
        node_share(&mut encoder, status)?;
        node(&mut encoder, status)?;
        match &status.agent {
            Some(agent) => {
                let capacity = agent.report.capacity.as_ref();
                capacity.map_or(Ok(()), |it| addresses(&mut encoder, it, status.at_ns))?;
                report(&mut encoder, &agent.version, &agent.report)
            }
            None => Ok(()),
        }
    }
}

/// One metric with all its series. Without any it is not there.
fn family<'l, V>(
    encoder: &mut DescriptorEncoder,
    (name, help): (&str, &str),
    series: impl IntoIterator<Item = (Labels<'l>, V)>,
) -> Encoded
where
    V: EncodeMetric,
{
    let mut series = series.into_iter().peekable();
    let Some((_, first)) = series.peek() else { return Ok(()) };
    let help = format!("{help}.");
    let mut family = encoder.encode_descriptor(name, &help, None, first.metric_type())?;
    for (labels, value) in series {
        match labels.is_empty() {
            // Of the whole node, so the only one.
            true => return value.encode(family),
            false => value.encode(family.encode_family(&labels)?)?,
        }
    }
    Ok(())
}

/// Of both directions of every pod, what `value` gives.
fn of_ways<'l, V>(
    status: &'l Status,
    value: impl Fn(&'l PodStatus, &'l Line) -> Option<V> + 'l,
) -> impl Iterator<Item = (Labels<'l>, V)> + 'l {
    let directions = status
        .pods
        .iter()
        .flat_map(|pod| pod.directions().map(|(direction, line)| (pod, direction, line)));
    directions
        .filter_map(move |(pod, direction, line)| Some((labels(pod, direction), value(pod, line)?)))
}

fn labels<'l>(pod: &'l PodStatus, direction: &'l str) -> Labels<'l> {
    let mut labels = vec![
        ("namespace", pod.namespace.as_str()),
        ("pod", pod.pod.as_str()),
        ("interface", pod.interface.as_str()),
        ("direction", direction),
    ];
    if !pod.container_id.is_empty() {
        labels.push(("container_id", pod.container_id.as_str()));
    }
    labels
}

fn pods(encoder: &mut DescriptorEncoder, status: &Status) -> Encoded {
    // What has no limit passes none of our programs, so it is not counted.
    let counted = |value: fn(&Line) -> u64| {
        of_ways(status, move |_, line| line.limit_bps.map(|_| ConstCounter::new(value(line))))
    };
    let sent_bytes = counted(|line| line.sent_bytes);
    family(
        encoder,
        ("pod_sent_bytes", "Bytes of L2 frames that the limit let through"),
        sent_bytes,
    )?;
    let sent = counted(|line| line.sent_packets);
    family(encoder, ("pod_sent_packets", "Packets that the limit let through"), sent)?;
    let lost_bytes = counted(|line| line.dropped_bytes);
    family(encoder, ("pod_dropped_bytes", "Bytes of L2 frames dropped by the limit"), lost_bytes)?;
    let help = "Packets dropped: beyond the horizon, by the AQM, before the slot was ready, by a guard, or by fq after the limit";
    family(encoder, ("pod_dropped_packets", help), drops(status))?;
    let bypassed = status.pods.iter().filter_map(|pod| {
        Some((labels(pod, "ingress"), ConstCounter::new(pod.bypassed.as_ref()?.packets)))
    });
    let help = "Packets that reached a pod past its host end, so were policed and not paced";
    family(encoder, ("pod_bypassed_packets", help), bypassed)?;
    let marked = counted(|line| line.marked_packets);
    family(encoder, ("pod_marked_packets", "Packets marked with congestion experienced"), marked)?;
    let waited = of_ways(status, |_, line| {
        line.limit_bps.map(|_| ConstCounter::new(line.wait_ns as f64 / 1e9))
    });
    family(encoder, ("pod_wait_seconds", "Sum of how long sent packets waited"), waited)?;
    // A limit fits into 63 bits: the highest is 10^15 bit/s.
    let limits =
        of_ways(status, |_, line| line.limit_bps.map(|bps| ConstGauge::new(bps as f64 / 8.0)));
    let help = "The limit in force, in bytes of L2 frames; a pod without one has no series";
    family(encoder, ("pod_limit_bytes_per_second", help), limits)?;
    let modes = of_ways(status, |_, line| line.limit_bps.map(|_| ConstGauge::new(1i64)));
    let lines = status.pods.iter().flat_map(PodStatus::directions).map(|(_, line)| line);
    let lines = lines.filter(|line| line.limit_bps.is_some());
    let modes = modes.zip(lines).map(|((mut labels, one), line)| {
        labels.push(("mode", line.mode.as_deref().unwrap_or("none")));
        labels.push(("origin", line.origin.map_or("none", |origin| origin.label())));
        (labels, one)
    });
    let help = "How a limit is enforced, and who asked for it";
    family(encoder, ("pod_limit_info", help), modes)?;
    let guards = status.pods.iter().filter_map(|pod| {
        let mut labels = labels(pod, "egress");
        labels.push(("state", pod.guard.as_ref()?.state.as_str()));
        Some((labels, ConstGauge::new(1i64)))
    });
    family(encoder, ("pod_guard_info", "Where the guard of a pod is"), guards)
}

/// Where the guard enforces, the line's counters are its own.
fn drops(status: &Status) -> impl Iterator<Item = (Labels<'_>, ConstCounter<u64>)> {
    let directions = status
        .pods
        .iter()
        .flat_map(|pod| pod.directions().map(|(direction, line)| (pod, direction, line)));
    let limited = directions.filter(|(_, _, line)| line.limit_bps.is_some());
    limited.flat_map(|(pod, direction, line)| {
        let guard = pod.guard.as_ref().filter(|_| direction == "egress");
        let bypassed = pod.bypassed.as_ref().filter(|_| direction == "ingress");
        let shaped = line.mode.as_deref() != Some("guarded");
        let reasons = [
            ("horizon", shaped.then(|| line.horizon_dropped_packets())),
            ("aqm", shaped.then_some(line.aqm_dropped_packets)),
            ("unready", shaped.then_some(line.unready_dropped_packets)),
            ("fq", line.fq_dropped_packets.map(u64::from)),
            ("guard", guard.map(|guard| guard.dropped_packets)),
            ("bypassed", bypassed.map(|bypassed| bypassed.dropped_packets)),
        ];
        reasons.into_iter().filter_map(move |(reason, packets)| {
            let mut labels = labels(pod, direction);
            labels.push(("reason", reason));
            Some((labels, ConstCounter::new(packets?)))
        })
    })
}

/// A histogram that the programs keep.
struct Kept<'k> {
    delays: &'k Waits,
    sum_ns: u64,
}

impl EncodeMetric for Kept<'_> {
    fn encode(&self, mut encoder: MetricEncoder) -> Encoded {
        let bound = |ns: Option<u64>| ns.map_or(f64::INFINITY, |ns| ns as f64 / 1e9);
        let buckets = self.delays.buckets.iter().map(|(ns, packets)| (bound(*ns), *packets));
        let buckets: Vec<(f64, u64)> = buckets.collect();
        let count = buckets.iter().map(|(_, packets)| packets).sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum_ns as f64 / 1e9, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn delays(encoder: &mut DescriptorEncoder, status: &Status) -> Encoded {
    let kept = of_ways(status, |_, line| {
        let delays = line.delays.as_ref().filter(|_| line.limit_bps.is_some())?;
        Some(Kept { delays, sum_ns: line.wait_ns })
    });
    family(encoder, ("pod_delay_seconds", "How long packets waited"), kept)
}

/// Only where pods share the node.
fn node_share(encoder: &mut DescriptorEncoder, status: &Status) -> Encoded {
    let bytes = of_ways(status, |_, line| Some(ConstCounter::new(line.share.as_ref()?.sent_bytes)));
    family(encoder, ("pod_node_bytes", "Bytes of L2 frames that used the node's line"), bytes)?;
    let waited = of_ways(status, |_, line| {
        Some(ConstCounter::new(line.share.as_ref()?.wait_ns as f64 / 1e9))
    });
    let help = "Sum of how much longer sent packets waited than the pod's own limit asks for";
    family(encoder, ("pod_node_wait_seconds", help), waited)?;
    let weights =
        of_ways(status, |_, line| Some(ConstGauge::new(line.share.as_ref()?.weight as i64)));
    family(encoder, ("pod_weight", "Weight of a pod's part of the node's line"), weights)?;
    let shared = |value: fn(&NodeLine) -> f64| {
        let lines = status.node_share.shared();
        lines.map(move |(direction, line)| {
            (vec![("direction", direction)], ConstGauge::new(value(line)))
        })
    };
    let help = "What pods share, in bytes of L2 frames";
    let capacity = shared(|line| line.capacity_bps as f64 / 8.0);
    family(encoder, ("node_capacity_bytes_per_second", help), capacity)?;
    let help = "1 while pods wait for the node's line";
    family(encoder, ("node_busy", help), shared(|line| f64::from(u8::from(line.busy))))?;
    let help = "Weights that share the node's line now, as if they had all of it";
    family(encoder, ("node_weights", help), shared(|line| line.weights as f64))
}

fn node(encoder: &mut DescriptorEncoder, status: &Status) -> Encoded {
    let states = PodState::ALL
        .map(|state| (vec![("state", state.name())], ConstGauge::new(status.count(state) as i64)));
    family(encoder, ("pods", "Pod interfaces by how their limits are enforced"), states)?;
    let by_hand = status.pods.iter().filter(|pod| pod.live.is_some()).count();
    let help = "Pod interfaces with an override (limit set)";
    family(encoder, ("pods_set_by_hand", help), [(Vec::new(), ConstGauge::new(by_hand as i64))])?;
    // One series for each code, however many things have it.
    let mut codes: Vec<&str> = status.degraded.iter().map(Trouble::code).collect();
    codes.sort_unstable();
    let troubles = codes
        .chunk_by(|a, b| a == b)
        .map(|same| (vec![("code", same[0])], ConstGauge::new(same.len() as i64)));
    family(encoder, ("degraded", "What is degraded, by code; none if nothing is"), troubles)?;
    let generation = status.settings.as_ref().and_then(|in_force| in_force.generation);
    let generation = generation.map(|number| (Vec::new(), ConstGauge::new(number as i64)));
    family(encoder, ("settings_generation", "Generation of the settings in force"), generation)?;
    let verdicts = status.settings.iter().flat_map(|in_force| {
        [Reason::AsAsked, Reason::LastGood, Reason::Defaults].map(|reason| {
            let holds = ConstGauge::new(i64::from(in_force.reason == reason));
            (vec![("verdict", verdict(reason))], holds)
        })
    });
    family(encoder, ("settings_verdict", "1 for why the settings in force are"), verdicts)?;
    let kernel = &status.kernel;
    let known = |there: Option<bool>| match there {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    let labels = vec![
        ("release", kernel.release.as_str()),
        ("tcx", known(kernel.tcx)),
        ("sch_fq", known(kernel.sch_fq)),
    ];
    let help = "What of the kernel decides how limits are enforced";
    family(encoder, ("kernel_info", help), [(labels, ConstGauge::new(1i64))])
}

fn addresses(encoder: &mut DescriptorEncoder, capacity: &Capacity, now_ns: u64) -> Encoded {
    let states = capacity::CapacityState::ALL.map(|state| {
        let holds = ConstGauge::new(i64::from(state == capacity.state));
        (vec![("state", state.name())], holds)
    });
    let help = "1 for whether the node has the addresses that max-pods promises";
    family(encoder, ("ip_state", help), states)?;
    let max_pods = ConstGauge::new(i64::from(capacity.max_pods));
    family(encoder, ("max_pods", "Pods that kubelet takes"), [(Vec::new(), max_pods)])?;
    let seen = capacity.seen.as_ref();
    let counts = [
        ("ip_capacity", "Addresses for pods, used ones included", seen.map(|s| s.addresses)),
        ("ip_capacity_full", "The same when the instance's ENIs are full", capacity.full),
        ("ip_used", "Pods that have an address", seen.map(|s| s.used)),
    ];
    for (name, help, count) in counts {
        let count = count.map(|count| (Vec::new(), ConstGauge::new(count as f64)));
        family(encoder, (name, help), count)?;
    }
    let age = capacity.age_ns(now_ns).map(|ns| (Vec::new(), ConstGauge::new(ns as f64 / 1e9)));
    family(encoder, ("ip_age_seconds", "Since IMDS last answered"), age)
}

fn verdict(reason: Reason) -> &'static str {
    match reason {
        Reason::AsAsked => "as-asked",
        Reason::LastGood => "last-good",
        Reason::Defaults => "defaults",
    }
}

fn report(encoder: &mut DescriptorEncoder, version: &str, report: &AgentReport) -> Encoded {
    let counters = [
        ("repairs", "Attachments that were removed and that the agent restored", report.repairs),
        ("adopted_pods", "Pods that the chain had missed", report.adopted),
        ("collected_records", "Records whose pod had gone without a DEL", report.collected),
        (
            "conflist_writes",
            "Times that our entry was put into the conflist",
            report.conflist_writes,
        ),
        (
            "deferred_looks",
            "Looks that were put off because a pod's devices change too often",
            report.deferred,
        ),
        ("passes", "Whole passes of the agent over its pods", report.passes),
    ];
    for (name, help, count) in counters {
        family(encoder, (name, help), [(Vec::new(), ConstCounter::new(count))])?;
    }
    let pass = ConstGauge::new(report.last_pass_ns as f64 / 1e9);
    family(encoder, ("last_pass_seconds", "What the last whole pass took"), [(Vec::new(), pass)])?;
    let ready = ConstGauge::new(i64::from(report.ready));
    family(encoder, ("ready", "1 once the first whole pass has finished"), [(Vec::new(), ready)])?;
    let build = vec![("version", version)];
    let help = "The agent that answers";
    family(encoder, ("build_info", help), [(build, ConstGauge::new(1i64))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::node_share::PodShare;
    use crate::status::node_share::tests::{lines, share};
    use crate::status::text::tests::{capacity, pod, status};

    fn sample<'t>(text: &'t str, series: &str) -> Option<&'t str> {
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
    }

    fn busy() -> Status {
        let mut pod = pod();
        pod.egress.sent_bytes = 1514;
        pod.egress.dropped_packets = 7;
        pod.egress.aqm_dropped_packets = 3;
        pod.egress.fq_dropped_packets = Some(2);
        pod.egress.wait_ns = 1_500_000_000;
        pod.egress.delays =
            Some(Waits { buckets: vec![(Some(1_000_000), 4), (Some(2_000_000), 1), (None, 2)] });
        status(vec![pod])
    }

    #[test]
    fn series_carry_the_pod_its_interface_and_the_direction() {
        let text = text(&busy(), &SinceStart::begin()).unwrap();
        let of = "namespace=\"default\",pod=\"web\",interface=\"eth0\",direction=\"egress\"";
        let value = |name: &str| sample(&text, &format!("sluice_{name}{{{of}}}"));
        assert_eq!(value("pod_sent_bytes_total"), Some("1514"), "{text}");
        assert_eq!(value("pod_wait_seconds_total"), Some("1.5"));
        assert_eq!(value("pod_limit_bytes_per_second"), Some("2500000.0"));
        let dropped = |reason| {
            sample(&text, &format!("sluice_pod_dropped_packets_total{{{of},reason=\"{reason}\"}}"))
        };
        assert_eq!(
            (dropped("horizon"), dropped("aqm"), dropped("guard"), dropped("fq")),
            (Some("4"), Some("3"), Some("0"), Some("2"))
        );
        let bucket =
            |le| sample(&text, &format!("sluice_pod_delay_seconds_bucket{{le=\"{le}\",{of}}}"));
        assert_eq!(
            (bucket("0.001"), bucket("0.002"), bucket("+Inf")),
            (Some("4"), Some("5"), Some("7")),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn node_and_its_pods_have_series_of_what_they_share() {
        let mut status = busy();
        let without = text(&status, &SinceStart::begin()).unwrap();
        assert!(!without.contains("_node_") && !without.contains("weight"), "{without}");
        status.node_share = lines();
        status.pods[0].egress.share = Some(PodShare { sent_bytes: 1514, ..share() });
        let text = text(&status, &SinceStart::begin()).unwrap();
        let of = "namespace=\"default\",pod=\"web\",interface=\"eth0\",direction=\"egress\"";
        let value = |name: &str| sample(&text, &format!("sluice_{name}{{{of}}}"));
        assert_eq!(value("pod_node_bytes_total"), Some("1514"), "{text}");
        assert_eq!(value("pod_node_wait_seconds_total"), Some("2.5"));
        assert_eq!(value("pod_weight"), Some("200"));
        let node = |name: &str, direction| {
            sample(&text, &format!("sluice_node_{name}{{direction=\"{direction}\"}}"))
        };
        assert_eq!(node("capacity_bytes_per_second", "egress"), Some("2500000.0"));
        assert_eq!(node("busy", "egress"), Some("1.0"));
        assert_eq!(node("busy", "ingress"), Some("0.0"));
        assert_eq!(node("weights", "egress"), Some("300.0"));
    }

    #[test]
    fn no_series_comes_twice_whatever_sandboxes_are_called() {
        let (mut older, mut nameless) = (pod(), pod());
        (older.host_ifindex, older.container_id) = (Some(6), "old".into());
        (nameless.namespace, nameless.pod) = (String::new(), String::new());
        let mut other = nameless.clone();
        other.container_id = "other".into();
        let status = status(vec![older, pod(), nameless, other]);
        let text = text(&status, &SinceStart::begin()).unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let mut series: Vec<_> = samples.filter_map(|line| line.rsplit_once(' ')).collect();
        let all = series.len();
        series.sort();
        series.dedup_by_key(|(series, _)| *series);
        assert_eq!(series.len(), all, "{text}");
        let of = |labels: &str| format!("sluice_pod_sent_bytes_total{{{labels}}}");
        let plain = "namespace=\"default\",pod=\"web\",interface=\"eth0\",direction=\"egress\"";
        assert!(sample(&text, &of(plain)).is_some(), "{text}");
        let older = of(&format!("{plain},container_id=\"old\""));
        assert!(sample(&text, &older).is_some(), "{text}");
    }

    #[test]
    fn pod_without_limits_has_no_series() {
        let mut pod = pod();
        for line in [&mut pod.egress, &mut pod.ingress] {
            (line.limit_bps, line.origin, line.mode) = (None, None, None);
        }
        pod.guard = None;
        let text = text(&status(vec![pod]), &SinceStart::begin()).unwrap();
        assert!(!text.contains("sluice_pod_"), "{text}");
        assert_eq!(sample(&text, "sluice_pods{state=\"unlimited\"}"), Some("1"));
    }

    #[test]
    fn addresses_are_told_where_max_pods_promises_some() {
        let mut status = status(Vec::new());
        let metrics = |status: &Status| text(status, &SinceStart::begin()).unwrap();
        let none = metrics(&status);
        assert!(!none.contains("sluice_ip_") && !none.contains("sluice_max_pods"), "{none}");
        status.at_ns = 40_000_000_000;
        status.agent.as_mut().unwrap().report.capacity = Some(capacity());
        let all = metrics(&status);
        let lines = all.lines().filter(|line| !line.starts_with('#'));
        let ours = lines.filter(|line| line.contains("_ip_") || line.contains("max_pods"));
        assert_eq!(
            ours.collect::<Vec<_>>(),
            [
                "sluice_ip_state{state=\"unknown\"} 0",
                "sluice_ip_state{state=\"ok\"} 1",
                "sluice_ip_state{state=\"filling\"} 0",
                "sluice_ip_state{state=\"mismatch\"} 0",
                "sluice_ip_state{state=\"exhausted\"} 0",
                "sluice_max_pods 110",
                "sluice_ip_capacity 32.0",
                "sluice_ip_capacity_full 240.0",
                "sluice_ip_used 5.0",
                "sluice_ip_age_seconds 30.0",
            ]
        );
    }

    #[test]
    fn add_times_are_in_seconds() {
        let since_start = SinceStart::begin();
        since_start.observe_add(3_000_000);
        let text = text(&status(Vec::new()), &since_start).unwrap();
        let bucket = |le| sample(&text, &format!("sluice_cni_add_seconds_bucket{{le=\"{le}\"}}"));
        assert_eq!(
            (bucket("0.002"), bucket("0.005"), bucket("+Inf")),
            (Some("0"), Some("1"), Some("1"))
        );
    }

    #[test]
    fn older_format_names_counters_by_their_samples() {
        let openmetrics = "# HELP a_bytes A.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                           a_bytes_total 1\n# HELP b B.\n# TYPE b gauge\nb 2\n# EOF\n";
        let expected = "# HELP a_bytes_total A.\n# TYPE a_bytes_total counter\na_bytes_total 1\n\
                        # HELP b B.\n# TYPE b gauge\nb 2\n";
        assert_eq!(older_format(openmetrics), expected);
    }
}
