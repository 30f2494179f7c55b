// SPDX-License-Identifier: Apache-2.0
//! The main plugin's daemon: replaces its conflist without our entry, as
//! aws-node does at every start, or breaks or loses it and puts that right later.

use std::fs;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::run::Run;
use crate::node::CONFLIST;

const ENTRY: &str = concat!(
    ",\n    {\"type\":\"sluice\",\"capabilities\":",
    "{\"bandwidth\":true,\"io.kubernetes.cri.pod-annotations\":true}}"
);
/// As seldom as a daemon starts again, on the scale of these tests.
const PAUSE: std::ops::Range<u64> = 7_000..12_000;

pub fn work(run: &Run, mut dice: Rng) {
    let chained = fs::read_to_string(CONFLIST).expect("the conflist");
    let plain = chained.replace(ENTRY, "");
    assert_ne!(plain, chained, "the entry is not as it was: {chained}");
    loop {
        run.pause(Duration::from_millis(dice.u64(PAUSE)));
        if run.is_over() {
            return;
        }
        match dice.u8(..4) {
            0 => {
                run.count("conflist broken, then repaired");
                write(&plain[..dice.usize(..plain.len())]);
                run.pause(Duration::from_millis(dice.u64(..2000)));
            }
            1 => {
                run.count("conflist removed, then written again");
                fs::remove_file(CONFLIST).expect("remove the conflist");
                run.pause(Duration::from_millis(dice.u64(..2000)));
            }
            _ => run.count("conflist written again"),
        }
        write(&plain);
        let began = Instant::now();
        run.wait_for("our entry in the conflist", || is(&chained));
        run.took("until our entry was in the conflist again", began.elapsed());
    }
}

/// Whether the conflist is this.
fn is(text: &str) -> bool {
    fs::read_to_string(CONFLIST).is_ok_and(|found| found == text)
}

/// A temporary file beside it, then a rename.
fn write(text: &str) {
    let temporary = format!("{CONFLIST}.new");
    fs::write(&temporary, text).expect("write a conflist");
    fs::rename(&temporary, CONFLIST).expect("rename a conflist");
}
