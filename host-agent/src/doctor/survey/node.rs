// SPDX-License-Identifier: Apache-2.0
//! What the kernel can and how it runs, and the file system for pins.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bpf::Pins;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use serde::Serialize;

use super::files::names_in;
use crate::host::paths::Paths;
use crate::netlink::trial;

/// What shaping needs of qdiscs and filters, and the kernel's option for each.
const KINDS: [(&str, &str); 5] = [
    ("fq", "CONFIG_NET_SCH_FQ"),
    ("prio", "CONFIG_NET_SCH_PRIO"),
    ("htb", "CONFIG_NET_SCH_HTB"),
    ("clsact", "CONFIG_NET_SCH_INGRESS"),
    ("cls_bpf", "CONFIG_NET_CLS_BPF"),
];
/// The last capability of kernel 5.8 was CAP_BPF, number 39.
const CAP_BPF: u32 = 39;

#[derive(Debug, Default, Serialize)]
pub struct KernelSurvey {
    pub release: String,
    /// What it does not have of qdiscs and filters, found by trying, or else by its configuration.
    pub missing: Vec<&'static str>,
    /// Why that could not be tried.
    pub not_tried: Option<String>,
    pub has_tcx: Option<bool>,
    pub last_capability: Option<u32>,
    pub clock_source: Option<String>,
    /// Seen from the network namespace of the process; some are shown in the first one only.
    pub bpf_jit_enable: Option<String>,
    pub bpf_jit_harden: Option<String>,
    pub default_qdisc: Option<String>,
    pub tcp_congestion_control: Option<String>,
    /// Lines of the kernel's configuration that have to do with shaping.
    pub config: Vec<String>,
}

/// The file system for pins.
#[derive(Debug, Default, Serialize)]
pub struct BpfFs {
    pub path: PathBuf,
    pub is_bpffs: bool,
    /// Mounts at this place, the hidden ones included.
    pub mounts: usize,
    /// Layouts that have pins, e.g. `v1`.
    pub layouts: Vec<String>,
    /// Why this version's pins cannot be opened; None if they can.
    pub pins_error: Option<String>,
}

impl KernelSurvey {
    pub fn read(has_tcx: Option<bool>) -> Self {
        let sysctl = |name: &str| trimmed(format!("/proc/sys/{name}"));
        let config = config();
        let kinds = KINDS.map(|(kind, _)| kind);
        let (missing, not_tried) = match trial::missing(&kinds) {
            Ok(missing) => (missing, None),
            Err(e) => (left_out(&config), Some(format!("{:#}", anyhow::Error::from(e)))),
        };
        Self {
            release: sysctl("kernel/osrelease").unwrap_or_default(),
            missing,
            not_tried,
            has_tcx,
            last_capability: sysctl("kernel/cap_last_cap").and_then(|last| last.parse().ok()),
            clock_source: trimmed(
                "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            ),
            bpf_jit_enable: sysctl("net/core/bpf_jit_enable"),
            bpf_jit_harden: sysctl("net/core/bpf_jit_harden"),
            default_qdisc: sysctl("net/core/default_qdisc"),
            tcp_congestion_control: sysctl("net/ipv4/tcp_congestion_control"),
            config,
        }
    }

    pub fn lacks(&self, kind: &str) -> bool {
        self.missing.contains(&kind)
    }

    pub fn has_cap_bpf(&self) -> Option<bool> {
        self.last_capability.map(|last| last >= CAP_BPF)
    }

    /// What the configuration says of a qdisc's or filter's option, if it is there to read.
    pub fn config_line(&self, kind: &str) -> Option<&str> {
        line_of(&self.config, option_of(kind)?)
    }
}

fn trimmed(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn option_of(kind: &str) -> Option<&'static str> {
    KINDS.iter().find_map(|(name, option)| (*name == kind).then_some(*option))
}

fn says_of(line: &str, option: &str) -> bool {
    let rest = line.trim_start_matches("# ").strip_prefix(option);
    rest.is_some_and(|rest| rest.starts_with(['=', ' ']))
}

fn line_of<'c>(config: &'c [String], option: &str) -> Option<&'c str> {
    config.iter().find(|line| says_of(line, option)).map(String::as_str)
}

