// SPDX-License-Identifier: Apache-2.0
//! The node for people, on one screen and in one line.

use std::collections::BTreeSet;
use std::fmt::Write;

use settings_model::{Rate, Settings};

use super::node_share::NodeLines;
use super::{Kernel, PodState, Status};
use crate::addresses::capacity::{Capacity, numbers};
use crate::pod::time_to_live::TimeToLive;
use crate::settings::in_force::InForce;
use crate::settings::in_words::limits;
use crate::trouble::some;

/// One screen: is it well, and if not, what to do. Begins with the settings; `values` are theirs, where
/// they can be read.
pub fn screen(status: &Status, values: Option<&Settings>) -> String {
    let mut text = settings(status);
    let mut line = |name: &str, what: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<9}{}{what}",
            format!("{name}:"),
            if what.is_empty() { "" } else { " " }
        );
    };
    let values = values.filter(|_| status.settings.is_some());
    values.iter().for_each(|values| line("limits", &limits(&values.bandwidth)));
    let took = status.settings.iter().filter_map(|in_force| in_force.took);
    took.for_each(|took| line("applied", &format!("in {}", took.to_text())));
    line("agent", &agent(status));
    line("shaping", &shaping(&status.kernel));
    line("kernel", &kernel(&status.kernel));
    node_line(&status.node_share, |direction| status.node_rate(direction))
        .iter()
        .for_each(|text| line("share", text));
    line("pods", &counts(status));
    overrides(status).iter().for_each(|text| line("overrides", text));
    max_pods(status).iter().for_each(|text| line("max-pods", text));
    if let Some(capacity) = &status.agent.as_ref().and_then(|agent| agent.report.capacity.as_ref())
    {
        line("capacity", &addresses(capacity, status.at_ns));
    }
    if status.degraded.is_empty() {
        line("degraded", "nothing");
        return text;
    }
    line("degraded", "");
    for trouble in &status.degraded {
        let _ = writeln!(
            text,
            "  {}: {}: {}\n    next: {}",
            trouble.code(),
            trouble.subject,
            trouble.what,
            trouble.next_step
        );
    }
    text
}

/// One line: how it is, and the worst of what is wrong.
pub fn brief(status: &Status) -> String {
    let settings = status.settings.as_ref().map_or("no settings".into(), InForce::to_text);
    let Some(worst) = status.degraded.first() else {
        return format!("ok: {}; {settings}\n", pods(status));
    };
    let more = match status.degraded.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    format!("{}: {}: {}: {}{more}\n", worst.severity, worst.code(), worst.subject, worst.what)
}

fn pods(status: &Status) -> String {
    match status.pods.len() {
        0 => "no pods".into(),
        1 => "1 pod".into(),
        several => format!("{several} pods"),
    }
}

fn settings(status: &Status) -> String {
    let Some(in_force) = &status.settings else {
        return "settings: none; `sluice boot` has not run\n".into();
    };
    let mut text = format!("settings: {}\n", in_force.to_text());
    // Problems are said with what is degraded.
    in_force.warnings.iter().for_each(|line| text += &format!("  {line}\n"));
    text
}

fn agent(status: &Status) -> String {
    let Some(agent) = &status.agent else { return "not running".into() };
    let report = &agent.report;
    format!(
        "{}, version {}; {} passes, the last took {}; {} repairs, {} adopted, {} collected",
        if report.ready { "ready" } else { "running, not ready" },
        agent.version,
        report.passes,
        duration(report.last_pass_ns),
        report.repairs,
        report.adopted,
        report.collected,
    )
}

/// As `cilium status` says it, for readers who look for that.
fn shaping(kernel: &Kernel) -> String {
    match kernel.sch_fq {
        Some(true) => "EDT with BPF (fq), in each pod's own namespace".into(),
        Some(false) => "policing with BPF: the kernel has no sch_fq".into(),
        None => "EDT with BPF (fq) where the kernel has sch_fq; no limit has tried it yet".into(),
    }
}

