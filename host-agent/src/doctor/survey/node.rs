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

/// What shaping needs of qdiscs and filters.
const KINDS: [&str; 5] = ["fq", "prio", "htb", "clsact", "cls_bpf"];
/// The last capability of kernel 5.8 was CAP_BPF, number 39.
const CAP_BPF: u32 = 39;

#[derive(Debug, Default, Serialize)]
pub struct KernelSurvey {
    pub release: String,
    /// What it does not have of qdiscs and filters, found by trying.
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
        let (missing, not_tried) = match trial::missing(&KINDS) {
            Ok(missing) => (missing, None),
            Err(e) => (Vec::new(), Some(format!("{:#}", anyhow::Error::from(e)))),
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
            config: config(),
        }
    }

    pub fn lacks(&self, kind: &str) -> bool {
        self.missing.contains(&kind)
    }

    pub fn has_cap_bpf(&self) -> Option<bool> {
        self.last_capability.map(|last| last >= CAP_BPF)
    }

    /// What the configuration says of an option, if it is there to read.
    pub fn config_line(&self, option: &str) -> Option<&str> {
        let names = |line: &&String| {
            let line = line.trim_start_matches("# ");
            line.strip_prefix(option).is_some_and(|rest| rest.starts_with(['=', ' ']))
        };
        self.config.iter().find(names).map(String::as_str)
    }
}

fn trimmed(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Options that the checks may name; a configuration is a file of the running kernel, or none.
fn config() -> Vec<String> {
    const OPTIONS: [&str; 7] = [
        "CONFIG_NET_SCH_FQ",
        "CONFIG_NET_SCH_PRIO",
        "CONFIG_NET_SCH_HTB",
        "CONFIG_NET_SCH_INGRESS",
        "CONFIG_NET_CLS_BPF",
        "CONFIG_NET_XGRESS",
        "CONFIG_BPF_JIT",
    ];
    let release = trimmed("/proc/sys/kernel/osrelease").unwrap_or_default();
    let text = packed_config()
        .or_else(|| fs::read_to_string(format!("/boot/config-{release}")).ok())
        .unwrap_or_default();
    let is_of = |line: &str, option: &str| {
        let rest = line.trim_start_matches("# ").strip_prefix(option);
        rest.is_some_and(|rest| rest.starts_with(['=', ' ']))
    };
    let wanted = |line: &&str| OPTIONS.iter().any(|option| is_of(line, option));
    text.lines().filter(wanted).map(str::to_owned).collect()
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

    #[test]
    fn an_option_is_found_by_its_whole_name() {
        let config = ["# CONFIG_NET_SCH_FQ is not set", "CONFIG_NET_SCH_FQ_CODEL=m"];
        let kernel =
            KernelSurvey { config: config.map(str::to_owned).into(), ..KernelSurvey::default() };
        assert_eq!(kernel.config_line("CONFIG_NET_SCH_FQ"), Some(config[0]));
        assert_eq!(kernel.config_line("CONFIG_NET_SCH_PRIO"), None);
    }
}
