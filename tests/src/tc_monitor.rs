// SPDX-License-Identifier: Apache-2.0
//! Everything that anyone does to qdiscs and filters of this namespace, as the
//! kernel announces it: what was done and undone within a moment is there too.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::command::{output, wait_for};
use crate::node::die_with_parent;

const LOG: &str = "/run/tc-monitor";
/// Its own marks are on this device, which no one else touches.
const MARKED: &str = "dev lo ";

/// `tc monitor`, until it is dropped.
pub struct TcMonitor {
    child: Child,
}

impl TcMonitor {
    /// Listens from here on.
    pub fn start() -> Self {
        let log = File::create(LOG).expect("make the monitor's log");
        let mut command = Command::new("tc");
        command.arg("monitor").stdin(Stdio::null()).stdout(log);
        die_with_parent(&mut command);
        let monitor = Self { child: command.spawn().expect("start tc monitor") };
        monitor.wait_for_mark();
        monitor
    }

    /// All that was announced so far about other devices than lo, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.wait_for_mark();
        let lines = Self::log();
        lines.into_iter().filter(|line| !line.contains(MARKED)).collect()
    }

    /// A change to lo comes after all that was done before it.
    fn wait_for_mark(&self) {
        let marks = || Self::log().iter().filter(|line| line.contains(MARKED)).count();
        let before = marks();
        wait_for("tc monitor", Duration::from_secs(20), || {
            output("tc", &["qdisc", "add", "dev", "lo", "root", "pfifo"]);
            output("tc", &["qdisc", "del", "dev", "lo", "root"]);
            (marks() > before).then_some(())
        });
    }

    fn log() -> Vec<String> {
        let text = fs::read_to_string(LOG).expect("read the monitor's log");
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for TcMonitor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
