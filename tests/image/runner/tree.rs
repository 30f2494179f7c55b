// SPDX-License-Identifier: Apache-2.0
//! What is in an image, read without a boot: the files of its root, and of the initrd in its boot entry.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::tools::{Tools, in_tools, text};

/// A file or a link; directories and devices are none.
pub struct Entry {
    /// From the root of its tree.
    pub path: String,
    pub mode: u32,
    pub kind: Kind,
}

pub enum Kind {
    Link,
    /// It begins with `#!`.
    Script,
    /// An ELF file that can be run by itself, and the loader that it asks for.
    Loaded(String),
    Other,
}

impl Kind {
    fn of(contents: &[u8]) -> Result<Self> {
        if contents.starts_with(b"#!") {
            return Ok(Self::Script);
        }
        let is_elf = contents.starts_with(b"\x7fELF\x02");
        let loader = if is_elf { loader(contents)? } else { None };
        Ok(loader.map_or(Self::Other, Self::Loaded))
    }
}

/// Of an erofs, which is written below a directory.
pub fn root(tools: &Tools, image: &Path, into: &Path) -> Result<Vec<Entry>> {
    let extract = format!("--extract={}", text(into));
    tools.run("fsck.erofs", &["-d0", "--xattrs", "--preserve", &extract, text(image)])?;
    let mut entries = Vec::new();
    walk(into, into, &mut entries)?;
    Ok(entries)
}

fn walk(root: &Path, directory: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            walk(root, &path, entries)?;
            continue;
        }
        let kind = if metadata.is_symlink() {
            Kind::Link
        } else if metadata.is_file() {
            Kind::of(&fs::read(&path)?).with_context(|| path.display().to_string())?
        } else {
            continue;
        };
        let inside = format!("/{}", path.strip_prefix(root)?.display());
        entries.push(Entry { path: inside, mode: metadata.permissions().mode(), kind });
    }
    Ok(())
}

/// Extended attributes of what was written there, as lines of path and name: file capabilities are one.
pub fn attributes(tree: &Path) -> Result<Vec<String>> {
    let list = "import os\nfor top, dirs, files in os.walk('.'):\n for name in dirs + files:\n  \
                path = os.path.join(top, name)\n  for key in os.listxattr(path, follow_symlinks=False): print(path, key)";
    Ok(in_tools(tree, &["python3", "-c", list])?.lines().map(str::to_owned).collect())
}

/// Of a boot entry: archives one after the other, each compressed, with zeros up to a multiple of four.
pub fn initrd(tools: &Tools, entry: &Path, scratch: &Path) -> Result<Vec<Entry>> {
    let section = scratch.join("initrd");
    let only = ["--output-target=binary", "--only-section=.initrd"];
    tools.run("objcopy", &[&only[..], &[text(entry), text(&section)]].concat())?;
    let bytes = fs::read(&section)?;
    let (mut entries, mut rest) = (Vec::new(), &bytes[..]);
    while !rest.is_empty() {
        let (frame, after) = rest.split_at_checked(frame_length(rest)?).context("half a frame")?;
        let (packed, unpacked) = (scratch.join("part.zst"), scratch.join("part"));
        fs::write(&packed, frame)?;
        tools.run("zstd", &["-q", "-f", "-d", text(&packed), "-o", text(&unpacked)])?;
        entries.append(&mut archive(&fs::read(&unpacked)?)?);
        rest = &after[after.iter().take_while(|byte| **byte == 0).count()..];
    }
    Ok(entries)
}

/// Of the frame of zstd (RFC 8878) that begins here.
fn frame_length(bytes: &[u8]) -> Result<usize> {
    ensure!(bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "no frame of zstd");
    let descriptor = usize::from(*bytes.get(4).context("half a header")?);
    let is_single = descriptor >> 5 & 1;
    let size = [is_single, 2, 4, 8][descriptor >> 6];
    let mut at = 5 + (1 - is_single) + [0, 1, 2, 4][descriptor & 3] + size;
    loop {
        let header = bytes.get(at..at + 3).context("half a block")?;
        let header = header.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
        // Of a block that repeats a byte there is only that one.
        at += 3 + if header >> 1 & 3 == 1 { 1 } else { header >> 3 };
        if header & 1 == 1 {
            return Ok(at + if descriptor & 4 == 0 { 0 } else { 4 });
        }
    }
}

/// In the format `newc` of cpio: 6 bytes that say so, 13 numbers of 8 hexadecimal digits; name and contents end at
/// multiples of four.
fn archive(mut bytes: &[u8]) -> Result<Vec<Entry>> {
    const HEADER: usize = 6 + 13 * 8;
    let mut entries = Vec::new();
    loop {
        // What is between two archives.
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes = &bytes[zeros..];
        if bytes.is_empty() {
            return Ok(entries);
        }
        let header = bytes.get(..HEADER).context("half a header")?;
        ensure!(header.starts_with(b"070701"), "no header of cpio: {:?}", &header[..6]);
        let number = |field: usize| -> Result<usize> {
            let digits = std::str::from_utf8(&header[6 + 8 * field..][..8])?;
            Ok(usize::from_str_radix(digits, 16)?)
        };
        let (mode, size, name_size) = (number(1)?, number(6)?, number(11)?);
        let start = (HEADER + name_size).next_multiple_of(4);
        let name = bytes.get(HEADER..HEADER + name_size - 1).context("half a name")?;
        let contents = bytes.get(start..start + size).context("half a file")?;
        let path = format!("/{}", String::from_utf8_lossy(name).trim_start_matches("./"));
        match mode & 0o170_000 {
            0o100_000 => {
                let kind = Kind::of(contents)?;
                entries.push(Entry { path, mode: mode.try_into()?, kind });
            }
            0o120_000 => entries.push(Entry { path, mode: 0o777, kind: Kind::Link }),
            _ => {}
        }
        bytes = bytes.get((start + size).next_multiple_of(4)..).unwrap_or_default();
    }
}

/// The loader that an ELF file of 64 bits asks for.
fn loader(file: &[u8]) -> Result<Option<String>> {
    const INTERP: usize = 3;
    let number = |at: usize, length: usize| -> Result<usize> {
        let bytes = file.get(at..at + length).context("half an ELF header")?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for program in (0..count).map(|index| table + index * size) {
        if number(program, 4)? == INTERP {
            let (at, length) = (number(program + 8, 8)?, number(program + 32, 8)?);
            let name = file.get(at..at + length - 1).context("half a loader's name")?;
            return Ok(Some(String::from_utf8_lossy(name).into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with one program header, of this type.
    fn elf(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 120];
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        (bytes[32], bytes[54], bytes[56]) = (64, 56, 1);
        (bytes[64], bytes[72], bytes[96]) = (kind, 120, 10);
        bytes.extend(b"/lib/ld.x\0");
        bytes
    }

    #[test]
    fn what_can_be_run_is_seen_in_its_bytes() {
        assert!(matches!(Kind::of(b"#!/bin/sh"), Ok(Kind::Script)));
        assert!(matches!(Kind::of(&elf(3)), Ok(Kind::Loaded(loader)) if loader == "/lib/ld.x"));
        assert!(matches!(Kind::of(&elf(1)), Ok(Kind::Other)));
        assert!(Kind::of(&elf(3)[..100]).is_err());
        assert!(matches!(Kind::of(b""), Ok(Kind::Other)));
    }
}
