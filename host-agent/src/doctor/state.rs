// SPDX-License-Identifier: Apache-2.0
//! Checks of what Sluice keeps: settings in force, pins, records, the agent.

use bpf::survey::Pinned;

use super::finding::Finding;
use super::survey::{Survey, SurveyedPod};
use crate::host::logging::harmless;
use crate::libcni::entry::is_chained;
use crate::settings::in_force::Reason;
use crate::trouble::{Severity, code};

pub fn check(survey: &Survey) -> Vec<Finding> {
    [settings(survey), pins(survey), records(survey), agent(survey)].concat()
}

fn settings(survey: &Survey) -> Vec<Finding> {
    let state = &survey.state;
    let unreadable = |text: &String| {
        Finding::new(code::SETTINGS_UNREADABLE, "/run/sluice")
            .seen(text)
            .why("new pods start without limits")
    };
    let mut findings: Vec<Finding> = state.in_force_error.iter().map(unreadable).collect();
    match &state.settings {
        Some(Err(text)) => findings.push(unreadable(text)),
        None => {
            let finding = Finding::new(code::NOT_BOOTED, "/run/sluice/settings.toml")
                .seen("it is not there")
                .why(
                    "no pod gets a limit: the plugin is not installed, or lets pods start without",
                );
            findings.push(finding);
        }
        Some(Ok(_)) => {}
    }
    if let Some(in_force) = state.in_force.as_ref().filter(|f| f.reason != Reason::AsAsked) {
        let finding = Finding::new(code::SETTINGS_NOT_AS_ASKED, "settings")
            .seen(format!("in force: {}", in_force.to_text()))
            .why(in_force.problems.join("; "))
            .remedy(in_force.next_step());
        findings.push(finding);
    }
    findings
}

fn pins(survey: &Survey) -> Vec<Finding> {
    let bpffs = &survey.bpffs;
    let own = format!("v{}", bpf::ABI);
    let dir = bpffs.path.join("sluice");
    let mut findings = Vec::new();
    if let Some(error) = &bpffs.pins_error {
        // A node that limits no one can do without.
        let chained = survey.state.settings().is_none_or(is_chained);
        let severity = if chained { Severity::Fault } else { Severity::Note };
        let path = dir.join(&own).display().to_string();
        let finding = Finding::new(code::PINS_MISSING, path)
            .severity(severity)
            .seen(error)
            .why("new pods start without their limits, and no limit can be changed");
        findings.push(finding);
    }
    for layout in bpffs.layouts.iter().filter(|layout| **layout != own) {
        let path = dir.join(layout).display().to_string();
        let finding = Finding::new(code::PINS_OF_OTHER_VERSION, path.as_str())
            .seen(format!("pins of layout {layout}; this version has {own}"))
            .why("pods that an older version attached may still run by them")
            .remedy(format!("once no older pod runs on this node: rm -r {path}"));
        findings.push(finding);
    }
    for pin in survey.programs.pins.iter().filter(|pin| pin.path.starts_with(&dir)) {
        if matches!(pin.holds, Pinned::Link { ifindex: Some(0), .. }) {
            let path = pin.path.display().to_string();
            let finding = Finding::new(code::LINK_LEFT, path.as_str())
                .seen("a link whose device has gone")
                .why("it does nothing, and keeps a little memory")
                .remedy(format!(
                    "the agent removes it with its record; without an agent: rm {path}"
                ));
            findings.push(finding);
        }
    }
    findings
}

fn records(survey: &Survey) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        survey.pods.iter().filter_map(|pod| record(survey, pod)).collect();
    let chained = survey.state.settings().is_some_and(is_chained);
    for result in survey.state.results.iter().filter(|_| chained) {
        let key =
            |pod: &SurveyedPod| (pod.claim.key.container_id.clone(), pod.claim.key.ifname.clone());
        let wanted = (result.container_id.clone(), result.ifname.clone());
        if survey.pods.iter().all(|pod| key(pod) != wanted) {
            let name = harmless(&format!("pod {}/{}", result.namespace, result.pod));
            let finding = Finding::new(code::POD_WITHOUT_RECORD, name)
                .seen(format!(
                    "the runtime has a result for its {}, and Sluice has no record",
                    result.ifname
                ))
                .why("it started before our entry was in the chain, so it has no limit")
                .remedy(format!(
                    "the agent adopts it while it runs; or kubectl -n {} delete pod {}",
                    harmless(&result.namespace),
                    harmless(&result.pod)
                ));
            findings.push(finding);
        }
    }
    findings
}

fn record(survey: &Survey, pod: &SurveyedPod) -> Option<Finding> {
    let subject = format!("pod {}", pod.name());
    let slot = pod.claim.slot.number();
    let file = format!(
        "/run/sluice/pods/{slot}@{}@{}.json",
        pod.claim.key.container_id, pod.claim.key.ifname
    );
    let record = match &pod.record {
        Ok(record) => record,
        Err(text) => {
            let finding = Finding::new(code::RECORD_UNREADABLE, subject)
                .seen(text)
                .why(format!("slot {slot} is taken, and nothing can be changed or removed"))
                .remedy(format!("rm {file}; then restart the pod"));
            return Some(finding);
        }
    };
    let gone = match (&pod.inside, survey.host_end(record)) {
        (Err(error), _) => error.clone(),
        (Ok(_), None) if record.host.is_some() => "its end on the host has gone".into(),
        _ => return None,
    };
    let finding = Finding::new(code::RECORD_WITHOUT_POD, subject)
        .seen(gone)
        .why(format!("slot {slot} stays taken until a DEL comes; 1023 are all there are"))
        .remedy(format!("the agent collects it while it runs; without an agent: rm {file}"));
    Some(finding)
}

fn agent(survey: &Survey) -> Vec<Finding> {
    if survey.state.agent_answers {
        return Vec::new();
    }
    let pending = survey.pods.iter().filter_map(|pod| pod.record.as_ref().ok());
    let guards = pending.filter(|r| r.guard == Some(crate::pod::record::Guard::Pending)).count();
    let seen = match guards {
        0 => "its socket does not answer".to_owned(),
        count => format!("its socket does not answer; {count} guards wait for it"),
    };
    let socket = survey.state.socket.display().to_string();
    let why = match survey.bpffs.pins_error.is_some() && survey.pods.is_empty() {
        true => "nothing of Sluice's is attached, as after sluice detach: no pod has a limit",
        false => {
            "limits stay in force, but nothing is repaired, adopted or collected, and new pods get no guard"
        }
    };
    vec![Finding::new(code::AGENT_NOT_RUNNING, socket).seen(seen).why(why)]
}
