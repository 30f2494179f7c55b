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
    let seen = |kinds: &[&str]| missing(kernel, kinds);
    let mut findings = Vec::new();
    if let Some(error) = &kernel.not_tried {
        let finding = Finding::new(code::NOT_TRIED, subject)
            .seen(error)
            .why("it is unknown here whether limits can be paced");
        findings.push(finding);
    }
    if kernel.lacks("fq") {
        let finding = Finding::new(code::NO_FQ, subject)
            .seen(seen(&["fq"]))
            .why("limits hold, but by dropping: TCP gets about its limit, less evenly");
        findings.push(finding);
    }
    if kernel.lacks("prio") && kernel.lacks("htb") {
        let finding = Finding::new(code::NO_CLASSFUL_ROOT, subject)
            .seen(seen(&["prio", "htb"]))
            .why("ADD of a pod with a limit on ingress fails (CNI code 101)");
        findings.push(finding);
    }
    for (code, kind) in [(code::NO_CLSACT, "clsact"), (code::NO_CLS_BPF, "cls_bpf")] {
        if kernel.lacks(kind) {
            let finding = Finding::new(code, subject)
                .seen(seen(&[kind]))
                .why("ADD of a pod with a limit fails (CNI code 101)");
            findings.push(finding);
        }
    }
    findings
}

/// How it is known that the kernel lacks these, and what its configuration says of each.
fn missing(kernel: &KernelSurvey, kinds: &[&str]) -> String {
    let names = kinds.join(" and ");
    let lines: Vec<_> = kinds.iter().filter_map(|kind| kernel.config_line(kind)).collect();
    let lines = match lines.is_empty() {
        true => String::new(),
        false => format!("; its configuration says: {}", lines.join(", ")),
    };
    // As a module, and still not there.
    let module = if lines.contains("=m") {
        "; the module is not installed, or may not be loaded"
    } else {
        ""
    };
    match kernel.not_tried {
        None => format!("{names}: tried, and not there{lines}{module}"),
        Some(_) => format!("{names}: not in the kernel's configuration{lines}"),
    }
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
    fn what_is_missing_is_named_with_what_the_configuration_says_of_it() {
        let seen = |not_tried: Option<&str>, config: &[&str]| {
            let kernel = KernelSurvey {
                missing: vec!["prio", "htb"],
                not_tried: not_tried.map(str::to_owned),
                config: config.iter().map(|&line| line.to_owned()).collect(),
                ..KernelSurvey::default()
            };
            let findings = qdiscs(&kernel, "kernel").into_iter();
            let of = findings.filter(|finding| finding.code == code::NO_CLASSFUL_ROOT.name);
            of.map(|finding| finding.seen).collect::<String>()
        };
        let left_out = ["# CONFIG_NET_SCH_HTB is not set", "# CONFIG_NET_SCH_PRIO is not set"];
        let says = "its configuration says: # CONFIG_NET_SCH_PRIO is not set, # CONFIG_NET_SCH_HTB is not set";
        assert_eq!(seen(None, &left_out), format!("prio and htb: tried, and not there; {says}"));
        assert_eq!(
            seen(Some("no namespaces"), &left_out),
            format!("prio and htb: not in the kernel's configuration; {says}")
        );
        let modules = seen(None, &["CONFIG_NET_SCH_PRIO=m"]);
        let module = "its configuration says: CONFIG_NET_SCH_PRIO=m; the module is not installed, or may not be loaded";
        assert_eq!(modules, format!("prio and htb: tried, and not there; {module}"));
        assert_eq!(seen(None, &[]), "prio and htb: tried, and not there");
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
