// SPDX-License-Identifier: Apache-2.0
//! The process at the other end of a unix socket: whether it is one of the
//! host's, by its namespaces, and what it may do.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use nix::unistd::getppid;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// As /proc/PID/ns calls them. Containers share one or another with the host, and never all; a process that
/// has a user namespace of its own is root in that only.
const NAMESPACES: [&str; 4] = ["mnt", "pid", "cgroup", "user"];
/// The host's namespaces, of each kind.
pub struct Namespaces(Vec<(&'static str, Vec<PathBuf>)>);

impl Namespaces {
    /// Those of whoever started this process, systemd or a shell of root's, and its own: a unit has
    /// mounts of its own.
    pub fn of_this() -> Self {
        let starter = getppid().to_string();
        let of = |kind| {
            ["self", &starter].into_iter().filter_map(|of| namespace(of, kind).ok()).collect()
        };
        Self(NAMESPACES.map(|kind| (kind, of(kind))).into())
    }

    /// The peer's capabilities, if it is a process of the host.
    pub fn look(&self, stream: &UnixStream) -> Result<u64> {
        let pid = getsockopt(stream, PeerCredentials).context("find the peer")?.pid();
        let peer = pidfd(stream, pid).context("find the process that asks")?;
        for (kind, host) in &self.0 {
            let found = namespace(&pid.to_string(), kind)?;
            ensure!(host.contains(&found), "{kind} namespace other than the host's: a container");
        }
        let capabilities = effective(pid)?;
        // It was there all the time, so what has been read is not of a later process with its number.
        let mut end = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut end, PollTimeout::ZERO).context("look for its end")? != 0;
        ensure!(!ended, "it has ended");
        Ok(capabilities)
    }
}

/// Linux 6.5 remembers the process; before, it is the one that has the number now, so soon after it came
/// that another can hardly have got it.
fn pidfd(stream: &UnixStream, pid: i32) -> io::Result<OwnedFd> {
    match getsockopt(stream, PeerPidfd) {
        Err(Errno::ENOPROTOOPT) => {
            // 0 is what a process of another pid namespace looks like.
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
            pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)
        }
        found => found.map_err(io::Error::from),
    }
}

fn namespace(process: &str, kind: &str) -> Result<PathBuf> {
    let path = format!("/proc/{process}/ns/{kind}");
    fs::read_link(&path).with_context(|| format!("read {path}"))
}

fn effective(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let found = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let found = found.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    found.with_context(|| format!("read {path}: no CapEff"))
}
