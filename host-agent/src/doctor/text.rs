// SPDX-License-Identifier: Apache-2.0
//! The diagnosis as text: a line that sums it up, the findings with what to do,
//! and on demand every device as a tree of its hooks.

use std::collections::BTreeMap;

use super::diagnosis::Diagnosis;
use super::finding::Finding;
use super::hooks::{HookEntry, Layer, Side, Surveyed};
use super::owner::Owner;
use super::policy;
use super::survey::{KernelSurvey, Survey, SurveyedPod};
use crate::trouble::Severity;

impl Diagnosis {
    /// Findings, and with `all` every device with its hooks.
    pub fn to_text(&self, all: bool) -> String {
        let mut text = summary(self) + &findings(&self.findings, all);
        if all {
            text += &tree(&self.survey);
        }
        text
    }
}

fn summary(diagnosis: &Diagnosis) -> String {
    let survey = &diagnosis.survey;
    let number = |severity, one: &str| match diagnosis.count(severity) {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let degraded = diagnosis.count(Severity::Degraded);
    let limited = survey.pods.iter().filter_map(|pod| pod.record.as_ref().ok());
    let limited = limited.filter(|record| !record.is_unlimited()).count();
    let policy =
        if policy::is_present(survey) { "network policy is here" } else { "no network policy" };
    let agent = if survey.state.agent_answers { "the agent runs" } else { "no agent" };
    format!(
        "{}, {degraded} degraded, {}: kernel {}, {} pods ({limited} limited), {agent}, {policy}\n",
        number(Severity::Fault, "fault"),
        number(Severity::Note, "note"),
        survey.kernel.release,
        survey.pods.len(),
    )
}

/// How much is shown of what many pods have in common, without `--all`.
const SUBJECTS: usize = 3;
const GROUPS: usize = 3;

/// Findings that say the same of several subjects appear once; a screen is to hold what matters.
fn findings(findings: &[Finding], all: bool) -> String {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        match groups.iter_mut().find(|group| says_the_same(group[0], finding)) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    let (mut text, mut shown) = (String::new(), BTreeMap::<_, usize>::new());
    for group in groups {
        let count = shown.entry((group[0].severity, group[0].code)).or_default();
        *count += 1;
        if all || *count <= GROUPS {
            text += &group_text(&group, all);
        }
    }
    for ((severity, code), count) in shown.into_iter().filter(|_| !all) {
        if let Some(more) = count.checked_sub(GROUPS).filter(|more| *more > 0) {
            text += &format!("\n{:<9} {code}: {more} more, see --all\n", upper(severity));
        }
    }
    text
}

fn says_the_same(a: &Finding, b: &Finding) -> bool {
    (a.severity, a.code, &a.seen, &a.why) == (b.severity, b.code, &b.seen, &b.why)
}

fn upper(severity: Severity) -> String {
    severity.to_string().to_uppercase()
}

fn group_text(group: &[&Finding], all: bool) -> String {
    let Finding { severity, code, subject, seen, why, remedy } = group[0];
    let mut text = format!("\n{:<9} {code}: {subject}\n", upper(*severity));
    let others: Vec<&str> = group[1..].iter().map(|other| other.subject.as_str()).collect();
    let (some, rest) = others.split_at(if all { others.len() } else { SUBJECTS.min(others.len()) });
    let mut also = some.join("; ");
    if !rest.is_empty() {
        also += &format!("; and {} more", rest.len());
    }
    for (word, line) in [("also", &also), ("seen", seen), ("why", why), ("do", remedy)] {
        if !line.is_empty() {
            text += &format!("  {word:<7} {line}\n");
        }
    }
    text
}

/// Every device that has something on it, and both ends of each pod.
fn tree(survey: &Survey) -> String {
    let mut text = format!("\n{}", node(&survey.kernel));
    for device in &survey.host.devices {
        let pod = survey.pod_behind(device);
        let heading = match pod {
            Some(pod) => {
                let slot = pod.claim.slot.number();
                format!("{} (pod {}, slot {slot})", device.device.name, pod.name())
            }
            None => device.device.name.clone(),
        };
        text += &format!("\n{heading}{}\n", kind(device));
        text += &hooks(device, "  ");
        if let Some(SurveyedPod { inside: Ok(inside), .. }) = pod {
            text += &format!("  inside the pod: {}{}\n", inside.device.name, kind(inside));
            text += &hooks(inside, "    ");
        }
    }
    text
}

fn node(kernel: &KernelSurvey) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown here".into());
    let tcx = match kernel.has_tcx {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown here",
    };
    format!(
        "kernel {}: tcx {tcx}, clock {}, bpf_jit_enable {}, bpf_jit_harden {}, \
         default_qdisc {}, tcp_congestion_control {}\n",
        kernel.release,
        value(&kernel.clock_source),
        value(&kernel.bpf_jit_enable),
        value(&kernel.bpf_jit_harden),
        value(&kernel.default_qdisc),
        value(&kernel.tcp_congestion_control),
    )
}