fn kernel(kernel: &Kernel) -> String {
    let has = |name: &str, there: Option<bool>| match there {
        Some(true) => name.to_owned(),
        Some(false) => format!("no {name}"),
        None => format!("{name} unknown"),
    };
    let (tcx, sch_fq) = (has("tcx", kernel.tcx), has("sch_fq", kernel.sch_fq));
    format!("{}, {tcx}, {sch_fq}", kernel.release)
}

fn counts(status: &Status) -> String {
    let by_state = PodState::ALL.map(|state| (state, status.count(state)));
    let counts = by_state.iter().filter(|(_, count)| *count > 0);
    let counts: Vec<String> =
        counts.map(|(state, count)| format!("{count} {}", state.name())).collect();
    match counts.is_empty() {
        true => "none".into(),
        false => format!("{}: {}", status.pods.len(), counts.join(", ")),
    }
}

/// Of which pods the limits are others for a while.
fn overrides(status: &Status) -> Option<String> {
    let pods = status.pods.iter().filter_map(|pod| {
        let left = TimeToLive::left(pod.live?.until.saturating_sub(status.time))?;
        Some(format!("{} (ends in {left})", pod.name()))
    });
    let pods = pods.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    (!pods.is_empty()).then(|| some(&pods))
}

/// What kubelet runs with, and what it has been given.
fn max_pods(status: &Status) -> Option<String> {
    let given = status.settings.as_ref()?.max_pods.as_ref()?;
    let has = match status.kubelet.as_ref()?.max_pods {
        Some(pods) if pods == given.pods => None,
        Some(pods) => Some(format!("kubelet runs with {pods} until it restarts")),
        None => Some("kubelet has not read it yet".into()),
    };
    let has = has.map(|has| format!("; {has}")).unwrap_or_default();
    Some(format!("{}{has} ({})", given.pods, given.summary))
}

/// What max-pods promises, and what is there.
fn addresses(capacity: &Capacity, now_ns: u64) -> String {
    let age = capacity.age_ns(now_ns).map(|age| format!("; IMDS answered {} ago", duration(age)));
    let (state, numbers) = (capacity.state.name(), numbers(capacity));
    format!("{state}: {numbers}{}", age.unwrap_or_default())
}

/// What pods share of the node in one line; `used` is a direction's rate, where that is known. None where
/// nothing is shared.
pub fn node_line(lines: &NodeLines, used: impl Fn(&str) -> Option<u64>) -> Option<String> {
    let each = lines.shared().map(|(direction, line)| {
        let used = used(direction).map(|bps| format!("{} of ", short(bps)));
        let busy = match line.busy {
            true => format!(", busy, weights {}", line.weights),
            false => ", not busy".into(),
        };
        let capacity = short(line.capacity_bps);
        format!("{direction} {}{capacity}{busy}", used.unwrap_or_default())
    });
    let all = each.collect::<Vec<_>>().join("; ");
    (!all.is_empty()).then_some(all)
}

/// Three digits are enough to compare by eye; `--json` has all of them.
pub fn short(bits_per_sec: u64) -> String {
    let digits = bits_per_sec.checked_ilog10().unwrap_or(0);
    let step = 10u64.pow(digits.saturating_sub(2));
    let rounded = (bits_per_sec + step / 2) / step * step;
    Rate::from_bits_per_sec(rounded).map_or(format!("{rounded}bit"), |rate| rate.to_string())
}

/// Three digits of a time.
pub fn duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
pub mod tests {
    use super::super::node::RunningAgent;
    use super::super::node_share::tests::{lines, share};
    use super::super::{GuardLine, Line, PodStatus};
    use super::*;
    use crate::addresses::capacity;
    use crate::addresses::capacity::state::{AddressCount, CapacityFinding};
    use crate::pod::asked::{Annotated, Override};
    use crate::pod::limit::Origin;
    use crate::pod::record::Arrival;
    use crate::settings::generation::Verdict;
    use crate::settings::in_force::Reason;
    use crate::status::report::AgentReport;
    use crate::trouble::{Trouble, code};

