// SPDX-License-Identifier: Apache-2.0
//! What the client needs of the world, so that its rules are tested without.

use std::time::Duration;

/// The most bytes of an answer: of user data, of which EC2 allows 16 KiB.
pub const MOST_BYTES: usize = 64 * 1024;

/// Asks for a token, or for something with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImdsRequest<'r> {
    pub url: String,
    pub token: Option<&'r str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImdsAnswer {
    pub status: u16,
    /// At most one byte more than user data may have.
    pub body: Vec<u8>,
}

/// No whole answer: in time, for want of a network, or for the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    Timeout(Duration),
    Unreachable(String),
    Broken(String),
}

/// Network, clock and chance.
pub trait Outside {
    fn send(&mut self, request: &ImdsRequest, timeout: Duration) -> Result<ImdsAnswer, Silence>;
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    fn sleep(&mut self, pause: Duration);
    /// From 0 to 1.
    fn chance(&mut self) -> f64;
}
