// SPDX-License-Identifier: Apache-2.0
//! Text in UTF-16 or UTF-32, which PowerShell and some editors write: enough of
//! it to say so. Nothing here is ever read as settings.

/// An encoding that is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wide {
    Utf16,
    Utf32,
}

impl std::fmt::Display for Wide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Utf16 => "UTF-16",
            Self::Utf32 => "UTF-32",
        })
    }
}

/// The ASCII that is in such a text, which is all that settings are recognised by; other letters
/// are spoilt. None for other bytes: such a text begins with a byte order mark or with ASCII.
pub(super) fn narrowed(bytes: &[u8]) -> Option<(Wide, Vec<u8>)> {
    let head = bytes.get(..4).unwrap_or(bytes);
    let has_mark =
        [&b"\xff\xfe"[..], b"\xfe\xff", b"\0\0\xfe\xff"].iter().any(|m| head.starts_with(m));
    let wide = match (head.iter().filter(|byte| **byte == 0).count(), has_mark) {
        (2.., true) | (3, false) => Wide::Utf32,
        (_, true) | (1 | 2, false) => Wide::Utf16,
        _ => return None,
    };
    let narrow = bytes.iter().copied().filter(|byte| !matches!(byte, 0 | 0xfe | 0xff));
    Some((wide, narrow.collect()))
}
