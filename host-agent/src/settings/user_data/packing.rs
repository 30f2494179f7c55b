// SPDX-License-Identifier: Apache-2.0
//! gzip and base64, in bounded memory. Says what is wrong with the packed
//! bytes; never judges what is in them.

use std::io::Read;

use base64::DecodeError;
use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::bufread::GzDecoder;

use super::error::{Base64Fault, CarrierError};

/// Fewer letters are taken for a word.
const SHORTEST_BASE64: usize = 16;

const CHUNK: usize = 8192;

/// Bytes that may still be inflated.
pub(super) struct Budget {
    left: usize,
}

impl Budget {
    pub(super) fn new(left: usize) -> Self {
        Self { left }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), CarrierError> {
        self.left = self.left.checked_sub(bytes).ok_or(CarrierError::Inflated)?;
        Ok(())
    }
}

pub(super) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// All members of a gzip file, one behind the other as `cat` joins them.
pub(super) fn gunzip(bytes: &[u8], budget: &mut Budget) -> Result<Vec<u8>, CarrierError> {
    let mut inflated = Vec::with_capacity(CHUNK);
    let mut rest = bytes;
    while !rest.is_empty() {
        if !is_gzip(rest) {
            return Err(CarrierError::Trailing(rest.len()));
        }
        let mut member = GzDecoder::new(rest);
        append(&mut inflated, &mut member, budget)?;
        rest = member.into_inner();
    }
    Ok(inflated)
}

fn append(to: &mut Vec<u8>, from: &mut impl Read, budget: &mut Budget) -> Result<(), CarrierError> {
    let mut chunk = [0; CHUNK];
    loop {
        match from.read(&mut chunk).map_err(CarrierError::Gzip)? {
            0 => return Ok(()),
            length => {
                budget.spend(length)?;
                to.extend_from_slice(chunk.get(..length).unwrap_or_default());
            }
        }
    }
}

/// What base64 holds, up to where it is at fault.
pub(super) struct Packed {
    pub(super) bytes: Vec<u8>,
    fault: Option<Base64Fault>,
}

impl Packed {
    pub(super) fn whole(self) -> Result<Vec<u8>, CarrierError> {
        self.fault.map_or(Ok(self.bytes), |fault| Err(CarrierError::Base64(fault)))
    }
}

/// Decodes a text that begins like base64; None where it begins like something else.
pub(super) fn as_base64(text: &[u8]) -> Option<Packed> {
    let letters = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    let first = letters.take(SHORTEST_BASE64).filter(|byte| is_letter(**byte)).count();
    (first == SHORTEST_BASE64).then(|| from_base64(text))
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// Decodes base64; spaces and line ends do not count.
pub(super) fn from_base64(text: &[u8]) -> Packed {
    let letters: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    match BASE64_STANDARD.decode(&letters) {
        Ok(bytes) => Packed { bytes, fault: None },
        Err(error) => Packed { bytes: good_start(&letters), fault: Some(fault(text, &error)) },
    }
}

/// Decodes quoted-printable (RFC 2045, 6.7); what is no escape stays as it is.
pub(super) fn from_quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'=', [b'\r', b'\n', after @ ..] | [b'\n', after @ ..]) => after,
            (b'=', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                bytes.push(nibble(*high) << 4 | nibble(*low));
                after
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    bytes
}

fn nibble(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok()).unwrap_or_default()
}

/// What whole groups before the fault hold.
fn good_start(letters: &[u8]) -> Vec<u8> {
    let good = letters.iter().take_while(|byte| is_letter(**byte)).count();
    letters
        .get(..good - good % 4)
        .and_then(|start| BASE64_STANDARD.decode(start).ok())
        .unwrap_or_default()
}

fn fault(text: &[u8], error: &DecodeError) -> Base64Fault {
    let DecodeError::InvalidByte(offset, _) = error else {
        return Base64Fault::Cut;
    };
    let mut letters = text.iter().enumerate().filter(|(_, byte)| !byte.is_ascii_whitespace());
    let at = letters.nth(*offset).map_or(text.len(), |(at, _)| at);
    let (before, from) = text.split_at(at);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    // A character may be longer than the byte that is at fault.
    let word = from.get(..from.len().min(4)).unwrap_or_default();
    let found = String::from_utf8_lossy(word).chars().next().unwrap_or_default();
    Base64Fault::Letter { line, found }
}
