// SPDX-License-Identifier: Apache-2.0
//! Why user data gives no document, with the bounds that it is read in.

use std::fmt;

use thiserror::Error;

use super::wide::Wide;
use crate::imds;

/// The most bytes of user data that are read; EC2 allows 16 KiB.
pub const MOST_RAW: usize = imds::MOST_BYTES;
/// The most bytes that all gzip data of one message may inflate to.
pub const MOST_INFLATED: usize = 1024 * 1024;
/// Base64 of gzip, and once more around the message; deeper is a mistake or an attack.
pub(super) const MOST_LAYERS: usize = 4;

/// Keeps a message of nothing but boundaries from taking memory; real ones have two or three parts.
pub(super) const MOST_PARTS: usize = 100;

/// Why the document cannot be had, one variant for each stage.
#[derive(Debug, Error)]
pub enum CarrierError {
    #[error("more than {MOST_RAW} bytes, allowed are {MOST_RAW} (64 KiB)")]
    Raw,
    #[error("inflate the gzip data")]
    Gzip(#[source] std::io::Error),
    #[error(
        "inflate the gzip data: more than {MOST_INFLATED} bytes, allowed are {MOST_INFLATED} (1 MiB)"
    )]
    Inflated,
    #[error("inflate the gzip data: {0} more bytes behind its end, allowed is another gzip member")]
    Trailing(usize),
    #[error("decode the base64: {0}")]
    Base64(Base64Fault),
    #[error("packed in more than {MOST_LAYERS} layers of gzip and base64")]
    Layers,
    #[error("line {line} is not UTF-8: byte 0x{byte:02x}")]
    Utf8 { line: usize, byte: u8 },
    #[error("{0}; only UTF-8 is read: save it as UTF-8 (PowerShell: -Encoding utf8)")]
    Wide(Wide),
    #[error(
        "line {} of the message: an empty line is missing before {:?}: it ends the head of a MIME \
         message and of each part", .0.line, .0.text
    )]
    Unended(Unended),
    #[error(
        "line {0}: this MIME message is indented; its lines must begin in column 1 (an indented \
         heredoc: use \"<<-\")"
    )]
    Indented(usize),
    #[error(
        "line {0} is a MIME boundary, but the message has no head; before it belong MIME-Version, a \
         Content-Type with this boundary, and an empty line"
    )]
    NoHead(usize),
    #[error("Content-Type \"{0}\" has no boundary, e.g. multipart/mixed; boundary=\"==PART==\"")]
    NoBoundary(String),
    #[error("no line \"--{0}\", which the Content-Type gives as boundary")]
    UnusedBoundary(String),
    #[error("more than {MOST_PARTS} parts, allowed are {MOST_PARTS}")]
    Parts,
    #[error("cut off: no line \"--{0}\" or \"--{0}--\" behind it")]
    Cut(String),
    #[error("Content-Transfer-Encoding is \"{0}\", allowed are 7bit, 8bit, binary and base64")]
    TransferEncoding(String),
    #[error(
        "Content-Type is \"{0}\" for what looks like our settings, allowed are application/toml \
         and text/x-sluice"
    )]
    ContentType(String),
    #[error("{0} hold settings, allowed is one part")]
    SeveralParts(PartNumbers),
    #[error("part {number}")]
    Part { number: usize, source: Box<CarrierError> },
}

impl CarrierError {
    /// One text, for where no one is at fault.
    pub(super) fn with_its_causes(self) -> String {
        format!("{:#}", anyhow::Error::new(self))
    }
}

/// Prints as `parts 2, 3 and 5`.
#[derive(Debug)]
pub struct PartNumbers(pub(super) Vec<usize>);

impl fmt::Display for PartNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (last, others) = self.0.split_last().unwrap_or((&0, &[]));
        let others: Vec<_> = others.iter().map(usize::to_string).collect();
        write!(f, "parts {} and {last}", others.join(", "))
    }
}

/// Where an empty line should end a head, and what stands there instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unended {
    pub line: usize,
    pub text: String,
}

/// What is wrong with a base64 text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base64Fault {
    Letter { line: usize, found: char },
    Cut,
}

impl fmt::Display for Base64Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Letter { line, found } => write!(
                f,
                "{found:?} in line {line}, allowed are A-Z, a-z, 0-9, + and /, and = at the end"
            ),
            Self::Cut => write!(f, "its last group is not four letters, the end may be cut off"),
        }
    }
}
