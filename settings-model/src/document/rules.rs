// SPDX-License-Identifier: Apache-2.0

//! Rules about several keys at once, over all layers; each problem names both places.
//!
//! Runs on what is in force, not on each layer: a layer may be corrected by a later one.

use std::fmt::Display;

use crate::Settings;
use crate::document::{Draft, FOREIGN_MAX_PODS};
use crate::sections::bandwidth::Bandwidth;
use crate::sections::class::{Class, MOST_CLASSES};
use crate::sections::max_pods::{IpFamily, PodLimit};
use crate::sections::prefix_delegation::PrefixDelegation;
use crate::text::code;
use crate::text::problem::{Finding, Refusal};
use crate::text::reader::{Given, Notes, join};
use crate::values::burst::Burst;
use crate::values::rate::{Capacity, Limit, Rate};

/// A burst below two full Ethernet frames (1514 bytes) would hold every second packet back, and a
/// super-packet of the least size, two frames, would never fit.
const LEAST_BURST_BYTES: u64 = 2 * 1514;

/// Checks what all layers say together.
pub(crate) fn check(draft: &Draft, notes: &mut Notes) {
    let bandwidth = &draft.settings.bandwidth;
    check_max_pods(draft, notes);
    check_ip_family(&draft.settings, notes);
    check_targets(&draft.settings.prefix_delegation, notes);
    check_burst(bandwidth, notes);
    check_capacity(bandwidth, notes);
    check_maximum(bandwidth, notes);
    check_max_burst(bandwidth, notes);
    check_floors(bandwidth, notes);
    check_classes(bandwidth, notes);
}

/// A limit in force: the key that says so, and its direction.
struct LimitKey {
    key: String,
    rate: Rate,
    egress: bool,
}

fn class_key(class: &Class, key: &str) -> String {
    join(&join("bandwidth.class", class.name.as_str()), key)
}

/// Every key that limits a pod, with its rate.
fn limits(bandwidth: &Bandwidth) -> Vec<LimitKey> {
    let node = [
        ("default-egress", Some(bandwidth.default_egress), true),
        ("default-ingress", Some(bandwidth.default_ingress), false),
        ("max-egress", bandwidth.max_egress, true),
        ("max-ingress", bandwidth.max_ingress, false),
    ];
    let node = node.map(|(key, limit, egress)| (join("bandwidth", key), limit, egress));
    let classes = bandwidth.classes.iter().flat_map(|class| {
        let keys = [
            ("egress", class.egress, true),
            ("ingress", class.ingress, false),
            ("max-egress", class.max_egress, true),
            ("max-ingress", class.max_ingress, false),
        ];
        keys.map(|(key, limit, egress)| (class_key(class, key), limit, egress))
    });
    let limited = |(key, limit, egress)| match limit {
        None | Some(Limit::Unlimited) => None,
        Some(Limit::Rate(rate)) => Some(LimitKey { key, rate, egress }),
    };
    node.into_iter().chain(classes).filter_map(limited).collect()
}

/// Every key that promises something to a pod.
fn floors(bandwidth: &Bandwidth) -> Vec<LimitKey> {
    let of_class = |class: &Class| {
        let keys = [
            ("floor-egress", class.floor_egress, true),
            ("floor-ingress", class.floor_ingress, false),
        ];
        keys.map(|(key, rate, egress)| {
            Some(LimitKey { key: class_key(class, key), rate: rate?, egress })
        })
    };
    bandwidth.classes.iter().flat_map(of_class).flatten().collect()
}

fn check_max_pods(draft: &Draft, notes: &mut Notes) {
    let (PodLimit::Count(ours), Some((theirs, foreign))) =
        (draft.settings.max_pods.value, &draft.foreign_max_pods)
    else {
        return;
    };
    let Some(given) = notes.given.get("max-pods.value").filter(|_| ours != *theirs) else { return };
    let before = format!("found {ours}, but {FOREIGN_MAX_PODS} is {theirs}");
    let why = Refusal::beside(
        code::MAX_PODS_DIFFER,
        before,
        foreign.place,
        "; keep one of the two or make them equal",
    );
    notes.report.add(Finding::new(given.place, &given.path, why));
}

