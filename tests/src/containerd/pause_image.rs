// SPDX-License-Identifier: Apache-2.0
//! The image of a pod's pause process, as a docker archive, made without compiler or registry.
//!
//! Owns its name and its bytes: one layer with one static executable that only waits. It never
//! reaps, so it does for sandboxes without containers only.

use anyhow::Result;
use sha2::{Digest, Sha256};

/// As in config-v2.toml and config-v3.toml.
pub const NAME: &str = "sluice.test/pause:1";

const LOAD_ADDRESS: u64 = 0x40_0000;

#[cfg(target_arch = "x86_64")]
mod machine {
    pub const GO_NAME: &str = "amd64";
    pub const ELF: u16 = 62;
    /// again: mov $34 (pause), %eax; syscall; jmp again
    pub const CODE: &[u8] = &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
}

#[cfg(target_arch = "aarch64")]
mod machine {
    pub const GO_NAME: &str = "arm64";
    pub const ELF: u16 = 183;
    /// again: mov x0, x1, x2, x3 = 0; mov x8, #73 (ppoll); svc #0; b again
    pub const CODE: &[u8] = &[
        0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80,
        0xd2, 0x28, 0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
    ];
}

/// The archive for `ctr images import`, with another executable in it if one is given.
pub fn docker_archive(program: Option<(&str, &[u8])>) -> Result<Vec<u8>> {
    let pause = executable();
    let programs = [("pause", &pause[..])].into_iter().chain(program);
    let layer = tar(&programs.map(|(name, bytes)| (name, bytes, 0o755)).collect::<Vec<_>>())?;
    let config = serde_json::json!({
        "architecture": machine::GO_NAME,
        "os": "linux",
        "config": { "Entrypoint": ["/pause"], "Env": ["PATH=/"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
        "history": [{ "created_by": "sluice tests" }],
    })
    .to_string();
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let manifest = serde_json::json!([
        { "Config": config_name, "RepoTags": [NAME], "Layers": ["layer.tar"] }
    ])
    .to_string();
    tar(&[
        (&config_name, config.as_bytes(), 0o644),
        ("layer.tar", &layer, 0o644),
        ("manifest.json", manifest.as_bytes(), 0o644),
    ])
}

fn tar(files: &[(&str, &[u8], u32)]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        archive.append_data(&mut header, name, *content)?;
    }
    Ok(archive.into_inner()?)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A 64-bit little-endian ELF file: its header, one program header, the code.
fn executable() -> Vec<u8> {
    let half = u16::to_le_bytes;
    let word = u32::to_le_bytes;
    let long = u64::to_le_bytes;
    let (file_header, program_header) = (64u16, 56u16);
    let code_offset = u64::from(file_header + program_header);
    let size = code_offset + machine::CODE.len() as u64;
    [
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".as_slice(),
        // ET_EXEC, machine, version
        &[half(2), half(machine::ELF)].concat(),
        &word(1),
        // entry, offsets of program and section headers, flags
        &[long(LOAD_ADDRESS + code_offset), long(file_header.into()), long(0)].concat(),
        &word(0),
        // sizes and counts of headers
        &[half(file_header), half(program_header), half(1), half(64), half(0), half(0)].concat(),
        // PT_LOAD, readable and executable; offset, two addresses, two sizes, alignment
        &[word(1), word(5)].concat(),
        &[0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1000].map(long).concat(),
        machine::CODE,
    ]
    .concat()
}
