// SPDX-License-Identifier: Apache-2.0
//! The little of MIME that user data needs (RFC 2045, 2046): the head of a
//! message, its parts, their types and transfer encodings. Lines end in LF or
//! CRLF. Decodes nothing; a multipart inside a part stays one foreign part.
//! What lacks an empty line or is indented is read all the same, with its fault:
//! whether that is an error depends on what is in it.

use super::error::{CarrierError, MOST_PARTS, Unended};
use super::recognition::opens_our_table;

/// Header lines of one message or part; longer ones are no header.
const MOST_HEAD: usize = 16 * 1024;

/// Bytes that begin with header lines, a Content-Type among them.
pub(super) struct MimeMessage<'m> {
    head: Head,
    content_type: String,
    body: &'m [u8],
    /// The number of the body's first line.
    line: usize,
}

pub(super) struct MimePart<'m> {
    /// In lower case, without parameters.
    pub(super) media_type: String,
    /// In lower case.
    pub(super) transfer_encoding: String,
    pub(super) body: &'m [u8],
    /// No empty line ends its head.
    pub(super) unended: Option<Unended>,
    /// The boundary that should have ended the part and did not.
    pub(super) cut_by: Option<String>,
}

impl<'m> MimeMessage<'m> {
    /// None if the bytes are no message.
    pub(super) fn read(bytes: &'m [u8]) -> Option<Self> {
        let trimmed = bytes.trim_ascii_start();
        let (head, body) = Head::read(trimmed, 1 + newlines_before(bytes, trimmed))?;
        let content_type = head.get("content-type").filter(|found| found.contains('/'))?.to_owned();
        Some(Self { head, content_type, body, line: 1 + newlines_before(bytes, body) })
    }

    /// No empty line ends its own head.
    pub(super) fn unended(&self) -> Option<&Unended> {
        self.head.unended.as_ref()
    }

    /// All parts in their order; a message that is not multipart is its own only part.
    pub(super) fn parts(&self) -> Result<Vec<MimePart<'m>>, CarrierError> {
        let media_type = media_type(&self.content_type);
        if !media_type.starts_with("multipart/") {
            return Ok(vec![MimePart::new(&self.head, self.body)]);
        }
        let boundary = parameter(&self.content_type, "boundary")
            .ok_or(CarrierError::NoBoundary(media_type))?;
        split(self.body, boundary, self.line)
    }
}

impl<'m> MimePart<'m> {
    fn new(head: &Head, body: &'m [u8]) -> Self {
        let encoding = head.get("content-transfer-encoding").unwrap_or("7bit");
        Self {
            media_type: media_type(head.get("content-type").unwrap_or("text/plain")),
            transfer_encoding: encoding.to_ascii_lowercase(),
            body,
            unended: head.unended.clone(),
            cut_by: None,
        }
    }

    /// The line end before a boundary belongs to the boundary. `line` is the number of the first one.
    fn read(bytes: &'m [u8], line: usize) -> Self {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let (head, body) = Head::read(bytes, line)
            .filter(|(head, _)| head.unended.is_none() || head.get("content-type").is_some())
            .unwrap_or((Head::default(), bytes));
        Self::new(&head, body)
    }
}

/// A message whose head is missing: it begins with a boundary.
pub(super) struct Headless {
    /// The boundary's line.
    pub(super) line: usize,
    pub(super) boundary: String,
}

impl Headless {
    /// The boundary is known by the head of a part that follows; `---` begins YAML.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n').zip(1..);
        let (first, line) = lines.find(|(line, _)| !line.trim_ascii().is_empty())?;
        let (second, _) = lines.next()?;
        let boundary = String::from_utf8_lossy(first.strip_prefix(b"--")?.trim_ascii_end());
        let begins_part = second.to_ascii_lowercase().starts_with(b"content-");
        (begins_part && boundary.len() > 1).then(|| Self { line, boundary: boundary.into() })
    }
}

/// The parts of what is a message, also where it lacks its head or an empty line.
pub(super) fn parts(bytes: &[u8]) -> Option<Vec<MimePart<'_>>> {
    match (MimeMessage::read(bytes), Headless::read(bytes)) {
        (Some(message), _) => message.parts().ok(),
        (None, Some(headless)) => split(bytes, headless.boundary, 1).ok(),
        (None, None) => None,
    }
}

