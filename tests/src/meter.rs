// SPDX-License-Identifier: Apache-2.0
//! Measures traffic at the receiving end, from the kernel's own IP counters in
//! the receiver's network namespace. They count a super-packet's bytes once and
//! its segments apart, so what was on the wire is known exactly: the frames
//! that a device without segmentation offload would have carried.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};

use crate::flows::{Progress, offer_udp};

/// Ethernet header of every frame.
const L2_BYTES: u64 = 14;
/// IPv4 without options, TCP with timestamps: what each further segment of a super-packet repeats.
const SEGMENT_HEADER_BYTES: u64 = 20 + 32;

/// Runs something in another network namespace, on a thread of its own.
pub fn in_netns<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    netns: &Path,
    work: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let file = File::open(netns).unwrap_or_else(|e| panic!("open {}: {e}", netns.display()));
    scope.spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
        work()
    })
}

/// Bytes of all frames that this thread's namespace has received over IPv4.
pub fn received_wire_bytes() -> u64 {
    let snmp = fs::read_to_string("/proc/thread-self/net/snmp").expect("read the IP counters");
    let netstat = fs::read_to_string("/proc/thread-self/net/netstat").expect("read IpExt");
    let super_packets = counter(&snmp, "Ip:", "InReceives");
    let ext = |name| counter(&netstat, "IpExt:", name);
    let segments = ext("InNoECTPkts") + ext("InECT0Pkts") + ext("InECT1Pkts") + ext("InCEPkts");
    ext("InOctets")
        + segments * L2_BYTES
        + segments.saturating_sub(super_packets) * SEGMENT_HEADER_BYTES
}

/// The kernel prints a line of names and a line of values, both behind the same prefix.
fn counter(table: &str, prefix: &str, name: &str) -> u64 {
    let mut lines = table.lines().filter(|line| line.starts_with(prefix));
    let names = lines.next().unwrap_or_default().split_whitespace();
    let values = lines.next().unwrap_or_default().split_whitespace();
    let found = names.zip(values).find(|(n, _)| *n == name).and_then(|(_, v)| v.parse().ok());
    found.unwrap_or_else(|| panic!("{prefix} {name} is not in {table}"))
}

/// Wire rate of each whole second, in bit/s, from the moment that traffic starts.
pub fn measure_seconds(seconds: usize) -> Vec<u64> {
    let quiet = received_wire_bytes();
    let deadline = Instant::now() + Duration::from_secs(30);
    // More than what a control connection says before its data.
    while received_wire_bytes() < quiet + 10_000 {
        assert!(Instant::now() < deadline, "no traffic arrived");
        thread::sleep(Duration::from_millis(1));
    }
    let mut last = (Instant::now(), received_wire_bytes());
    let start = last.0;
    let mut rates = Vec::new();
    for second in 1..=seconds {
        thread::sleep((start + Duration::from_secs(second as u64)).duration_since(Instant::now()));
        let now = (Instant::now(), received_wire_bytes());
        let bits = (now.1 - last.1) as f64 * 8.0;
        rates.push((bits / (now.0 - last.0).as_secs_f64()) as u64);
        last = now;
    }
    rates
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    /// Offered at this many bit/s of payload.
    Udp(u64),
}

/// One transfer: from one namespace to an address in another.
pub struct Transfer<'a> {
    pub from: &'a Path,
    pub to: &'a Path,
    pub address: Ipv4Addr,
    pub protocol: Protocol,
}

impl Transfer<'_> {
    /// Sends for so many seconds; gives the receiver's wire rate in each.
    pub fn seconds(&self, seconds: usize) -> Vec<u64> {
        self.seconds_while(seconds, || ())
    }

    /// The same, and does something of the test's meanwhile.
    pub fn seconds_while(&self, seconds: usize, meanwhile: impl FnOnce()) -> Vec<u64> {
        let stop = &Progress::new(0);
        thread::scope(|scope| {
            let (ready, bound) = mpsc::channel();
            let sink = in_netns(scope, self.to, move || self.receive(&ready, stop));
            let port = bound.recv_timeout(Duration::from_secs(10)).expect("the sink listens");
            let meter = in_netns(scope, self.to, move || measure_seconds(seconds));
            let target = SocketAddr::new(IpAddr::V4(self.address), port);
            let source = in_netns(scope, self.from, move || self.send(target, stop));
            // A panic in it must not leave the others running for ever.
            let done = panic::catch_unwind(AssertUnwindSafe(meanwhile));
            let rates = meter.join();
            stop.stop();
            source.join().expect("the sender");
            sink.join().expect("the sink");
            done.unwrap_or_else(|panic| panic::resume_unwind(panic));
            rates.unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    fn receive(&self, ready: &mpsc::Sender<u16>, stop: &Progress) {
        match self.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind((self.address, 0)).expect("listen");
                ready.send(listener.local_addr().expect("a port").port()).expect("a receiver");
                let (stream, _) = listener.accept().expect("accept");
                take_tcp(stream, stop);
            }
            Protocol::Udp(_) => {
                let socket = UdpSocket::bind((self.address, 0)).expect("bind");
                socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
                ready.send(socket.local_addr().expect("a port").port()).expect("a receiver");
                let mut buffer = [0; 2048];
                while !stop.is_over() {
                    // Counted by the kernel; a timeout only lets us look at `stop`.
                    let _ = socket.recv(&mut buffer);
                }
            }
        }
    }

    fn send(&self, target: SocketAddr, stop: &Progress) {
        match self.protocol {
            Protocol::Tcp => send_tcp(target, stop),
            Protocol::Udp(bits_per_sec) => offer_udp(target, bits_per_sec, stop),
        }
    }
}

/// To the end: what was queued for the sender's limit has come then, and its reset. A reset that was dropped is silence.
pub fn take_tcp(mut stream: TcpStream, stop: &Progress) {
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer) {
            Ok(1..) => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock && !stop.is_over() => (),
            _ => return,
        }
    }
}

/// Sends until the end, with room for a timeout's look at it.
pub fn send_tcp(target: SocketAddr, stop: &Progress) {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(10)).expect("connect");
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    // Nodes' own. BBR, where it is the machine's, takes a policer for a slower one now and then and
    // paces itself at half of the limit for 48 rounds (net/ipv4/tcp_bbr.c, bbr_lt_bw_sampling).
    set_congestion(&stream, "cubic");
    let chunk = vec![0; 1 << 16];
    while !stop.is_over() {
        // A full queue times out; then we look at `stop` and go on.
        let _ = stream.write(&chunk);
    }
    // A reset: what the socket still has would take minutes at the lowest limit, and no one counts it.
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &at_once).expect("end by a reset");
}

pub fn set_congestion(stream: &TcpStream, name: &str) {
    let set = setsockopt(stream, sockopt::TcpCongestion, &name.into());
    set.unwrap_or_else(|e| panic!("congestion control by {name}: {e}"));
}
