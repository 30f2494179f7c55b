// SPDX-License-Identifier: Apache-2.0
//! What the agent's unit does not let it do itself: make TCP sockets, and look
//! into the process that asks on the agent's socket. Where nothing forbids it,
//! the agent does it itself; else a process of its own does both and no more
//! (agent/aide.rs), which is asked here.

use std::fmt::Display;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Abstract, and so of the node's own network namespace: no container that has another one can ask,
/// whatever it sees of /run. One that has the node's may make such sockets itself.
const NAME: &str = "sluice-aide";
/// Above this much, nothing of ours asks or answers.
const LONGEST: usize = 512;
/// For the agent, which makes them: the first to ask waits until systemd has started it.
const STARTS_WITHIN: Duration = Duration::from_secs(5);
/// Listens here, or by the aide.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).or_else(|refused| {
        ask(refused, format_args!("listen {address}"), STARTS_WITHIN).map(TcpListener::from)
    })
}

/// Connects from here, or by the aide.
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
pub struct Answer {
    pub code: i32,
    pub text: String,
    pub fd: Option<OwnedFd>,
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

pub fn receive_answer(stream: &UnixStream) -> io::Result<Answer> {
    let (bytes, fd) = receive(stream)?;
    let Some((code, text)) = bytes.split_first_chunk() else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let text = String::from_utf8_lossy(text).into_owned();
    Ok(Answer { code: i32::from_ne_bytes(*code), text, fd })
}

pub fn is_root(stream: &UnixStream) -> bool {
    getsockopt(stream, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == 0)
}

pub fn send(stream: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(fd.as_slice()));
    sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What was sent at once, with what was passed on.
pub fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
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
