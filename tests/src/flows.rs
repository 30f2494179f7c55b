// SPDX-License-Identifier: Apache-2.0
//! Bulk traffic for the benchmarks: so many TCP flows, or UDP at a steady
//! offer, between two network namespaces. Each flow's bytes, segments and
//! retransmissions are known. Everything blocks: in a guest that counts
//! instructions a spinning thread would use up the time it measures.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{Scope, ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};

use crate::meter::{in_netns, set_congestion};

/// What a UDP packet leaves of the way's MTU: room for any header.
const UDP_ROOM: usize = 100;
const CHUNK: usize = 1 << 16;

/// One end of traffic.
#[derive(Clone, Copy)]
pub struct End<'a> {
    pub netns: &'a Path,
    pub address: IpAddr,
}

/// What a TCP sender knows of its flow at the end.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    pub segments: u64,
    pub retransmissions: u64,
}

/// TCP flows that run until they are stopped.
pub struct Bulk<'scope> {
    senders: Vec<ScopedJoinHandle<'scope, Sent>>,
    sink: ScopedJoinHandle<'scope, ()>,
}

/// What the threads of one measurement share: the end, and each flow's received bytes.
pub struct Progress {
    stop: AtomicBool,
    received: Vec<AtomicU64>,
    rhythm: Option<Rhythm>,
}

/// Senders send for `span` and rest for `span`, `offset` into it at the start.
struct Rhythm {
    start: Instant,
    span: Duration,
    offset: Duration,
}

impl Progress {
    pub fn new(flows: usize) -> Self {
        let received = (0..flows).map(|_| AtomicU64::new(0)).collect();
        Self { stop: AtomicBool::new(false), received, rhythm: None }
    }

    /// TCP senders send for `span` and rest for `span`, as if they had begun `offset` ago.
    pub fn resting(flows: usize, span: Duration, offset: Duration) -> Self {
        let rhythm = Some(Rhythm { start: Instant::now(), span, offset });
        Self { rhythm, ..Self::new(flows) }
    }

    /// How long it is until senders begin again, and whether they rest until then.
    pub fn next_start(&self) -> Option<(Duration, bool)> {
        let Rhythm { start, span, offset } = self.rhythm.as_ref()?;
        let round = 2 * span.as_nanos();
        let at = ((start.elapsed() + *offset).as_nanos() % round) as u64;
        Some((Duration::from_nanos(round as u64 - at), u128::from(at) >= span.as_nanos()))
    }

    /// Payload bytes of each flow so far.
    pub fn received(&self) -> Vec<u64> {
        self.received.iter().map(|bytes| bytes.load(Ordering::Relaxed)).collect()
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl<'scope> Bulk<'scope> {
    /// As many flows as `progress` has room for, with this congestion control.
    pub fn start(
        scope: &'scope Scope<'scope, '_>,
        [from, to]: [End<'_>; 2],
        congestion: &'scope str,
        progress: &'scope Progress,
    ) -> Self {
        let (ready, bound) = mpsc::channel();
        let address = to.address;
        let sink = in_netns(scope, to.netns, move || {
            let listener = TcpListener::bind((address, 0)).expect("listen");
            ready.send(listener.local_addr().expect("a port")).expect("a receiver waits");
            receive_all(&listener, progress);
        });
        let target = bound.recv_timeout(Duration::from_secs(10)).expect("the sink listens");
        let send = |_| in_netns(scope, from.netns, move || send_tcp(target, congestion, progress));
        let senders = (0..progress.received.len()).map(send).collect();
        Self { senders, sink }
    }

    /// Waits for the end of all flows; call [`Progress::stop`] before.
    pub fn finish(self) -> Vec<Sent> {
        let sent = self.senders.into_iter().map(|s| s.join().expect("a sender")).collect();
        self.sink.join().expect("the sink");
        sent
    }
}

fn receive_all(listener: &TcpListener, progress: &Progress) {
    std::thread::scope(|scope| {
        for received in &progress.received {
            let (stream, _) = listener.accept().expect("accept");
            scope.spawn(move || receive(stream, received, progress));
        }
    });
}

fn receive(mut stream: TcpStream, received: &AtomicU64, progress: &Progress) {
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let mut buffer = vec![0; CHUNK];
    while !progress.is_over() {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(bytes) => {
                received.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            // A timeout only lets us look at the end; a reset comes after it.
            Err(_) => {}
        }
    }
}

fn send_tcp(target: SocketAddr, congestion: &str, progress: &Progress) -> Sent {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(10)).expect("connect");
    set_congestion(&stream, congestion);
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let mut chunk = vec![0; CHUNK];
    if progress.rhythm.is_some() {
        // What a socket holds is sent into the rest.
        setsockopt(&stream, sockopt::SndBuf, &CHUNK).expect("a small buffer");
        chunk.truncate(CHUNK / 16);
    }
    while !progress.is_over() {
        if let Some((rest, true)) = progress.next_start() {
            sleep(rest);
        }
        // A full queue times out; then we look at the end and go on.
        let _ = stream.write(&chunk);
    }
    let sent = tcp_info(&stream);
    reset_on_close(&stream);
    sent
}

/// What is still queued is of no interest any more.
fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, sockopt::Linger, &linger).expect("reset on close");
}

