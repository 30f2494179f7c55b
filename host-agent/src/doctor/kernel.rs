// SPDX-License-Identifier: Apache-2.0
//! Checks of the kernel and of the BPF file system.

use super::finding::Finding;
use super::survey::{BpfFs, KernelSurvey, Survey};
use crate::trouble::code;

/// Clock sources that are read from a device, in microseconds and not nanoseconds.
const SLOW_CLOCKS: [&str; 4] = ["acpi_pm", "hpet", "jiffies", "refined-jiffies"];

pub fn check(survey: &Survey) -> Vec<Finding> {
    let kernel = &survey.kernel;
    let subject = format!("kernel {}", kernel.release);
    let mut findings: Vec<Finding> = [qdiscs(kernel, &subject), running(kernel, &subject)].concat();
    findings.extend((!survey.own_are_jited).then(|| interpreted(&subject)));
    findings.extend(bpffs(&survey.bpffs));
    findings
}

fn qdiscs(kernel: &KernelSurvey, subject: &str) -> Vec<Finding> {
    let seen = |kind: &str, option: &str| match kernel.config_line(option) {
        Some(line) => format!("{kind} was tried and is not there; its configuration says: {line}"),
        None => format!("{kind} was tried and is not there"),
    };
    let mut findings = Vec::new();
    if let Some(error) = &kernel.not_tried {
        let finding = Finding::new(code::NOT_TRIED, subject)
            .seen(error)
            .why("it is unknown here whether limits can be paced");
        findings.push(finding);
    }
    if kernel.lacks("fq") {
        let finding = Finding::new(code::NO_FQ, subject)
            .seen(seen("the qdisc fq", "CONFIG_NET_SCH_FQ"))
            .why("limits hold, but by dropping: TCP gets about its limit, less evenly");
        findings.push(finding);
    }
    if kernel.lacks("prio") && kernel.lacks("htb") {
        let finding = Finding::new(code::NO_CLASSFUL_ROOT, subject)
            .seen(seen("the qdiscs prio and htb", "CONFIG_NET_SCH_PRIO"))
            .why("ADD of a pod with a limit on ingress fails (CNI code 101)");
        findings.push(finding);
    }
    let wanted = [
        (code::NO_CLSACT, "clsact", "the qdisc clsact", "CONFIG_NET_SCH_INGRESS"),
        (code::NO_CLS_BPF, "cls_bpf", "the filter bpf", "CONFIG_NET_CLS_BPF"),
    ];
    for (code, kind, name, option) in wanted {
        if kernel.lacks(kind) {
            let finding = Finding::new(code, subject)
                .seen(seen(name, option))
                .why("ADD of a pod with a limit fails (CNI code 101)");
            findings.push(finding);
        }
    }
    findings
}

fn running(kernel: &KernelSurvey, subject: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if kernel.has_cap_bpf() == Some(false) {
        let finding = Finding::new(code::KERNEL_TOO_OLD, subject)
            .seen("it has no CAP_BPF, so it is older than 5.8")
            .why("the programs need 64-bit atomic operations, which came with 5.12");
        findings.push(finding);
    }
    if kernel.has_tcx == Some(false) {
        let finding = Finding::new(code::NO_TCX, subject)
            .seen("it has no tcx (before 6.6, or without CONFIG_NET_XGRESS)")
            .why("the guard needs the clsact that network policy makes, and the agent to stay in front");
        findings.push(finding);
    }
    if matches!(kernel.bpf_jit_harden.as_deref(), Some("1" | "2")) {
        let value = kernel.bpf_jit_harden.as_deref().unwrap_or("");
        let finding = Finding::new(code::JIT_HARDENED, subject)
            .seen(format!("net.core.bpf_jit_harden is {value}"))
            .why(
                "programs are a little slower, and verdicts of foreign ones may stay unknown here",
            );
        findings.push(finding);
    }
    if let Some(clock) = kernel.clock_source.as_deref().filter(|name| SLOW_CLOCKS.contains(name)) {
        let finding = Finding::new(code::SLOW_CLOCK, subject)
            .seen(format!("the clock source is {clock}"))
            .why("the shaper reads the clock for each packet, and that takes microseconds here");
        findings.push(finding);
    }
    findings
}

/// Found by looking at our programs: the sysctl is shown in the first network namespace only, and
/// says nothing of what was loaded before it changed.
fn interpreted(subject: &str) -> Finding {
    Finding::new(code::NOT_JITED, subject)
        .seen("the pinned programs are not compiled")
        .why("every packet of every limited pod is interpreted, many times slower")
}

fn bpffs(bpffs: &BpfFs) -> Option<Finding> {
    let path = bpffs.path.display().to_string();
    if !bpffs.is_bpffs {
        let finding = Finding::new(code::BPFFS_MISSING, path.as_str())
            .seen("no BPF file system is mounted there")
            .why("neither Sluice nor network policy can pin anything; the agent does not start")
            .remedy(format!("mount -t bpf bpf {path}, before kubelet starts"));
        return Some(finding);
    }
    (bpffs.mounts > 1).then(|| {
        Finding::new(code::BPFFS_HIDDEN, path.as_str())
            .seen(format!("{} file systems are mounted there, one over the other", bpffs.mounts))
            .why("whatever started earlier (aws-node, for one) keeps the lower one: pins are not shared")
            .remedy(format!("umount {path} once no one uses the upper one; restart aws-node"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(kernel: &KernelSurvey) -> Vec<&'static str> {
        let findings = [qdiscs(kernel, "kernel"), running(kernel, "kernel")].concat();
        findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn what_is_unknown_is_no_finding() {
        assert_eq!(codes(&KernelSurvey::default()), [""; 0]);
    }

    #[test]
    fn one_classful_qdisc_is_enough() {
        let lacking = |missing| KernelSurvey { missing, ..KernelSurvey::default() };
        assert_eq!(codes(&lacking(vec!["prio"])), [""; 0]);
        assert_eq!(codes(&lacking(vec!["prio", "htb"])), [code::NO_CLASSFUL_ROOT.name]);
        assert_eq!(codes(&lacking(vec!["fq"])), [code::NO_FQ.name]);
    }

    #[test]
    fn settings_of_the_running_kernel_are_judged() {
        let kernel = KernelSurvey {
            last_capability: Some(37),
            has_tcx: Some(false),
            clock_source: Some("hpet".into()),
            bpf_jit_harden: Some("2".into()),
            ..KernelSurvey::default()
        };
        let expected = [
            code::KERNEL_TOO_OLD.name,
            code::NO_TCX.name,
            code::JIT_HARDENED.name,
            code::SLOW_CLOCK.name,
        ];
        assert_eq!(codes(&kernel), expected);
    }
}
