// SPDX-License-Identifier: Apache-2.0
//! `sluice aide`, a process of its own (packaging/systemd/sluice-aide.service):
//! makes TCP sockets for the agent, and looks into the process that asks on the
//! agent's socket. It does both for root alone, and no more.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::host::aide::{Answer, is_root, receive, send};
use crate::host::peer::Namespaces;
use crate::imds;

/// For a line of the peer that asks.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves on standard input, as systemd gives it, until it ends.
pub fn serve() -> Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned().context("take the socket")?;
    let host = Arc::new(Namespaces::of_this());
    for stream in UnixListener::from(socket).incoming() {
        let (stream, host) = (stream.context("accept")?, host.clone());
        let serve = move || {
            if let Err(e) = answer(&stream, &host) {
                log::warn!("{e:#}");
            }
        };
        // A peer that asks too often gets no answer.
        if let Err(e) = thread::Builder::new().spawn(serve) {
            log::warn!("a peer gets no answer: {e}");
        }
    }
    Ok(())
}

/// One line in; the socket, what is known of a peer, or the error out.
fn answer(stream: &UnixStream, host: &Namespaces) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::BorrowedFd;

    use super::*;
    use crate::host::aide::receive_answer;

    fn asked(line: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<Answer> {
        let (ours, theirs) = UnixStream::pair()?;
        send(&ours, line.as_bytes(), fd)?;
        let answered = answer(&theirs, &Namespaces::of_this());
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
