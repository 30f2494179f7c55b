// SPDX-License-Identifier: Apache-2.0
//! What answers one connection of a guest. QEMU starts a process for each, with the connection as standard input,
//! output and error, so nothing may be printed here.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};

/// Carries the connection on to a server of the runner's, so that all share one double.
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

/// Serves one file by HTTP, from below this directory.
pub fn serve(directory: &Path) -> Result<()> {
    let mut reader = BufReader::new(io::stdin().lock());
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).context("a path")?;
    let name = path.trim_start_matches('/');
    let is_below = !name.split('/').any(|part| part.is_empty() || part == "..");
    let mut out = io::stdout().lock();
    match File::open(directory.join(name)).ok().filter(|_| is_below) {
        Some(mut file) => {
            let length = file.metadata()?.len();
            write!(
                out,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            )?;
            if !first.starts_with("HEAD") {
                io::copy(&mut file, &mut out)?;
            }
        }
        None => out.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )?,
    }
    Ok(out.flush()?)
}
