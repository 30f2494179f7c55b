// SPDX-License-Identifier: Apache-2.0
//! The agent as a process: its start, its answers, its memory, and what it has
//! logged, which is kept for the case that something is wrong.

use std::fs::{self, OpenOptions};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

use serde_json::Value;

use crate::api::{SOCKET, say};
use crate::command::executable;
use crate::node::{USER_DATA, die_with_parent};

const LOG: &str = "/run/node/agent.log";
const LOG_LINES: usize = 60;

/// Its log goes on where the last one's ended.
pub fn start() -> Child {
    let log = OpenOptions::new().create(true).append(true).open(LOG).expect("open a log");
    let mut command = Command::new(executable("sluice"));
    command.args(["agent", "--user-data", USER_DATA, "--plugin"]).arg(executable("sluice-cni"));
    command.stderr(log);
    die_with_parent(&mut command);
    command.spawn().expect("start the agent")
}

/// What the agent says; None while it does not.
pub fn status() -> Option<Value> {
    UnixStream::connect(SOCKET).ok()?;
    let response = say(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")?;
    serde_json::from_str(&response.body).ok()
}

/// What agents have said of a pod.
pub fn log_of(pod: &str) -> String {
    let log = fs::read_to_string(LOG).unwrap_or_default();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(pod)).collect();
    lines.join("\n    ")
}

/// Resident memory of a process.
pub fn resident_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or_default()
}

/// What agents have said last.
pub fn last_words() -> String {
    let log = fs::read_to_string(LOG).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
