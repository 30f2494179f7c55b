// SPDX-License-Identifier: Apache-2.0
//! What of BPF is on this node, whoever put it there: programs by number, tcx
//! of a device in the order in which it runs, and what is pinned. It looks and
//! never changes anything; judging is the caller's business.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libbpf_rs::libbpf_sys::{
    BPF_TCX_EGRESS, BPF_TCX_INGRESS, bpf_obj_get, bpf_prog_get_fd_by_id, bpf_prog_get_info_by_fd,
    bpf_prog_info, bpf_prog_query_opts,
};

/// The kernel's own bound on the programs of one hook (BPF_MPROG_MAX).
const MOST_ON_A_HOOK: usize = 64;
/// Enough for any node; a directory tree that goes on for ever does not hold the survey up.
const MOST_PINS: usize = 20_000;
const DEEPEST_PIN: usize = 8;
const EINVAL: i32 = 22;

/// An instruction as the kernel has it, `struct bpf_insn`.
pub type Instruction = [u8; 8];

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: u32,
    /// Up to 15 characters.
    pub name: String,
    /// A digest of the instructions, the same for the same build.
    pub tag: [u8; 8],
    /// Whether the processor runs it, and not the kernel's interpreter.
    pub jited: bool,
    /// After verification; empty where the kernel does not show them (constants are blinded).
    pub instructions: Vec<Instruction>,
}

/// Side of a device, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ingress,
    Egress,
}

/// One program on tcx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnTcx {
    pub program: u32,
    /// 0 where it was attached without a link.
    pub link: u32,
}

/// What a pin holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinned {
    Program {
        id: u32,
    },
    /// `ifindex` is that of the device, 0 once it has gone, and None for a link to something else.
    Link {
        id: u32,
        program: Option<u32>,
        ifindex: Option<u32>,
    },
    Map,
}

/// A file of a BPF file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub path: PathBuf,
    pub holds: Pinned,
}

/// The program with this number; NotFound if it has gone meanwhile.
pub fn program(id: u32) -> io::Result<Loaded> {
    // SAFETY: no pointer is passed.
    let fd = owned(unsafe { bpf_prog_get_fd_by_id(id) })?;
    let sizes = read_info(&fd, &mut [])?;
    let mut instructions = vec![[0; 8]; sizes.xlated_prog_len as usize / 8];
    let info = read_info(&fd, &mut instructions)?;
    // Blinded programs are shown to no one: the kernel then gives no address back.
    if info.xlated_prog_insns == 0 {
        instructions.clear();
    }
    let name = info.name.iter().take_while(|c| **c != 0).map(|c| *c as u8);
    Ok(Loaded {
        id,
        name: String::from_utf8_lossy(&name.collect::<Vec<_>>()).into_owned(),
        tag: info.tag,
        jited: info.jited_prog_len != 0,
        instructions,
    })
}

/// What is on tcx of a device of the caller's network namespace, first to run first. None where the
/// kernel has no tcx.
pub fn tcx(ifindex: u32, side: Side) -> io::Result<Option<Vec<OnTcx>>> {
    let (mut programs, mut links) = ([0u32; MOST_ON_A_HOOK], [0u32; MOST_ON_A_HOOK]);
    let mut options = bpf_prog_query_opts {
        sz: size_of::<bpf_prog_query_opts>() as _,
        prog_ids: programs.as_mut_ptr(),
        link_ids: links.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = MOST_ON_A_HOOK as u32;
    let hook = match side {
        Side::Ingress => BPF_TCX_INGRESS,
        Side::Egress => BPF_TCX_EGRESS,
    };
    // SAFETY: `options` is valid and says its size; the arrays that it points to have as many
    // elements as it says, and all outlive the call.
    let result = unsafe {
        libbpf_rs::libbpf_sys::bpf_prog_query_opts(ifindex as i32, hook, &raw mut options)
    };
    match result {
        0.. => {}
        error if error == -EINVAL => return Ok(None),
        error => return Err(io::Error::from_raw_os_error(-error)),
    }
    // SAFETY: both members are the same number under two names.
    let count = unsafe { options.__bindgen_anon_1.count } as usize;
    let found = programs.into_iter().zip(links).take(count);
    Ok(Some(found.map(|(program, link)| OnTcx { program, link }).collect()))
}

/// Everything pinned below a directory, by path; what cannot be opened is left out.
pub fn pins_below(dir: &Path) -> io::Result<Vec<Pin>> {
    let mut pins = Vec::new();
    walk(dir, 0, &mut pins)?;
    pins.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(pins)
}

fn walk(dir: &Path, depth: usize, pins: &mut Vec<Pin>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if pins.len() >= MOST_PINS {
            return Ok(());
        } else if kind.is_dir() && depth < DEEPEST_PIN {
            // Gone meanwhile, or of no interest.
            let _ = walk(&path, depth + 1, pins);
        } else if kind.is_file() {
            pins.extend(pinned(&path).ok().map(|holds| Pin { path, holds }));
        }
    }
    Ok(())
}

fn pinned(path: &Path) -> io::Result<Pinned> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `name` is a string with its final zero, and outlives the call.
    let fd = owned(unsafe { bpf_obj_get(name.as_ptr()) })?;
    // What the object is, the kernel says there, and asks nothing of who reads it.
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    Ok(read_fdinfo(&text))
}

fn read_fdinfo(text: &str) -> Pinned {
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse().ok())
    };
    match (number("link_id"), number("prog_id")) {
        (Some(id), program) => Pinned::Link { id, program, ifindex: number("ifindex") },
        (None, Some(id)) => Pinned::Program { id },
        (None, None) => Pinned::Map,
    }
}

fn read_info(fd: &OwnedFd, instructions: &mut [Instruction]) -> io::Result<bpf_prog_info> {
    // SAFETY: all zeroes are a valid bpf_prog_info; old kernels want the padding to be zero too.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    if !instructions.is_empty() {
        info.xlated_prog_len = size_of_val(instructions) as u32;
        info.xlated_prog_insns = instructions.as_mut_ptr() as u64;
    }
    let mut size = size_of::<bpf_prog_info>() as u32;
    // SAFETY: `info` has the size given, and the buffer that it points to the length that it says;
    // both outlive the call.
    let result = unsafe { bpf_prog_get_info_by_fd(fd.as_raw_fd(), &raw mut info, &raw mut size) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(info) }
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel has just made this descriptor for us, and no one else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_told_by_what_the_kernel_says_of_its_descriptor() {
        let program = "pos:\t0\nflags:\t02000002\nprog_type:\t3\nprog_id:\t17\nrun_cnt:\t0\n";
        assert_eq!(read_fdinfo(program), Pinned::Program { id: 17 });
        let link = "pos:\t0\nlink_type:\ttcx\nlink_id:\t9\nprog_id:\t17\nifindex:\t0\n\
                    attach_type:\t46 (tcx_ingress)\n";
        let expected = Pinned::Link { id: 9, program: Some(17), ifindex: Some(0) };
        assert_eq!(read_fdinfo(link), expected);
        assert_eq!(read_fdinfo("pos:\t0\nmap_type:\t2\nmap_id:\t4\n"), Pinned::Map);
    }
}
