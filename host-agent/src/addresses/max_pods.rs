// SPDX-License-Identifier: Apache-2.0
//! How many pods a node takes, and why: a pure function of the settings and of
//! what is known of the machine (docs/decisions/0010-max-pods.md has the rules
//! and where they come from). Every number is kept with the arithmetic that
//! led to it, so that everyone can check it.

use serde::Serialize;
use settings_model::{CniMode, IpFamily, PodLimit, Settings};

use crate::addresses::instance::Instance;

/// aws-node and kube-proxy, which have the node's address; as in AWS' own formula.
pub const HOST_NETWORK_PODS: u64 = 2;
/// A delegated IPv4 prefix is a /28 and takes the place of one secondary address.
pub const PREFIX_ADDRESSES: u64 = 16;
/// Addresses of the one /80 that an IPv6 node has: more than any cap.
const IPV6_ADDRESSES: u64 = 1 << 48;
/// What EKS advises where addresses are no limit: up to so many vCPUs, and above.
const FEW_VCPUS: u16 = 30;
const CAP_FEW_VCPUS: u64 = 110;
const CAP_MANY_VCPUS: u64 = 250;
/// Kubelet's own default, for types that nothing is known of.
const UNKNOWN_TYPE: u64 = CAP_FEW_VCPUS;
/// As many as the settings take, and the shaper has room for.
const MOST: u64 = 1000;

/// What is known of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// As firmware or IMDS name it.
    pub instance_type: Option<String>,
    /// As the kernel counts them; None off the node.
    pub vcpus: Option<u16>,
    /// Addresses for pods that IMDS shows on it; None where it shows none, or was not asked.
    pub shown: Option<u64>,
}

/// The number and what led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MaxPods {
    pub instance_type: Option<String>,
    pub max_pods: u16,
    /// With secondary addresses; None where the type is unknown.
    pub standard: Option<u64>,
    /// With prefixes where the type can have them, without a cap.
    pub prefix_delegation: Option<u64>,
    /// What the addresses are capped to; None where there is no cap in this mode.
    pub cap: Option<u64>,
    pub vcpus: Option<u16>,
    /// Addresses for pods that the type's ENIs can ever carry with these settings.
    pub capacity: Option<u64>,
    /// None where the type is unknown.
    pub prefix_delegation_supported: Option<bool>,
    /// Name and arithmetic of each step, in order.
    pub steps: Vec<(&'static str, String)>,
    /// Where the numbers come from.
    pub source: String,
    /// What keeps the number from being what it seems.
    pub warnings: Vec<String>,
}

/// Where pods' addresses come from, as the settings say and the type allows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Addresses {
    /// Secondary addresses of each ENI.
    Secondary,
    /// /28 prefixes in their places.
    Prefixes,
    /// One /80.
    Ipv6,
}

/// Computes it.
pub fn max_pods(settings: &Settings, machine: &Machine) -> MaxPods {
    let instance = machine.instance_type.as_deref().and_then(Instance::find);
    let mut answer = match instance {
        Some(instance) => of_type(settings, &instance, machine.vcpus),
        None => of_unknown(machine),
    };
    if let PodLimit::Count(count) = settings.max_pods.value {
        answer.max_pods = count.pods();
        // What was assumed does not matter.
        answer.warnings.retain(|_| answer.capacity.is_some());
        answer.steps.push(("max-pods", format!("{count}, as max-pods.value says")));
        answer.warnings.extend(answer.above_capacity(count.pods(), "max-pods.value"));
    }
    answer
}

fn of_type(settings: &Settings, instance: &Instance, kernel_vcpus: Option<u16>) -> MaxPods {
    let enis = Enis::of(settings, instance);
    let (standard, prefixes) = (enis.pods(1), enis.pods(PREFIX_ADDRESSES));
    let supported = instance.delegates_prefixes();
    let prefix_delegation = if supported { prefixes } else { standard };
    let wanted = wanted(settings);
    let addresses = if supported { wanted } else { Addresses::Secondary };
    let capacity = match addresses {
        _ if is_standalone(settings) && !supported => 0,
        Addresses::Secondary => standard - HOST_NETWORK_PODS,
        Addresses::Prefixes => prefixes - HOST_NETWORK_PODS,
        Addresses::Ipv6 => IPV6_ADDRESSES,
    };
    let vcpus = instance.vcpus.or(kernel_vcpus);
    let cap = (addresses != Addresses::Secondary).then(|| cap(vcpus));
    let uncapped = capacity + HOST_NETWORK_PODS;
    let pods = uncapped.min(cap.unwrap_or(MOST));
    let mut steps = vec![("standard", format!("{} = {standard}", enis.formula("addresses")))];
    steps.push((
        "prefix delegation",
        match supported {
            true => prefix_formula(&enis, prefixes, vcpus),
            false => format!("{} cannot have it ({})", instance.name, kind(instance)),
        },
    ));
    if addresses == Addresses::Ipv6 {
        let text =
            format!("one /80 prefix on the primary ENI: 2^48 addresses + {HOST_NETWORK_PODS}");
        steps.push(("IPv6", text));
    }
    steps.push(("cap", cap_text(vcpus, cap)));
    steps.push((
        "max-pods",
        match addresses {
            Addresses::Ipv6 => format!("the cap, {pods}"),
            _ => format!("min({uncapped}, {}) = {pods}", cap.unwrap_or(MOST)),
        },
    ));
    MaxPods {
        instance_type: Some(instance.name.into()),
        max_pods: pods as u16,
        standard: Some(standard),
        prefix_delegation: Some(prefix_delegation),
        cap,
        vcpus,
        capacity: Some(capacity),
        prefix_delegation_supported: Some(supported),
        steps,
        source: source(instance, kernel_vcpus),
        warnings: warnings(instance, wanted, &enis, is_standalone(settings)),
    }
}

