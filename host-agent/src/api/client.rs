// SPDX-License-Identifier: Apache-2.0
//! Asks the agent on its socket, as the command line does. Whether an agent
//! runs at all is an answer, too.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{LimitAsked, LimitSet, Reloaded};
use crate::status::Pods;
use crate::status::Status;

/// A reload may ask IMDS first, for as long as `--imds-budget` allows the agent.
const PATIENCE: Duration = Duration::from_secs(120);
/// More than 1023 pods take; an agent that says more is none.
const MOST_BYTES: u64 = 64 << 20;

/// The agent refused, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", .allowed.as_ref().map(|allowed| format!("; allowed: {allowed}")).unwrap_or_default())]
pub struct AgentRefused {
    pub status: u16,
    pub error: String,
    pub allowed: Option<Value>,
}

pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// None where no agent runs; so with all of these.
    pub fn status(&self) -> Result<Option<Status>> {
        self.ask("GET", "/v1/status", None)
    }

    pub fn pods(&self) -> Result<Option<Pods>> {
        self.ask("GET", "/v1/pods", None)
    }

    pub fn reload(&self) -> Result<Option<Reloaded>> {
        self.ask("POST", "/v1/reload", None)
    }

    pub fn set_limit(
        &self,
        namespace: &str,
        pod: &str,
        asked: &LimitAsked,
    ) -> Result<Option<LimitSet>> {
        self.ask("PUT", &path_of(namespace, pod), Some(&serde_json::to_string(asked)?))
    }

    pub fn clear_limit(&self, namespace: &str, pod: &str) -> Result<Option<LimitSet>> {
        self.ask("DELETE", &path_of(namespace, pod), None)
    }

    /// As Prometheus reads them.
    pub fn metrics(&self) -> Result<Option<String>> {
        let attempt = || format!("ask the agent on {}", self.socket.display());
        let Some(stream) = connect(&self.socket).with_context(attempt)? else { return Ok(None) };
        let request = b"GET /metrics HTTP/1.1\r\nHost: sluice\r\nConnection: close\r\n\r\n";
        let bytes = exchange(stream, request).with_context(attempt)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()))
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<Option<T>> {
        let attempt = || format!("ask the agent on {}", self.socket.display());
        let Some(stream) = connect(&self.socket).with_context(attempt)? else { return Ok(None) };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: sluice\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
            body.map_or(0, str::len),
            body.unwrap_or_default(),
        );
        let bytes = exchange(stream, request.as_bytes()).with_context(attempt)?;
        understand(&bytes).map(Some).with_context(attempt)
    }
}

/// Nothing is encoded: a name that would need it is no pod's, and the agent says so.
fn path_of(namespace: &str, pod: &str) -> String {
    format!("/v1/pods/{namespace}/{pod}/limit")
}

fn connect(socket: &Path) -> std::io::Result<Option<UnixStream>> {
    match UnixStream::connect(socket) {
        Ok(stream) => {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Some(stream))
        }
        // What a killed agent leaves is a file that no one listens on.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            Err(std::io::Error::new(e.kind(), "permission denied: be root or in group sluice"))
        }
        Err(e) => Err(e),
    }
}

/// An agent that refuses at once closes before all is said; its reason is there to be read.
fn exchange(mut stream: UnixStream, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let written = stream.write_all(request);
    let mut bytes = Vec::new();
    let read = stream.take(MOST_BYTES).read_to_end(&mut bytes);
    match bytes.is_empty() {
        true => written.and(read).map(|_| bytes),
        false => Ok(bytes),
    }
}

fn understand<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).context("read the response")? else {
        bail!("the response ends too early");
    };
    let body = bytes.get(length..).unwrap_or_default();
    let status = head.code.unwrap_or_default();
    if status == 200 {
        return serde_json::from_slice(body)
            .context("read the response; is the agent of another version?");
    }
    let refusal: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = refusal["error"].as_str().unwrap_or("no reason given").to_owned();
    let allowed = refusal.get("allowed").cloned();
    Err(AgentRefused { status, error, allowed }.into())
}
