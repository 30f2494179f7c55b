// SPDX-License-Identifier: Apache-2.0
//! What user data may be wrapped in: bytes in, the TOML document that may hold
//! our settings out, and the NodeConfigs that nodeadm finds in the same bytes.
//! Peels gzip and base64, and picks parts of a MIME message. Settings where they
//! are not read are an error; recognition.rs distinguishes them from everything else
//! that user data can be. Reads no file and no network; knows no key of the
//! settings.

use std::borrow::Cow;

pub use super::error::{CarrierError, MOST_INFLATED, MOST_RAW};
use super::error::{MOST_LAYERS, PartNumbers};
use super::mime::{self, MimeMessage, MimePart};
use super::packing::{self, Budget};
use super::recognition::{has_our_table, may_be_node_config, may_be_ours, without_mark};
use super::wide::{self, Wide};

/// What nodeadm calls a part of its own.
const NODE_CONFIG: &str = "application/node.eks.aws";

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

/// A configuration of nodeadm's (AL2023), which is read for what it gives kubelet.
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
    if let Some((wide, narrow)) = wide::narrowed(bytes) {
        return if names_us(&narrow) { Err(CarrierError::Wide(wide)) } else { Ok(None) };
    }
    let bare = without_mark(bytes);
    let is_faulty = is_faulty_message(bare, layers)?;
    if let Some(message) = MimeMessage::read(bare).filter(|_| !is_faulty) {
        let parts = message.parts()?;
        node_configs.extend(of_nodeadm(&parts));
        return our_part(&parts, budget);
    }
    if let Some(packed) = packing::as_base64(bare) {
        // Many a word is base64 by its letters: only what comes out of it shows.
        if is_of_interest(&packed.bytes) {
            let layers = layers.checked_sub(1).ok_or(CarrierError::Layers)?;
            return peel(&packed.whole()?, layers, budget, node_configs);
        }
    }
    if may_be_node_config(bare) {
        node_configs.push(Foreign { text: text(bare).map_err(|e| e.to_string()), part: None });
    }
    if is_faulty || !may_be_ours(bare) {
        return Ok(None);
    }
    Ok(Some(Document { text: text(bytes)?, part: None }))
}

/// Whether something keeps a MIME message from being read as one. That is an error where settings are
/// in it; otherwise it is left to those that read the message.
fn is_faulty_message(bytes: &[u8], layers: usize) -> Result<bool, CarrierError> {
    let flush = mime::outdented(bytes);
    let unended = || Some(CarrierError::Unended(MimeMessage::read(bytes)?.unended()?.clone()));
    let fault = match (&flush, mime::Headless::read(bytes)) {
        (Some((line, _)), _) => Some(CarrierError::Indented(*line)),
        (_, Some(headless)) => Some(CarrierError::NoHead(headless.line)),
        _ => unended(),
    };
    let Some(fault) = fault else { return Ok(false) };
    match hidden(flush.as_ref().map_or(bytes, |(_, flush)| flush), layers) {
        Some(_) => Err(fault),
        None => Ok(true),
    }
}

/// Worth looking at once it is out of base64: it is of use, or may carry what is.
fn is_of_interest(bytes: &[u8]) -> bool {
    packing::is_gzip(bytes)
        || wide::narrowed(bytes).is_some_and(|(_, narrow)| names_us(&narrow))
        || may_be_ours(bytes)
        || may_be_node_config(bytes)
        || MimeMessage::read(bytes).is_some()
        || is_faulty_message(bytes, MOST_LAYERS).is_err()
        || packing::as_base64(bytes).is_some_and(|inner| is_of_interest(&inner.bytes))
}

/// Settings in what is not ours.
#[derive(Clone, Copy)]
enum Hidden {
    InUtf8,
    In(Wide),
}

/// Finds settings, whatever they are packed in and called. What cannot be unpacked has none: it is
/// asked of what is foreign.
fn hidden(bytes: &[u8], layers: usize) -> Option<Hidden> {
    let layers = layers.checked_sub(1)?;
    if packing::is_gzip(bytes) {
        return hidden(&packing::gunzip(bytes, &mut Budget::new(MOST_INFLATED)).ok()?, layers);
    }
    if let Some((wide, narrow)) = wide::narrowed(bytes) {
        return hidden(&narrow, layers).map(|_| Hidden::In(wide));
    }
    let bare = without_mark(bytes);
    if let Some(parts) = mime::parts(bare) {
        return parts.iter().find_map(|part| hidden_in_part(part, layers));
    }
    let packed = packing::as_base64(bare).and_then(|packed| hidden(&packed.bytes, layers));
    packed.or_else(|| has_our_table(bare).then_some(Hidden::InUtf8))
}

fn hidden_in_part(part: &MimePart<'_>, layers: usize) -> Option<Hidden> {
    let by_type = is_ours_by_type(part).then_some(Hidden::InUtf8);
    hidden(&decoded(part), layers).or(by_type)
}

/// Of text in an encoding that is not read.
fn names_us(narrow: &[u8]) -> bool {
    may_be_ours(narrow) || hidden(narrow, MOST_LAYERS).is_some()
}

/// What a part holds once its transfer encoding is off, as far as that can be had.
fn decoded<'p>(part: &MimePart<'p>) -> Cow<'p, [u8]> {
    match part.transfer_encoding.as_str() {
        "base64" => packing::from_base64(part.body).bytes.into(),
        "quoted-printable" => packing::from_quoted_printable(part.body).into(),
        _ => part.body.into(),
    }
}

/// nodeadm's parts. They have bounds of their own, so that nothing in them is in the way of ours.
fn of_nodeadm(parts: &[MimePart<'_>]) -> Vec<Foreign> {
    let mut budget = Budget::new(MOST_INFLATED);
    let numbered = parts.iter().zip(1..);
    let theirs =
        numbered.filter(|(part, _)| part.media_type == NODE_CONFIG && part.unended.is_none());
    let read = theirs.map(|(part, number)| {
        let text = from_part(part, &mut budget).map_err(|error| error.with_its_causes());
        Foreign { text, part: Some(number) }
    });
    read.collect()
}

/// Our part of a MIME message.
fn our_part(parts: &[MimePart<'_>], budget: &mut Budget) -> Result<Option<Document>, CarrierError> {
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

/// By its type. Settings under any other type are an error, so that a misspelt type, or one that was
/// put there by what has wrapped them, does not go unnoticed.
fn is_our_part(part: &MimePart<'_>) -> Result<bool, CarrierError> {
    match (is_ours_by_type(part), &part.unended) {
        (true, None) => return Ok(true),
        (true, Some(unended)) => return Err(CarrierError::Unended(unended.clone())),
        (false, _) => {}
    }
    match hidden(&decoded(part), MOST_LAYERS) {
        None => Ok(false),
        Some(Hidden::In(wide)) => Err(CarrierError::Wide(wide)),
        Some(Hidden::InUtf8) => Err(CarrierError::ContentType(part.media_type.clone())),
    }
}

fn is_ours_by_type(part: &MimePart<'_>) -> bool {
    matches!(part.media_type.as_str(), "application/toml" | "text/x-sluice")
}

/// The text of our part, which may be packed again, whether or not its head says so.
fn from_part(part: &MimePart<'_>, budget: &mut Budget) -> Result<String, CarrierError> {
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
    } else if let Some((wide, _)) = wide::narrowed(bytes) {
        return Err(CarrierError::Wide(wide));
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
