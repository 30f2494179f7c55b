// SPDX-License-Identifier: Apache-2.0
//! Ends a program right after its n-th system call of certain kinds, by
//! ptrace: a crash at every point of a run, enumerated. x86-64 and arm64, one thread.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What C libraries ask for where paths are relative to the working directory.
#[cfg(target_arch = "x86_64")]
mod calls {
    pub const RENAME: i64 = nix::libc::SYS_rename;
    pub const MKDIR: i64 = nix::libc::SYS_mkdir;
    pub const RMDIR: i64 = nix::libc::SYS_rmdir;
    pub const UNLINK: i64 = nix::libc::SYS_unlink;

    pub fn number(registers: &nix::libc::user_regs_struct) -> i64 {
        registers.orig_rax as i64
    }
}

/// Newer architectures have only the calls that take a directory too.
#[cfg(target_arch = "aarch64")]
mod calls {
    pub const RENAME: i64 = nix::libc::SYS_renameat;
    pub const MKDIR: i64 = nix::libc::SYS_mkdirat;
    pub const RMDIR: i64 = nix::libc::SYS_unlinkat;
    pub const UNLINK: i64 = nix::libc::SYS_unlinkat;

    pub fn number(registers: &nix::libc::user_regs_struct) -> i64 {
        registers.regs[8] as i64
    }
}

/// System calls that name, read or change files.
const FILE_OPERATIONS: &[i64] = &[
    nix::libc::SYS_openat,
    nix::libc::SYS_read,
    nix::libc::SYS_write,
    nix::libc::SYS_close,
    nix::libc::SYS_fsync,
    calls::RENAME,
    calls::MKDIR,
    calls::RMDIR,
    calls::UNLINK,
    nix::libc::SYS_fchmod,
    nix::libc::SYS_statx,
    nix::libc::SYS_getdents64,
];

/// System calls by which the CNI plugin changes something.
pub const PLUGIN_EFFECTS: &[i64] = &[
    nix::libc::SYS_openat,
    nix::libc::SYS_write,
    calls::RENAME,
    calls::UNLINK,
    nix::libc::SYS_setns,
    nix::libc::SYS_sendto,
    nix::libc::SYS_bpf,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It came to its own end before that call.
    Exited(i32),
    Killed,
}

/// Runs the command and kills it after its n-th file operation, counted from 1, the loader's
/// included.
pub fn run_until(command: &mut Command, n: usize) -> End {
    run_until_call(command, FILE_OPERATIONS, n)
}

/// The same for the n-th call of one of these kinds.
pub fn run_until_call(command: &mut Command, kinds: &[i64], n: usize) -> End {
    let trace_me = || ptrace::traceme().map_err(std::io::Error::from);
    // SAFETY: ptrace(PTRACE_TRACEME) is async-signal-safe and touches nothing of the parent.
    unsafe { command.pre_exec(trace_me) };
    let mut child = command.spawn().expect("start the program");
    let pid = Pid::from_raw(child.id() as i32);
    let end = trace(pid, kinds, n);
    if end == End::Killed {
        kill(pid, Signal::SIGKILL).expect("kill the program");
    }
    // `trace` has waited already for one that came to its own end.
    let _ = child.wait();
    end
}

fn trace(pid: Pid, kinds: &[i64], n: usize) -> End {
    waitpid(pid, Some(WaitPidFlag::__WALL)).expect("the program stops at exec");
    ptrace::setoptions(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).expect("ptrace options");
    let mut calls = 0;
    let mut entering = true;
    loop {
        ptrace::syscall(pid, None).expect("go on");
        match waitpid(pid, Some(WaitPidFlag::__WALL)).expect("wait") {
            WaitStatus::Exited(_, status) => return End::Exited(status),
            WaitStatus::PtraceSyscall(_) => {
                let number = calls::number(&ptrace::getregs(pid).expect("registers"));
                calls += usize::from(!entering && kinds.contains(&number));
                entering = !entering;
            }
            other => panic!("the traced program: {other:?}"),
        }
        if calls == n {
            return End::Killed;
        }
    }
}