fn kind(device: &Surveyed) -> String {
    match &device.device.kind {
        Some(kind) => format!(", {kind}"),
        None => String::new(),
    }
}

/// In the order in which a packet meets them.
fn hooks(device: &Surveyed, indent: &str) -> String {
    let mut text = String::new();
    if let Some(program) = device.device.xdp {
        text += &format!("{indent}ingress  xdp: program {program}\n");
    }
    for (side, word) in [(Side::Ingress, "ingress"), (Side::Egress, "egress")] {
        for (layer, name) in [(Layer::Tcx, "tcx"), (Layer::Clsact, "clsact"), (Layer::Root, "root")]
        {
            let entries = device.hook(side, layer);
            if !entries.is_empty() {
                text += &format!("{indent}{word:<8} {name}: {}\n", chain(entries, layer));
            }
        }
    }
    let qdiscs: Vec<String> = device
        .qdiscs
        .iter()
        .map(|qdisc| match qdisc.handle >> 16 {
            0 => qdisc.kind.clone(),
            major => format!("{} {major:x}:", qdisc.kind),
        })
        .collect();
    if !qdiscs.is_empty() {
        text += &format!("{indent}qdiscs   {}\n", qdiscs.join(", "));
    }
    text
}

fn chain(entries: &[HookEntry], layer: Layer) -> String {
    let one =
        |(index, entry): (usize, &HookEntry)| format!("{} {}", index + 1, entry_text(entry, layer));
    entries.iter().enumerate().map(one).collect::<Vec<_>>().join(" -> ")
}

fn entry_text(entry: &HookEntry, layer: Layer) -> String {
    let place = entry.filter.as_ref().map_or_else(String::new, |filter| {
        format!("prio {} handle {:#x} ", filter.priority, filter.handle)
    });
    let name = match (entry.name.as_str(), &entry.filter) {
        ("", Some(filter)) => filter.kind.as_str(),
        (name, _) => name,
    };
    let verdicts = entry.verdicts(layer);
    // Ours never end a chain, and tests watch that.
    match entry.owner {
        Owner::Sluice => format!("{place}{name} [{}]", entry.owner),
        _ => {
            format!("{place}{name} [{}] returns {verdicts} ({})", entry.owner, entry.effect(layer))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trouble::code;

    fn finding(subject: &str, seen: &str) -> Finding {
        Finding::new(code::FQ_MISSING, subject)
            .seen(seen)
            .why("why")
            .remedy(format!("do {subject}"))
    }

    #[test]
    fn what_is_said_of_many_is_told_once() {
        let all: Vec<Finding> = (1..=6).map(|n| finding(&format!("p{n}"), "same")).collect();
        let expected = "\nFAULT     fq-missing: p1\n  also    p2; p3; p4; and 2 more\n  seen    same\n  \
                        why     why\n  do      do p1\n";
        assert_eq!(findings(&all, false), expected);
        assert!(findings(&all, true).contains("p2; p3; p4; p5; p6\n"));
    }

    #[test]
    fn what_differs_is_told_a_few_times() {
        let all: Vec<Finding> = (1..=6).map(|n| finding("p", &format!("seen {n}"))).collect();
        let text = findings(&all, false);
        assert!(text.contains("seen 3") && !text.contains("seen 4"), "{text}");
        assert!(text.ends_with("\nFAULT     fq-missing: 3 more, see --all\n"), "{text}");
        assert!(findings(&all, true).contains("seen 6"));
    }
}