fn of_unknown(machine: &Machine) -> MaxPods {
    let shown = machine.shown.map(|addresses| addresses + HOST_NETWORK_PODS);
    let pods = shown.map_or(UNKNOWN_TYPE, |shown| shown.min(UNKNOWN_TYPE));
    let text = match machine.shown {
        Some(addresses) => {
            format!(
                "min({UNKNOWN_TYPE}, {addresses} addresses that IMDS shows + {HOST_NETWORK_PODS}) = {pods}"
            )
        }
        None => format!("{UNKNOWN_TYPE}, since the type's ENIs are not known"),
    };
    let types = Instance::all().count();
    let which = match &machine.instance_type {
        Some(name) => format!("instance type {name:?} is not in this image's table of {types}"),
        None => "neither firmware nor IMDS says what instance type this is".into(),
    };
    let warning = format!(
        "{which}: {pods} pods are assumed, which may be more than it has addresses for; give \
         max-pods.value, or take a newer image"
    );
    MaxPods {
        instance_type: machine.instance_type.clone(),
        max_pods: pods as u16,
        standard: None,
        prefix_delegation: None,
        cap: Some(UNKNOWN_TYPE),
        vcpus: machine.vcpus,
        capacity: None,
        prefix_delegation_supported: None,
        steps: vec![("max-pods", text)],
        source: "kubelet's own default".into(),
        warnings: vec![warning],
    }
}

/// ENIs that carry pods.
struct Enis {
    all: u64,
    /// Of how many of the type's, where settings have fewer used.
    of: Option<u64>,
    /// Those that carry none, and why.
    taken: Vec<&'static str>,
    /// On each of them one address is its own.
    ipv4_per_eni: u64,
}

impl Enis {
    fn of(settings: &Settings, instance: &Instance) -> Self {
        let ipv4_per_eni = instance.ipv4_per_eni.into();
        if is_standalone(settings) {
            return Self { all: 1, of: None, taken: Vec::new(), ipv4_per_eni };
        }
        let max_pods = &settings.max_pods;
        let custom = max_pods.custom_networking.then_some("custom networking");
        let trunk = max_pods.pod_security_groups.then_some("trunk");
        let taken = custom.into_iter().chain(trunk).collect();
        // As aws-node takes MAX_ENI (pkg/ipamd, getMaxENI).
        let most = Some(u64::from(max_pods.max_eni)).filter(|most| *most > 0);
        let there = u64::from(instance.enis);
        let all = most.map_or(there, |most| most.min(there));
        Self { all, of: (all < there).then_some(there), taken, ipv4_per_eni }
    }

    fn left(&self) -> u64 {
        self.all.saturating_sub(self.taken.len() as u64)
    }

    fn pods(&self, addresses_per_place: u64) -> u64 {
        self.left() * (self.ipv4_per_eni - 1) * addresses_per_place + HOST_NETWORK_PODS
    }

    fn formula(&self, places: &str) -> String {
        let minus: Vec<String> = self.taken.iter().map(|why| format!(" − 1 ({why})")).collect();
        let all = match self.of {
            Some(there) => format!("min({there}, max-eni {})", self.all),
            None => self.all.to_string(),
        };
        let enis = match (self.all, minus.is_empty()) {
            (1, true) => format!("{all} ENI"),
            (_, true) => format!("{all} ENIs"),
            (_, false) => format!("({all}{}) ENIs", minus.concat()),
        };
        format!("{enis} × ({} − 1) {places} + {HOST_NETWORK_PODS}", self.ipv4_per_eni)
    }
}

fn is_standalone(settings: &Settings) -> bool {
    settings.cni.mode == CniMode::Standalone
}

