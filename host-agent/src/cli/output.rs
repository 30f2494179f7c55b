// SPDX-License-Identifier: Apache-2.0
//! What the commands print.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::host::logging::harmless_lines;

/// As every `--json` prints it.
pub fn to_json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// To standard output. A reader that has seen enough (`| head`) is no trouble.
pub fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(harmless_lines(text).as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("write to standard output"),
    }
}
