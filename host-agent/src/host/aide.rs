// SPDX-License-Identifier: Apache-2.0
//! What the agent's unit does not let it do itself: make TCP sockets, and look
//! into the process that asks on the agent's socket. A process of its own does
//! both and no more (packaging/systemd/sluice-aide.service). Where nothing
//! forbids it, the agent does it itself.

use std::fmt::Display;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::api::http::Host;
use crate::imds;

/// Abstract, and so of the node's own network namespace: no container that has another one can ask,
/// whatever it sees of /run. One that has the node's may make such sockets itself.
const NAME: &str = "sluice-aide";
/// Above this much, nothing of ours asks or answers.
const LONGEST: usize = 512;
/// For the one who makes them: the first to ask waits until systemd has started it.
const STARTS_WITHIN: Duration = Duration::from_secs(5);
/// For a line of who asks.
const PATIENCE: Duration = Duration::from_secs(1);

/// Listens here, or by who may.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).or_else(|refused| {
        ask(refused, format_args!("listen {address}"), STARTS_WITHIN).map(TcpListener::from)
    })
}

/// Connects from here, or by who may.
pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, timeout).or_else(|refused| {
        let line = format_args!("connect {address} {}", timeout.as_millis());
        ask(refused, line, timeout + STARTS_WITHIN).map(TcpStream::from)
    })
}

/// The capabilities of the process at the other end, or why it is none of the host's.
pub fn look_at(peer: &UnixStream) -> Result<u64> {
    let answer = exchange("peer", Some(peer.as_fd()), STARTS_WITHIN);
    let answer = answer.context("ask sluice-aide.service who that is")?;
    ensure!(answer.code == 0, "{}", answer.text);
    u64::from_str_radix(&answer.text, 16).context("read what sluice-aide.service says")
}

/// RestrictAddressFamilies= refuses with EAFNOSUPPORT; with any other error the aide fares no better.
fn ask(refused: io::Error, line: impl Display, timeout: Duration) -> io::Result<OwnedFd> {
    if refused.raw_os_error() != Some(nix::libc::EAFNOSUPPORT) {
        return Err(refused);
    }
    match exchange(line, None, timeout) {
        Ok(Answer { code: 0, fd, .. }) => fd.ok_or_else(|| io::ErrorKind::InvalidData.into()),
        Ok(Answer { code, .. }) => Err(io::Error::from_raw_os_error(code)),
        // Without that unit the first refusal is the one to report.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Err(refused),
        Err(e) => Err(e),
    }
}

/// What is said, and what is passed on with it. `code` is 0, or an error's number.
#[derive(Debug)]
struct Answer {
    code: i32,
    text: String,
    fd: Option<OwnedFd>,
}

fn exchange(
    line: impl Display,
    fd: Option<BorrowedFd<'_>>,
    timeout: Duration,
) -> io::Result<Answer> {
    let stream = UnixStream::connect_addr(&net::SocketAddr::from_abstract_name(NAME)?)?;
    // systemd listens, as root: whoever else has taken the name is not to be believed.
    if !is_root(&stream) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_read_timeout(Some(timeout))?;
    send(&stream, line.to_string().as_bytes(), fd)?;
    receive_answer(&stream)
}

fn receive_answer(stream: &UnixStream) -> io::Result<Answer> {
    let (bytes, fd) = receive(stream)?;
    let Some((code, text)) = bytes.split_first_chunk() else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let text = String::from_utf8_lossy(text).into_owned();
    Ok(Answer { code: i32::from_ne_bytes(*code), text, fd })
}

/// Serves on standard input, as systemd gives it, until it ends.
pub fn serve() -> Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned().context("take the socket")?;
    let host = Arc::new(Host::of_this());
    for stream in UnixListener::from(socket).incoming() {
        let (stream, host) = (stream.context("accept")?, host.clone());
        let serve = move || {
            if let Err(e) = answer(&stream, &host) {
                log::warn!("{e:#}");
            }
        };
        // Who asks too often is not answered.
        if let Err(e) = thread::Builder::new().spawn(serve) {
            log::warn!("a peer gets no answer: {e}");
        }
    }
    Ok(())
}

