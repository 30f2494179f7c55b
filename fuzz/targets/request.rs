// SPDX-License-Identifier: Apache-2.0
//! Any bytes at the agent's doors: no request yet, a response that says why it
//! is none, or a request that is answered. Nothing is asked of a node that the
//! bytes do not name in full, and metrics' door leads to metrics only.
#![no_main]

use anyhow::{Result, bail};
use host_agent::readers::Override;
use host_agent::readers::Status;
use host_agent::readers::{Door, JSON, MAX_BYTES, parse};
use host_agent::readers::{Node, Reloaded, answer};
use libfuzzer_sys::fuzz_target;

/// Notes the changes that it receives.
#[derive(Default)]
struct Noting {
    changes: usize,
}

impl Node for Noting {
    fn status(&self) -> Result<Status> {
        bail!("there is no node here")
    }

    fn set_limit(&mut self, namespace: &str, pod: &str, limit: Override) -> Result<usize> {
        assert!(!namespace.is_empty() && !pod.contains('/'), "{namespace}/{pod}");
        assert!(limit.egress.is_some() || limit.ingress.is_some(), "a limit of nothing");
        assert!((1..=7 * 24 * 3600).contains(&limit.until), "until {}", limit.until);
        self.changes += 1;
        Ok(1)
    }

    fn clear_limit(&mut self, _: &str, _: &str) -> Result<usize> {
        self.changes += 1;
        Ok(1)
    }

    fn reload(&mut self) -> Result<Reloaded> {
        self.changes += 1;
        Ok(Reloaded::default())
    }

    fn metrics(&mut self) -> Result<String> {
        Ok("# EOF\n".into())
    }

    fn now(&self) -> u64 {
        0
    }
}

fuzz_target!(|bytes: &[u8]| {
    for door in [Door::Socket, Door::Metrics] {
        let mut node = Noting::default();
        let response = match parse(bytes, door) {
            Ok(None) => {
                assert!(bytes.len() < MAX_BYTES, "waits for more than is allowed");
                continue;
            }
            Ok(Some(request)) => {
                assert!(request.body.len() <= bytes.len());
                answer(&mut node, &request)
            }
            Err(response) => response,
        };
        assert!((200..600).contains(&response.status), "{}", response.status);
        assert!(
            response.status == 200 || node.changes == 0,
            "changed, and answered {}",
            response.status
        );
        assert!(door == Door::Socket || node.changes == 0, "metrics' door changed something");
        if response.content_type == JSON {
            assert!(str::from_utf8(&response.body).is_ok());
        }
        assert!(response.to_bytes().starts_with(b"HTTP/1.1 "));
    }
});
