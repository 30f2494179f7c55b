// SPDX-License-Identifier: Apache-2.0
//! What a program or filter belongs to, by where it is pinned, what it is
//! called, and the handle it has; and what is known of that owner's verdicts
//! where the program itself does not show it. Whoever is not known stays unknown.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::verdict::Returns;
use crate::netlink::FILTER_HANDLE;
use crate::netlink::Link;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    Sluice,
    AwsNetworkPolicy,
    Cilium,
    Calico,
    Netobserv,
    Pping,
    /// The `bandwidth` plugin of the CNI project.
    UpstreamBandwidth,
    #[default]
    Unknown,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Sluice => "ours",
            Self::AwsNetworkPolicy => "aws network policy",
            Self::Cilium => "cilium",
            Self::Calico => "calico",
            Self::Netobserv => "netobserv",
            Self::Pping => "pping",
            Self::UpstreamBandwidth => "upstream bandwidth plugin",
            Self::Unknown => "owner unknown",
        })
    }
}

/// What an owner can be recognized by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks<'a> {
    /// The program's name, of which the kernel keeps 15 characters.
    pub program: &'a str,
    /// The filter's name.
    pub filter: &'a str,
    pub handle: u32,
    pub priority: u16,
    pub pins: &'a [PathBuf],
}

/// Beginnings of the names of programs (as the kernel keeps them) or filters.
const NAMES: &[(&str, Owner)] = &[
    ("cil_", Owner::Cilium),
    ("cali_", Owner::Calico),
    ("calico_", Owner::Calico),
    // bpf/flows.c of netobserv-ebpf-agent.
    ("tc_ingress_flow", Owner::Netobserv),
    ("tc_egress_flow", Owner::Netobserv),
    ("tcx_ingress_flo", Owner::Netobserv),
    ("tcx_egress_flow", Owner::Netobserv),
    ("pping_", Owner::Pping),
];

/// Directories below the BPF file system.
const PINS: &[(&str, Owner)] = &[
    ("globals/aws", Owner::AwsNetworkPolicy),
    ("cilium", Owner::Cilium),
    ("tc/globals/cilium", Owner::Cilium),
    ("calico", Owner::Calico),
    ("sluice", Owner::Sluice),
];

/// Names of the policy agent's two programs (pkg/ebpf/c of aws-network-policy-agent).
const POLICY_PROGRAMS: [&str; 2] = ["handle_ingress", "handle_egress"];

pub fn owner(marks: &Marks, bpffs: &Path) -> Owner {
    let pinned = marks.pins.iter().find_map(|pin| {
        let below = pin.strip_prefix(bpffs).ok()?;
        PINS.iter().find(|(dir, _)| below.starts_with(dir)).map(|(_, owner)| *owner)
    });
    if let Some(owner) = pinned {
        return owner;
    }
    // After the agent has loaded a new build, what is attached is pinned nowhere.
    if marks.handle == FILTER_HANDLE && marks.filter.starts_with("sluice_") {
        return Owner::Sluice;
    }
    if POLICY_PROGRAMS.contains(&marks.program) && marks.handle == 1 && marks.priority == 1 {
        return Owner::AwsNetworkPolicy;
    }
    let named = |name: &str| NAMES.iter().find(|(start, _)| name.starts_with(start));
    named(marks.program).or_else(|| named(marks.filter)).map_or(Owner::Unknown, |(_, o)| *o)
}

/// Whose limit on what a pod sends is on this device: the upstream bandwidth plugin's is called `bwp`
/// and a digest (ifb_creator.go), Calico's `bwcali` (felix/dataplane/linux/qos).
pub fn of_ifb(device: &Link) -> Option<Owner> {
    let named = |start| device.is_kind("ifb") && device.name.starts_with(start);
    match () {
        () if named("bwcali") => Some(Owner::Calico),
        () if named("bwp") => Some(Owner::UpstreamBandwidth),
        () => None,
    }
}

/// What an owner's sources say of its verdicts, where the instructions do not show them.
pub fn documented(owner: Owner) -> Option<Returns> {
    match owner {
        // tc.v4ingress.bpf.c and its three siblings: BPF_OK and BPF_DROP, and nothing else.
        Owner::AwsNetworkPolicy => Some(Returns::exactly(&[0, 2])),
        // bpf_lxc.c and bpf_host.c: CTX_ACT_OK, CTX_ACT_DROP, CTX_ACT_REDIRECT.
        Owner::Cilium => Some(Returns::exactly(&[0, 2, 7])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(marks: Marks) -> Owner {
        owner(&marks, Path::new("/sys/fs/bpf"))
    }

    #[test]
    fn policy_is_known_by_its_pin_or_by_name_and_place_together() {
        let pins = ["/sys/fs/bpf/globals/aws/programs/web@default_handle_ingress".into()];
        assert_eq!(of(Marks { pins: &pins, ..Marks::default() }), Owner::AwsNetworkPolicy);
        let marks = Marks { program: "handle_ingress", handle: 1, priority: 1, ..Marks::default() };
        assert_eq!(of(marks), Owner::AwsNetworkPolicy);
        assert_eq!(of(Marks { priority: 2, ..marks }), Owner::Unknown);
    }

    #[test]
    fn others_are_known_by_name_and_the_rest_is_unknown() {
        let program = |program| of(Marks { program, ..Marks::default() });
        assert_eq!(program("cil_from_contai"), Owner::Cilium);
        assert_eq!(program("cali_tc_preambl"), Owner::Calico);
        assert_eq!(program("guard"), Owner::Unknown);
        let marks = Marks { filter: "sluice_guard", handle: FILTER_HANDLE, ..Marks::default() };
        assert_eq!(of(marks), Owner::Sluice);
        assert_eq!(of(Marks { handle: 2, ..marks }), Owner::Unknown);
    }
}
