// SPDX-License-Identifier: Apache-2.0
//! What the cluster's side must have to match the settings: the environment of
//! the aws-node DaemonSet, launch templates, user data. A pure function of the
//! settings; each format is a rendering of it. Changes nothing anywhere, and
//! asks no cluster.

pub mod addon;
pub mod check;
pub mod cluster;
mod document;
pub mod eksctl;
pub mod env;
pub mod karpenter;
pub mod launch_template;
pub mod overview;
pub mod terraform;
#[cfg(test)]
mod tests;
pub mod user_data;

use settings_model::{CniMode, Effective, IpFamily, PodLimit, Settings, UpstreamBandwidth};
use thiserror::Error;

use crate::addresses::instance::Instance;
use crate::addresses::max_pods::{HOST_NETWORK_PODS, Machine, MaxPods, PREFIX_ADDRESSES, max_pods};

/// The label that ENIConfigs are found by, where every zone has one of its own.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// What keeps aws-node off nodes whose network is ours.
pub const STANDALONE_LABEL: (&str, &str) = ("sluice.dev/network", "standalone");
/// The host alone asks IMDS: an answer that may not go one hop further never reaches a pod.
pub const HOP_LIMIT: u8 = 1;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNeeds {
    pub network: Network,
    pub family: IpFamily,
    /// One number for all nodes; None where each node has its own.
    pub pods: Option<PodCount>,
    /// The settings that the user data carries, as TOML.
    pub document: String,
    /// max-pods.value where it is a number, for an operating system with a key of its own for it.
    pub pods_setting: Option<u16>,
    /// None where Karpenter counts pods as Sluice does.
    pub miscount: Option<Miscount>,
    /// What no format can say by itself.
    pub notes: Vec<String>,
}

/// What gives pods their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// aws-node, with these variables.
    AwsNode(Vec<Variable>),
    /// Sluice, on nodes without aws-node, of prefixes that EC2 delegates when it starts them.
    Standalone(Prefixes),
}

/// What EC2 must delegate to a node's first interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefixes {
    /// So many /28; None where that depends on the instance type, and none is named.
    Ipv4(Option<u16>),
    /// One /80.
    Ipv6,
}

/// A variable of aws-node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: &'static str,
    pub value: String,
    /// The setting that it comes from, and what else there is to know.
    pub from: String,
    pub set_by: SetBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    Operator,
    /// EKS, when it makes the cluster; no configuration of the add-on may have it.
    Cluster,
    /// It is not to be there: compared with what is, and never printed.
    NotSet,
}

/// A number of pods, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCount {
    pub count: u16,
    pub from: String,
}

/// Where Karpenter's own number of pods is not Sluice's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miscount {
    /// How Karpenter counts.
    pub counts: &'static str,
    /// The rule of `sluice max-pods` in the variables that Karpenter has for an instance type.
    pub rule: String,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error(
        "how many prefixes a node's first interface needs hangs on its instance type: give \
         --instance-type, or max-pods.value"
    )]
    PrefixesUnknown,
    #[error(
        "Karpenter has no field for the IPv6 prefix that cni.mode = \"standalone\" needs: use \
         managed nodes with `cluster-config launch-template`"
    )]
    KarpenterIpv6,
    #[error(
        "Karpenter keeps nothing of a Bottlerocket node's user data but [settings], and Bottlerocket does not \
         start with a [settings.sluice]: use managed nodes with `cluster-config launch-template --os \
         bottlerocket`, or put the settings into the image (/usr/share/sluice/defaults.toml)"
    )]
    KarpenterBottlerocket,
    #[error("this is not what `aws eks describe-cluster --name NAME` prints: {0}")]
    NoCluster(String),
    #[error("without {0} nodes would not join: give {0}")]
    Missing(String),
}

impl ClusterNeeds {
    /// `instance` is the type that all nodes will be of, if one is named.
    pub fn new(effective: &Effective, instance: Option<&Instance>) -> Self {
        let settings = &effective.settings;
        let answer = instance.map(|instance| of_type(settings, instance));
        let pods = pods(settings, answer.as_ref());
        let network = match settings.cni.mode {
            CniMode::Standalone => Network::Standalone(prefixes(settings, pods.as_ref(), instance)),
            CniMode::Chain | CniMode::Off => Network::AwsNode(variables(settings)),
        };
        let mut notes = notes(settings);
        notes.extend(answer.into_iter().flat_map(|answer| answer.warnings));
        Self {
            network,
            family: settings.max_pods.ip_family,
            pods,
            document: document::of(effective),
            pods_setting: pods_setting(settings),
            miscount: miscount(settings),
            notes,
        }
    }

    /// The variables that an operator sets; none where there is no aws-node.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.all_variables().iter().filter(|variable| variable.set_by == SetBy::Operator)
    }

    fn all_variables(&self) -> &[Variable] {
        match &self.network {
            Network::AwsNode(variables) => variables,
            Network::Standalone(_) => &[],
        }
    }
}

