// SPDX-License-Identifier: Apache-2.0
//! Checks of others that limit or rebuild pods' devices: the upstream bandwidth
//! plugin's traces, Cilium, Calico, XDP, netkit; and of our own programs in
//! other builds.

use std::collections::BTreeSet;

use bpf::survey::Pin;

use super::finding::Finding;
use super::hooks::{HookEntry, Layer, Side, Surveyed};
use super::owner::{Owner, of_ifb};
use super::survey::Survey;
use crate::netlink::ROOT_HANDLE;
use crate::trouble::{Severity, code};

const CILIUM_DEVICES: [&str; 2] = ["cilium_host", "cilium_net"];
const CILIUM_THROTTLE: &str = "cilium_throttle";
const CALICO_PREFIX: &str = "cali";
const CALICO_DEVICES: [&str; 2] = ["vxlan.calico", "bpfin.cali"];

pub fn check(survey: &Survey) -> Vec<Finding> {
    let mut findings = [upstream(survey), foreign_roots(survey), devices(survey)].concat();
    findings.extend(present(survey));
    findings.extend(outdated(survey));
    findings
}

/// Whoever has a program, a filter or a device on the node.
pub fn owners(survey: &Survey) -> BTreeSet<Owner> {
    let hooks = survey.host.devices.iter().flat_map(|device| &device.hooks);
    let mut owners: BTreeSet<Owner> =
        hooks.flat_map(|hook| &hook.entries).map(|entry| entry.owner).collect();
    for found in &survey.host.devices {
        let name = found.device.name.as_str();
        if CILIUM_DEVICES.contains(&name) {
            owners.insert(Owner::Cilium);
        }
        let is_pod = found.is_pod_end() && name.starts_with(CALICO_PREFIX);
        if is_pod || CALICO_DEVICES.contains(&name) {
            owners.insert(Owner::Calico);
        }
    }
    owners
}

/// The redirect on a pod's device, and the ifb that it goes to or that is left of it.
fn upstream(survey: &Survey) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    for device in survey.pod_ends() {
        for entry in device.hook(Side::Ingress, Layer::Clsact) {
            let is_upstream = entry.owner == Owner::UpstreamBandwidth;
            let filter = entry.filter.as_ref().filter(|_| is_upstream);
            let Some(target) = filter.and_then(|filter| filter.redirects_to) else { continue };
            used.insert(target);
            let name = survey.host.by_index(target).map(|found| found.device.name.as_str());
            let to = name.map_or_else(|| format!("device {target}"), str::to_owned);
            // Without our limit it is the only one.
            let limited = survey
                .pod_behind(device)
                .is_some_and(|pod| pod.record.as_ref().is_ok_and(|record| !record.is_unlimited()));
            let severity = if limited { Severity::Degraded } else { Severity::Note };
            findings.push(
                Finding::new(code::UPSTREAM_BANDWIDTH, survey.subject(device))
                    .severity(severity)
                    .seen(format!("{} redirects all that the pod sends to {to}", entry.label()))
                    .why("the lower of two limits holds, and that one is a single queue"),
            );
        }
    }
    for found in &survey.host.devices {
        let (device, name) = (&found.device, &found.device.name);
        if of_ifb(device) == Some(Owner::UpstreamBandwidth) && !used.contains(&device.index) {
            findings.push(
                Finding::new(code::UPSTREAM_BANDWIDTH, name.as_str())
                    .severity(Severity::Note)
                    .seen("an ifb of the upstream bandwidth plugin that no pod's device leads to")
                    .why("its ADD failed half-way, or its pod has gone without a DEL")
                    .remedy(format!("ip link del {name}")),
            );
        }
    }
    findings
}

