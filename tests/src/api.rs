// SPDX-License-Identifier: Apache-2.0
//! The agent's API as any program would use it: bytes on its socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::command::{has_looked, json, output, text, wait_for};
use crate::json_schema;
use crate::node::Node;

pub const SOCKET: &str = "/run/sluice/sluice.sock";
/// Longer than the agent has patience with anyone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// None for bytes that are none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head: head.into(), body: body.into() })
    }

    pub fn json(&self) -> Value {
        json(&self.body)
    }
}

pub fn connect() -> UnixStream {
    let stream = UnixStream::connect(SOCKET).expect("connect to the agent");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Says this, and listens until the agent hangs up. Being cut off is an answer, too: None.
pub fn say(bytes: &[u8]) -> Option<Response> {
    let mut stream = connect();
    // A peer that is refused early may find no one listening any more.
    let _ = stream.write_all(bytes);
    listen(stream)
}

pub fn listen(mut stream: UnixStream) -> Option<Response> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    Response::parse(&bytes)
}

/// A request that must be answered.
pub fn ask(method: &str, path: &str, body: &str) -> Response {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    say(request.as_bytes()).expect("a response")
}

impl Node {
    /// Until the agent answers; it pins its programs first.
    pub fn wait_for_api(&self) {
        wait_for("the agent's API", Duration::from_secs(20), || {
            let stream = UnixStream::connect(SOCKET);
            stream.is_ok().then_some(())
        });
    }

    /// A command of `sluice` that must succeed, as JSON by its schema.
    pub fn sluice_json(&self, arguments: &[&str]) -> Value {
        let output = self.sluice(arguments);
        let looks = arguments[0] == "status" && has_looked(&output);
        assert!(looks || output.status.success(), "{arguments:?}: {}", text(&output));
        let printed = json(&String::from_utf8_lossy(&output.stdout));
        json_schema::assert_valid(arguments[0], &printed);
        printed
    }

    /// What `sluice status` says is degraded under this code.
    pub fn troubles(&self, code: &str) -> Vec<Value> {
        let status = self.sluice_json(&["status", "--json", "--interval", "1"]);
        let all = status["degraded"].as_array().expect("a list of troubles").iter();
        all.filter(|trouble| trouble["code"] == code).cloned().collect()
    }
}

/// Metrics as a scraper gets them.
pub fn scrape(address: &str, accept: &str) -> Response {
    let url = format!("http://{address}/metrics");
    let accept = format!("Accept: {accept}");
    let output = output("curl", &["-s", "-i", "--max-time", "10", "-H", &accept, &url]);
    assert!(output.status.success(), "{}", text(&output));
    Response::parse(&output.stdout).expect("a response")
}