impl Prefixes {
    /// How many to ask EC2 for.
    pub fn count(self) -> Result<u16, Error> {
        match self {
            Self::Ipv4(count) => count.ok_or(Error::PrefixesUnknown),
            Self::Ipv6 => Ok(1),
        }
    }
}

fn variables(settings: &Settings) -> Vec<Variable> {
    let max_pods = &settings.max_pods;
    let mut variables = targets(settings);
    let custom = max_pods.custom_networking;
    variables.push(switch(
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
        custom,
        "max-pods.custom-networking",
    ));
    if custom {
        let from = "max-pods.custom-networking = true: an ENIConfig for each zone, named like it";
        variables.push(variable("ENI_CONFIG_LABEL_DEF", ZONE_LABEL, from));
    }
    let pod_enis = max_pods.pod_security_groups;
    variables.push(switch("ENABLE_POD_ENI", pod_enis, "max-pods.pod-security-groups"));
    if replaces_upstream(settings) {
        let from = "cni.upstream-bandwidth = \"replace\": Sluice limits pods instead";
        variables.push(variable("ENABLE_BANDWIDTH_PLUGIN", "false", from));
    }
    variables.push(max_eni(max_pods.max_eni));
    variables.extend(family(max_pods.ip_family));
    variables
}

/// Prefix delegation, and how much aws-node keeps in reserve. Never all targets "0", which aws-node
/// refuses to start with (cmd/aws-vpc-cni, validateEnvVars), and never a minimum without
/// WARM_IP_TARGET, which would freeze the node's growth there (pkg/ipamd, getPrefixesNeeded).
fn targets(settings: &Settings) -> Vec<Variable> {
    let delegation = &settings.prefix_delegation;
    let enabled = delegation.enabled;
    let mut variables =
        vec![switch("ENABLE_PREFIX_DELEGATION", enabled, "prefix-delegation.enabled")];
    if !enabled {
        return variables;
    }
    let (warm, minimum) = (delegation.warm_ip_target, delegation.minimum_ip_target);
    if warm == 0 {
        let prefixes = delegation.warm_prefix_target.prefixes();
        variables.push(number(
            "WARM_PREFIX_TARGET",
            prefixes,
            "prefix-delegation.warm-prefix-target",
            "",
        ));
        let rest = ", which means not set; written so that an old value cannot override WARM_PREFIX_TARGET";
        variables.push(number("WARM_IP_TARGET", 0, "prefix-delegation.warm-ip-target", rest));
        variables.push(number("MINIMUM_IP_TARGET", 0, "prefix-delegation.minimum-ip-target", rest));
    } else {
        let rest = ": it overrides WARM_PREFIX_TARGET, whatever that is";
        variables.push(number("WARM_IP_TARGET", warm, "prefix-delegation.warm-ip-target", rest));
        variables.push(number(
            "MINIMUM_IP_TARGET",
            minimum,
            "prefix-delegation.minimum-ip-target",
            "",
        ));
    }
    variables
}

/// Our entry takes the upstream plugin's place in the chain, so it need not be there to begin with.
fn replaces_upstream(settings: &Settings) -> bool {
    settings.bandwidth.enabled
        && settings.cni.mode == CniMode::Chain
        && settings.cni.upstream_bandwidth == UpstreamBandwidth::Replace
}

fn family(family: IpFamily) -> [Variable; 2] {
    let one = |name, of| {
        let from = format!("max-pods.ip-family = \"{family}\"");
        let value = (family == of).to_string();
        Variable { name, value, from, set_by: SetBy::Cluster }
    };
    [one("ENABLE_IPv4", IpFamily::Ipv4), one("ENABLE_IPv6", IpFamily::Ipv6)]
}

fn max_eni(most: u16) -> Variable {
    let (rest, set_by) = match most {
        0 => (", which is not set: all that the instance type has", SetBy::NotSet),
        _ => ("", SetBy::Operator),
    };
    Variable { set_by, ..number("MAX_ENI", most, "max-pods.max-eni", rest) }
}

fn switch(name: &'static str, on: bool, key: &str) -> Variable {
    variable(name, &on.to_string(), &format!("{key} = {on}"))
}

fn number(name: &'static str, value: u16, key: &str, rest: &str) -> Variable {
    variable(name, &value.to_string(), &format!("{key} = {value}{rest}"))
}

fn variable(name: &'static str, value: &str, from: &str) -> Variable {
    Variable { name, value: value.into(), from: from.into(), set_by: SetBy::Operator }
}

fn pods_setting(settings: &Settings) -> Option<u16> {
    match settings.max_pods.value {
        PodLimit::Auto => None,
        PodLimit::Count(count) => Some(count.pods()),
    }
}

fn of_type(settings: &Settings, instance: &Instance) -> MaxPods {
    let instance_type = Some(instance.name.to_owned());
    max_pods(settings, &Machine { instance_type, ..Machine::default() })
}