/// What a configuration leaves out; nothing where there is none.
fn left_out(config: &[String]) -> Vec<&'static str> {
    let has = |option| line_of(config, option).is_some_and(|line| !line.starts_with('#'));
    let missing = KINDS.iter().filter(|(_, option)| !config.is_empty() && !has(option));
    missing.map(|(kind, _)| *kind).collect()
}

/// Lines of the running kernel's configuration that the checks may name; none where it is not to be had.
fn config() -> Vec<String> {
    let release = trimmed("/proc/sys/kernel/osrelease").unwrap_or_default();
    let text =
        packed_config().or_else(|| fs::read_to_string(format!("/boot/config-{release}")).ok());
    of_shaping(&text.unwrap_or_default())
}

fn of_shaping(config: &str) -> Vec<String> {
    const OTHERS: [&str; 3] = ["CONFIG_NET_XGRESS", "CONFIG_NETKIT", "CONFIG_BPF_JIT"];
    let options = || KINDS.iter().map(|(_, option)| *option).chain(OTHERS);
    let wanted = |line: &&str| options().any(|option| says_of(line, option));
    config.lines().filter(wanted).map(str::to_owned).collect()
}

fn packed_config() -> Option<String> {
    let mut text = String::new();
    let file = File::open("/proc/config.gz").ok()?;
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).ok()?;
    Some(text)
}

impl BpfFs {
    pub fn read(paths: &Paths) -> Self {
        let path = paths.bpffs();
        let is_bpffs = statfs(&path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
        let layouts = path.join("sluice");
        Self {
            is_bpffs,
            mounts: mounts_at(&path),
            layouts: names_in(&layouts).into_iter().filter(|name| name.starts_with('v')).collect(),
            pins_error: Pins::open(&paths.pin_dir())
                .err()
                .map(|e| format!("{:#}", anyhow::Error::from(e))),
            path,
        }
    }
}

/// proc_pid_mountinfo(5): the mount point is the fifth field.
fn mounts_at(path: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let is_here = |line: &&str| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path);
    mounts.lines().filter(is_here).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of bottlerocket-kernel-kit (0cb8c99), packages/kernel-6.18/config-full-bottlerocket-x86_64-on-x86_64.
    const BOTTLEROCKET: &str = "CONFIG_NET_XGRESS=y\nCONFIG_NET_SCHED=y\nCONFIG_NET_SCH_HTB=m\n\
        CONFIG_NET_SCH_PRIO=m\nCONFIG_NET_SCH_FQ_CODEL=m\n# CONFIG_NET_SCH_CAKE is not set\n\
        CONFIG_NET_SCH_FQ=m\n# CONFIG_NET_SCH_FQ_PIE is not set\nCONFIG_NET_SCH_INGRESS=m\n\
        # CONFIG_NET_SCH_BPF is not set\nCONFIG_NET_CLS_BPF=m\n# CONFIG_NET_CLS_MATCHALL is not set\n";

    #[test]
    fn an_option_is_found_by_its_whole_name() {
        let config = of_shaping("CONFIG_NET_SCH_FQ_CODEL=m\n# CONFIG_NET_SCH_FQ is not set\n");
        let kernel = KernelSurvey { config, ..KernelSurvey::default() };
        assert_eq!(kernel.config_line("fq"), Some("# CONFIG_NET_SCH_FQ is not set"));
        assert_eq!(kernel.config_line("prio"), None);
    }

    #[test]
    fn what_a_configuration_leaves_out_is_named_and_nothing_where_there_is_none() {
        assert_eq!(left_out(&of_shaping(BOTTLEROCKET)), [""; 0]);
        assert_eq!(left_out(&of_shaping("")), [""; 0]);
        for (kind, option) in KINDS {
            let line = format!("{option}=m\n");
            assert!(BOTTLEROCKET.contains(&line), "{option}");
            for instead in [String::new(), format!("# {option} is not set\n")] {
                let config = of_shaping(&BOTTLEROCKET.replace(&line, &instead));
                assert_eq!(left_out(&config), [kind], "{instead:?}");
            }
        }
    }
}
