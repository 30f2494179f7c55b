// SPDX-License-Identifier: Apache-2.0
//! The most memory that a program ever had resident. Not `ru_maxrss` of wait4:
//! that counts this process's own memory too, which the child has until it
//! executes the program (fs/exec.c, exec_mmap).

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Runs it to its end and looks at every system call of its first thread, and at its end.
pub fn peak_memory_kib(command: &mut Command) -> Result<u64> {
    let trace_me = || ptrace::traceme().map_err(std::io::Error::from);
    // SAFETY: ptrace(PTRACE_TRACEME) is async-signal-safe and touches nothing of the parent.
    unsafe { command.pre_exec(trace_me) };
    let child = command.spawn().context("start the program")?;
    let pid = Pid::from_raw(child.id() as i32);
    waitpid(pid, Some(WaitPidFlag::__WALL))?;
    ptrace::setoptions(
        pid,
        ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_TRACEEXIT,
    )?;
    let mut peak_kib = 0;
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal.take())?;
        match waitpid(pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Exited(_, status) => {
                ensure!(status == 0, "the program ended with {status}");
                return Ok(peak_kib);
            }
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::PtraceSyscall(_) | WaitStatus::PtraceEvent(..) => {
                peak_kib = peak_kib.max(resident_peak_kib(pid)?);
            }
            other => bail!("the traced program: {other:?}"),
        }
    }
}

/// None of it is left once the memory has been given back.
fn resident_peak_kib(pid: Pid) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.map_or(Ok(0), str::parse)?)
}
