// SPDX-License-Identifier: Apache-2.0
//! Checks of network policy on pods' devices: what keeps it from running, from
//! attaching, or from finding its own. Facts of the AWS network policy agent:
//! aws-ebpf-sdk-go pkg/tc/tc.go and pkg/ebpf/bpf_client.go of the agent.

use bpf::survey::{Pin, Pinned};

use super::finding::Finding;
use super::hooks::{Ends, HookEntry, Layer, Side, Surveyed};
use super::owner::Owner;
use super::shaping::told_of;
use super::survey::{Survey, SurveyedPod};
use crate::trouble::{Severity, code};

const POLICY_PINS: &str = "globals/aws/programs";
const SIDES: [(Side, &str, &str); 2] = [
    // Named from the pod: what it sends comes in at the host's end.
    (Side::Ingress, "the pod's egress", "handle_egress"),
    (Side::Egress, "the pod's ingress", "handle_ingress"),
];
const ETH_P_ALL: u16 = 3;
/// Calico restores both, and its limit is one that was asked for.
const CALICO_QOS: &str = "Calico limits what this pod sends: remove its annotation \
                          qos.projectcalico.org/egressBandwidth, Sluice keeps the pod's own limit";
const RESTART: &str =
    "kubectl -n kube-system rollout restart daemonset aws-node, or restart the pod";

pub fn check(survey: &Survey) -> Vec<Finding> {
    let present = is_present(survey);
    let mut findings = Vec::new();
    for device in survey.pod_ends() {
        let subject = survey.subject(device);
        for (side, direction, program) in SIDES {
            findings.extend(bypassed(&subject, device, side, direction));
            findings.extend(in_the_way(&subject, device, side, present));
            if present {
                findings.extend(missing(survey, &subject, device, side, direction, program));
                findings.extend(outdated(survey, &subject, device, side, direction, program));
            }
        }
        findings.extend(ingress_qdisc(&subject, device, present));
    }
    findings
}

/// Whether the policy agent works on this node.
pub fn is_present(survey: &Survey) -> bool {
    let dir = survey.bpffs.path.join(POLICY_PINS);
    let pinned = survey.programs.pins.iter().any(|pin| pin.path.starts_with(&dir));
    pinned || survey.pod_ends().any(|device| SIDES.iter().any(|(side, ..)| has(device, *side)))
}

fn has(device: &Surveyed, side: Side) -> bool {
    device.chain(side).any(|(_, entry)| entry.is_policy())
}

fn bypassed(subject: &str, device: &Surveyed, side: Side, direction: &str) -> Option<Finding> {
    if !device.hook(side, Layer::Clsact).iter().any(HookEntry::is_policy) {
        return None;
    }
    let ahead = device.chain(side).take_while(|(_, entry)| !entry.is_policy());
    let (layer, entry) = ahead.max_by_key(|(layer, entry)| entry.ends(*layer))?;
    match entry.ends(layer) {
        Ends::Never => None,
        Ends::CanPass => Some(
            Finding::new(code::POLICY_BYPASSED, subject).seen(told_of(entry, layer)).why(format!(
                "network policy for {direction} does not see those packets: it is bypassed"
            )),
        ),
        Ends::Unknown => Some(
            Finding::new(code::POLICY_PERHAPS_BYPASSED, subject)
                .seen(told_of(entry, layer))
                .why(format!("if it ends the chain, network policy for {direction} is bypassed")),
        ),
    }
}

/// Filters that keep the agent from attaching, or that it takes for its own.
fn in_the_way(subject: &str, device: &Surveyed, side: Side, present: bool) -> Vec<Finding> {
    let entries = device.hook(side, Layer::Clsact).iter().filter(|entry| !entry.is_policy());
    let mut findings = Vec::new();
    for entry in entries {
        let Some(filter) = &entry.filter else { continue };
        let fits = filter.kind == "bpf" && filter.protocol == ETH_P_ALL;
        let (handle, priority, kind) = (filter.handle, filter.priority, &filter.kind);
        let place =
            format!("{}, priority {priority}, handle {handle:#x}, on {side:?}", entry.label())
                .to_lowercase();
        let delete = format!(
            "tc filter del dev {} {} pref {priority} handle {handle:#x} {kind}",
            device.device.name,
            if side == Side::Ingress { "ingress" } else { "egress" },
        );
        let (elsewhere, unnamed) = match entry.owner {
            Owner::Calico => (CALICO_QOS.to_owned(), CALICO_QOS.to_owned()),
            _ => (
                format!("give it another priority; or {delete}"),
                format!("attach it with another handle; or {delete}"),
            ),
        };
        if priority == 1 && !fits {
            let severity = if present { Severity::Fault } else { Severity::Note };
            findings.push(
                Finding::new(code::PRIORITY_TAKEN, subject).severity(severity)
                    .seen(place)
                    .why("network policy needs priority 1 with kind bpf and every protocol; the kernel answers EINVAL, and CNI ADD fails")
                    .remedy(elsewhere),
            );
        } else if handle == 1 {
            let severity = if present { Severity::Degraded } else { Severity::Note };
            findings.push(
                Finding::new(code::HANDLE_ONE_TAKEN, subject).severity(severity)
                    .seen(place)
                    .why("the policy agent takes every handle 1 for its own: it deletes the first, and after its upgrade does not attach again where this one is the last")
                    .remedy(unnamed),
            );
        }
    }
    findings
}