/// Foreign root qdiscs on the host's ends of pods that we do not limit there; the checks of each pod
/// report those of the pods that we do.
fn foreign_roots(survey: &Survey) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in survey.pod_ends() {
        let limited = survey.pod_behind(device).is_some_and(|pod| {
            pod.record.as_ref().is_ok_and(|record| !record.ingress.is_unlimited())
        });
        let Some(root) = device.root().filter(|root| root.handle != 0 && !limited) else {
            continue;
        };
        if root.major() == ROOT_HANDLE {
            continue;
        }
        let whose = match root.kind.as_str() {
            "tbf" => ", as the upstream bandwidth plugin and Calico put it there",
            _ => "",
        };
        findings.push(
            Finding::new(code::FOREIGN_ROOT_QDISC, survey.subject(device))
                .severity(Severity::Degraded)
                .seen(format!("the root qdisc is {} {:x}:{whose}", root.kind, root.major()))
                .why("a limit on ingress could not be paced there: the guard in the pod would enforce it, by dropping")
                .remedy(format!(
                    "if its owner no longer needs it: tc qdisc del dev {} root",
                    device.device.name
                )),
        );
    }
    findings
}

fn devices(survey: &Survey) -> Vec<Finding> {
    let mut findings = Vec::new();
    for found in &survey.host.devices {
        let subject = survey.subject(found);
        if found.is_pod_end() && found.device.xdp.is_some() {
            findings.push(
                Finding::new(code::XDP_ON_POD, subject.as_str())
                    .seen(format!("XDP program {}", found.device.xdp.unwrap_or(0)))
                    .why("it runs before network policy and the guard, and may send packets past both"),
            );
        }
        if found.device.is_kind("netkit") {
            findings.push(
                Finding::new(code::NETKIT, subject.as_str())
                    .seen("a netkit device, not a veth")
                    .why("limits apply, but network policy runs behind them: what it denies is charged to the pod"),
            );
        }
    }
    findings
}

fn present(survey: &Survey) -> Vec<Finding> {
    let owners = owners(survey);
    let mut findings = Vec::new();
    if owners.contains(&Owner::Cilium) {
        findings.push(
            Finding::new(code::CILIUM_PRESENT, "node")
                .seen("programs or devices of Cilium")
                .why("its programs end the chain with OK or send packets on by REDIRECT, past the host's end of a pod: limits on ingress may not see them"),
        );
    }
    findings.extend(cilium_bandwidth(survey));
    if owners.contains(&Owner::Calico) {
        findings.push(
            Finding::new(code::CALICO_PRESENT, "node")
                .seen("programs or devices of Calico")
                .why("it removes clsact and root qdiscs that it does not know from pods' devices"),
        );
    }
    findings
}

/// Its map is there while the bandwidth manager is on (pkg/maps/bwmap of Cilium), with fq on the cards.
fn cilium_bandwidth(survey: &Survey) -> Option<Finding> {
    let named = |pin: &&Pin| pin.path.file_name().is_some_and(|name| name == CILIUM_THROTTLE);
    let pin = survey.programs.pins.iter().find(named)?;
    let cards = survey.host.devices.iter().filter(|found| found.device.kind.is_none());
    let with_fq = cards.filter(|card| card.has_qdisc("fq"));
    let names: Vec<_> = with_fq.map(|card| card.device.name.as_str()).collect();
    let fq = match names.is_empty() {
        true => String::new(),
        false => format!(", and fq on {}", names.join(", ")),
    };
    let finding = Finding::new(code::CILIUM_BANDWIDTH, "node")
        .seen(format!("its map {} is pinned{fq}", pin.path.display()))
        .why("Sluice's limit is on the pod's own pair, Cilium's on the card: packets wait in two queues, and the lower limit applies");
    Some(finding)
}

/// Attached programs of ours whose digest is not that of the pinned one.
fn outdated(survey: &Survey) -> Option<Finding> {
    let tags = &survey.own_tags;
    let inside = survey.pods.iter().filter_map(|pod| pod.inside.as_ref().ok());
    let all: Vec<&Surveyed> = survey.host.devices.iter().chain(inside).collect();
    let is_old = |entry: &&HookEntry| {
        entry.owner == Owner::Sluice && entry.tag.as_ref().is_some_and(|tag| !tags.contains(tag))
    };
    let entries = all.iter().flat_map(|device| &device.hooks).flat_map(|hook| &hook.entries);
    let count = entries.filter(is_old).count();
    (count > 0 && !tags.is_empty()).then(|| {
        Finding::new(code::PROGRAM_OUTDATED, "node")
            .seen(format!("{count} attached programs are of another build than the pinned ones"))
            .why("pods that an older version attached run by it until they are attached again")
    })
}