/// As the VPC CNI's own start does it (cmd/aws-vpc-cni, isConfigValid).
fn check_ip_family(settings: &Settings, notes: &mut Notes) {
    let max_pods = &settings.max_pods;
    let Some(family) = notes.given.get("max-pods.ip-family").cloned() else { return };
    if max_pods.ip_family != IpFamily::Ipv6 {
        return;
    }
    if !settings.prefix_delegation.enabled {
        let message =
            "\"ipv6\" needs prefix-delegation.enabled = true: a pod's IPv6 address is of a prefix";
        let why = Refusal::new(code::IPV6_WITHOUT_PREFIXES, message);
        notes.report.add(Finding::new(family.place, &family.path, why));
    }
    let custom = notes.given.get("max-pods.custom-networking").cloned();
    let Some(custom) = custom.filter(|_| max_pods.custom_networking) else { return };
    let after = ", which the VPC CNI has for IPv4 only; keep one of the two";
    let before = "\"ipv6\" beside custom-networking = true".to_owned();
    let why = Refusal::beside(code::IPV6_CUSTOM_NETWORKING, before, custom.place, after);
    notes.report.add(Finding::new(family.place, &family.path, why));
}

/// The precedence of the VPC CNI's targets (pkg/ipamd, getPrefixesNeeded).
fn check_targets(delegation: &PrefixDelegation, notes: &mut Notes) {
    let of = |key: &str| notes.given.get(&join("prefix-delegation", key)).cloned();
    let (prefixes, warm, minimum) =
        (of("warm-prefix-target"), of("warm-ip-target"), of("minimum-ip-target"));
    if delegation.warm_ip_target == 0 {
        let Some(given) = minimum.filter(|_| delegation.minimum_ip_target != 0) else { return };
        let message = format!(
            "{} without warm-ip-target: a node would never have more addresses than that; give \
             warm-ip-target too, e.g. 5",
            delegation.minimum_ip_target
        );
        let why = Refusal::new(code::GROWTH_FROZEN, message);
        notes.report.add(Finding::new(given.place, &given.path, why));
    } else if let Some((given, warm)) = prefixes.zip(warm) {
        let before = "without effect: the VPC CNI goes by warm-ip-target alone, given".to_owned();
        let why = Refusal::beside(code::OVERRIDDEN, before, warm.place, "");
        notes.report.warn(Finding::new(given.place, &given.path, why));
    }
}

/// A burst in bytes is no more in time than it is; a burst in time is the operator's own bargain.
fn check_burst(bandwidth: &Bandwidth, notes: &mut Notes) {
    let Burst::Bytes(count) = bandwidth.burst else { return };
    let Some(burst) = notes.given.get("bandwidth.burst") else { return };
    let limits = limits(bandwidth);
    let Some((limit, given)) = limits.iter().find_map(|limit| given(limit, notes)) else { return };
    if count.bytes() >= LEAST_BURST_BYTES {
        return;
    }
    let before = format!(
        "\"{}\" does not hold two frames, and {} limits pods to {}",
        bandwidth.burst, limit.key, limit.rate
    );
    let after = format!("; use at least {LEAST_BURST_BYTES}B, or a time, e.g. \"5ms\"");
    let why = Refusal::beside(code::BURST_TOO_SMALL, before, given.place, after);
    notes.report.add(Finding::new(burst.place, &burst.path, why));
}

fn given<'k, 'n>(limit: &'k LimitKey, notes: &'n Notes) -> Option<(&'k LimitKey, &'n Given)> {
    Some((limit, notes.given.get(&limit.key)?))
}

fn check_capacity(bandwidth: &Bandwidth, notes: &mut Notes) {
    for limit in limits(bandwidth).into_iter().chain(floors(bandwidth)) {
        let (key, capacity) = match limit.egress {
            true => ("bandwidth.node-egress", bandwidth.node_egress),
            false => ("bandwidth.node-ingress", bandwidth.node_ingress),
        };
        let Capacity::Rate(capacity) = capacity else { continue };
        let places = notes.given.get(&limit.key).zip(notes.given.get(key));
        let Some((given, node)) = places.filter(|_| limit.rate > capacity) else { continue };
        let before = format!("\"{}\" is above {key} = \"{capacity}\"", limit.rate);
        let after = format!("; use at most \"{capacity}\"");
        let why = Refusal::beside(code::LIMIT_ABOVE_CAPACITY, before, node.place, after);
        notes.report.add(Finding::new(given.place, &given.path, why));
    }
}