/// One line in; the socket, what is known of a peer, or the error out.
fn answer(stream: &UnixStream, host: &Host) -> Result<()> {
    if !is_root(stream) {
        bail!("a peer asked that is not root");
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let (line, fd) = receive(stream).context("read")?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let answer = if line == "peer" {
        let peer = UnixStream::from(fd.context("peer without a connection")?);
        match host.look(&peer) {
            Ok(capabilities) => Answer { code: 0, text: format!("{capabilities:x}"), fd: None },
            Err(e) => Answer { code: nix::libc::EACCES, text: format!("{e:#}"), fd: None },
        }
    } else {
        // A timeout of the standard library's has no number.
        let number = |e: io::Error| e.raw_os_error().unwrap_or(nix::libc::ETIMEDOUT);
        let text = String::new();
        match make(&line)?.map_err(number) {
            Ok(fd) => Answer { code: 0, text, fd: Some(fd) },
            Err(code) => Answer { code, text, fd: None },
        }
    };
    let bytes = [&answer.code.to_ne_bytes(), answer.text.as_bytes()].concat();
    send(stream, &bytes, answer.fd.as_ref().map(AsFd::as_fd)).context("answer")
}

/// Listens anywhere, for metrics; connects to IMDS only.
fn make(line: &str) -> Result<io::Result<OwnedFd>> {
    let words: Vec<_> = line.split_whitespace().collect();
    Ok(match words[..] {
        ["listen", address] => TcpListener::bind(address.parse::<SocketAddr>()?).map(Into::into),
        ["connect", address, ms] if imds::is_endpoint(&address.parse()?) => {
            let timeout = Duration::from_millis(ms.parse::<u32>()?.max(1).into());
            TcpStream::connect_timeout(&address.parse()?, timeout).map(Into::into)
        }
        _ => bail!("no such request: {line:?}"),
    })
}

fn is_root(stream: &UnixStream) -> bool {
    getsockopt(stream, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == 0)
}

fn send(stream: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(fd.as_slice()));
    sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What was sent at once, with what was passed on.
fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut bytes)];
    let got = recvmsg(stream, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    bytes.truncate(got.bytes);
    Ok((bytes, fd))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn asked(line: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<Answer> {
        let (ours, theirs) = UnixStream::pair()?;
        send(&ours, line.as_bytes(), fd)?;
        let answered = answer(&theirs, &Host::of_this());
        drop(theirs);
        let got = receive_answer(&ours);
        assert_eq!(
            answered.is_err(),
            matches!(&got, Err(e) if e.kind() == io::ErrorKind::UnexpectedEof)
        );
        got
    }

    #[test]
    fn process_of_the_host_is_known_by_its_connection() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let answer = asked("peer", Some(ours.as_fd())).unwrap();
        assert_eq!(answer.code, 0, "{}", answer.text);
        assert!(u64::from_str_radix(&answer.text, 16).is_ok(), "{}", answer.text);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(asked("peer", Some(file.as_fd())).unwrap().code, nix::libc::EACCES);
        assert!(asked("peer", None).is_err());
    }

    #[test]
    fn listener_that_is_passed_on_takes_connections() {
        let listener = asked("listen 127.0.0.1:0", None).unwrap().fd.unwrap();
        let listener = TcpListener::from(listener);
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.write_all(b"x").unwrap();
        assert!(listener.accept().is_ok());
        // The kernel's own error comes through.
        let again = format!("listen {}", listener.local_addr().unwrap());
        assert_eq!(asked(&again, None).unwrap().code, nix::libc::EADDRINUSE);
    }

    #[test]
    fn nothing_but_imds_is_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = format!("connect {} 100", listener.local_addr().unwrap());
        for line in [&elsewhere, "connect 169.254.169.254:81 1", "", "\n", "listen x", "x"] {
            let refused = asked(line, None).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::UnexpectedEof, "{line}");
        }
    }
}
