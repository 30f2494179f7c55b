// SPDX-License-Identifier: Apache-2.0
//! tcx links, which libbpf-rs does not make. A link is pinned, so that it
//! outlives the process; it goes with its pin. When its device goes, the pinned
//! link stays as a dead object until somebody removes the pin.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libbpf_rs::libbpf_sys::{
    BPF_F_BEFORE, BPF_TCX_INGRESS, bpf_link_create, bpf_link_create_opts, bpf_obj_pin,
};

use crate::{Error, Result};

/// No device has this index.
const NO_DEVICE: u32 = i32::MAX as u32;
const EINVAL: i32 = 22;

/// Attaches at the head of the device's tcx ingress and pins the link. False where the kernel has
/// no tcx (before 6.6, or without CONFIG_NET_XGRESS).
pub(crate) fn attach_ingress(program: BorrowedFd, ifindex: u32, pin: &Path) -> Result<bool> {
    let link = match create(program, ifindex) {
        Ok(link) => link,
        Err(e) if e.raw_os_error() == Some(EINVAL) => return Ok(false),
        Err(source) => return Err(Error::Attach { ifindex, source }),
    };
    remove_pin(pin)?;
    let pinned = pin_link(&link, pin);
    pinned.map_err(|source| Error::PinLink { path: pin.to_owned(), source })?;
    Ok(true)
}

/// Asks for a link to a device that is not there: a kernel with tcx looks for it.
pub(crate) fn is_supported(program: BorrowedFd) -> bool {
    create(program, NO_DEVICE).is_err_and(|e| e.raw_os_error() != Some(EINVAL))
}

/// Detaches; a pin that is not there is no error.
pub(crate) fn remove_pin(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Unpin { path: pin.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// BPF_F_BEFORE without a relative program is the head of the list.
fn create(program: BorrowedFd, ifindex: u32) -> io::Result<OwnedFd> {
    let options = bpf_link_create_opts {
        sz: size_of::<bpf_link_create_opts>() as _,
        flags: BPF_F_BEFORE,
        ..Default::default()
    };
    let (program, ifindex) = (program.as_raw_fd(), ifindex as i32);
    // SAFETY: `options` is a valid structure of the size that it says, and outlives the call.
    let fd = unsafe { bpf_link_create(program, ifindex, BPF_TCX_INGRESS, &raw const options) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pin_link(link: &OwnedFd, path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a string with its final zero, and outlives the call.
    let result = unsafe { bpf_obj_pin(link.as_raw_fd(), path.as_ptr()) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