fn pods(settings: &Settings, answer: Option<&MaxPods>) -> Option<PodCount> {
    if let Some(count) = pods_setting(settings) {
        return Some(PodCount { count, from: format!("max-pods.value = {count}") });
    }
    let answer = answer?;
    let from = format!("as computed for {}", answer.instance_type.as_deref()?);
    Some(PodCount { count: answer.max_pods, from })
}

/// As many as hold all pods that have an address of their own, and as the type's first interface
/// has room for beside its own address.
fn prefixes(settings: &Settings, pods: Option<&PodCount>, instance: Option<&Instance>) -> Prefixes {
    if settings.max_pods.ip_family == IpFamily::Ipv6 {
        return Prefixes::Ipv6;
    }
    let room = instance.map_or(u16::MAX, |instance| instance.ipv4_per_eni - 1);
    let needed = |pods: &PodCount| {
        let addresses = u64::from(pods.count).saturating_sub(HOST_NETWORK_PODS);
        u16::try_from(addresses.div_ceil(PREFIX_ADDRESSES).max(1)).unwrap_or(room).min(room)
    };
    Prefixes::Ipv4(pods.map(needed))
}

fn miscount(settings: &Settings) -> Option<Miscount> {
    const CAP: &str = "vcpus > 30 ? 250 : 110";
    let max_pods = &settings.max_pods;
    let taken = u8::from(max_pods.custom_networking) + u8::from(max_pods.pod_security_groups);
    let most = max_pods.max_eni;
    let all = match most {
        0 => "default_enis".into(),
        most => format!("min(default_enis, {most})"),
    };
    let enis = match taken {
        0 => all,
        taken => format!("({all} - {taken})"),
    };
    let prefixes = settings.prefix_delegation.enabled;
    let (counts, rule) = match max_pods.ip_family {
        _ if settings.cni.mode == CniMode::Standalone => return None,
        IpFamily::Ipv6 => ("without prefixes", CAP.into()),
        IpFamily::Ipv4 if prefixes => {
            ("without prefixes", format!("min({CAP}, {enis} * (ips_per_eni - 1) * 16 + 2)"))
        }
        IpFamily::Ipv4 if taken > 0 || most > 0 => {
            ("with all ENIs", format!("{enis} * (ips_per_eni - 1) + 2"))
        }
        IpFamily::Ipv4 => return None,
    };
    Some(Miscount { counts, rule })
}

fn notes(settings: &Settings) -> Vec<String> {
    if settings.cni.mode == CniMode::Standalone {
        return standalone_notes();
    }
    let delegation = settings.prefix_delegation.enabled;
    let family = settings.max_pods.ip_family;
    let keeps = settings.cni.upstream_bandwidth == UpstreamBandwidth::Keep;
    let notes = [
        (delegation, REPLACE_NODES),
        (!delegation, WAS_TRUE),
        (delegation && family == IpFamily::Ipv4, FREE_BLOCKS),
        (family == IpFamily::Ipv6, FAMILY),
        (keeps && settings.bandwidth.enabled, KEPT),
    ];
    notes.into_iter().filter(|(said, _)| *said).map(|(_, note)| note.into()).collect()
}

fn standalone_notes() -> Vec<String> {
    let (label, value) = STANDALONE_LABEL;
    let off = format!(
        "cni.mode = \"standalone\": aws-node must not run on these nodes. It tolerates every taint; \
         what keeps it off is a node affinity, here on the label {label}={value}, which nodes must \
         have from their registration on."
    );
    vec![off]
}

const REPLACE_NODES: &str = "max-pods is fixed at boot, and aws-node reads it once: after changing prefix \
     delegation, replace existing nodes.";
const WAS_TRUE: &str = "Where ENABLE_PREFIX_DELEGATION was true before, aws-node gives prefixes \
     without pods back to EC2 at its next start, and a node that said 110 pods has addresses for \
     fewer: replace it.";
const FREE_BLOCKS: &str = "Each prefix is a free, aligned /28 of the node's subnet; a subnet CIDR \
     reservation of type prefix keeps some free.";
const FAMILY: &str = "A cluster has its IP family from its making on, and EKS configures aws-node: \
     ENABLE_IPv4 and ENABLE_IPv6 are to be looked at, not set.";
const KEPT: &str = "cni.upstream-bandwidth = \"keep\": ENABLE_BANDWIDTH_PLUGIN stays as it is. true \
     does not go together with network policy.";
/// Lines of a comment.
fn comment(indent: usize, text: &str) -> String {
    wrapped(&format!("{:indent$}# ", ""), text)
}

/// Lines that begin with the mark, none much longer than a terminal's.
fn wrapped(mark: &str, text: &str) -> String {
    const WIDTH: usize = 100;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{mark}{word}")),
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// The notes as comments.
fn commented(notes: &[String]) -> String {
    notes.iter().map(|note| comment(0, note)).collect()
}

/// Lines behind so many spaces; empty ones stay empty.
fn indented(indent: usize, text: &str) -> String {
    let line = |line: &str| match line {
        "" => "\n".into(),
        line => format!("{:indent$}{line}\n", ""),
    };
    text.lines().map(line).collect()
}
