// SPDX-License-Identifier: Apache-2.0
//! Real sockets, driven by a loop as the agent's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::poll::{PollTimeout, poll};
use nix::unistd::getgid;

use super::connection::PATIENCE;
use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    server: Server,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Whoever runs the tests is a member.
        let group = dir.path().join("group");
        fs::write(&group, format!("sluice:x:{}:\n", getgid())).unwrap();
        let group = Group::read(&group, Path::new("/nowhere"));
        let server = Server::open(&dir.path().join("run/socket"), group).unwrap();
        Self { dir, server }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/socket")
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).unwrap()
    }

    /// The agent's loop, beside `peers`, until they are done; gives how often it woke up.
    fn serve<T: Send>(&mut self, body: &str, peers: impl FnOnce() -> T + Send) -> (T, usize) {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let peers = scope.spawn(|| {
                let result = peers();
                done.store(true, Ordering::Release);
                result
            });
            let mut rounds = 0;
            while !done.load(Ordering::Acquire) {
                self.round(body);
                rounds += 1;
            }
            (peers.join().unwrap(), rounds)
        })
    }

    fn round(&mut self, body: &str) {
        // The test's end is not among what is polled for.
        let longest = Instant::now() + Duration::from_millis(50);
        let until = self.server.deadline().map_or(longest, |deadline| deadline.min(longest));
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let mut fds = self.server.poll_fds();
        poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
        self.server.handle(&mut |_| Response::text("text/plain", body.to_owned()));
    }
}

fn ask(mut stream: impl Read + Write, request: &[u8]) -> String {
    // A peer that is refused early may find no one listening any more.
    let _ = stream.write_all(request);
    read_all(stream)
}

