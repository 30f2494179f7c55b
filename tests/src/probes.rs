// SPDX-License-Identifier: Apache-2.0
//! What a user of a loaded pod feels: round trips of a UDP echo and of a
//! request and its response on one TCP connection, each asked at a steady
//! pace, beside whatever else the pod does. All threads block.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, Scope, sleep};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::flows::{End, Progress, give_up_after, udp_socket};
use crate::meter::in_netns;

/// 50 in a second.
const INTERVAL: Duration = Duration::from_millis(20);
/// A later answer counts as lost.
const PATIENCE: Duration = Duration::from_secs(2);
const MESSAGE: usize = 64;

/// Round trips in milliseconds; where no answer came, as long as the patience was.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct RoundTrips {
    pub asked: usize,
    pub lost: usize,
    pub median_ms: f64,
    pub p99_ms: f64,
}

/// Both probes, asked at the same time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Probed {
    pub echo: RoundTrips,
    pub request: RoundTrips,
}

/// Addresses of the servers, which live until the end of `progress`.
#[derive(Clone, Copy)]
pub struct Servers {
    echo: SocketAddr,
    request: SocketAddr,
}

impl Servers {
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        at: End<'_>,
        progress: &'scope Progress,
    ) -> Self {
        let (ready, bound) = mpsc::channel();
        let (also_ready, also_bound) = mpsc::channel();
        let address = at.address;
        in_netns(scope, at.netns, move || serve_echo(address, &ready, progress));
        in_netns(scope, at.netns, move || serve_requests(address, &also_ready));
        let limit = Duration::from_secs(10);
        let echo = bound.recv_timeout(limit).expect("the echo server listens");
        let request = also_bound.recv_timeout(limit).expect("the server listens");
        Self { echo, request }
    }

    /// The echo alone.
    pub fn start_echo<'scope>(
        scope: &'scope Scope<'scope, '_>,
        at: End<'_>,
        progress: &'scope Progress,
    ) -> Self {
        let ((ready, bound), address) = (mpsc::channel(), at.address);
        in_netns(scope, at.netns, move || serve_echo(address, &ready, progress));
        let echo = bound.recv_timeout(Duration::from_secs(10)).expect("the echo server listens");
        Self { echo, request: echo }
    }

    /// Asks both from this thread's namespace, so many times each.
    pub fn ask(self, count: usize) -> Probed {
        thread::scope(|scope| {
            let echo = scope.spawn(move || ask_echo(self.echo, count));
            let request = scope.spawn(move || {
                sleep(INTERVAL / 2);
                ask_requests(self.request, count)
            });
            Probed {
                echo: RoundTrips::of(&echo.join().expect("the echo client")),
                request: RoundTrips::of(&request.join().expect("the client")),
            }
        })
    }
}

impl Servers {
    /// The echo, so many times, each from a socket of its own and so a new flow.
    pub fn ask_by_new_flows(self, count: usize) -> RoundTrips {
        let start = Instant::now();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..count as u32)
                .map(|number| {
                    sleep((start + INTERVAL * number).saturating_duration_since(Instant::now()));
                    scope.spawn(move || ask_echo_once(self.echo))
                })
                .collect();
            let times: Vec<_> =
                clients.into_iter().map(|client| client.join().expect("a client")).collect();
            RoundTrips::of(&times)
        })
    }
}

impl RoundTrips {
    fn of(times_ns: &[Option<u64>]) -> Self {
        let mut seen: Vec<u64> = times_ns.iter().flatten().copied().collect();
        seen.sort_unstable();
        let rank = |share: f64| {
            let index = ((seen.len() as f64 * share).ceil() as usize).saturating_sub(1);
            seen.get(index).map_or(PATIENCE.as_secs_f64() * 1e3, |ns| *ns as f64 / 1e6)
        };
        let (median_ms, p99_ms) = (rank(0.5), rank(0.99));
        Self { asked: times_ns.len(), lost: times_ns.len() - seen.len(), median_ms, p99_ms }
    }
}

fn serve_echo(address: IpAddr, ready: &mpsc::Sender<SocketAddr>, progress: &Progress) {
    let socket = UdpSocket::bind((address, 0)).expect("bind");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    ready.send(socket.local_addr().expect("a port")).expect("a receiver waits");
    let mut buffer = [0; MESSAGE];
    while !progress.is_over() {
        if let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
            // A drop on the way back is the client's to count.
            let _ = socket.send_to(&buffer[..bytes], from);
        }
    }
}

/// Until the one client goes.
fn serve_requests(address: IpAddr, ready: &mpsc::Sender<SocketAddr>) {
    let listener = TcpListener::bind((address, 0)).expect("listen");
    ready.send(listener.local_addr().expect("a port")).expect("a receiver waits");
    give_up_after(&listener, Duration::from_secs(60));
    // A client that never came counts its requests as lost.
    let Ok((mut stream, _)) = listener.accept() else { return };
    stream.set_nodelay(true).expect("no delay");
    let mut message = [0; MESSAGE];
    while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
}

fn ask_echo(server: SocketAddr, count: usize) -> Vec<Option<u64>> {
    let socket = udp_socket(server);
    let start = Instant::now();
    let sent: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        let answers = scope.spawn(|| collect_echoes(&socket, start, &sent));
        for (number, sent) in sent.iter().enumerate() {
            sleep((start + INTERVAL * number as u32).saturating_duration_since(Instant::now()));
            let mut message = [0; MESSAGE];
            message[..4].copy_from_slice(&(number as u32).to_be_bytes());
            sent.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            // What the shaper refuses at once is lost like any other.
            let _ = socket.send(&message);
        }
        answers.join().expect("the collector")
    })
}

fn ask_echo_once(server: SocketAddr) -> Option<u64> {
    let socket = udp_socket(server);
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let asked = Instant::now();
    // What the shaper refuses at once is lost like any other.
    let _ = socket.send(&[0; MESSAGE]);
    socket.recv(&mut [0; MESSAGE]).ok().map(|_| asked.elapsed().as_nanos() as u64)
}

fn collect_echoes(socket: &UdpSocket, start: Instant, sent: &[AtomicU64]) -> Vec<Option<u64>> {
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let end = start + INTERVAL * sent.len() as u32 + PATIENCE;
    let mut times = vec![None; sent.len()];
    let mut missing = sent.len();
    let mut message = [0; MESSAGE];
    while missing > 0 && Instant::now() < end {
        if socket.recv(&mut message).is_err() {
            continue;
        }
        let now = start.elapsed().as_nanos() as u64;
        let number = u32::from_be_bytes(message[..4].try_into().expect("four bytes")) as usize;
        let sent = sent[number].load(Ordering::Relaxed);
        missing -= usize::from(times[number].is_none());
        times[number].get_or_insert(now - sent);
    }
    times
}

/// One after the other on one connection; a probe that must wait for an answer asks late, and so less often.
fn ask_requests(server: SocketAddr, count: usize) -> Vec<Option<u64>> {
    let Ok(mut stream) = TcpStream::connect_timeout(&server, PATIENCE) else {
        return vec![None];
    };
    stream.set_nodelay(true).expect("no delay");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let start = Instant::now();
    let end = start + INTERVAL * count as u32 + PATIENCE;
    let mut times = Vec::new();
    for number in 0..count {
        sleep((start + INTERVAL * number as u32).saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        let mut message = [0; MESSAGE];
        let answered =
            stream.write_all(&message).is_ok() && stream.read_exact(&mut message).is_ok();
        times.push(answered.then(|| asked.elapsed().as_nanos() as u64));
        if !answered || Instant::now() > end {
            break;
        }
    }
    times
}