/// Network policy is off where it should be on; nothing repairs that.
fn missing(
    survey: &Survey,
    subject: &str,
    device: &Surveyed,
    side: Side,
    direction: &str,
    program: &str,
) -> Option<Finding> {
    if has(device, side) {
        return None;
    }
    let pinned = survey.pod_behind(device).and_then(|pod| pin_of(survey, pod, program));
    let elsewhere = survey.pod_ends().filter(|other| has(other, side)).count();
    let clsact = match device.has_qdisc("clsact") {
        true => "its filter is not on clsact",
        false => "there is no clsact",
    };
    let (severity, seen) = match (pinned, elsewhere) {
        (Some(pin), _) => {
            let pin = pin.path.display();
            (Severity::Fault, format!("{clsact}, and its program is pinned: {pin}"))
        }
        (None, 0) => return None,
        (None, count) => {
            (Severity::Degraded, format!("{clsact}; {count} other devices of pods have it"))
        }
    };
    let finding =
        Finding::new(code::POLICY_MISSING, subject).severity(severity).seen(seen).why(format!(
            "no policy applies to {direction}: the pod is older than policy, or its filter was removed; the \
             agent never looks again"
        ));
    Some(finding)
}

/// Issue 514 of the policy agent: after a restart it may load and pin its programs again, with maps of
/// their own, while filters keep the old ones.
fn outdated(
    survey: &Survey,
    subject: &str,
    device: &Surveyed,
    side: Side,
    direction: &str,
    program: &str,
) -> Option<Finding> {
    let attached = device.chain(side).find(|(_, entry)| entry.is_policy())?.1.program?;
    let pin = pin_of(survey, survey.pod_behind(device)?, program)?;
    let Pinned::Program { id } = pin.holds else { return None };
    (id != attached).then(|| {
        let seen = format!("program {attached} is attached, and {} is {id}", pin.path.display());
        Finding::new(code::POLICY_OUTDATED, subject)
            .seen(seen)
            .why(format!("changes of policy for {direction} go to the maps of the pinned one"))
    })
}

/// The agent calls its pins after the pod's name without its last part, and the namespace.
fn pin_of<'s>(survey: &'s Survey, pod: &SurveyedPod, program: &str) -> Option<&'s Pin> {
    let record = pod.record.as_ref().ok()?;
    let (start, _) = record.pod.rsplit_once('-').unwrap_or((record.pod.as_str(), ""));
    let name = format!("{}@{}_{program}", start.replace('.', "_"), record.namespace);
    let path = survey.bpffs.path.join(POLICY_PINS).join(name);
    let is_it = |pin: &&Pin| pin.path == path && matches!(pin.holds, Pinned::Program { .. });
    survey.programs.pins.iter().find(is_it)
}

fn ingress_qdisc(subject: &str, device: &Surveyed, present: bool) -> Option<Finding> {
    if !device.has_qdisc("ingress") {
        return None;
    }
    let severity = if present { Severity::Fault } else { Severity::Degraded };
    let calicos =
        device.hook(Side::Ingress, Layer::Clsact).iter().any(|e| e.owner == Owner::Calico);
    let remedy = match calicos {
        true => CALICO_QOS.to_owned(),
        false => format!(
            "tc qdisc del dev {} ingress (whatever put it there, the upstream bandwidth plugin as a \
             rule, must not come again); then {RESTART}",
            device.device.name
        ),
    };
    let finding = Finding::new(code::INGRESS_QDISC, subject).severity(severity)
        .seen("a qdisc of kind ingress, where clsact would be")
        .why("the policy agent takes it for clsact: both its programs land on ingress, and policy for what the pod receives is off")
        .remedy(remedy);
    Some(finding)
}
