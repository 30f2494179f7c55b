// SPDX-License-Identifier: Apache-2.0
//! The agent's doors: a unix socket for operators of the node, and a TCP
//! address for metrics. HTTP/1.1, one request for each connection, without
//! threads: nothing here ever waits, so no peer can hold the agent's loop up.
//! What a request means is not known here (api/mod.rs).

mod connection;
mod peer;
mod request;
mod response;

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use log::warn;
use nix::poll::{PollFd, PollFlags};

use crate::host::aide;
pub use connection::Answer;
use connection::{Connection, Stream};
pub use peer::Group;
use peer::{Doorkeeper, May};
pub use request::{Door, MAX_BYTES, Method, Request, parse};
pub use response::{JSON, Response};

/// Connections at once through one door. A newcomer beyond that replaces the one that has
/// said nothing for longest: a peer that asks at once is answered, whoever else stands there. Each door has
/// its own, so that a crowd at the metrics never locks an operator out.
pub const CROWD: usize = 16;
/// Newcomers that are looked at in one go, before the loop has its turn again.
const NEWCOMERS: usize = 64;
/// No new connection is accepted for so long after the kernel refused one, e.g. for want of files.
const PAUSE: Duration = Duration::from_secs(1);

/// A peer that asks on and on fills no journal.
const REFUSALS_EVERY: Duration = Duration::from_secs(60);

/// Both doors and their connections.
pub struct Server {
    socket: UnixListener,
    doorkeeper: Doorkeeper,
    /// When a refusal was logged last.
    refused: Option<Instant>,
    metrics: Option<TcpListener>,
    /// Where metrics were last asked for, whether they could be served there or not.
    metrics_asked: Option<SocketAddr>,
    connections: Vec<Connection>,
    /// Until then no one is let in.
    paused: Option<Instant>,
}

impl Server {
    /// Listens on `socket`, in place of whatever a killed agent has left there. To be called before
    /// capabilities are dropped: the file is given to the group.
    pub fn open(socket: &Path, group: Group) -> Result<Self> {
        let listener =
            listen(socket, &group).with_context(|| format!("listen on {}", socket.display()))?;
        Ok(Self {
            socket: listener,
            doorkeeper: Doorkeeper::new(group),
            refused: None,
            metrics: None,
            metrics_asked: None,
            connections: Vec::new(),
            paused: None,
        })
    }

    /// Serves metrics at this address from now on, or nowhere. After a failure it is nowhere.
    pub fn serve_metrics(&mut self, address: Option<SocketAddr>) -> Result<()> {
        self.metrics = None;
        self.metrics_asked = address;
        let Some(address) = address else { return Ok(()) };
        let listen = || -> io::Result<TcpListener> {
            let listener = aide::listen(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = listen().with_context(|| format!("serve metrics at {address}"))?;
        self.metrics = Some(listener);
        Ok(())
    }

    pub fn metrics_asked(&self) -> Option<SocketAddr> {
        self.metrics_asked
    }

    /// What to wait for.
    pub fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let accepting = self.paused.is_none();
        let metrics = self.metrics.as_ref().map(AsFd::as_fd);
        let doors = [Some(self.socket.as_fd()), metrics].into_iter().flatten();
        let doors = doors.filter(|_| accepting).map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let connections = self.connections.iter();
        doors.chain(connections.map(|one| PollFd::new(one.as_fd(), one.awaits()))).collect()
    }

    /// When [`Self::handle`] is to be called at the latest; None if no one is there.
    pub fn deadline(&self) -> Option<Instant> {
        self.connections.iter().map(Connection::deadline).chain(self.paused).min()
    }

    /// Lets newcomers in, goes on with every connection as far as that is possible at once, and sends
    /// away peers that have been too slow.
    pub fn handle(&mut self, answer: &mut Answer) {
        let now = Instant::now();
        self.paused = self.paused.filter(|until| *until > now);
        if self.paused.is_none() {
            self.let_in(answer, now);
        }
        let refused = &mut self.refused;
        self.connections.retain_mut(|connection| {
            let stays = connection.go_on(answer, now);
            log_refusal(refused, connection, now);
            stays
        });
    }

    fn let_in(&mut self, answer: &mut Answer, now: Instant) {
        for door in [Door::Socket, Door::Metrics] {
            for _ in 0..NEWCOMERS {
                match self.accept(door, answer, now) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(e) => {
                        warn!("accept a connection: {e}");
                        self.paused = Some(Instant::now() + PAUSE);
                        return;
                    }
                }
            }
        }
    }

    /// Whether there was a peer.
    fn accept(&mut self, door: Door, answer: &mut Answer, now: Instant) -> io::Result<bool> {
        let accepted = match door {
            Door::Socket => self.socket.accept().and_then(|(stream, _)| {
                let may = self.doorkeeper.may(&stream);
                stream.set_nonblocking(true)?;
                Ok((Box::new(stream) as Box<dyn Stream>, may))
            }),
            Door::Metrics => {
                let Some(listener) = &self.metrics else { return Ok(false) };
                listener.accept().and_then(|(stream, _)| {
                    stream.set_nonblocking(true)?;
                    Ok((Box::new(stream) as Box<dyn Stream>, May::All))
                })
            }
        };
        let (stream, may) = match accepted {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // A peer that hung up before being let in is no trouble of ours.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => return Ok(true),
            Err(e) => return Err(e),
        };
        let mut new = Connection::new(stream, door, may);
        let stays = new.go_on(answer, now);
        log_refusal(&mut self.refused, &mut new, now);
        if stays {
            self.make_room(door);
            self.connections.push(new);
        }
        Ok(true)
    }

    /// They stand in the order in which they came.
    fn make_room(&mut self, door: Door) {
        let there = |one: &Connection| one.door() == door;
        if self.connections.iter().filter(|one| there(one)).count() < CROWD {
            return;
        }
        let idle = self.connections.iter().position(|one| there(one) && one.is_idle());
        let oldest = idle.or_else(|| self.connections.iter().position(there));
        if let Some(oldest) = oldest {
            self.connections.remove(oldest).send_away();
        }
    }
}

fn log_refusal(last: &mut Option<Instant>, connection: &mut Connection, now: Instant) {
    let Some(why) = connection.take_refusal() else { return };
    if last.is_none_or(|last| now.saturating_duration_since(last) >= REFUSALS_EVERY) {
        *last = Some(now);
        warn!(CODE = "peer-refused"; "refused a request on the socket: {why}");
    }
}

/// The new socket takes its place under the old name in one step, with owner and mode as they shall
/// be. A rename replaces a symlink and never follows it.
fn listen(path: &Path, group: &Group) -> io::Result<UnixListener> {
    let new = beside(path);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    listener.set_nonblocking(true)?;
    let place = || -> io::Result<()> {
        match group.gid() {
            Some(gid) => {
                chown(&new, None, Some(gid))?;
                fs::set_permissions(&new, Permissions::from_mode(0o660))?;
            }
            None => fs::set_permissions(&new, Permissions::from_mode(0o600))?,
        }
        fs::rename(&new, path)
    };
    place().inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&new);
    })?;
    Ok(listener)
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }
}

#[cfg(test)]
mod tests;
