// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin's executable: environment and standard input in, JSON out.

use std::io::Read;
use std::process::ExitCode;

use dlmalloc::GlobalDlmalloc;
use host_agent::plugin::{Environment, Paths, run};

/// Released with musl, whose allocator asks the kernel for pages, and gives them back, at every other
/// step; a call of the plugin needs a few hundred kilobytes for a millisecond.
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

/// A configuration with its result is a few kilobytes; this only bounds a runaway.
const MAX_STDIN_BYTES: u64 = 16 << 20;

fn main() -> ExitCode {
    let mut stdin = String::new();
    if let Err(e) = std::io::stdin().take(MAX_STDIN_BYTES).read_to_string(&mut stdin) {
        eprintln!("sluice: read standard input: {e}");
    }
    match run(&Paths::below("/"), &Environment::of_process(), &stdin) {
        Ok(answer) => {
            print!("{answer}");
            ExitCode::SUCCESS
        }
        Err(answer) => {
            print!("{answer}");
            ExitCode::FAILURE
        }
    }
}
