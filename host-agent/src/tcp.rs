// SPDX-License-Identifier: Apache-2.0
//! TCP sockets of the agent, which its unit lets it make none of: a process of
//! its own, that may do nothing else, makes them and passes them on
//! (packaging/systemd/sluice-tcp.service). Elsewhere they are made here.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::imds;

/// Abstract, and so of the node's own network namespace: no container that has another one can ask,
/// whatever it sees of /run. One that has the node's may make such sockets itself.
const NAME: &str = "sluice-tcp";
/// Above this much, nothing of ours asks.
const LONGEST: u64 = 128;
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

/// RestrictAddressFamilies= refuses with EAFNOSUPPORT; with any other error nobody else fares better.
fn ask(refused: io::Error, line: impl Display, timeout: Duration) -> io::Result<OwnedFd> {
    if refused.raw_os_error() != Some(nix::libc::EAFNOSUPPORT) {
        return Err(refused);
    }
    let name = net::SocketAddr::from_abstract_name(NAME)?;
    // Without that unit the first refusal is the one to tell.
    let Ok(stream) = UnixStream::connect_addr(&name) else { return Err(refused) };
    // systemd listens, as root: whoever else has taken the name is not to be believed.
    if !is_root(&stream) {
        return Err(refused);
    }
    stream.set_read_timeout(Some(timeout))?;
    send(&stream, format!("{line}\n").as_bytes(), None)?;
    receive(&stream)
}

/// Serves on standard input, as systemd gives it, until it ends.
pub fn serve() -> Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned().context("take the socket")?;
    for stream in UnixListener::from(socket).incoming() {
        let stream = stream.context("accept")?;
        thread::spawn(move || {
            if let Err(e) = answer(&stream) {
                log::warn!("{e:#}");
            }
        });
    }
    Ok(())
}

/// One line in, the socket or the kernel's error out.
fn answer(stream: &UnixStream) -> Result<()> {
    if !is_root(stream) {
        bail!("somebody asked who is not root");
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line).context("read")?;
    let made = make(&line)?;
    // A timeout of the standard library's has no number.
    let number = |e: &io::Error| e.raw_os_error().unwrap_or(nix::libc::ETIMEDOUT);
    let code = made.as_ref().map_or_else(number, |_| 0);
    send(stream, &code.to_ne_bytes(), made.as_ref().ok()).context("answer")
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

fn send(stream: &UnixStream, bytes: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
    let fds = fd.map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(fds.as_slice()));
    sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut code = [0; 4];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut code)];
    let got = recvmsg(stream, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let passed = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    match (got.bytes, i32::from_ne_bytes(code)) {
        (4, 0) => passed.ok_or_else(|| io::ErrorKind::InvalidData.into()),
        (4, code) => Err(io::Error::from_raw_os_error(code)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn asked(line: &str) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        send(&ours, line.as_bytes(), None)?;
        let answered = answer(&theirs);
        drop(theirs);
        let got = receive(&ours);
        assert_eq!(
            answered.is_err(),
            matches!(&got, Err(e) if e.kind() == io::ErrorKind::UnexpectedEof)
        );
        got
    }

    #[test]
    fn listener_that_is_passed_on_takes_connections() {
        let listener = TcpListener::from(asked("listen 127.0.0.1:0\n").unwrap());
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.write_all(b"x").unwrap();
        assert!(listener.accept().is_ok());
        // The kernel's own error comes through.
        let again = format!("listen {}\n", listener.local_addr().unwrap());
        assert_eq!(asked(&again).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn nothing_but_imds_is_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = format!("connect {} 100\n", listener.local_addr().unwrap());
        for line in [&elsewhere, "connect 169.254.169.254:81 1\n", "", "\n", "listen x\n", "x"] {
            let refused = asked(line).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::UnexpectedEof, "{line}");
        }
    }
}
