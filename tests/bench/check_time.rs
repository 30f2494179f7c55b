// SPDX-License-Identifier: Apache-2.0
//! S1: `sluice check` on a document as large as user data can be.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use tests::command::executable;

use crate::figure::{Bound, Figure};

const RUNS: usize = 41;
/// EC2's limit for user data.
const USER_DATA_BYTES: usize = 16 << 10;

/// Start, read, judge, end; the median of whole runs.
pub fn measure() -> Result<Figure> {
    let dir = tempfile::tempdir()?;
    let document = dir.path().join("user-data.toml");
    std::fs::write(&document, large_document())?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let mut command = Command::new(executable("sluice"));
        command.arg("check").arg(&document).stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        ensure!(status.success(), "sluice check: {status}");
    }
    times.sort_by(f64::total_cmp);
    let figure = Figure::new("S1", "sluice check, 16 KiB document, median", "ms");
    Ok(figure.judge(times[RUNS / 2], Bound::AtMost, [5.0, 2.5]))
}

fn large_document() -> String {
    let mut text = String::from("[settings.sluice]\nversion = 1\n");
    for number in 0.. {
        let class = format!(
            "[[settings.sluice.bandwidth.class]]\nname = \"class-{number}\"\n\
             namespaces = [\"tenant-{number}-*\"]\npods = [\"worker-*\"]\negress = \"100Mbit\"\ningress = \"100Mbit\"\n"
        );
        if text.len() + class.len() > USER_DATA_BYTES {
            break;
        }
        text += &class;
    }
    text
}
