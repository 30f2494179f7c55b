// SPDX-License-Identifier: Apache-2.0

//! What each key means: the one table that explanations, the schema and the docs come from.
//!
//! Never reads a document; the sections do, and tests hold the two together.

use crate::docs::shape::Shape;
use crate::document::effect::WITHOUT_EFFECT;
use crate::sections::agent::OnInvalid;
use crate::sections::bandwidth::{Count, GuardPlace};
use crate::sections::cni::{CniMode, UpstreamBandwidth};
use crate::sections::max_pods::ENIS;
use crate::sections::max_pods::{IpFamily, KubeletConfig};
use crate::sections::prefix_delegation::{IP_TARGETS, TARGETS};
use crate::values::rate::{CAPACITY_WORDS, LIMIT_WORDS, RATE_WORDS};
use crate::values::weight::WEIGHTS;
use crate::values::words::spellings;

/// One key: its path inside our table, where `[]` stands for the items of a list.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// As TOML; None where the key has no value of its own if it is not given.
    pub(crate) default: Option<&'static str>,
    /// As TOML, other than the default where there is a choice.
    pub(crate) example: &'static str,
    /// What it means, in full sentences.
    pub(crate) meaning: &'static str,
}

impl Key {
    /// Whether this version acts upon it.
    pub(crate) fn has_effect(&self) -> bool {
        !WITHOUT_EFFECT.contains(&self.name)
    }

    /// The table it is in; empty for our table itself.
    pub(crate) fn section(&self) -> &'static str {
        self.name.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The last part of its path.
    pub(crate) fn last(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, last)| last)
    }

    /// Whether a document must have it, given that it has its table.
    pub(crate) fn is_required(&self) -> bool {
        matches!(self.name, "version" | "bandwidth.class[].name")
    }
}

/// Every section with its meaning, in the order of the document.
pub(crate) const SECTIONS: &[(&str, &str)] = &[
    ("", "Everything of Sluice. Stands at [settings.sluice], or at [sluice] where that is easier."),
    ("bandwidth", "How pods are shaped, unless an annotation or a class says otherwise."),
    (
        "bandwidth.class[]",
        "Limits for the pods that patterns match. The most precise class wins: most literal characters in the namespace pattern, then in the pod pattern. Layers merge classes by name.",
    ),
    ("cni", "How the agent joins the node's CNI chain."),
    (
        "prefix-delegation",
        "Whether the cluster gives its nodes whole prefixes. It cannot be turned on here; that is in the aws-node DaemonSet.",
    ),
    (
        "max-pods",
        "How many pods the node takes, what of the cluster that depends on, and where kubelet gets the number.",
    ),
    ("agent", "How the agent itself behaves."),
];

const fn key(
    name: &'static str,
    shape: Shape,
    default: Option<&'static str>,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, shape, default, example, meaning }
}

const LIMIT: Shape = Shape::Rate(Some("unlimited"), LIMIT_WORDS);
const CAPACITY: Shape = Shape::Rate(Some("auto"), CAPACITY_WORDS);
const RATE: Shape = Shape::Rate(None, RATE_WORDS);
const IP_TARGET: Shape = Shape::Count(*IP_TARGETS.start(), *IP_TARGETS.end(), "addresses");

