// SPDX-License-Identifier: Apache-2.0
//! The IMDS client's requests over the wire, its clock and its dice. Asks no
//! proxy, follows no redirect, reads no more than user data may have.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Body, Error};

use super::outside::{ImdsAnswer, ImdsRequest, MOST_BYTES, Outside, Silence};
use crate::host::aide;

/// Longer than any request of ours lives between its two steps.
const TOKEN_SECONDS: &str = "60";

/// The host's network, clock and dice.
pub struct Host {
    agent: Agent,
    start: Instant,
}

impl Default for Host {
    fn default() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_idle_connections(0)
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")));
        let agent = Agent::with_parts(config.build(), Direct, Literal);
        Self { agent, start: Instant::now() }
    }
}

/// An endpoint is an address. No name is ever looked up: glibc's resolver would load shared libraries for that, which an
/// executable without them cannot be sure of, and a thread would wait for it.
#[derive(Debug)]
struct Literal;

impl Resolver for Literal {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let authority = uri.authority().ok_or(Error::HostNotFound)?;
        let host = authority.host().trim_matches(['[', ']']);
        let address: IpAddr = host.parse().map_err(|_| Error::HostNotFound)?;
        let mut found = self.empty();
        found.push(SocketAddr::new(address, authority.port_u16().unwrap_or(80)));
        Ok(found)
    }
}

/// Connects as this process may (host/aide.rs), to the one address that an endpoint has.
#[derive(Debug)]
struct Direct;

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl<In: Transport> Connector<In> for Direct {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<In>,
    ) -> Result<Option<Connection>, Error> {
        let address = details.addrs.first().ok_or(Error::HostNotFound)?;
        let (timeout, config) = (details.timeout, details.config);
        let stream = aide::connect(*address, *timeout.after).map_err(in_time(timeout))?;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Connection { stream, buffers }))
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let bytes = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.set_write_timeout(Some(at_least(timeout)))?;
        self.stream.write_all(bytes).map_err(in_time(timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(Some(at_least(timeout)))?;
        let got = self.stream.read(self.buffers.input_append_buf()).map_err(in_time(timeout))?;
        self.buffers.input_appended(got);
        Ok(got > 0)
    }

    /// Never used again.
    fn is_open(&mut self) -> bool {
        false
    }
}

/// The kernel takes no time of 0.
fn at_least(timeout: NextTimeout) -> Duration {
    (*timeout.after).max(Duration::from_millis(1))
}

fn in_time(timeout: NextTimeout) -> impl Fn(io::Error) -> Error {
    move |error| match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

impl Host {
    fn call(&self, request: &ImdsRequest, timeout: Duration) -> Result<Response<Body>, Error> {
        let timeout = Some(timeout);
        match request.token {
            Some(token) => {
                let get = self.agent.get(&request.url).header("X-aws-ec2-metadata-token", token);
                get.config().timeout_global(timeout).build().call()
            }
            None => {
                let put = self.agent.put(&request.url);
                let put = put.header("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS);
                put.config().timeout_global(timeout).build().send_empty()
            }
        }
    }
}

impl Outside for Host {
    fn send(&mut self, request: &ImdsRequest, timeout: Duration) -> Result<ImdsAnswer, Silence> {
        let mut response = self.call(request, timeout).map_err(|e| silence(e, timeout))?;
        let mut body = Vec::new();
        let mut reader = response.body_mut().as_reader().take(MOST_BYTES as u64 + 1);
        reader.read_to_end(&mut body).map_err(|e| silence(e.into(), timeout))?;
        Ok(ImdsAnswer { status: response.status().as_u16(), body })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&mut self, pause: Duration) {
        std::thread::sleep(pause);
    }

    /// The standard library's hash maps have keys of the kernel's randomness.
    fn chance(&mut self) -> f64 {
        let random = RandomState::new().hash_one(()) >> 32;
        random as f64 / f64::from(u32::MAX)
    }
}

fn silence(error: Error, timeout: Duration) -> Silence {
    match error {
        Error::Timeout(_) => Silence::Timeout(timeout),
        Error::Io(e) if is_unreachable(&e) => Silence::Unreachable(e.to_string()),
        Error::Io(e) => Silence::Broken(e.to_string()),
        other => Silence::Broken(other.to_string()),
    }
}

/// As the kernel refuses where it has no route, and not as a router far away does.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable)
}
