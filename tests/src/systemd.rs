// SPDX-License-Identifier: Apache-2.0
//! The service manager of a guest, and Sluice's units in it. Never this
//! machine's own: `tests/vm/test-systemd` says so by a variable.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{json, output, run, text, wait_for};
use crate::kernel::skip;

pub const AGENT: &str = "sluice.service";
pub const BOOT: &str = "sluice-boot.service";

/// Whether the test `name` can have this guest's service manager; a skip if not.
pub fn is_ours(name: &str) -> bool {
    let ours = std::env::var_os("SLUICE_SYSTEMD").is_some();
    if !ours {
        skip(name, "process 1 is not the systemd of a test guest");
    }
    ours
}

/// A command of `systemctl` that must succeed.
pub fn systemctl(line: &str) -> String {
    run("systemctl", &line.split_whitespace().collect::<Vec<_>>())
}

/// A command of `systemctl` that must fail; gives what it said.
pub fn systemctl_fails(line: &str) -> String {
    let output = output("systemctl", &line.split_whitespace().collect::<Vec<_>>());
    assert!(!output.status.success(), "systemctl {line}: {}", text(&output));
    text(&output)
}

/// A property of a unit, as `systemctl show` gives it.
pub fn property(unit: &str, name: &str) -> String {
    systemctl(&format!("show --value --property {name} {unit}")).trim().to_owned()
}

pub fn number(unit: &str, name: &str) -> u64 {
    let value = property(unit, name);
    value.parse().unwrap_or_else(|e| panic!("{name} of {unit}: {e} in {value:?}"))
}

/// Waits until this property has this value.
pub fn wait_until(unit: &str, name: &str, value: &str) {
    let mut last = String::new();
    let is_so = || {
        last = property(unit, name);
        (last == value).then_some(())
    };
    wait_for(&format!("{unit}: {name}={value}"), Duration::from_secs(90), is_so);
}

pub fn signal_agent(signal: Signal) {
    kill(Pid::from_raw(number(AGENT, "MainPID") as i32), signal).expect("signal the agent");
}

/// Waits until systemd has started the agent again after this process, and it is ready.
pub fn wait_for_successor(main_pid: u64) {
    // Cheap to ask, for the guest's time is that of the instructions which asking takes.
    let gone = || (!fs::exists(format!("/proc/{main_pid}")).unwrap_or(true)).then_some(());
    wait_for("the agent to be ended", Duration::from_secs(120), gone);
    wait_for("the agent to be started again", Duration::from_secs(120), || {
        let is_new = ![0, main_pid].contains(&number(AGENT, "MainPID"));
        (is_new && property(AGENT, "ActiveState") == "active").then_some(())
    });
}

/// Journal entries of this boot that match, oldest first.
pub fn journal(matches: &[&str]) -> Vec<serde_json::Value> {
    run("journalctl", &["--sync"]);
    let arguments = [&["--boot", "--output=json", "--no-pager"], matches].concat();
    run("journalctl", &arguments).lines().map(json).collect()
}