fn wanted(settings: &Settings) -> Addresses {
    match settings.max_pods.ip_family {
        IpFamily::Ipv6 => Addresses::Ipv6,
        IpFamily::Ipv4 if settings.prefix_delegation.enabled => Addresses::Prefixes,
        IpFamily::Ipv4 if is_standalone(settings) => Addresses::Prefixes,
        IpFamily::Ipv4 => Addresses::Secondary,
    }
}

/// Of two caps the lower one where the processors are not known.
fn cap(vcpus: Option<u16>) -> u64 {
    if vcpus.is_some_and(|count| count > FEW_VCPUS) { CAP_MANY_VCPUS } else { CAP_FEW_VCPUS }
}

/// With the cap, also where the settings do not have it in force.
fn prefix_formula(enis: &Enis, pods: u64, vcpus: Option<u16>) -> String {
    let formula = enis.formula("prefixes × 16 addresses");
    match cap(vcpus) {
        cap if cap < pods => format!("{formula} = {pods}, capped to {cap}"),
        _ => format!("{formula} = {pods}"),
    }
}

fn cap_text(vcpus: Option<u16>, cap: Option<u64>) -> String {
    match (cap, vcpus) {
        (None, _) => format!("none but Sluice's own, {MOST}: secondary addresses are the limit"),
        (Some(cap), None) => format!("{cap} (number of vCPUs unknown)"),
        (Some(cap), Some(count)) if count > FEW_VCPUS => {
            format!("{cap} ({count} vCPUs; {CAP_FEW_VCPUS} up to {FEW_VCPUS} vCPUs)")
        }
        (Some(cap), Some(count)) => {
            format!("{cap} ({count} vCPUs; {CAP_MANY_VCPUS} above {FEW_VCPUS} vCPUs)")
        }
    }
}

fn kind(instance: &Instance) -> String {
    match instance.bare_metal {
        true => "bare metal".into(),
        false => format!("{:?}", instance.hypervisor).to_lowercase() + " hypervisor",
    }
}

fn source(instance: &Instance, kernel_vcpus: Option<u16>) -> String {
    let vcpus = match (instance.vcpus, kernel_vcpus) {
        (Some(count), _) => format!("{count} vCPUs"),
        (None, Some(count)) => format!("{count} vCPUs (the kernel's count, the table has none)"),
        (None, None) => "vCPUs unknown".into(),
    };
    let Instance { name, enis, ipv4_per_eni, .. } = instance;
    let (types, kind) = (Instance::all().count(), kind(instance));
    format!(
        "table of {types} instance types, {name}: {enis} ENIs, {ipv4_per_eni} IPv4 addresses each, \
         {kind}, {vcpus}"
    )
}

fn warnings(instance: &Instance, wanted: Addresses, enis: &Enis, standalone: bool) -> Vec<String> {
    let (name, kind) = (instance.name, kind(instance));
    let mut warnings = Vec::new();
    if !instance.delegates_prefixes() {
        let lacks = format!("{name} cannot have delegated prefixes ({kind})");
        match wanted {
            Addresses::Secondary => {}
            _ if standalone => warnings.push(format!("{lacks}: no pod gets an address")),
            Addresses::Prefixes => {
                warnings.push(format!("{lacks}: pods have secondary addresses, which are fewer"));
            }
            Addresses::Ipv6 => {
                warnings.push(format!("{lacks}, and aws-node does not start on it with IPv6"));
            }
        }
    }
    if enis.left() == 0 && wanted != Addresses::Ipv6 {
        let taken = enis.taken.join(" and ");
        warnings.push(format!(
            "{taken} leave {name} no ENI for pods: only those with the node's address start"
        ));
    }
    warnings
}

impl MaxPods {
    /// What to say of a foreign number, which is in force instead of this one.
    pub fn against(&self, pods: u16, whose: &str) -> Option<String> {
        let ours = self.max_pods;
        let too_few = (pods < ours).then(|| {
            format!("{whose} gives kubelet {pods} pods; by these settings the node takes {ours}")
        });
        too_few.or_else(|| self.above_capacity(pods, whose))
    }

    /// A number from the settings is kept to, but what it leads to is said.
    pub fn above_capacity(&self, pods: u16, whose: &str) -> Option<String> {
        let most = self.capacity?.saturating_add(HOST_NETWORK_PODS);
        let name = self.instance_type.as_deref()?;
        let pods = u64::from(pods);
        (pods > most).then(|| {
            format!(
                "{whose} gives kubelet {pods} pods, but {name} never has addresses for more than \
                 {most} with these settings: {} would wait in ContainerCreating",
                pods - most
            )
        })
    }
}

/// EKS' own formula (nodeadm, getMemoryMebibytesToReserve).
pub fn reserved_mebibytes(pods: u16) -> u32 {
    11 * u32::from(pods) + 255
}

#[cfg(test)]
mod tests;
