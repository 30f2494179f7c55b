// SPDX-License-Identifier: Apache-2.0
//! The little of MIME that user data needs (RFC 2045, 2046): the head of a
//! message, its parts, their types and transfer encodings. Lines end in LF or
//! CRLF. Decodes nothing; a multipart inside a part stays one foreign part.

use super::carrier::{CarrierError, MOST_PARTS};

/// Header lines of one message or part; longer ones are no header.
const MOST_HEAD: usize = 16 * 1024;

/// Bytes that begin with header lines, a Content-Type among them.
pub(super) struct Message<'m> {
    head: Head,
    content_type: String,
    body: &'m [u8],
}

pub(super) struct Part<'m> {
    /// In lower case, without parameters.
    pub(super) media_type: String,
    /// In lower case.
    pub(super) transfer_encoding: String,
    pub(super) body: &'m [u8],
    /// The boundary that should have ended the part and did not.
    pub(super) cut_by: Option<String>,
}

impl<'m> Message<'m> {
    /// None if the bytes are no message.
    pub(super) fn read(bytes: &'m [u8]) -> Option<Self> {
        let (head, body) = Head::read(bytes.trim_ascii_start())?;
        let content_type = head.get("content-type")?.to_owned();
        Some(Self { head, content_type, body })
    }

    /// All parts in their order; a message that is not multipart is its own only part.
    pub(super) fn parts(&self) -> Result<Vec<Part<'m>>, CarrierError> {
        let media_type = media_type(&self.content_type);
        if !media_type.starts_with("multipart/") {
            return Ok(vec![Part::new(&self.head, self.body)]);
        }
        let boundary = parameter(&self.content_type, "boundary")
            .ok_or(CarrierError::NoBoundary(media_type))?;
        split(self.body, boundary)
    }
}

impl<'m> Part<'m> {
    fn new(head: &Head, body: &'m [u8]) -> Self {
        let encoding = head.get("content-transfer-encoding").unwrap_or("7bit");
        Self {
            media_type: media_type(head.get("content-type").unwrap_or("text/plain")),
            transfer_encoding: encoding.to_ascii_lowercase(),
            body,
            cut_by: None,
        }
    }

    /// The line end before a boundary belongs to the boundary.
    fn read(bytes: &'m [u8]) -> Self {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let (head, body) = Head::read(bytes).unwrap_or((Head(Vec::new()), bytes));
        Self::new(&head, body)
    }
}

fn split(body: &[u8], boundary: String) -> Result<Vec<Part<'_>>, CarrierError> {
    let mut parts = Vec::new();
    let mut start = None;
    let mut at = 0;
    let mut used = false;
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        if let Some(kind) = delimiter(line, &boundary) {
            used = true;
            if parts.len() == MOST_PARTS {
                return Err(CarrierError::Parts);
            }
            parts.extend(start.and_then(|start| body.get(start..at)).map(Part::read));
            start = matches!(kind, Delimiter::Next).then_some(at + line.len());
            if matches!(kind, Delimiter::Last) {
                break;
            }
        }
        at += line.len();
    }
    if !used {
        return Err(CarrierError::UnusedBoundary(boundary));
    }
    let rest = start.and_then(|start| body.get(start..)).map(Part::read);
    parts.extend(rest.map(|part| Part { cut_by: Some(boundary), ..part }));
    Ok(parts)
}

enum Delimiter {
    Next,
    Last,
}

fn delimiter(line: &[u8], boundary: &str) -> Option<Delimiter> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary.as_bytes())?;
    match rest.trim_ascii_end() {
        b"" => Some(Delimiter::Next),
        b"--" => Some(Delimiter::Last),
        _ => None,
    }
}

/// Header fields, their names in lower case, their values unfolded.
struct Head(Vec<(String, String)>);

impl Head {
    /// The fields up to an empty line or the end, and what follows; None if these are no fields.
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            if bytes.len() - rest.len() > MOST_HEAD {
                return None;
            }
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            rest = after;
            let line = String::from_utf8_lossy(line.trim_ascii_end());
            match fields.last_mut() {
                _ if line.is_empty() => break,
                Some((_, value)) if line.starts_with([' ', '\t']) => value.push_str(&line),
                _ => fields.push(field(&line)?),
            }
        }
        Some((Self(fields), rest))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
    is_name.then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// `name` of `multipart/mixed; name="value"`, quotes and escapes taken off.
fn parameter(content_type: &str, name: &str) -> Option<String> {
    let mut rest = content_type;
    loop {
        let (key, after) = rest.split_once(';')?.1.split_once('=')?;
        let (value, after) = parameter_value(after.trim_start());
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value).filter(|value| !value.is_empty());
        }
        rest = after;
    }
}

fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c == ';' || c.is_whitespace()).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            _ => value.push(c),
        }
    }
    (value, chars.as_str())
}
