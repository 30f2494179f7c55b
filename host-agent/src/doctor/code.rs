// SPDX-License-Identifier: Apache-2.0
//! Stable names of what `sluice doctor` finds, for programs; people get the
//! text. A code is never renamed and never given another meaning. This is the
//! whole list; docs/doctor.md explains each.

macro_rules! codes {
    ($($name:ident = $code:literal, $meaning:literal;)+) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)+

        /// Every code with its meaning.
        #[cfg(test)]
        pub const ALL: &[(&str, &str)] = &[$(($code, $meaning)),+];
    };
}

codes! {
    NO_FQ = "no-fq", "The kernel has no sch_fq: limits are policed, not paced.";
    NO_CLASSFUL_ROOT = "no-classful-root", "The kernel has neither sch_prio nor sch_htb: nothing towards a pod can be limited.";
    NO_CLSACT = "no-clsact", "The kernel has no sch_ingress (clsact): nothing from a pod can be limited.";
    NO_CLS_BPF = "no-cls-bpf", "The kernel has no cls_bpf: no filter of ours can be attached.";
    NO_TCX = "no-tcx", "The kernel has no tcx: the guard is a guest on network policy's clsact.";
    NOT_TRIED = "not-tried", "What the kernel can could not be tried.";
    KERNEL_TOO_OLD = "kernel-too-old", "The kernel is older than CAP_BPF.";
    NOT_JITED = "not-jited", "BPF programs are interpreted, not compiled.";
    JIT_HARDENED = "jit-hardened", "Constants of BPF programs are blinded: they are slower, and nobody can read them.";
    SLOW_CLOCK = "slow-clock", "The clock source is slow; the shaper reads it for each packet.";
    BPFFS_MISSING = "bpffs-missing", "No BPF file system where pins belong.";
    BPFFS_HIDDEN = "bpffs-hidden", "A BPF file system is mounted over another.";
    NOT_BOOTED = "not-booted", "No settings are in force: `sluice boot` has not run since the node started.";
    SETTINGS_REPLACED = "settings-replaced", "Other settings are in force than were asked for.";
    SETTINGS_UNREADABLE = "settings-unreadable", "The settings in force cannot be read.";
    PINS_MISSING = "pins-missing", "Programs or maps of this version are not pinned.";
    PINS_OF_OTHER_VERSION = "pins-of-other-version", "Programs or maps of another version's layout are pinned.";
    PROGRAM_OUTDATED = "program-outdated", "What is attached is another build than what is pinned.";
    LINK_LEFT = "link-left", "The pin of a guard whose device has gone.";
    AGENT_NOT_RUNNING = "agent-not-running", "The agent's socket does not answer.";
    RECORD_UNREADABLE = "record-unreadable", "A record in /run/sluice/pods cannot be read.";
    RECORD_WITHOUT_POD = "record-without-pod", "A record whose pod has gone.";
    POD_WITHOUT_RECORD = "pod-without-record", "A pod that the CNI chain missed: it has no limit.";
    ATTACH_INCOMPLETE = "attach-incomplete", "A limit whose attachment was never completed.";
    FILTER_MISSING = "filter-missing", "Our filter is not where it was: a limit is not enforced.";
    FQ_MISSING = "fq-missing", "Our fq is not where it was: nothing holds packets back.";
    FOREIGN_ROOT_QDISC = "foreign-root-qdisc", "Somebody else's root qdisc is on a pod's device.";
    TOO_MANY_FILTERS = "too-many-filters", "A pod's device has more filters than are read.";
    SHAPER_HIDDEN = "shaper-hidden", "Somebody ends the chain before our filter runs.";
    POLICED = "policed", "A limit is enforced by dropping, for want of fq.";
    GUARDED = "guarded", "A limit is enforced by the guard alone.";
    GUARD_PENDING = "guard-pending", "The guard waits for the agent to attach it.";
    GUARD_OFF = "guard-off", "There is no place for the guard.";
    GUARD_MISSING = "guard-missing", "The guard is not where it was.";
    GUARD_HIDDEN = "guard-hidden", "Somebody ends the chain before the guard runs.";
    GUARD_BEHIND = "guard-behind", "Somebody whose verdicts are unknown runs before the guard.";
    INGRESS_BYPASSED = "ingress-bypassed", "Packets reach a pod past its host end: the guard in it drops the excess.";
    GSO_CLAMP_LOST = "gso-clamp-lost", "A limited device sends larger super-packets than it was told to.";
    POLICY_BYPASSED = "policy-bypassed", "A program ends the chain before network policy runs.";
    POLICY_PERHAPS_BYPASSED = "policy-perhaps-bypassed", "A program whose verdicts are unknown runs before network policy.";
    POLICY_MISSING = "policy-missing", "Network policy is not attached where it should be.";
    INGRESS_QDISC = "ingress-qdisc", "An ingress qdisc, which network policy takes for clsact.";
    PRIORITY_TAKEN = "priority-taken", "A filter whose kind or protocol keeps network policy from attaching.";
    HANDLE_ONE_TAKEN = "handle-one-taken", "A foreign filter has handle 1, which network policy takes for its own.";
    UPSTREAM_BANDWIDTH = "upstream-bandwidth", "Traces of the upstream bandwidth plugin on a device.";
    XDP_ON_POD = "xdp-on-pod", "An XDP program on a pod's device runs before everything else.";
    NETKIT = "netkit", "A netkit device: network policy runs behind the limits there.";
    CILIUM_PRESENT = "cilium-present", "Cilium's programs are on this node.";
    CALICO_PRESENT = "calico-present", "Calico's programs or devices are on this node.";
    CONFLIST_MISSING = "conflist-missing", "There is no CNI configuration.";
    CONFLIST_UNREADABLE = "conflist-unreadable", "The CNI configuration in use cannot be understood, or not be chained to.";
    CONFLIST_SHADOWED = "conflist-shadowed", "The file with our entry is not the one that the runtime takes.";
    ENTRY_MISSING = "entry-missing", "The CNI configuration in use does not have our entry.";
    ENTRY_CHANGED = "entry-changed", "Our entry does not ask for the pods' bandwidth.";
    UPSTREAM_ENTRY = "upstream-entry", "The upstream bandwidth plugin is in the chain.";
    TEMPORARY_LEFT = "temporary-left", "A temporary file of an interrupted write.";
    PLUGIN_MISSING = "plugin-missing", "The CNI plugin is not installed.";
    PLUGIN_DIFFERS = "plugin-differs", "The installed CNI plugin is not the one that the image ships.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    #[test]
    fn each_code_is_given_once_and_explained() {
        let page = include_str!("../../../docs/doctor.md");
        let codes: BTreeSet<_> = ALL.iter().map(|(code, _)| code).collect();
        assert_eq!(codes.len(), ALL.len());
        for (code, meaning) in ALL {
            let row = |line: &str| {
                line.starts_with(&format!("| `{code}` | "))
                    && line.ends_with(&format!("| {meaning} |"))
            };
            assert!(page.lines().any(row), "docs/doctor.md has no line for {code}: {meaning}");
        }
    }
}