/// No limit is above the maxima that hold for it, and no class' maximum above the node's. "unlimited"
/// never is: it means as much as the maximum allows.
fn check_maximum(bandwidth: &Bandwidth, notes: &mut Notes) {
    let limits = limits(bandwidth);
    for limit in &limits {
        let direction = if limit.egress { "egress" } else { "ingress" };
        let own = limit.key.strip_suffix(direction).map(|class| format!("{class}max-{direction}"));
        let node = format!("bandwidth.max-{direction}");
        let above = own
            .into_iter()
            .chain([node])
            .find_map(|key| limits.iter().find(|max| max.key == key && limit.rate > max.rate));
        let Some(max) = above else { continue };
        refuse_above((&limit.key, &limit.rate), (&max.key, &max.rate), notes);
    }
}

/// The same for bursts of one kind; time and bytes can only be compared at a pod's rate.
fn check_max_burst(bandwidth: &Bandwidth, notes: &mut Notes) {
    let node = "bandwidth.max-burst";
    let of_classes = bandwidth.classes.iter();
    let of_classes =
        of_classes.filter_map(|class| Some((class_key(class, "max-burst"), class.max_burst?)));
    let of_node = bandwidth.max_burst.map(|max| (node.to_owned(), max));
    for (key, max) in of_classes.chain(of_node) {
        if matches!(max, Burst::Bytes(count) if count.bytes() < LEAST_BURST_BYTES) {
            let Some(given) = notes.given.get(&key) else { continue };
            let least = format!("use at least {LEAST_BURST_BYTES}B, or a time, e.g. \"5ms\"");
            let message = format!("\"{max}\" does not hold two frames; {least}");
            let why = Refusal::new(code::BURST_TOO_SMALL, message);
            notes.report.add(Finding::new(given.place, &given.path, why));
        }
        if let Some(node_max) = bandwidth.max_burst.filter(|node_max| max.is_above(*node_max)) {
            refuse_above((&key, &max), (node, &node_max), notes);
        }
    }
    let burst = bandwidth.burst;
    let Some(max) = bandwidth.max_burst.filter(|max| burst.is_above(*max)) else { return };
    match (notes.given.get("bandwidth.burst"), notes.given.get(node)) {
        (None, Some(given)) => {
            let message = format!(
                "\"{max}\" is below burst, whose default is \"{burst}\"; give burst as well"
            );
            let why = Refusal::new(code::ABOVE_MAXIMUM, message);
            notes.report.add(Finding::new(given.place, &given.path, why));
        }
        _ => refuse_above(("bandwidth.burst", &burst), (node, &max), notes),
    }
}

/// What a pod may not have cannot be promised to it.
fn check_floors(bandwidth: &Bandwidth, notes: &mut Notes) {
    let limits = limits(bandwidth);
    for floor in floors(bandwidth) {
        let direction = if floor.egress { "egress" } else { "ingress" };
        let class = floor.key.trim_end_matches(&format!("floor-{direction}")).to_owned();
        let keys = [format!("{class}{direction}"), format!("{class}max-{direction}")];
        let node = format!("bandwidth.max-{direction}");
        let lower = keys.into_iter().chain([node]).find_map(|key| {
            limits.iter().find(|limit| limit.key == key && limit.rate < floor.rate)
        });
        let Some(limit) = lower else { continue };
        refuse_above((&floor.key, &floor.rate), (&limit.key, &limit.rate), notes);
    }
}

/// Refuses a value above a maximum; both are given.
fn refuse_above(
    (key, value): (&str, &dyn Display),
    (max_key, max): (&str, &dyn Display),
    notes: &mut Notes,
) {
    let Some((given, at)) = notes.given.get(key).zip(notes.given.get(max_key)) else { return };
    let before = format!("\"{value}\" is above {max_key} = \"{max}\"");
    let why =
        Refusal::beside(code::ABOVE_MAXIMUM, before, at.place, format!("; use at most \"{max}\""));
    notes.report.add(Finding::new(given.place, &given.path, why));
}