/// Bounds how long an accept may wait, which has no method of its own.
pub fn give_up_after(listener: &TcpListener, limit: Duration) {
    let limit = TimeVal::seconds(limit.as_secs() as i64);
    setsockopt(listener, sockopt::ReceiveTimeout, &limit).expect("a timeout");
}

/// struct tcp_info of linux/tcp.h by offsets: libc's ends before what is wanted.
fn tcp_info(stream: &TcpStream) -> Sent {
    const TOTAL_RETRANS: usize = 100;
    const DATA_SEGS_OUT: usize = 156;
    let mut info = [0u8; 256];
    let mut size = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `size` bytes into `info`.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    assert!(result == 0 && size as usize >= DATA_SEGS_OUT + 4, "TCP_INFO: {result}, {size} bytes");
    let word =
        |at: usize| u64::from(u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes")));
    Sent { segments: word(DATA_SEGS_OUT), retransmissions: word(TOTAL_RETRANS) }
}

/// Offers UDP until the end, in batches a millisecond apart.
pub fn offer_udp(target: SocketAddr, bits_per_sec: u64, progress: &Progress) {
    let socket = udp_socket(target);
    let payload = udp_payload(&socket);
    let start = Instant::now();
    let mut sent_bits = 0;
    while !progress.is_over() {
        let due_bits = (start.elapsed().as_secs_f64() * bits_per_sec as f64) as u64;
        while sent_bits < due_bits {
            // A drop at the shaper is reported as ENOBUFS now and then; it is part of the offer.
            let _ = socket.send(&payload);
            sent_bits += 8 * payload.len() as u64;
        }
        sleep(Duration::from_millis(1));
    }
}

/// A socket connected to `target`, of its family.
pub fn udp_socket(target: SocketAddr) -> UdpSocket {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("bind");
    socket.connect(target).expect("connect");
    socket
}

/// What a connected socket's packets hold: 1400 bytes at MTU 1500.
pub fn udp_payload(socket: &UdpSocket) -> Vec<u8> {
    let ipv4 = socket.local_addr().expect("an address").is_ipv4();
    let (level, option) = match ipv4 {
        true => (libc::IPPROTO_IP, libc::IP_MTU),
        false => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut mtu: libc::c_int = 0;
    let mut size = size_of_val(&mtu) as libc::socklen_t;
    // SAFETY: the kernel writes no more than `size` bytes into `mtu`.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut mtu).cast(), &raw mut size)
    };
    assert_eq!(result, 0, "the way's MTU");
    vec![0; mtu as usize - UDP_ROOM]
}

/// Swallows UDP until the end; the kernel counts it, and so does a first flow of `progress`.
pub fn swallow_udp(address: IpAddr, ready: &mpsc::Sender<SocketAddr>, progress: &Progress) {
    let socket = UdpSocket::bind((address, 0)).expect("bind");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    ready.send(socket.local_addr().expect("a port")).expect("a receiver waits");
    let mut buffer = vec![0; CHUNK];
    while !progress.is_over() {
        // A timeout only lets us look at the end.
        let bytes = socket.recv(&mut buffer).unwrap_or(0);
        if let Some(received) = progress.received.first() {
            received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}