fn read_all(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    // A reset after the response does not take it back.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status_of(response: &str) -> &str {
    response.lines().next().unwrap_or_default()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

#[test]
fn request_is_answered_and_the_connection_closed() {
    let mut fixture = Fixture::new();
    let stream = fixture.connect();
    let (response, _) = fixture.serve("hello", || ask(stream, GET));
    let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\
                    Connection: close\r\n\r\nhello";
    assert_eq!(response, expected);
    assert_eq!(fixture.server.deadline(), None);
}

#[test]
fn nobody_there_means_no_timer() {
    let fixture = Fixture::new();
    assert_eq!(fixture.server.deadline(), None);
    assert_eq!(fixture.server.poll_fds().len(), 1);
}

#[test]
fn peer_that_says_too_much_is_told_so() {
    let mut fixture = Fixture::new();
    let stream = fixture.connect();
    let request = [b"PUT / HTTP/1.1\r\nContent-Length: 500000\r\n\r\n".to_vec(), vec![0; 500_000]];
    let (response, _) = fixture.serve("", || ask(stream, &request.concat()));
    assert_eq!(status_of(&response), "HTTP/1.1 413 Content Too Large");
}

#[test]
fn peer_that_stops_speaking_is_told_and_holds_nobody_up() {
    let mut fixture = Fixture::new();
    let (mut slow, quick) = (fixture.connect(), fixture.connect());
    let begin = Instant::now();
    let peers = || {
        slow.write_all(b"GET / HT").unwrap();
        let quick = ask(quick, GET);
        let quick_took = begin.elapsed();
        (quick, quick_took, read_all(slow))
    };
    let ((quick, quick_took, slow), rounds) = fixture.serve("", peers);
    assert_eq!(status_of(&quick), "HTTP/1.1 200 OK");
    assert!(quick_took < PATIENCE, "{quick_took:?}");
    assert_eq!(status_of(&slow), "HTTP/1.1 408 Request Timeout");
    assert!(begin.elapsed() >= PATIENCE);
    assert!(rounds < 500, "{rounds} rounds are a busy loop");
}

#[test]
fn peer_that_speaks_byte_by_byte_has_no_more_time() {
    let mut fixture = Fixture::new();
    let stream = fixture.connect();
    let drip = || {
        let mut writer = stream.try_clone().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut response = Vec::new();
        let mut chunk = [0; 512];
        loop {
            // Waiting for an answer is what times the drops.
            match (&stream).read(&mut chunk) {
                Ok(0) => return String::from_utf8_lossy(&response).into_owned(),
                Ok(length) => response.extend(&chunk[..length]),
                Err(_) if response.is_empty() => drop(writer.write_all(b"a")),
                Err(_) => return String::from_utf8_lossy(&response).into_owned(),
            }
        }
    };
    let begin = Instant::now();
    let (response, _) = fixture.serve("", drip);
    assert_eq!(status_of(&response), "HTTP/1.1 408 Request Timeout");
    assert!(begin.elapsed() < 2 * PATIENCE);
}

#[test]
fn crowd_that_says_nothing_holds_nobody_up_and_the_oldest_is_sent_away() {
    let mut fixture = Fixture::new();
    let mut waiting: Vec<_> = (0..CROWD).map(|_| fixture.connect()).collect();
    fixture.round("");
    for _ in 0..2 * CROWD {
        let stream = fixture.connect();
        let (response, _) = fixture.serve("", || ask(stream, GET));
        assert_eq!(status_of(&response), "HTTP/1.1 200 OK");
    }
    let newcomer = fixture.connect();
    fixture.round("");
    let first = read_all(waiting.remove(0));
    assert_eq!(status_of(&first), "HTTP/1.1 503 Service Unavailable");
    let second = waiting.remove(0);
    for stream in [second, newcomer] {
        let (response, _) = fixture.serve("", || ask(stream, GET));
        assert_eq!(status_of(&response), "HTTP/1.1 200 OK");
    }
}

#[test]
fn head_is_answered_with_the_length_and_no_body() {
    let mut fixture = Fixture::new();
    let stream = fixture.connect();
    let (response, _) = fixture.serve("hello", || ask(stream, b"HEAD / HTTP/1.1\r\n\r\n"));
    let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\
                    Connection: close\r\n\r\n";
    assert_eq!(response, expected);
}

#[test]
fn crowd_at_the_metrics_leaves_the_socket_free() {
    let mut fixture = Fixture::new();
    let address = free_address();
    fixture.server.serve_metrics(Some(address)).unwrap();
    let crowd: Vec<_> = (0..2 * CROWD).map(|_| TcpStream::connect(address).unwrap()).collect();
    let stream = fixture.connect();
    let (response, _) = fixture.serve("", || ask(stream, GET));
    assert_eq!(status_of(&response), "HTTP/1.1 200 OK");
    drop(crowd);
}

#[test]
fn metrics_move_to_another_address_and_off() {
    let mut fixture = Fixture::new();
    let address = free_address();
    fixture.server.serve_metrics(Some(address)).unwrap();
    fixture.server.serve_metrics(Some(address)).unwrap();
    let (response, _) = fixture.serve("x", || ask(TcpStream::connect(address).unwrap(), GET));
    assert_eq!(status_of(&response), "HTTP/1.1 200 OK");
    fixture.server.serve_metrics(None).unwrap();
    assert!(TcpStream::connect(address).is_err());
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn large_response_goes_out_piece_by_piece() {
    let mut fixture = Fixture::new();
    let stream = fixture.connect();
    let body = "x".repeat(3 << 20);
    let (response, _) = fixture.serve(&body, || ask(stream, GET));
    assert!(response.ends_with(&body));
}

#[test]
fn peer_that_does_not_read_is_dropped() {
    let mut fixture = Fixture::new();
    let mut stream = fixture.connect();
    stream.write_all(GET).unwrap();
    let body = "x".repeat(3 << 20);
    let begin = Instant::now();
    fixture.round(&body);
    while fixture.server.deadline().is_some() {
        assert!(begin.elapsed() < 3 * PATIENCE);
        fixture.round(&body);
    }
    assert!(read_all(stream).len() < body.len());
}

#[test]
fn what_a_killed_agent_left_is_replaced_and_no_symlink_followed() {
    use std::os::unix::fs::symlink;
    let fixture = Fixture::new();
    let (socket, target) = (fixture.socket(), fixture.dir.path().join("precious"));
    fs::write(&target, "as it was").unwrap();
    for path in [socket.clone(), beside(&socket)] {
        let _ = fs::remove_file(&path);
        symlink(&target, &path).unwrap();
    }
    let mut second =
        Fixture { server: Server::open(&socket, Group::default()).unwrap(), ..fixture };
    assert_eq!(fs::read_to_string(&target).unwrap(), "as it was");
    let mode = fs::symlink_metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    second.round("");
    let third = Server::open(&socket, Group::default()).unwrap();
    drop(third);
}