/// A message without its indentation, and its first indented line; None for other bytes.
pub(super) fn outdented(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let lines = || bytes.split_inclusive(|byte| *byte == b'\n');
    let depth = |line: &[u8]| line.len() - line.trim_ascii_start().len();
    let mut filled = lines().zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty());
    let ((first, at_first), (second, at_second)) = (filled.next()?, filled.next()?);
    let (first_depth, second_depth) = (depth(first), depth(second));
    if second_depth == 0 || !is_of_a_head(first) || !is_of_a_head(second) {
        return None;
    }
    let least = |line: &[u8]| depth(line.trim_ascii_end()).min(second_depth);
    let bare = lines().flat_map(|line| line.iter().skip(least(line))).copied();
    Some((if first_depth > 0 { at_first } else { at_second }, bare.collect()))
}

/// What a message begins with: its first fields, or the first boundary after them.
fn is_of_a_head(line: &[u8]) -> bool {
    let line = line.trim_ascii_start().to_ascii_lowercase();
    [&b"mime-version:"[..], b"content-", b"--"].iter().any(|start| line.starts_with(start))
}

/// Line ends of `whole` before `end`, which is what is left of it.
fn newlines_before(whole: &[u8], end: &[u8]) -> usize {
    let before = whole.get(..whole.len() - end.len()).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count()
}

/// `line` is the number of the body's first line.
fn split(body: &[u8], boundary: String, line: usize) -> Result<Vec<MimePart<'_>>, CarrierError> {
    let mut parts = Vec::new();
    let mut start = None;
    let mut at = 0;
    let mut used = false;
    let read = |(start, line), end| body.get(start..end).map(|part| MimePart::read(part, line));
    for (text, line) in body.split_inclusive(|byte| *byte == b'\n').zip(line..) {
        if let Some(kind) = delimiter(text, &boundary) {
            used = true;
            if parts.len() == MOST_PARTS {
                return Err(CarrierError::Parts);
            }
            parts.extend(start.and_then(|start| read(start, at)));
            start = matches!(kind, Delimiter::Next).then_some((at + text.len(), line + 1));
            if matches!(kind, Delimiter::Last) {
                break;
            }
        }
        at += text.len();
    }
    if !used {
        return Err(CarrierError::UnusedBoundary(boundary));
    }
    let rest = start.and_then(|start| read(start, body.len()));
    parts.extend(rest.map(|part| MimePart { cut_by: Some(boundary), ..part }));
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
#[derive(Default)]
struct Head {
    fields: Vec<(String, String)>,
    unended: Option<Unended>,
}

impl Head {
    /// The fields up to an empty line, the end or what is no field, and what follows; None if these
    /// are no fields. `number` is the first line's.
    fn read(bytes: &[u8], number: usize) -> Option<(Self, &[u8])> {
        let mut head = Self::default();
        let mut rest = bytes;
        for number in number.. {
            if bytes.len() - rest.len() > MOST_HEAD {
                return None;
            }
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            let line = String::from_utf8_lossy(line.trim_ascii_end());
            if line.is_empty() {
                return Some((head, after));
            }
            if !head.takes(&line) {
                head.unended = Some(Unended::new(number, &line));
                break;
            }
            rest = after;
        }
        (!head.fields.is_empty()).then_some((head, rest))
    }

    /// Whether the line is one of it. Our table further in may be meant as the text that follows.
    fn takes(&mut self, line: &str) -> bool {
        match self.fields.last_mut() {
            Some(_) if opens_our_table(line) => false,
            Some((_, value)) if line.starts_with([' ', '\t']) => {
                value.push_str(line);
                true
            }
            _ => field(line).map(|field| self.fields.push(field)).is_some(),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Unended {
    fn new(line: usize, text: &str) -> Self {
        const LONGEST: usize = 40;
        Self { line, text: text.trim_start().chars().take(LONGEST).collect() }
    }
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(is_letter);
    is_name.then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// `name` of `multipart/mixed; name="value"`, without quotes and escapes.
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
