// SPDX-License-Identifier: Apache-2.0
//! The executable `sluice`: arguments, logging, run, error chain, exit status.
//! Exit 0 fine, 1 trouble, 2 wrong usage, 3 degraded, 78 settings that cannot be used
//! (sysexits EX_CONFIG, which the unit does not restart on).

use std::process::ExitCode;

use host_agent::command_line::{init_log, parse, report, run};

fn main() -> ExitCode {
    let arguments = parse();
    let status = init_log().and_then(|()| run(arguments));
    ExitCode::from(status.unwrap_or_else(|error| report(&error)))
}
