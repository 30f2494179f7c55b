// SPDX-License-Identifier: Apache-2.0
//! What measured pods and their peers send each other without a break, and what
//! arrives, second by second.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::ledger::{DIRECTIONS, Direction};
use super::measured::{Flood, Measured, TCP_FLOWS};
use super::run::Run;
use crate::flows::{Progress, offer_udp, swallow_udp};
use crate::meter::{in_netns, received_wire_bytes};

const SECOND: Duration = Duration::from_secs(1);
/// How long a sender or a sink waits before it looks at the end.
const WAIT: Duration = Duration::from_millis(200);
const CHUNK: usize = 1 << 14;
/// A reading that took no longer is good enough.
const QUICK: Duration = Duration::from_millis(1);

/// What the receiving namespace got between two readings of its counters. The time is from before the
/// first to after the second, so that a delayed reader never makes a rate look higher.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    pub from: Instant,
    pub to: Instant,
    pub bits: u64,
}

struct Reading {
    before: Instant,
    after: Instant,
    bytes: u64,
}

/// Ends all traffic when it goes, however that comes.
pub struct Ends<'a>(pub &'a Run, pub &'a [Measured]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
        self.1.iter().flat_map(|pod| &pod.progress).for_each(|progress| progress.stop());
    }
}

/// Both directions of this pod.
pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, run: &'scope Run, pod: &'scope Measured) {
    for direction in DIRECTIONS {
        let (progress, seconds) =
            (&pod.progress[direction as usize], &pod.seconds[direction as usize]);
        let (from, to) = match direction {
            Direction::Egress => (&pod.pod, &pod.peer),
            Direction::Ingress => (&pod.peer, &pod.pod),
        };
        let (source, sink) = (from.netns(), to.netns());
        let address = IpAddr::V4(to.address);
        in_netns(scope, &sink, move || {
            let mut last = Reading::now();
            while !progress.is_over() {
                thread::sleep((last.after + SECOND).saturating_duration_since(Instant::now()));
                let now = Reading::now();
                seconds.lock().expect("the seconds").push(now.since(&last));
                last = now;
            }
        });
        let (ready, bound) = mpsc::channel();
        let flood = pod.floods[direction as usize];
        in_netns(scope, &sink, move || match flood {
            Flood::Udp => swallow_udp(address, &ready, progress),
            Flood::Tcp => swallow_tcp(address, &ready, progress),
        });
        let target = bound.recv_timeout(10 * SECOND).expect("the sink listens");
        let offer = run.pace.offer;
        match flood {
            Flood::Udp => {
                drop(in_netns(scope, &source, move || offer_udp(target, offer, progress)))
            }
            Flood::Tcp => (0..TCP_FLOWS).for_each(|_| {
                in_netns(scope, &source, move || {
                    offer_tcp(target, offer / TCP_FLOWS as u64, progress);
                });
            }),
        }
    }
}

/// Offers TCP until the end: more than any limit, and not all that the machine can do where there
/// is none.
fn offer_tcp(target: SocketAddr, bits_per_sec: u64, progress: &Progress) {
    let mut stream = TcpStream::connect_timeout(&target, 10 * SECOND).expect("connect");
    stream.set_write_timeout(Some(WAIT)).expect("a timeout");
    let chunk = vec![0; CHUNK];
    let (mut start, mut sent_bits) = (Instant::now(), 0);
    while !progress.is_over() {
        let due_bits = (start.elapsed().as_secs_f64() * bits_per_sec as f64) as u64;
        if due_bits < sent_bits {
            thread::sleep(Duration::from_millis(1));
        } else if due_bits - sent_bits > bits_per_sec {
            // What a limit has made wait is not made up for.
            (start, sent_bits) = (Instant::now(), 0);
        } else {
            // A full queue times out; then we look at the end and go on.
            sent_bits += 8 * stream.write(&chunk).unwrap_or_default() as u64;
        }
    }
}

/// Swallows TCP until the end; the kernel counts it.
fn swallow_tcp(address: IpAddr, ready: &mpsc::Sender<SocketAddr>, progress: &Progress) {
    let listener = TcpListener::bind((address, 0)).expect("listen");
    ready.send(listener.local_addr().expect("a port")).expect("a receiver waits");
    thread::scope(|scope| {
        for _ in 0..TCP_FLOWS {
            let (mut stream, _) = listener.accept().expect("accept");
            stream.set_read_timeout(Some(WAIT)).expect("a timeout");
            scope.spawn(move || {
                let mut buffer = vec![0; CHUNK];
                // A timeout only lets us look at the end; a connection that ends does so after it.
                while !progress.is_over() && !matches!(stream.read(&mut buffer), Ok(0)) {}
            });
        }
    });
}

impl Reading {
    /// The quickest of a few.
    fn now() -> Self {
        let read = || {
            let (before, bytes) = (Instant::now(), received_wire_bytes());
            Self { before, after: Instant::now(), bytes }
        };
        let mut best = read();
        for _ in 0..4 {
            if best.after.duration_since(best.before) <= QUICK {
                break;
            }
            let next = read();
            if next.after.duration_since(next.before) < best.after.duration_since(best.before) {
                best = next;
            }
        }
        best
    }

    fn since(&self, last: &Self) -> Second {
        Second { from: last.before, to: self.after, bits: (self.bytes - last.bytes) * 8 }
    }
}