    fn line() -> Line {
        Line {
            limit_bps: Some(20_000_000),
            origin: Some(Origin::NodeDefault),
            asked: None,
            measured_bps: None,
            sent_packets: 0,
            sent_bytes: 0,
            dropped_packets: 0,
            dropped_bytes: 0,
            aqm_dropped_packets: 0,
            unready_dropped_packets: 0,
            fq_dropped_packets: None,
            marked_packets: 0,
            wait_ns: 0,
            mean_wait_ns: None,
            last_drops: Default::default(),
            delays: None,
            share: None,
            mode: Some("paced".into()),
            broken: false,
            reason: "fq releases each packet on time".into(),
        }
    }

    /// Limited in both directions, and all is well.
    pub fn pod() -> PodStatus {
        PodStatus {
            namespace: "default".into(),
            pod: "web".into(),
            container_id: "0123456789abcdef".into(),
            interface: "eth0".into(),
            host_interface: Some("eni1".into()),
            host_ifindex: Some(7),
            slot: 1,
            came: Arrival::Added { took_ns: Some(12_000_000) },
            main: None,
            annotated: Annotated::default(),
            live: None,
            egress: line(),
            ingress: line(),
            guard: Some(GuardLine {
                state: "tcx".into(),
                reason: "a link at the head of the host's end".into(),
                measured_bps: None,
                passed_bytes: 0,
                unshaped_packets: 0,
                dropped_packets: 0,
                last_drop_at_ns: None,
            }),
            bypassed: None,
        }
    }

    /// A node with these pods, where all is well.
    pub fn status(pods: Vec<PodStatus>) -> Status {
        let report = AgentReport {
            ready: true,
            passes: 12,
            last_pass_ns: 3_140_000,
            ..AgentReport::default()
        };
        Status {
            at_ns: 7,
            time: 1_800_000_000,
            agent: Some(RunningAgent { version: "0.1.0".into(), report }),
            settings: Some(InForce {
                generation: Some(3),
                documents: vec!["user-data".into()],
                reason: Reason::AsAsked,
                problems: Vec::new(),
                took: None,
                unread: false,
                warnings: Vec::new(),
                unmet: Vec::new(),
                max_pods: None,
            }),
            verdict: Some(Verdict::Good),
            kubelet: None,
            kernel: Kernel { release: "6.12.0".into(), tcx: Some(true), sch_fq: Some(true) },
            node_share: Default::default(),
            pods,
            degraded: Vec::new(),
        }
    }

    #[test]
    fn screen_of_a_node_that_is_well() {
        assert_eq!(
            screen(&status(vec![pod()]), Some(&Settings::default())),
            "settings: generation 3 (user-data), as asked for\n\
             limits:   none by default; no class\n\
             agent:    ready, version 0.1.0; 12 passes, the last took 3.14ms; 0 repairs, 0 adopted, 0 \
             collected\n\
             shaping:  EDT with BPF (fq), in each pod's own namespace\n\
             kernel:   6.12.0, tcx, sch_fq\n\
             pods:     1: 1 paced\n\
             degraded: nothing\n"
        );
    }

    #[test]
    fn line_that_pods_share_is_on_the_screen() {
        let mut node = status(vec![pod()]);
        node.node_share = lines();
        node.pods[0].egress.share = Some(share());
        let line =
            "share:    egress 13Mbit of 20Mbit, busy, weights 300; ingress 20Mbit, not busy\n";
        assert!(screen(&node, None).contains(line), "{}", screen(&node, None));
    }

    /// Two prefixes of a node that promises 110 pods, seen half a minute ago.
    pub fn capacity() -> Capacity {
        let seen = AddressCount { at_ns: 10_000_000_000, addresses: 32, prefixes: 2, used: 5 };
        let (state, finding) = (capacity::CapacityState::Ok, CapacityFinding::Fits);
        Capacity { state, finding, max_pods: 110, full: Some(240), seen: Some(seen) }
    }

