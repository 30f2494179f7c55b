// SPDX-License-Identifier: Apache-2.0
//! What user data may be wrapped in: bytes in, the TOML document that may hold
//! our settings out, and the NodeConfigs that nodeadm finds in the same bytes.
//! Peels gzip and base64, picks parts of a MIME message, and tells a document
//! of ours from everything else that user data can be. Reads no file and no
//! network; knows no key of the settings.

use thiserror::Error;

use super::mime::{self, Part};
use super::packing::{self, Base64Fault, Budget};

/// The most bytes of user data that are read; EC2 allows 16 KiB.
pub const MOST_RAW: usize = 64 * 1024;
/// The most bytes that all gzip data of one message may inflate to.
pub const MOST_INFLATED: usize = 1024 * 1024;
/// Base64 of gzip, and once more around the message; deeper is a mistake or an attack.
const MOST_LAYERS: usize = 4;

/// What nodeadm calls a part of its own.
const NODE_CONFIG: &str = "application/node.eks.aws";

/// Keeps a message of nothing but boundaries from taking memory; real ones have two or three parts.
pub(super) const MOST_PARTS: usize = 100;

/// A text that may hold our settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub text: String,
    /// Its number in the MIME message, from 1; lines are counted from the part's own first line.
    pub part: Option<usize>,
}

impl Document {
    /// How messages name it: `user-data part 2`.
    pub fn name(&self, source: &str) -> String {
        self.part.map_or_else(|| source.to_owned(), |part| format!("{source} part {part}"))
    }
}

/// A configuration of nodeadm's (AL2023), which is read for what it tells kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The text, or why it cannot be had; that is the node's trouble and never ours.
    pub text: Result<String, String>,
    /// Its number in the MIME message, from 1; lines are counted from the part's own first line.
    pub part: Option<usize>,
}

/// What one message of user data holds.
#[derive(Debug)]
pub struct Content {
    /// The document that may hold our settings; None where there is none for us.
    pub document: Result<Option<Document>, CarrierError>,
    /// nodeadm's, in the order in which it merges them: a later one wins.
    pub node_configs: Vec<Foreign>,
}

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
    /// One text, for where it is nobody's error.
    fn with_its_causes(self) -> String {
        format!("{:#}", anyhow::Error::new(self))
    }
}

/// Prints as `parts 2, 3 and 5`.
#[derive(Debug)]
pub struct PartNumbers(Vec<usize>);

impl std::fmt::Display for PartNumbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (last, others) = self.0.split_last().unwrap_or((&0, &[]));
        let others: Vec<_> = others.iter().map(usize::to_string).collect();
        write!(f, "parts {} and {last}", others.join(", "))
    }
}

/// Takes user data apart.
///
/// `raw` may be one byte longer than allowed, so that readers can stop there.
pub fn decode(raw: &[u8]) -> Content {
    let mut node_configs = Vec::new();
    let document = match raw.len() {
        ..=MOST_RAW => peel(raw, MOST_LAYERS, &mut Budget::new(MOST_INFLATED), &mut node_configs),
        _ => Err(CarrierError::Raw),
    };
    Content { document, node_configs }
}

/// Takes one layer after the other off a whole message.
fn peel(
    bytes: &[u8],
    layers: usize,
    budget: &mut Budget,
    node_configs: &mut Vec<Foreign>,
) -> Result<Option<Document>, CarrierError> {
    if packing::is_gzip(bytes) {
        let layers = layers.checked_sub(1).ok_or(CarrierError::Layers)?;
        return peel(&packing::gunzip(bytes, budget)?, layers, budget, node_configs);
    }
    let bare = without_mark(bytes);
    if let Some(message) = mime::Message::read(bare) {
        let parts = message.parts()?;
        node_configs.extend(of_nodeadm(&parts));
        return our_part(&parts, budget);
    }
    if let Some(packed) = packing::as_base64(bare) {
        // Many a word is base64 by its letters: only what comes out of it tells.
        if is_of_interest(&packed.bytes) {
            let layers = layers.checked_sub(1).ok_or(CarrierError::Layers)?;
            return peel(&packed.whole()?, layers, budget, node_configs);
        }
    }
    if may_be_node_config(bare) {
        node_configs.push(Foreign { text: text(bare).map_err(|e| e.to_string()), part: None });
    }
    if !may_be_ours(bare) {
        return Ok(None);
    }
    Ok(Some(Document { text: text(bytes)?, part: None }))
}

/// Worth looking at once it is out of base64: it is of use, or may carry what is.
fn is_of_interest(bytes: &[u8]) -> bool {
    packing::is_gzip(bytes)
        || may_be_ours(bytes)
        || may_be_node_config(bytes)
        || mime::Message::read(bytes).is_some()
        || packing::as_base64(bytes).is_some_and(|inner| is_of_interest(&inner.bytes))
}

