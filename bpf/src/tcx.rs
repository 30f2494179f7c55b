// SPDX-License-Identifier: Apache-2.0
//! tcx links, which libbpf-rs does not make. A link is pinned, so that it
//! outlives the process; it goes with its pin. When its device goes, the pinned
//! link stays as a dead object until its pin is removed.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libbpf_rs::libbpf_sys::{
    BPF_F_BEFORE, BPF_TCX_INGRESS, bpf_link_create, bpf_link_create_opts, bpf_link_update,
    bpf_obj_get, bpf_obj_pin,
};
use libbpf_rs::query::{LinkInfo, LinkTypeInfo};

use crate::{Error, Result, program};

/// No device has this index.
const NO_DEVICE: u32 = i32::MAX as u32;
const EINVAL: i32 = 22;

/// A pinned link, as the kernel has it.
pub(crate) struct Link {
    fd: OwnedFd,
    /// None once its device has gone.
    pub(crate) ifindex: Option<u32>,
    pub(crate) program_id: u32,
}

/// Makes sure that a pinned link holds this program at the head of the device's tcx ingress. A link
/// that is there keeps its place and only gets the program; a dead one is replaced. False where the
/// kernel has no tcx (before 6.6, or without CONFIG_NET_XGRESS).
pub(crate) fn attach_ingress(program: BorrowedFd, ifindex: u32, pin: &Path) -> Result<bool> {
    let error = |source| Error::Attach { ifindex, source };
    if renew_ingress(program, ifindex, pin)? {
        return Ok(true);
    }
    // First, so that a pin never stands for a link that is made and not pinned yet.
    remove_pin(pin)?;
    let link = match create(program, ifindex) {
        Ok(link) => link,
        Err(e) if e.raw_os_error() == Some(EINVAL) => return Ok(false),
        Err(source) => return Err(error(source)),
    };
    let pinned = self::pin(link.as_fd(), pin);
    pinned.map_err(|source| Error::PinLink { path: pin.to_owned(), source })?;
    Ok(true)
}

/// Gives a link that is there this program, if it has another one; false where there is none.
pub(crate) fn renew_ingress(program: BorrowedFd, ifindex: u32, pin: &Path) -> Result<bool> {
    let Some(link) = open_pin(pin)?.filter(|link| link.ifindex == Some(ifindex)) else {
        return Ok(false);
    };
    if link.program_id != program::id(program)? {
        update(&link, program).map_err(|source| Error::Attach { ifindex, source })?;
    }
    Ok(true)
}

/// The link that is pinned here, dead or alive; opening a pin asks for CAP_BPF and no more.
pub(crate) fn open_pin(pin: &Path) -> Result<Option<Link>> {
    let error = |source| Error::OpenPin { path: pin.to_owned(), source };
    let fd = match open(pin) {
        Ok(fd) => fd,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error(e.into())),
    };
    let info = LinkInfo::from_fd(fd.as_fd()).map_err(error)?;
    let ifindex = match info.info {
        LinkTypeInfo::Tcx(tcx) => Some(tcx.ifindex).filter(|ifindex| *ifindex != 0),
        _ => None,
    };
    Ok(Some(Link { fd, ifindex, program_id: info.prog_id }))
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
    // SAFETY: the kernel has just made this descriptor for us, and no one else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The link stays where it is, so no packet passes between the old program and the new one.
fn update(link: &Link, program: BorrowedFd) -> io::Result<()> {
    // SAFETY: both descriptors are open, and no options means the defaults.
    let result =
        unsafe { bpf_link_update(link.fd.as_raw_fd(), program.as_raw_fd(), std::ptr::null()) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a string with its final zero, and outlives the call.
    let fd = unsafe { bpf_obj_get(path.as_ptr()) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel has just made this descriptor for us, and no one else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins any BPF object; makes the directory too.
pub(crate) fn pin(object: BorrowedFd, path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a string with its final zero, and outlives the call.
    let result = unsafe { bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