    #[test]
    fn addresses_for_pods_come_with_their_age() {
        let mut status = status(Vec::new());
        status.at_ns = 43_500_000_000;
        let line = |status: &Status| {
            let text = screen(status, None);
            text.lines().find_map(|line| line.strip_prefix("capacity: ")).unwrap().to_owned()
        };
        let mut line = |capacity| {
            status.agent.as_mut().unwrap().report.capacity = Some(capacity);
            line(&status)
        };
        assert_eq!(
            line(capacity()),
            "ok: 32 addresses for pods, up to 240; 5 pods have one; max-pods 110; IMDS answered 33.5s ago"
        );
        let unseen = Capacity {
            state: capacity::CapacityState::Unknown,
            finding: CapacityFinding::Unseen,
            seen: None,
            full: None,
            ..capacity()
        };
        assert_eq!(line(unseen), "unknown: addresses for pods not seen; max-pods 110");
        let mut v6 = capacity();
        v6.full = Some(u64::MAX);
        v6.seen.as_mut().unwrap().addresses = 1 << 48;
        assert!(line(v6).starts_with("ok: unbounded addresses for pods; 5 pods"));
    }

    #[test]
    fn degraded_things_come_with_the_next_step() {
        let mut degraded = status(Vec::new());
        let contested =
            Trouble::new(code::CONTESTED, "default/web eth0", "removed 3 times in a minute");
        degraded.degraded = vec![contested.with_next_step("find what does it")];
        let text = screen(&degraded, None);
        let end = "pods:     none\ndegraded:\n  contested: default/web eth0: removed 3 times in a \
                   minute\n    next: find what does it\n";
        assert!(text.replace(" \n", "\n").ends_with(end), "{text}");
    }

    #[test]
    fn problems_of_settings_are_said_once() {
        let mut node = status(Vec::new());
        let in_force = node.settings.as_mut().unwrap();
        (in_force.reason, in_force.problems) =
            (Reason::LastGood, vec!["a:1: no".into(), "a:2: no".into()]);
        node.degraded = crate::status::degraded::of(&node, None);
        let text = screen(&node, None);
        assert_eq!(
            (text.matches("a:1: no").count(), text.matches("a:2: no").count()),
            (1, 1),
            "{text}"
        );
    }

    #[test]
    fn overrides_are_on_the_screen_with_their_end() {
        let mut pod = pod();
        let live = |until| Override { egress: "5Mbit".parse().ok(), ingress: None, until };
        pod.live = Some(live(1_800_000_090));
        let line = "pods:     1: 1 paced\noverrides: default/web (ends in 1m30s)\n";
        assert!(screen(&status(vec![pod.clone()]), None).contains(line));
        pod.live = Some(live(1_800_000_000));
        assert!(!screen(&status(vec![pod]), None).contains("overrides"));
    }

    #[test]
    fn one_line_says_how_the_node_is_and_the_worst_of_what_is_wrong() {
        let mut node = status(vec![pod()]);
        assert_eq!(brief(&node), "ok: 1 pod; generation 3 (user-data), as asked for\n");
        node.degraded = vec![
            Trouble::new(code::NOT_ENFORCED, "default/web eth0", "a tbf is there"),
            Trouble::new(code::CONTESTED, "default/web eth0", "removed"),
        ];
        let line = "fault: not-enforced: default/web eth0: a tbf is there (and 1 more)\n";
        assert_eq!((brief(&node).as_str(), node.exit_status()), (line, 1));
    }

    #[test]
    fn measured_rates_are_rounded_to_three_digits() {
        assert_eq!(short(0), "0bit");
        assert_eq!(short(99_987_654), "100Mbit");
        assert_eq!(short(1_234_567), "1230kbit");
    }

    #[test]
    fn times_have_three_digits() {
        let table =
            [(0, "0ns"), (1_500, "1.50us"), (12_340_000, "12.3ms"), (3_000_000_000, "3.00s")];
        table.iter().for_each(|(ns, text)| assert_eq!(duration(*ns), *text));
        assert_eq!(duration(123_400_000), "123ms");
    }
}
