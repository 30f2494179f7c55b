// SPDX-License-Identifier: Apache-2.0
//! A machine that is on. Its end, however the runner ends, is the end of its QEMU.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use tests::node::die_with_parent;

use crate::disk::Disk;
use crate::machine::Machine;
use crate::scenario::Bench;
use crate::serial::Serial;

/// From power to the probe's word; a quiet machine takes half a minute, a busy one several.
pub const BOOT: Duration = Duration::from_secs(420);

pub struct Guest {
    child: Child,
    pub serial: Serial,
}

impl Guest {
    pub fn start(bench: &Bench, machine: &Machine, disk: &Disk) -> Result<Self> {
        let site = &bench.site;
        let variables = bench.scratch.path().join("variables");
        if !variables.exists() {
            let open = site.tools.path("usr/share/OVMF/OVMF_VARS_4M.fd");
            let template = machine.secure_boot.as_ref().map_or(&open, |secure| &secure.variables);
            std::fs::copy(template, &variables).context("copy the firmware's variables")?;
        }
        let mut command = machine.command(&site.tools, &disk.path, &variables, &site.probe_disk);
        let log = bench.next_log()?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(bench.scratch.path().join("qemu.log"))?);
        die_with_parent(&mut command);
        let mut child = command.spawn().context("start QEMU")?;
        let console = child.stdout.take().context("a console")?;
        Ok(Self { child, serial: Serial::read(console, log) })
    }

    /// What the probe tells next, under this name.
    pub fn probe(&mut self, name: &str, limit: Duration) -> Result<Value> {
        let marker = format!("PROBE {name} ");
        let texts = [marker.as_str(), "PROBE failed ", "probe.service: Failed"];
        let (which, _, line) = self.serial.wait_for_any(&texts, limit)?;
        ensure!(which == 0, "{line}");
        let start = line.find(&marker).map_or(0, |at| at + marker.len());
        serde_json::from_str(&line[start..]).with_context(|| format!("read {line:?}"))
    }

    /// What a power cut would leave of the volume now: the file as it is when the process is no more, or stands still.
    pub fn copy_as_if_killed(&self, disk: &Disk, to: &Path) -> Result<()> {
        let process = Pid::from_raw(self.child.id().try_into()?);
        kill(process, Signal::SIGSTOP).context("stop QEMU")?;
        waitpid(process, Some(WaitPidFlag::WUNTRACED)).context("wait for that")?;
        let copied = std::fs::copy(&disk.path, to).context("copy the volume");
        kill(process, Signal::SIGCONT).context("let QEMU go on")?;
        copied.map(drop)
    }

    /// Off, as by a power cut.
    pub fn cut_power(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may be off already; both then say so, and nothing else.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.serial.finish();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end();
    }
}
