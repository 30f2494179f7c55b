// SPDX-License-Identifier: Apache-2.0
//! One connection: reads a request, sends its response, and is done. Each step
//! goes as far as it can without waiting.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{Shutdown, shutdown};

use serde_json::json;

use super::peer::May;
use super::request::{Door, MAX_BYTES, Method, Request, parse};
use super::response::Response;

/// So long a peer may take for its request, and again for reading the response.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Makes a response to a request.
pub type Answer<'a> = dyn FnMut(&Request) -> Response + 'a;

pub trait Stream: Read + Write + AsFd {}
impl<T: Read + Write + AsFd> Stream for T {}

pub struct Connection {
    stream: Box<dyn Stream>,
    door: Door,
    deadline: Instant,
    state: ConnectionState,
    may: May,
    /// Why it was refused, until that is logged.
    refusal: Option<String>,
}

enum ConnectionState {
    /// What has come so far.
    Reading(Vec<u8>),
    /// What is still to be sent.
    Writing { rest: Vec<u8>, then: Then },
    /// Has been refused before it had said everything; so much more of that is thrown away. Without
    /// that the kernel would throw the refusal away.
    Draining { bytes: usize },
}

/// What comes after the response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Close,
    Drain,
}

/// What one step has come to.
enum ConnectionStep {
    Next(ConnectionState),
    Blocked,
    Over,
}

/// What a peer may do.
const ALLOWED: &str =
    "all: root of the host, with CAP_SYS_ADMIN and in no container; GET: the group sluice too";
/// More than this is not read from a peer that has been refused.
const DRAINED_BYTES: usize = 1 << 20;

impl Connection {
    pub fn new(stream: Box<dyn Stream>, door: Door, may: May) -> Self {
        let (state, refusal) = match &may {
            May::All | May::Read(_) => (ConnectionState::Reading(Vec::new()), None),
            May::Nothing(why) => (refuse(&forbidden(why)), Some(why.clone())),
        };
        Self { stream, door, deadline: Instant::now() + PATIENCE, state, may, refusal }
    }

    pub fn take_refusal(&mut self) -> Option<String> {
        self.refusal.take()
    }

    pub fn stream(&self) -> &dyn Stream {
        &*self.stream
    }

    pub fn door(&self) -> Door {
        self.door
    }

    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    pub fn awaits(&self) -> PollFlags {
        match self.state {
            ConnectionState::Writing { .. } => PollFlags::POLLOUT,
            ConnectionState::Reading(_) | ConnectionState::Draining { .. } => PollFlags::POLLIN,
        }
    }

    /// Whether it is to be kept. What has come in time is read before its time is looked at, so that
    /// no one pays for a loop that was busy elsewhere.
    pub fn go_on(&mut self, answer: &mut Answer, now: Instant) -> bool {
        loop {
            match self.step(answer) {
                ConnectionStep::Next(state) => self.state = state,
                ConnectionStep::Over => return false,
                ConnectionStep::Blocked if now < self.deadline => return true,
                ConnectionStep::Blocked if matches!(self.state, ConnectionState::Reading(_)) => {
                    self.deadline = Instant::now() + PATIENCE;
                    let late = format!("no whole request within {} s", PATIENCE.as_secs());
                    self.state = refuse(&Response::error(408, &late));
                    // One attempt to say so, and then the usual time for hearing it.
                    return !matches!(self.step(answer), ConnectionStep::Over);
                }
                ConnectionStep::Blocked => return false,
            }
        }
    }

    fn step(&mut self, answer: &mut Answer) -> ConnectionStep {
        match &mut self.state {
            ConnectionState::Reading(bytes) => {
                let mut chunk = [0; 4096];
                let room = (MAX_BYTES - bytes.len()).min(chunk.len());
                match self.stream.read(&mut chunk[..room]) {
                    Ok(0) => return ConnectionStep::Over,
                    Ok(length) => bytes.extend(&chunk[..length]),
                    Err(e) => return after_error(e.kind()),
                }
                match parse(bytes, self.door) {
                    Ok(None) => {
                        ConnectionStep::Next(ConnectionState::Reading(std::mem::take(bytes)))
                    }
                    Err(response) => ConnectionStep::Next(refuse(&response)),
                    Ok(Some(request)) => {
                        let response = match &self.may {
                            May::Read(why) if !request.method.only_reads() => {
                                self.refusal = Some(why.clone());
                                forbidden(why)
                            }
                            _ => answer(&request),
                        };
                        let rest = match request.method {
                            Method::Head => response.head().into_bytes(),
                            _ => response.to_bytes(),
                        };
                        self.deadline = Instant::now() + PATIENCE;
                        ConnectionStep::Next(ConnectionState::Writing { rest, then: Then::Close })
                    }
                }
            }
            ConnectionState::Writing { rest, then } => match self.stream.write(rest) {
                Ok(0) => ConnectionStep::Over,
                Ok(length) => {
                    rest.drain(..length);
                    match (rest.is_empty(), *then) {
                        (false, _) => ConnectionStep::Blocked,
                        (true, Then::Close) => ConnectionStep::Over,
                        (true, Then::Drain) => {
                            let fd = self.stream.as_fd().as_raw_fd();
                            match shutdown(fd, Shutdown::Write) {
                                Ok(()) => ConnectionStep::Next(ConnectionState::Draining {
                                    bytes: DRAINED_BYTES,
                                }),
                                Err(_) => ConnectionStep::Over,
                            }
                        }
                    }
                }
                Err(e) => after_error(e.kind()),
            },
            ConnectionState::Draining { bytes } => match self.stream.read(&mut [0; 4096]) {
                Ok(0) => ConnectionStep::Over,
                Ok(length) if length < *bytes => {
                    ConnectionStep::Next(ConnectionState::Draining { bytes: *bytes - length })
                }
                Ok(_) => ConnectionStep::Over,
                Err(e) => after_error(e.kind()),
            },
        }
    }
}

/// A peer that has gone is none of our troubles.
fn after_error(kind: ErrorKind) -> ConnectionStep {
    match kind {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => ConnectionStep::Blocked,
        _ => ConnectionStep::Over,
    }
}

fn forbidden(why: &str) -> Response {
    Response::not_allowed(403, why, &json!(ALLOWED))
}

fn refuse(response: &Response) -> ConnectionState {
    ConnectionState::Writing { rest: response.to_bytes(), then: Then::Drain }
}

impl Connection {
    /// Whether it waits for its peer to say something.
    pub fn is_idle(&self) -> bool {
        !matches!(self.state, ConnectionState::Writing { .. })
    }

    /// Makes room for others.
    pub fn send_away(self) {
        send_away(self.stream);
    }
}

/// Says that there are too many, as far as that goes without waiting.
fn send_away(mut stream: Box<dyn Stream>) {
    let full = Response::error(503, "too many connections; try again");
    // What has come is read first, or closing would take the response back. Whether the peer
    // hears it is its own affair.
    let _ = stream.read(&mut [0; MAX_BYTES]);
    let _ = stream.write(&full.to_bytes());
}
