// SPDX-License-Identifier: Apache-2.0
//! What a guest's connections reach: servers of this process. QEMU starts a program for each connection, with the
//! connection as its standard input and output; that program is this one again, as `relay`, so nothing may be printed there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};

/// Carries the connection on to a port of this machine.
pub fn relay(port: &str) -> Result<()> {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port.parse()?)) else {
        return Ok(()); // not up: the guest's connection ends
    };
    let mut to_server = server.try_clone()?;
    thread::spawn(move || {
        // Either end may go first.
        let _ = io::copy(&mut io::stdin().lock(), &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let mut from_server = server;
    let mut buffer = [0; 1 << 14];
    loop {
        let length = from_server.read(&mut buffer).unwrap_or(0);
        let mut out = io::stdout().lock();
        if length == 0 || out.write_all(&buffer[..length]).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
}

/// Serves what is below a directory by HTTP, as long as this process lives, and counts the bytes.
#[derive(Clone)]
pub struct Files {
    pub port: u16,
    sent: Arc<AtomicU64>,
}

impl Files {
    pub fn serve(directory: &Path) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on this machine")?;
        let files = Self { port: listener.local_addr()?.port(), sent: Arc::default() };
        let (directory, sent) = (directory.to_owned(), Arc::clone(&files.sent));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (directory, sent) = (directory.clone(), Arc::clone(&sent));
                // The peer may go before the end, as when its power does.
                thread::spawn(move || drop(answer(&stream, directory, &sent)));
            }
        });
        Ok(files)
    }

    /// Of all files so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn answer(stream: &TcpStream, directory: PathBuf, sent: &AtomicU64) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).context("a path")?.trim_start_matches('/');
    let is_below = !path.split('/').any(|part| part.is_empty() || part == "..");
    let mut out = stream;
    let Some(mut file) = File::open(directory.join(path)).ok().filter(|_| is_below) else {
        out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Ok(());
    };
    let length = file.metadata()?.len();
    write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    let mut buffer = [0; 1 << 16];
    while !first.starts_with("HEAD") {
        match file.read(&mut buffer)? {
            0 => break,
            length => {
                out.write_all(&buffer[..length])?;
                sent.fetch_add(length as u64, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}
