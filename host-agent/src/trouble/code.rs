// SPDX-License-Identifier: Apache-2.0
//! Every code of trouble, once: how bad it is, what it means, what the reader
//! can do, and which alert covers it. Status, doctor, metrics, alerts and
//! docs/troubleshooting.md name nothing else. A code is a stable name, for programs;
//! what was a code once never gets another meaning.

use self::By::{Both, Doctor, Status};
use super::severity::Severity::{self, Degraded, Fault, Note};

/// The alert on all that has none of its own.
pub const ANY: &str = "SluiceDegraded";

#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    pub name: &'static str,
    /// As a rule.
    pub severity: Severity,
    /// Where it is another one, in words; mostly empty.
    pub except: &'static str,
    pub by: By,
    pub meaning: &'static str,
    /// What the reader can do; the report of a trouble may say it with names and numbers.
    pub next_step: &'static str,
}

/// Who reports it. What status lists is in the metrics too, and has an alert.
#[derive(Debug, PartialEq, Eq)]
pub enum By {
    Doctor,
    Status(&'static str),
    Both(&'static str),
}

impl Code {
    /// The alert that covers it; None for what only doctor finds.
    pub fn alert(&self) -> Option<&'static str> {
        match self.by {
            Doctor => None,
            Status(alert) | Both(alert) => Some(alert),
        }
    }

    pub fn is_of_doctor(&self) -> bool {
        !matches!(self.by, Status(_))
    }
}

macro_rules! codes {
    ($($area:literal { $($name:ident = $code:literal, $severity:ident $except:literal, $by:expr,
        $meaning:literal, $next_step:literal;)+ })+) => {
        $($(#[doc = $meaning]
        pub const $name: &Code = &Code {
            name: $code,
            severity: $severity,
            except: $except,
            by: $by,
            meaning: $meaning,
            next_step: $next_step,
        };)+)+

        /// All of them by what they are about, in the order of the page.
        #[cfg(test)]
        pub const AREAS: &[(&str, &[&Code])] = &[$(($area, &[$($name),+])),+];
    };
}

codes! {
"Kernel" {
    NO_FQ = "no-fq", Degraded "", Doctor,
        "The kernel has no sch_fq: limits are policed, not paced.",
        "use a kernel with CONFIG_NET_SCH_FQ (module sch_fq)";
    NO_CLASSFUL_ROOT = "no-classful-root", Fault "", Doctor,
        "The kernel has neither sch_prio nor sch_htb: nothing towards a pod can be limited.",
        "use a kernel with CONFIG_NET_SCH_PRIO or CONFIG_NET_SCH_HTB";
    NO_CLSACT = "no-clsact", Fault "", Doctor,
        "The kernel has no sch_ingress (clsact): nothing from a pod can be limited.",
        "use a kernel with CONFIG_NET_SCH_INGRESS";
    NO_CLS_BPF = "no-cls-bpf", Fault "", Doctor,
        "The kernel has no cls_bpf: no filter of Sluice's can be attached.",
        "use a kernel with CONFIG_NET_CLS_BPF";
    NO_TCX = "no-tcx", Note "", Doctor,
        "The kernel has no tcx: the guard is a guest on network policy's clsact.",
        "use an image with kernel 6.6 or newer (EKS: Kubernetes 1.33 and newer)";
    NOT_TRIED = "not-tried", Note "", Doctor,
        "What the kernel can do could not be tried.",
        "run sluice doctor where network namespaces can be made";
    KERNEL_TOO_OLD = "kernel-too-old", Fault "", Doctor,
        "The kernel is older than CAP_BPF.",
        "use a kernel of 5.12 or newer; 6.1, 6.12 and 6.18 are tested";
    NOT_JITED = "not-jited", Degraded "", Doctor,
        "BPF programs are interpreted, not compiled.",
        "sysctl -w net.core.bpf_jit_enable=1; systemctl restart sluice; restart the pods";
    JIT_HARDENED = "jit-hardened", Note "", Doctor,
        "Constants of BPF programs are blinded: they are slower, and no one can read them.",
        "none needed: hardened images set it on purpose";
    SLOW_CLOCK = "slow-clock", Degraded "", Doctor,
        "The clock source is slow; the shaper reads it for each packet.",
        "see /sys/devices/system/clocksource/clocksource0/available_clocksource; write tsc or kvm-clock to current_clocksource beside it";
    BPFFS_MISSING = "bpffs-missing", Fault "", Doctor,
        "No BPF file system is where pins belong.",
        "mount -t bpf bpf /sys/fs/bpf, before kubelet starts";
    BPFFS_HIDDEN = "bpffs-hidden", Degraded "", Doctor,
        "A BPF file system is mounted over another.",
        "umount /sys/fs/bpf once no one uses the upper one; restart aws-node";
}
"Settings" {
    NOT_BOOTED = "not-booted", Fault "", Both(ANY),
        "No settings are in force: `sluice boot` has not run since the node started.",
        "run sluice boot (or: systemctl start sluice-boot); if it fails: journalctl -u sluice-boot";
    SETTINGS_UNREADABLE = "settings-unreadable", Fault "", Both(ANY),
        "The settings in force cannot be read.",
        "run sluice boot; if it fails: journalctl -u sluice-boot";
    SETTINGS_NOT_AS_ASKED = "settings-not-as-asked", Degraded "", Both("SluiceSettingsNotAsAsked"),
        "Other settings are in force than were asked for.",
        "correct the settings, check them with sluice check, then sluice reload";
    SETTINGS_NOT_STORED = "settings-not-stored", Degraded "", Status(ANY),
        "The settings are in force from memory, until the node restarts.",
        "the settings are in force from memory (/run/sluice) and will be read again at the next boot; free space on /var or make it writable, then sluice reload";
    NODE_SHARE_OFF = "node-share-off", Degraded "", Status(ANY),
        "Pods are to share what the node can do, and that is not known in some direction.",
        "set bandwidth.node-egress and bandwidth.node-ingress to rates";
    FLOORS_LOWERED = "floors-lowered", Degraded "", Status(ANY),
        "More is promised to the pods of this node than it can do; floors are lowered.",
        "lower floor-egress or floor-ingress of a class, or have fewer of its pods on one node";
    NODE_BUSY = "node-busy", Note "", Status("SluiceNodeBusy"),
        "For 10 s on end pods have waited for the node's line and used 80 % of it and more, or an ENA counts what EC2 held or dropped above the instance's allowance; it names the pods that took most. It is over when neither has been so for 10 s.",
        "give pods other weights (bandwidth.weight, a class' weight, sluice.dev/weight) or limits, or move some to another node; sluice top shows them";
}
"Agent" {
    AGENT_NOT_RUNNING = "agent-not-running", Degraded "", Both("SluiceAgentDown"),
        "No agent answers: limits stay in force, but nothing is repaired, adopted or collected, and new pods get no guard.",
        "systemctl start sluice; journalctl -u sluice says why it ended";
    NOT_READY = "not-ready", Degraded "", Status("SluiceAgentNotReady"),
        "The agent has not finished its first pass.",
        "wait; if that lasts for more than a minute, read its journal: journalctl -u sluice";
    DEAF = "deaf", Degraded "", Status(ANY),
        "The agent does not receive what changes inside pods, because it lacks CAP_NET_BROADCAST.",
        "give the agent that capability; until then what a pod's end has lost is found every 5 minutes";
    NO_METRICS = "no-metrics", Degraded "", Status(ANY),
        "Metrics cannot be served where the settings say.",
        "choose another address (agent.metrics-listen), then sluice reload";
    PINS_MISSING = "pins-missing", Fault "note where the settings limit no pod", Both(ANY),
        "Programs or maps of this version are not pinned: new pods start without limits, none can be changed, no counter can be read.",
        "restart the agent: systemctl restart sluice";
    PINS_OF_OTHER_VERSION = "pins-of-other-version", Note "", Doctor,
        "Programs or maps of another version's layout are pinned.",
        "remove them once no older pod runs on this node";
    PROGRAM_OUTDATED = "program-outdated", Note "", Doctor,
        "What is attached is another build than what is pinned.",
        "none needed; they go with their pods";
    LINK_LEFT = "link-left", Note "", Doctor,
        "The pin of a guard whose device has gone.",
        "none needed: the agent removes it with its record";
}
"Pods" {
    NOT_ENFORCED = "not-enforced", Fault "", Status("SluicePodsNotEnforced"),
        "A limit is not enforced where it should be.",
        "sluice doctor shows what is in the way or has changed the pod's devices; once that is gone the agent restores the limit within seconds";
    NOT_ADOPTED = "not-adopted", Fault "", Status(ANY),
        "A running pod could not be given the limit that it should have: its result in the runtime's cache cannot be read, what it says of the limit cannot, or all slots are taken.",
        "correct the pod's annotations, then restart the pod; where all slots are taken, run fewer pods on this node";
    CONTESTED = "contested", Degraded "", Status(ANY),
        "What Sluice attached or wrote is removed again and again; the agent stands back for a while.",
        "`sluice doctor` names what else works on this pod's devices";
    RECORD_UNREADABLE = "record-unreadable", Fault "", Both(ANY),
        "A pod's record in /run/sluice/pods, or its counters, cannot be read.",
        "remove the record, then restart the pod; report it if that does not help";
    RECORD_WITHOUT_POD = "record-without-pod", Degraded "", Doctor,
        "A record whose pod has gone.",
        "none needed: the agent collects it while it runs";
    POD_WITHOUT_RECORD = "pod-without-record", Degraded "", Doctor,
        "A pod that the CNI chain missed: it has no limit.",
        "the agent adopts it while it runs; or delete the pod";
    ATTACH_INCOMPLETE = "attach-incomplete", Fault "", Doctor,
        "A limit whose attachment was never completed.",
        "sluice reload; else restart the pod";
    FILTER_MISSING = "filter-missing", Fault "", Doctor,
        "Sluice's filter is not where it was: a limit is not enforced.",
        "the agent restores it within seconds while it runs: systemctl start sluice";
    FQ_MISSING = "fq-missing", Fault "", Doctor,
        "Sluice's fq is not where it was: nothing makes packets wait.",
        "the agent restores it within seconds while it runs: systemctl start sluice";
    FOREIGN_ROOT_QDISC = "foreign-root-qdisc", Fault "degraded where no limit needs the place", Doctor,
        "A foreign root qdisc is on a pod's device.",
        "ask its owner to remove it (tbf: the upstream bandwidth plugin or Calico); the agent then puts the limit in its place within seconds";
    TOO_MANY_FILTERS = "too-many-filters", Note "", Doctor,
        "A pod's device has more filters than are read.",
        "see what in the pod adds them";
    SHAPER_HIDDEN = "shaper-hidden", Fault "", Doctor,
        "A foreign program ends the chain before Sluice's filter runs.",
        "have it attached behind Sluice's filter, or return UNSPEC";
    POLICED = "policed", Degraded "", Both("SluicePodsPoliced"),
        "A limit is enforced by dropping, not pacing: the kernel has no sch_fq.",
        "use an image whose kernel has the module sch_fq, then restart the pod";
    GUARDED = "guarded", Degraded "", Both("SluicePodsGuarded"),
        "A limit is enforced by the guard alone: a foreign root qdisc has the place of Sluice's, on the pod's end or on the host's.",
        "ask the owner of that qdisc to remove it (tbf 1: on the host's end: Calico's QoS or the upstream bandwidth plugin); the agent then paces the pod within seconds. Or leave it: the lower of the two limits applies";
    GSO_CLAMP_LOST = "gso-clamp-lost", Degraded "", Doctor,
        "A limited device sends larger super-packets than it was set to.",
        "the agent sets it again within 5 minutes while it runs: systemctl start sluice";
}
"Guards" {
    GUARD_OFF = "guard-off", Degraded "", Both("SluiceGuardOff"),
        "There is no place for a pod's guard: with CAP_NET_RAW the pod can send past its limit, with CAP_NET_ADMIN it can remove the shaper.",
        "set bandwidth.guard = \"own-clsact\"; or use a kernel with tcx (6.6), or network policy, whose clsact the guard shares";
    GUARD_PENDING = "guard-pending", Degraded "", Doctor,
        "The guard waits for the agent to attach it.",
        "systemctl start sluice";
    GUARD_MISSING = "guard-missing", Degraded "fault where the guard alone enforces", Doctor,
        "The guard is not where it was.",
        "the agent restores it within seconds while it runs: systemctl start sluice";
    GUARD_HIDDEN = "guard-hidden", Degraded "fault where the guard alone enforces", Doctor,
        "A foreign program ends the chain before the guard runs.",
        "systemctl restart sluice puts the guard in front again; have the other one attached behind it";
    GUARD_BEHIND = "guard-behind", Note "", Doctor,
        "A foreign program whose verdicts are unknown runs before the guard.",
        "systemctl restart sluice puts the guard in front again; have the other one attached behind it";
    DODGED = "dodged", Degraded "", Status("SluiceGuardDropping"),
        "The guard dropped what bypassed a pod's own shaper.",
        "look at what runs there: it has changed its own devices or sends past them";
    INGRESS_GUARD_OFF = "ingress-guard-off", Degraded "", Both(ANY),
        "A pod has no guard inside: what others hand to it past its host end is not limited.",
        "remove the ingress qdisc of the pod's end, or use a kernel with tcx (6.6)";
    INGRESS_BYPASSED = "ingress-bypassed", Degraded "fault, with `not-enforced`, where a packet socket in the pod gets them first (gVisor)", Both(ANY),
        "Packets reach a pod past its host end (bpf_redirect_peer): they are policed by the guard inside, not paced.",
        "sluice doctor names the programs that can do that. Calico: BPFRedirectToPeer=Disabled; Cilium: enable-host-legacy-routing=true; or leave it: the limit applies";
}
"Network policy" {
    POLICY_BYPASSED = "policy-bypassed", Fault "", Doctor,
        "A program ends the chain before network policy runs.",
        "have that program return NEXT (TCX_NEXT and TC_ACT_UNSPEC are -1), or remove it: bpftool link detach, tc filter del";
    POLICY_PERHAPS_BYPASSED = "policy-perhaps-bypassed", Note "", Doctor,
        "A program whose verdicts are unknown runs before network policy.",
        "have that program return NEXT (TCX_NEXT and TC_ACT_UNSPEC are -1), or remove it: bpftool link detach, tc filter del";
    POLICY_MISSING = "policy-missing", Degraded "fault where this pod's program is pinned", Doctor,
        "Other pods have network policy, or this pod's program is pinned, and it is not attached here.",
        "kubectl -n kube-system rollout restart daemonset aws-node, or restart the pod";
    INGRESS_QDISC = "ingress-qdisc", Degraded "fault beside network policy", Doctor,
        "An ingress qdisc, which network policy takes for clsact.",
        "remove it, and keep whatever added it from doing so again; then restart aws-node or the pod";
    PRIORITY_TAKEN = "priority-taken", Note "fault beside network policy", Doctor,
        "A filter whose kind or protocol keeps network policy from attaching.",
        "give it another priority";
    POLICY_OUTDATED = "policy-outdated", Note "", Doctor,
        "Network policy's attached program is not the one that its agent has pinned: changes of policy may not reach the pod.",
        "restart the pod: the policy agent attaches its present program to new pods only";
    HANDLE_ONE_TAKEN = "handle-one-taken", Note "degraded beside network policy", Doctor,
        "A foreign filter has handle 1, which network policy takes for its own.",
        "attach it with another handle";
}
"Other components" {
    UPSTREAM_BANDWIDTH = "upstream-bandwidth", Degraded "note on a pod without a limit of Sluice's", Doctor,
        "Traces of the upstream bandwidth plugin are on a device.",
        "remove \"bandwidth\" from the chain, then restart the pod";
    XDP_ON_POD = "xdp-on-pod", Note "", Doctor,
        "An XDP program on a pod's device runs before everything else.",
        "ask its owner; ip link set dev … xdp off removes it";
    NETKIT = "netkit", Note "", Doctor,
        "A netkit device: network policy of Cilium or Calico runs behind the limits there, so what it denies is charged to the pod.",
        "none needed: limits and policy apply. With veth pairs (Cilium: bpf.datapathMode=veth) denied packets cost the pod nothing on their way in";
    CILIUM_PRESENT = "cilium-present", Note "", Doctor,
        "Cilium's programs are on this node.",
        "see the hooks with `sluice doctor --all`";
    CILIUM_EXCLUSIVE = "cilium-exclusive", Note "", Doctor,
        "Cilium has renamed the CNI configurations of others (cni.exclusive=true).",
        "set cni.exclusive=false in Cilium's chart (cilium-config: cni-exclusive: \"false\"), then kubectl -n kube-system rollout restart ds/cilium; none, if that is so by now";
    CILIUM_BANDWIDTH = "cilium-bandwidth", Degraded "", Doctor,
        "Cilium's bandwidth manager is on: two limiters read the same annotations, and the lower of two limits applies.",
        "set bandwidthManager.enabled=false in Cilium's chart, restart ds/cilium, then replace the node: Cilium does not restore the qdiscs of its cards";
    CALICO_PRESENT = "calico-present", Note "", Doctor,
        "Calico's programs or devices are on this node.",
        "the agent restores its own while it runs; a pod with one of Calico's QoS annotations is limited by both";
}
"CNI chain" {
    CONFLIST_MISSING = "conflist-missing", Fault "", Both(ANY),
        "There is no CNI configuration: the main plugin has not written its file, and the node is not ready.",
        "wait for aws-node, or see its log; the entry is added when the file is there";
    CONFLIST_UNREADABLE = "conflist-unreadable", Fault "", Both(ANY),
        "The CNI configuration in use cannot be understood, or not be chained to.",
        "repair the file, or move it away and restart aws-node, which writes its own; then sluice reload. Until then new pods are limited by the agent, shortly after they start";
    CONFLIST_NOT_WRITTEN = "conflist-not-written", Fault "", Status(ANY),
        "Sluice's entry could not be written into the CNI configuration, or not be removed.",
        "make cni.conf-dir writable, then sluice reload; until then new pods are limited by the agent, shortly after they start";
    CONFLIST_SHADOWED = "conflist-shadowed", Fault "", Doctor,
        "The file with Sluice's entry is not the one that the runtime takes.",
        "move the other file away, or run sluice boot to chain there";
    ENTRY_MISSING = "entry-missing", Fault "", Doctor,
        "The CNI configuration in use does not have Sluice's entry.",
        "sluice boot";
    ENTRY_CHANGED = "entry-changed", Fault "", Doctor,
        "Sluice's entry does not ask for the pods' bandwidth.",
        "sluice boot";
    UPSTREAM_ENTRY = "upstream-entry", Fault "note where the settings keep it and Sluice is not beside it", Both(ANY),
        "The upstream bandwidth plugin is in the chain.",
        "sluice boot, which replaces it by our entry; to keep it out: kubectl -n kube-system set env daemonset/aws-node ENABLE_BANDWIDTH_PLUGIN=false";
    UPSTREAM_RATES = "upstream-rates", Degraded "", Both(ANY),
        "The upstream bandwidth plugin's entry has rates of its own, which the settings do not: it stays, and limits all pods.",
        "give these defaults, or remove the rates from the entry";
    UPSTREAM_REPLACED = "upstream-replaced", Note "", Status(ANY),
        "The upstream bandwidth plugin was in the chain, and Sluice has replaced it.",
        "have its owner leave it out, so that both agree (VPC CNI: ENABLE_BANDWIDTH_PLUGIN=false)";
    TEMPORARY_LEFT = "temporary-left", Note "", Doctor,
        "A temporary file of an interrupted write.",
        "the next write replaces it; or remove it";
    PLUGIN_MISSING = "plugin-missing", Fault "", Both(ANY),
        "The CNI plugin is not installed, or cannot be executed.",
        "sluice reload installs it; until then new pods are limited by the agent, shortly after they start";
    PLUGIN_NOT_INSTALLED = "plugin-not-installed", Degraded "", Status(ANY),
        "The CNI plugin could not be installed; without an older one Sluice's entry is not in the chain.",
        "install it again, or set cni.bin-dir to a directory that can be written; then sluice reload";
    PLUGIN_DIFFERS = "plugin-differs", Degraded "", Doctor,
        "The installed CNI plugin is not the one that the image ships.",
        "sluice boot";
}
"kubelet and addresses" {
    MAX_PODS = "max-pods", Degraded "", Status(ANY),
        "The settings' number of pods contradicts another one, or cannot be kubelet's; limits are in force.",
        "correct the number (`sluice check FILE` finds what one document contradicts), then sluice reload; limits are in force all the same";
    KUBELET_NOT_CONFIGURED = "kubelet-not-configured", Degraded "", Status(ANY),
        "What kubelet reads could not be read or written; limits are in force.",
        "allow it: ReadWritePaths=DIRECTORY in a drop-in of sluice-boot.service and sluice.service, on a file system that can be written; then restart sluice-boot; until then kubelet takes as many pods as it would without Sluice";
    KUBELET_NOT_RESTARTED = "kubelet-not-restarted", Degraded "", Status(ANY),
        "kubelet runs with another number of pods than the settings give it.",
        "restart kubelet: systemctl restart kubelet";
    IP_MISMATCH = "ip-mismatch", Degraded "", Status("SluiceAddressesMismatch"),
        "max-pods, settings and the node's addresses contradict each other.",
        "`sluice status` says which; `sluice cluster-config` prints what aws-node should have";
    IP_EXHAUSTED = "ip-exhausted", Fault "", Status("SluiceAddressesExhausted"),
        "No address is free for the next pod, though max-pods allows it.",
        "see aws-node's log; use a larger subnet, or prefixes";
    IP_FILLING = "ip-filling", Degraded "", Status("SluiceAddressesNotFilling"),
        "aws-node has needed more addresses for 10 minutes.",
        "see aws-node's log; use a larger subnet, or prefixes";
}
"Standalone mode" {
    STANDALONE = "standalone", Fault "", Status(ANY),
        "The pods' network could not be set up, or not be removed.",
        "correct it; it is tried again within a minute";
    OTHER_NETWORK = "other-network", Fault "", Status(ANY),
        "There is another CNI configuration, which runtimes choose first.",
        "remove it (and aws-node from this node), or use cni.mode = \"chain\"";
    NO_PREFIXES = "no-prefixes", Fault "", Status(ANY),
        "IMDS shows no prefix for pods.",
        "delegate some to the node's first interface: launch template, NetworkInterfaces[].Ipv4PrefixCount (or Ipv6PrefixCount); they are taken as soon as IMDS shows them";
    NO_IMDS = "no-imds", Degraded "", Status(ANY),
        "IMDS does not answer: what was known before stays.",
        "standalone mode needs IMDSv2 on the host; what was known before stays";
    ACCEPT_RA = "accept-ra", Degraded "", Status(ANY),
        "The node would lose its IPv6 route once it routes for pods, so they get no IPv6 addresses.",
        "set net.ipv6.conf.DEVICE.accept_ra=2 in the image (sysctl.d)";
}
}
