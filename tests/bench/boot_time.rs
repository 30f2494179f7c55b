// SPDX-License-Identifier: Apache-2.0
//! M1 and M2: `sluice boot` on the file tree of a node that starts for the
//! first time, and the look-up of an instance type.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tests::command::{executable, run};

use crate::figure::{Bound, Figure};

const RUNS: usize = 41;
const USER_DATA: &str = "[settings.sluice]\nversion = 1\n\
    [settings.sluice.bandwidth]\ndefault-egress = \"500Mbit\"\ndefault-ingress = \"500Mbit\"\n\
    [settings.sluice.prefix-delegation]\nenabled = true\n";
/// An AL2023 node before nodeadm runs.
const FILES: [(&str, &str); 5] = [
    ("sys/class/dmi/id/sys_vendor", "Amazon EC2\n"),
    ("sys/class/dmi/id/product_name", "t3a.medium\n"),
    ("etc/cni/net.d/10-aws.conflist", r#"{"name":"aws-cni","plugins":[{"type":"aws-cni"}]}"#),
    (
        "etc/systemd/system/nodeadm-run.service",
        "[Service]\nType=oneshot\nExecStart=/usr/bin/nodeadm init --skip config --config-source \
         imds://user-data --config-source file:///etc/eks/nodeadm.d/\n",
    ),
    ("usr/bin/nodeadm", ""),
];

pub fn measure() -> Result<Vec<Figure>> {
    let boot = Figure::new("M1", "sluice boot on a new node, user data in a file, median", "ms");
    let lookup = Figure::new("M2", "look-up of an instance type, debug build, median", "µs");
    let example = std::env::current_exe()?.with_file_name("examples").join("lookup_time");
    let ns = run(example.to_str().context("a path in UTF-8")?, &[]);
    let ns: f64 = ns.trim().parse().context("read what lookup_time printed")?;
    Ok(vec![
        boot.judge(boot_ms()?, Bound::AtMost, [20.0, 10.0]),
        lookup.judge(ns / 1000.0, Bound::AtMost, [1.0, 0.5]),
    ])
}

/// From start to end, on the disk that holds temporary files.
fn boot_ms() -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let root = tempfile::tempdir()?;
        for (file, text) in FILES {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().context("a directory")?)?;
            fs::write(path, text)?;
        }
        let user_data = root.path().join("user-data.toml");
        fs::write(&user_data, USER_DATA)?;
        let mut command = Command::new(executable("sluice"));
        command.arg("--root").arg(root.path()).args(["boot", "--user-data"]).arg(user_data);
        command.arg("--plugin").arg(executable("sluice-cni")).stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        ensure!(status.success(), "sluice boot: {status}");
    }
    times.sort_by(f64::total_cmp);
    Ok(times[RUNS / 2])
}