/// nodeadm's parts. They have bounds of their own, so that nothing in them is in the way of ours.
fn of_nodeadm(parts: &[Part<'_>]) -> Vec<Foreign> {
    let mut budget = Budget::new(MOST_INFLATED);
    let numbered = parts.iter().zip(1..);
    let theirs = numbered.filter(|(part, _)| part.media_type == NODE_CONFIG);
    let read = theirs.map(|(part, number)| {
        let text = from_part(part, &mut budget).map_err(|error| error.with_its_causes());
        Foreign { text, part: Some(number) }
    });
    read.collect()
}

/// Our part of a MIME message.
fn our_part(parts: &[Part<'_>], budget: &mut Budget) -> Result<Option<Document>, CarrierError> {
    let mut ours = Vec::new();
    for (part, number) in parts.iter().zip(1..) {
        if is_our_part(part).map_err(in_part(number))? {
            ours.push((number, part));
        }
    }
    match ours.as_slice() {
        [] => Ok(None),
        [(number, part)] => {
            let text = from_part(part, budget).map_err(in_part(*number))?;
            Ok(Some(Document { text, part: Some(*number) }))
        }
        several => {
            let numbers = several.iter().map(|(number, _)| *number).collect();
            Err(CarrierError::SeveralParts(PartNumbers(numbers)))
        }
    }
}

fn in_part(number: usize) -> impl Fn(CarrierError) -> CarrierError {
    move |source| CarrierError::Part { number, source: Box::new(source) }
}

/// By its type. Settings under a type that is nobody's are told, or a misspelt type goes unnoticed.
fn is_our_part(part: &Part<'_>) -> Result<bool, CarrierError> {
    match part.media_type.as_str() {
        "application/toml" | "text/x-sluice" => Ok(true),
        other if is_nobodys(other) && has_our_header(part.body) => {
            Err(CarrierError::ContentType(other.to_owned()))
        }
        _ => Ok(false),
    }
}

fn is_nobodys(media_type: &str) -> bool {
    media_type == "text/plain" || media_type.contains("toml") || media_type.contains("sluice")
}

/// The text of our part, which may be packed again, whether or not its head says so.
fn from_part(part: &Part<'_>, budget: &mut Budget) -> Result<String, CarrierError> {
    if let Some(boundary) = &part.cut_by {
        return Err(CarrierError::Cut(boundary.clone()));
    }
    match part.transfer_encoding.as_str() {
        "7bit" | "8bit" | "binary" => unpack(part.body, MOST_LAYERS, budget),
        "base64" => unpack(&packing::from_base64(part.body).whole()?, MOST_LAYERS - 1, budget),
        other => Err(CarrierError::TransferEncoding(other.to_owned())),
    }
}

/// Like `peel`, for what is known to be ours: in the end it is text or an error.
fn unpack(bytes: &[u8], layers: usize, budget: &mut Budget) -> Result<String, CarrierError> {
    let inner = if packing::is_gzip(bytes) {
        packing::gunzip(bytes, budget)?
    } else {
        match packing::as_base64(bytes).filter(|packed| is_of_interest(&packed.bytes)) {
            Some(packed) => packed.whole()?,
            None => return text(bytes),
        }
    };
    unpack(&inner, layers.checked_sub(1).ok_or(CarrierError::Layers)?, budget)
}

fn text(bytes: &[u8]) -> Result<String, CarrierError> {
    let at_fault = |error: std::str::Utf8Error| {
        let (good, bad) = bytes.split_at(error.valid_up_to());
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        CarrierError::Utf8 { line, byte: bad.first().copied().unwrap_or_default() }
    };
    std::str::from_utf8(bytes).map(str::to_owned).map_err(at_fault)
}

/// Some editors put a byte order mark first, which hides what follows from every test below.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

/// Text that goes to the TOML parser, its mistakes included.
///
/// A script may write our table into a file, so a script is never ours. YAML and JSON cannot have
/// a table's header at the start of a line: such a text is meant as TOML, whatever it begins with.
fn may_be_ours(bytes: &[u8]) -> bool {
    let head = bytes.trim_ascii_start();
    if head.starts_with(b"#!") || head.starts_with(b"<") {
        return false;
    }
    let foreign = [&b"#cloud-"[..], b"#include", b"## template:", b"---", b"apiVersion:", b"{"];
    if foreign.iter().any(|start| head.starts_with(start)) {
        return has_our_header(bytes);
    }
    lines(bytes).any(|line| names_us(line) || opens_settings(line))
}

/// Names the API group that every NodeConfig is of; whether it is one, its parser says.
fn may_be_node_config(bytes: &[u8]) -> bool {
    let group = b"node.eks.aws/";
    !bytes.trim_ascii_start().starts_with(b"#!") && bytes.windows(group.len()).any(|w| w == group)
}

/// A line begins with the header of our table.
fn has_our_header(bytes: &[u8]) -> bool {
    let headers = [&b"[settings.sluice"[..], b"[sluice", b"[[settings.sluice", b"[[sluice"];
    lines(bytes).any(|line| headers.iter().any(|header| line.starts_with(header)))
}

fn names_us(line: &[u8]) -> bool {
    line.windows(b"sluice".len()).any(|word| word == b"sluice")
}

/// `[settings]`, `[settings.kubernetes]`, `settings.motd = …`: a document of the kind ours are in.
fn opens_settings(line: &[u8]) -> bool {
    line.starts_with(b"[settings") || line.starts_with(b"settings.")
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n')
}
