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
    assert!(!in_guest(), "{test} was skipped: {reason}");
    count(test, reason);
}

/// Records that `test` is about kernels with tcx, or about those without, and this one is of the other
/// kind. No failure in a guest, as there are guests of both kinds; but there the version, too, has to
/// say of which kind this one is.
pub fn skip_for_tcx(test: &str) {
    let has_tcx = has_tcx();
    assert!(
        !in_guest() || has_tcx == is_from_6_6_on(),
        "{test}: tcx {has_tcx}, unlike the version"
    );
    count(test, if has_tcx { "the kernel has tcx" } else { "the kernel has no tcx" });
}

/// tcx came with Linux 6.6.
fn is_from_6_6_on() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the release");
    let numbers = release.split(|c: char| !c.is_ascii_digit()).take(2);
    let numbers: Vec<u32> = numbers.map(|number| number.parse().expect("a number")).collect();
    numbers >= vec![6, 6]
}

fn count(test: &str, reason: &str) {
    println!("SKIPPED {test}: {reason}");
    if let Some(path) = std::env::var_os("SLUICE_SKIPS") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.expect("open the list of skips"), "{test}: {reason}").expect("list a skip");
    }
}