/// Every key, in the order of the document.
#[rustfmt::skip]
pub(crate) const KEYS: &[Key] = &[
    key("version", Shape::Version, None, "1",
        "The version of the settings' format. Must be given in each document."),
    key("bandwidth.enabled", Shape::Switch, Some("true"), "false",
        "Whether pods are shaped at all."),
    key("bandwidth.default-egress", LIMIT, Some("\"unlimited\""), "\"500Mbit\"",
        "What each pod may send, unless its annotation or a class says otherwise."),
    key("bandwidth.default-ingress", LIMIT, Some("\"unlimited\""), "\"500Mbit\"",
        "What each pod may receive, unless its annotation or a class says otherwise."),
    key("bandwidth.burst", Shape::Burst, Some("\"5ms\""), "\"64KB\"",
        "How far a pod may run ahead of its rate after a pause, as time at that rate or as bytes. Bytes must hold two frames (3028B) where a pod is limited."),
    key("bandwidth.max-egress", LIMIT, None, "\"2Gbit\"",
        "The most that any pod may send, whatever annotations ask for; a pod without a limit gets this one. Only sluice limit set goes above it."),
    key("bandwidth.max-ingress", LIMIT, None, "\"2Gbit\"",
        "The most that any pod may receive, whatever annotations ask for; a pod without a limit gets this one. Only sluice limit set goes above it."),
    key("bandwidth.max-burst", Shape::Burst, None, "\"1MiB\"",
        "The largest burst of any pod, whatever annotations ask for. Time and bytes are compared at the pod's rate. Bytes must hold two frames (3028B)."),
    key("bandwidth.latency-target", Shape::LatencyTarget, Some("\"5ms\""), "\"10ms\"",
        "How long a packet may wait for its pod's limit before CoDel shrinks the queue."),
    key("bandwidth.ecn", Shape::Switch, Some("true"), "false",
        "Whether packets that can carry a congestion mark are marked rather than dropped."),
    key("bandwidth.count", Shape::Words(spellings::<Count>), Some("\"l2\""), "\"l2\"",
        "Which bits count: those of L2 frames as they are on the pod's veth, without preamble and checksum."),
    key("bandwidth.guard", Shape::Words(spellings::<GuardPlace>), Some("\"policy-only\""), "\"own-clsact\"",
        "Where, on a kernel without tcx (before 6.6), the guard of what a pod sends may be: on the clsact of network policy alone, or on one of its own where there is none."),
    key("bandwidth.node-egress", CAPACITY, Some("\"auto\""), "\"10Gbit\"",
        "What the node can send, which with node-share pods share. \"auto\" is what the instance type can do now, between its baseline and its peak, or the speed of the node's uplink. What the node itself sends is taken off. No limit may be above it."),
    key("bandwidth.node-ingress", CAPACITY, Some("\"auto\""), "\"10Gbit\"",
        "What the node can receive, which with node-share pods share. \"auto\" is what the instance type can do now, between its baseline and its peak, or the speed of the node's uplink. What the node itself receives is taken off. No limit may be above it."),
    key("bandwidth.node-share", Shape::Switch, None, "true",
        "Whether pods share the node's capacity fairly: where it does not suffice, each pod gets its part by weight, and where others leave some, anybody may use it. What the node can do is node-egress and node-ingress. Off where it is not given."),
    key("bandwidth.weight", Shape::Count(*WEIGHTS.start(), *WEIGHTS.end(), "parts"), None, "200",
        "Of each pod's part of the node's capacity; only the ratio to the weights of other pods matters. 100 where it is not given."),
    key("bandwidth.max-weight", Shape::Count(*WEIGHTS.start(), *WEIGHTS.end(), "parts"), None, "300",
        "The most that the annotation sluice.dev/weight may ask for: a pod that asks for more has this. Weights of classes may be above it."),
    key("bandwidth.max-floor", RATE, None, "\"50Mbit\"",
        "The most that the annotations sluice.dev/egress-floor and sluice.dev/ingress-floor may ask for, in each direction: a pod that asks for more has this. Floors of classes may be above it."),
    key("bandwidth.class[].name", Shape::ClassName, None, "\"batch\"",
        "How status and metrics call the class. Must be given, once in a document; a later layer that gives it again replaces keys of that class."),
    key("bandwidth.class[].namespaces", Shape::Patterns, None, "[\"batch-*\"]",
        "Patterns, one of which the pod's namespace must match; * is any characters, ? is one. Must be given by some layer."),
    key("bandwidth.class[].pods", Shape::Patterns, Some("[\"*\"]"), "[\"worker-?\"]",
        "Patterns, one of which the pod's name must match."),
    key("bandwidth.class[].egress", LIMIT, None, "\"100Mbit\"",
        "What each pod of the class may send; default-egress applies where it is not given. A class gives at least one limit or maximum."),
    key("bandwidth.class[].ingress", LIMIT, None, "\"100Mbit\"",
        "What each pod of the class may receive; default-ingress applies where it is not given."),
    key("bandwidth.class[].max-egress", LIMIT, None, "\"1Gbit\"",
        "The most that a pod of the class may send. The lower of this and the node's max-egress applies: a name must not raise a maximum."),
    key("bandwidth.class[].max-ingress", LIMIT, None, "\"1Gbit\"",
        "The most that a pod of the class may receive. The lower of this and the node's max-ingress applies."),
    key("bandwidth.class[].max-burst", Shape::Burst, None, "\"256KiB\"",
        "The largest burst that a pod of the class may have. The lower of this and the node's max-burst applies."),
    key("bandwidth.class[].weight", Shape::Count(*WEIGHTS.start(), *WEIGHTS.end(), "parts"), None, "400",
        "Of the part that each pod of the class has of the node's capacity; bandwidth.weight applies where it is not given."),
    key("bandwidth.class[].floor-egress", RATE, None, "\"50Mbit\"",
        "What each pod of the class can send at least while it has so much to send, however busy the node is. Where the floors of all pods are more than the node's capacity, those of classes are lowered, which is reported."),
    key("bandwidth.class[].floor-ingress", RATE, None, "\"50Mbit\"",
        "What each pod of the class can receive at least, as floor-egress."),
    key("cni.mode", Shape::Words(spellings::<CniMode>), Some("\"chain\""), "\"off\"",
        "Whether the plugin is appended to the node's CNI chain, the pods' network is made from the prefixes delegated to the node (no aws-node), or the CNI configuration is left alone."),
    key("cni.conf-dir", Shape::AbsolutePath, Some("\"/etc/cni/net.d\""), "\"/run/cni/net.d\"",
        "Where CNI network lists are."),
    key("cni.bin-dir", Shape::AbsolutePath, Some("\"/opt/cni/bin\""), "\"/usr/libexec/cni\"",
        "Where CNI plugins are."),
    key("cni.upstream-bandwidth", Shape::Words(spellings::<UpstreamBandwidth>), Some("\"replace\""), "\"keep\"",
        "Where the upstream bandwidth plugin is in the conflist: whether Sluice replaces its entry and takes over its limits on running pods, or leaves both alone and limits no pod."),
    key("prefix-delegation.enabled", Shape::Switch, Some("false"), "true",
        "Whether the cluster delegates prefixes to its nodes (ENABLE_PREFIX_DELEGATION of the VPC CNI). IPv6 needs it."),
    key("prefix-delegation.warm-prefix-target", Shape::Count(*TARGETS.start(), *TARGETS.end(), "prefixes"), Some("1"), "2",
        "How many spare prefixes a node keeps (WARM_PREFIX_TARGET)."),
    key("prefix-delegation.warm-ip-target", IP_TARGET, Some("0"), "5",
        "How many spare addresses a node keeps, in place of whole spare prefixes (WARM_IP_TARGET); 0 is not set."),
    key("prefix-delegation.minimum-ip-target", IP_TARGET, Some("0"), "32",
        "How many addresses a node has at least (MINIMUM_IP_TARGET); 0 is not set. Needs warm-ip-target, or the node would never have more."),
    key("max-pods.value", Shape::PodLimit, Some("\"auto\""), "110",
        "How many pods the node takes; \"auto\" is as many as it has addresses for. settings.kubernetes.max-pods is honoured where this is not a number."),
    key("max-pods.kubelet", Shape::Words(spellings::<KubeletConfig>), Some("\"auto\""), "\"config-dir\"",
        "Where kubelet gets the number; \"auto\" is the first of these that the node has, and status shows it."),
    key("max-pods.ip-family", Shape::Words(spellings::<IpFamily>), Some("\"ipv4\""), "\"ipv4\"",
        "Which addresses the cluster's pods have."),
    key("max-pods.custom-networking", Shape::Switch, Some("false"), "true",
        "Whether pods have addresses of other subnets than the node (AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG): the primary ENI carries none then."),
    key("max-pods.pod-security-groups", Shape::Switch, Some("false"), "true",
        "Whether pods may have security groups of their own (ENABLE_POD_ENI): one ENI is their trunk then, and carries no other pods."),
    key("max-pods.max-eni", Shape::Count(*ENIS.start(), *ENIS.end(), "ENIs"), Some("0"), "2",
        "How many ENIs the VPC CNI uses at most (MAX_ENI), the primary one included; 0 is not set: as many as the instance type has."),
    key("agent.metrics-listen", Shape::Listen, Some("\"127.0.0.1:9469\""), "\"off\"",
        "Where metrics are served."),
    key("agent.on-invalid", Shape::Words(spellings::<OnInvalid>), Some("\"last-good\""), "\"fail\"",
        "What applies when settings cannot be used: the last good ones, the defaults, or nothing, in which case the agent does not start."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Effective;
    use crate::Origin;
    use crate::Settings;
    use crate::document::print::{from_toml, rows};
    use crate::merge;

    /// A document that gives every key its example.
    fn examples() -> String {
        let table = |name: &str| match name.strip_suffix("[]") {
            Some(list) => format!("[[settings.sluice.{list}]]\n"),
            None if name.is_empty() => "[settings.sluice]\n".to_owned(),
            None => format!("[settings.sluice.{name}]\n"),
        };
        let section = |(name, _): &(&str, &str)| {
            let keys = KEYS.iter().filter(|key| key.section() == *name);
            let lines = keys.map(|key| format!("{} = {}\n", key.last(), key.example));
            table(name) + &lines.collect::<String>()
        };
        SECTIONS.iter().map(section).collect()
    }

    fn effective() -> Effective {
        merge(&[("examples", &examples())]).expect("examples are good")
    }

    #[test]
    fn every_key_of_the_table_is_read_and_holds() {
        let read: Vec<_> = effective().entries();
        let keys = || KEYS.iter().filter(|key| key.name != "version");
        let names: Vec<_> = keys().map(|key| key.name.replace("class[]", "class.batch")).collect();
        assert_eq!(read.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(), names);
        for (entry, key) in read.iter().zip(keys()) {
            assert_eq!(entry.value, key.example, "{}", key.name);
            assert_ne!(entry.origin, Origin::Default, "{}", key.name);
        }
    }

    #[test]
    fn every_default_of_the_table_holds_without_a_document() {
        let ours: Vec<_> = KEYS.iter().filter(|key| !key.name.contains("class[]")).collect();
        let ours =
            ours.iter().filter_map(|key| Some((key.name.to_owned(), from_toml(key.default?)?)));
        assert_eq!(ours.collect::<Vec<_>>(), rows(&Settings::default()));
    }

    #[test]
    fn defaults_of_a_class_hold_for_one_that_gives_the_least() {
        let text = "sluice.version = 1\n[[sluice.bandwidth.class]]\nname = 'a'\n\
                    namespaces = ['a']\negress = '1Mbit'\n";
        let entries = merge(&[("t", text)]).expect("settings").entries();
        let defaults: Vec<_> = entries
            .iter()
            .filter(|entry| {
                entry.key.starts_with("bandwidth.class.") && entry.origin == Origin::Default
            })
            .map(|entry| (entry.key.replace("class.a", "class[]"), entry.value.as_str()))
            .collect();
        let table = KEYS.iter().filter(|key| key.section() == "bandwidth.class[]");
        let table: Vec<_> =
            table.filter_map(|key| Some((key.name.to_owned(), key.default?))).collect();
        assert_eq!(defaults, table);
    }

    /// What a section's message about an unknown key lists: all that its reader takes.
    fn read_by(section: &str) -> String {
        let list = section.ends_with("[]");
        let name = section.strip_suffix("[]").unwrap_or(section);
        let table = if name.is_empty() { "sluice".to_owned() } else { format!("sluice.{name}") };
        let header = if list { format!("[[{table}]]") } else { format!("[{table}]") };
        let text = format!("{header}\nunlike-any-key = 1\n");
        let problems = merge(&[("t", &text)]).expect_err("unknown key");
        let listed = problems.iter().find(|problem| problem.key.ends_with("unlike-any-key"));
        let listed = listed.and_then(|problem| problem.message.strip_prefix("unknown key; use "));
        listed.expect("list of keys").replace(" or ", ", ")
    }

    #[test]
    fn every_key_that_is_read_is_in_the_table() {
        for (section, _) in SECTIONS {
            let keys = KEYS.iter().filter(|key| key.section() == *section).map(Key::last);
            let parent =
                |name: &str| name.rsplit_once('.').map_or(String::new(), |(p, _)| p.into());
            let below = SECTIONS.iter().map(|(name, _)| *name);
            let below = below.filter(|name| !name.is_empty() && parent(name) == *section);
            let below = below.map(|name| name.rsplit('.').next().unwrap_or(name));
            let known: Vec<_> = keys.chain(below).map(|key| key.trim_end_matches("[]")).collect();
            assert_eq!(read_by(section), known.join(", "), "{section}");
        }
    }

    #[test]
    fn every_key_without_effect_is_in_the_table_and_warned_of() {
        let warned = effective().warnings;
        let warned = warned.iter().filter(|w| w.code == crate::text::code::WITHOUT_EFFECT);
        let warned: Vec<_> = warned.map(|w| w.key.clone()).collect();
        let set = |key: &&&str| {
            KEYS.iter().any(|known| known.name == **key && known.default != Some(known.example))
        };
        let expected =
            WITHOUT_EFFECT.iter().filter(set).map(|key| format!("settings.sluice.{key}"));
        assert_eq!(warned, expected.collect::<Vec<_>>());
        assert!(WITHOUT_EFFECT.iter().all(|key| KEYS.iter().any(|known| known.name == *key)));
    }
}
