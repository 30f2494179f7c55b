// SPDX-License-Identifier: Apache-2.0
//! Responses, and how they travel.

use serde::Serialize;
use serde_json::{Value, json};

pub const JSON: &str = "application/json";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        let body = match serde_json::to_vec(value) {
            Ok(body) => body,
            Err(e) => return Self::error(500, &format!("write the response: {e}")),
        };
        let body = body.into_iter().chain(*b"\n").collect();
        Self { status, content_type: JSON, body }
    }

    pub fn text(content_type: &'static str, text: String) -> Self {
        Self { status: 200, content_type, body: text.into_bytes() }
    }

    pub fn error(status: u16, error: &str) -> Self {
        Self::json(status, &json!({ "error": error }))
    }

    /// An error that also says what would have been right.
    pub fn not_allowed(status: u16, error: &str, allowed: &Value) -> Self {
        Self::json(status, &json!({ "error": error, "allowed": allowed }))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        [self.head().as_bytes(), &self.body].concat()
    }

    /// All but the body, whose length it states.
    pub fn head(&self) -> String {
        let Self { status, content_type, body } = self;
        format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            reason(*status),
            body.len(),
        )
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
