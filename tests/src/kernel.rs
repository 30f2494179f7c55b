// SPDX-License-Identifier: Apache-2.0
//! What the running kernel has, found by trying. A test that needs more says
//! so with [`skip`]: skips are counted, and where every feature must be there
//! (in a guest) a skip is a failure.

use std::fs::OpenOptions;
use std::io::Write;

use crate::command::output;

/// Tries to put an fq on this namespace's loopback device.
pub fn has_fq() -> bool {
    let add = output("tc", &["qdisc", "add", "dev", "lo", "root", "fq"]);
    if add.status.success() {
        crate::command::tc("qdisc del dev lo root");
    }
    add.status.success()
}

/// Whether this is the emulated guest, which is slow.
pub fn in_guest() -> bool {
    std::env::var_os("SLUICE_NO_SKIP").is_some()
}

/// Whether a program can be a tcx link. tc and bpftool of Debian bookworm know nothing of tcx, so the
/// kernel's own list of its functions is asked.
pub fn has_tcx() -> bool {
    let symbols = std::fs::read_to_string("/proc/kallsyms").expect("read the kernel's symbols");
    symbols.lines().any(|line| line.ends_with(" tcx_link_update"))
}

/// Records that `test` cannot show its promise on this kernel.
pub fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("SLUICE_NO_SKIP").is_none(), "{test} was skipped: {reason}");
    println!("SKIPPED {test}: {reason}");
    if let Some(path) = std::env::var_os("SLUICE_SKIPS") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.expect("open the list of skips"), "{test}: {reason}").expect("list a skip");
    }
}
