// SPDX-License-Identifier: Apache-2.0
//! A pinned program, and the kernel's number of it, which shows whether what is
//! attached is what is pinned now.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libbpf_rs::Program;
use libbpf_rs::libbpf_sys::{bpf_obj_get_info_by_fd, bpf_prog_info};

use crate::{Error, Result};

pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    Program::fd_from_pinned_path(path)
        .map_err(|source| Error::OpenPin { path: path.to_owned(), source })
}

pub(crate) fn id(program: BorrowedFd) -> Result<u32> {
    let mut info = bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    let (fd, buffer) = (program.as_raw_fd(), (&raw mut info).cast());
    // SAFETY: `info` is a live buffer of `size` bytes, and the kernel writes no more than that.
    let result = unsafe { bpf_obj_get_info_by_fd(fd, buffer, &raw mut size) };
    if result < 0 {
        return Err(Error::ProgramId { source: io::Error::from_raw_os_error(-result) });
    }
    Ok(info.id)
}