fn check_classes(bandwidth: &Bandwidth, notes: &mut Notes) {
    for class in bandwidth.classes.iter() {
        check_complete(class, notes);
    }
    let count = bandwidth.classes.iter().count();
    if count > MOST_CLASSES {
        return refuse_number(count, notes);
    }
    // Patterns that were refused are not there to be compared.
    if !notes.report.concerns("bandwidth.class") {
        check_ambiguity(bandwidth, notes);
    }
}

/// Two things that no single layer must give, but some layer must.
fn check_complete(class: &Class, notes: &mut Notes) {
    let given = |key| notes.given.get(&class_key(class, key));
    let Some(named) = given("name").cloned() else { return };
    let limits = [
        "egress",
        "ingress",
        "max-egress",
        "max-ingress",
        "max-burst",
        "weight",
        "floor-egress",
        "floor-ingress",
    ];
    let no_limit = limits.iter().all(|key| given(key).is_none());
    if given("namespaces").is_none() {
        let why = "missing; write namespaces = [\"*\"] for all, or patterns";
        refuse_sibling(&named, "namespaces", why, notes);
    }
    if no_limit {
        let why = "missing, and ingress too; write at least one, e.g. egress = \"100Mbit\"";
        refuse_sibling(&named, "egress", why, notes);
    }
}

fn refuse_sibling(named: &Given, key: &str, why: &str, notes: &mut Notes) {
    let parent = named.path.strip_suffix(".name").unwrap_or(&named.path);
    let why = Refusal::new(code::MISSING_KEY, why);
    notes.report.add(Finding::new(named.place, join(parent, key), why));
}

fn refuse_number(count: usize, notes: &mut Notes) {
    let names = notes
        .given
        .iter()
        .filter(|(key, _)| key.starts_with("bandwidth.class.") && key.ends_with(".name"));
    let Some(last) = names.map(|(_, given)| given).max_by_key(|given| given.place).cloned() else {
        return;
    };
    let why =
        Refusal::new(code::TOO_MANY, format!("found {count} classes; use at most {MOST_CLASSES}"));
    notes.report.add(Finding::new(last.place, last.path, why));
}

fn check_ambiguity(bandwidth: &Bandwidth, notes: &mut Notes) {
    let classes: Vec<_> = bandwidth.classes.iter().collect();
    for (n, class) in classes.iter().enumerate() {
        let rivals = classes.iter().skip(n + 1);
        rivals.for_each(|other| check_pair(class, other, notes));
    }
}

/// Two classes tie for some pod exactly if both lists have equally precise patterns that overlap
/// (or would, were the name not matched by a more precise pattern of the same class; that is rare
/// enough to be refused as well).
fn check_pair(class: &Class, other: &Class, notes: &mut Notes) {
    let Some((namespace, other_namespace)) = class.namespaces.rivals(&other.namespaces) else {
        return;
    };
    let Some((pod, other_pod)) = class.pods.rivals(&other.pods) else { return };
    let place = |class: &Class| notes.given.get(&class_key(class, "namespaces")).cloned();
    let Some((own, others)) = place(class).zip(place(other)) else { return };
    let mut sides =
        [(own, &class.name, namespace, pod), (others, &other.name, other_namespace, other_pod)];
    sides.sort_by_key(|(given, ..)| given.place);
    let [(first, name, ns, pods), (second, _, own_ns, own_pods)] = &sides;
    let before = format!(
        "{:?} (pods {:?}) and {:?} (pods {:?}) of class {:?}",
        own_ns.as_str(),
        own_pods.as_str(),
        ns.as_str(),
        pods.as_str(),
        name.as_str()
    );
    let after = " can match the same pod with as many literal characters; make one more precise";
    let why = Refusal::beside(code::AMBIGUOUS_CLASSES, before, first.place, after);
    notes.report.add(Finding::new(second.place, &second.path, why));
}
