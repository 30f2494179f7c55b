// SPDX-License-Identifier: Apache-2.0
//! What a device's driver tells beside rtnetlink: its name, the link's speed, and
//! counters of its own. Only the ioctl has these counters (`ethtool -S`), and it
//! takes addresses, so it is here with what else is `unsafe`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::ioctl::{Updater, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// include/uapi/linux/sockios.h
const SIOCETHTOOL: rustix::ioctl::Opcode = 0x8946;
/// include/uapi/linux/ethtool.h
const GSET: u32 = 0x01;
const GSTRINGS: u32 = 0x1b;
const GSTATS: u32 = 0x1d;
const GSSET_INFO: u32 = 0x37;
const SS_STATS: u32 = 1;
const STRING_BYTES: usize = 32;
/// struct ethtool_cmd, in words, and where it has the speed in Mbit/s: its low half, and its high one.
const SETTINGS_WORDS: usize = 11;
const SPEED: usize = 12;
const SPEED_HIGH: usize = 28;
/// A device whose driver has more counters has none for us. The kernel writes as many as there are by
/// then, so there is room for twice as many.
const MOST: usize = 16384;
const ROOM: usize = 2 * MOST;
const IFNAMSIZ: usize = 16;

/// A socket for such questions; devices are those of its network namespace.
pub struct Ethtool(OwnedFd);

/// struct ifreq, whose union is larger than the address.
#[repr(C)]
struct Request {
    name: [u8; IFNAMSIZ],
    data: *mut u64,
    rest: [u64; 2],
}

impl Ethtool {
    pub fn open() -> io::Result<Self> {
        // A netlink socket hands such questions on as any other does (net/socket.c, sock_do_ioctl), and the
        // agent's unit allows no internet socket.
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?))
    }

    /// In Mbit/s; None where the link is down, or the driver does not know.
    pub fn speed(&self, device: &str) -> io::Result<Option<u32>> {
        let mut settings = [0; SETTINGS_WORDS.div_ceil(2)];
        put(&mut settings, 0, GSET);
        self.ask(device, &mut settings)?;
        let half = |at| u32::from(get::<2>(&settings, at).map_or(0, u16::from_ne_bytes));
        let speed = half(SPEED) | half(SPEED_HIGH) << 16;
        Ok(Some(speed).filter(|speed| ![0, u32::MAX, u32::from(u16::MAX)].contains(speed)))
    }

    /// Names of the driver's own counters, in their order.
    pub fn counter_names(&self, device: &str) -> io::Result<Vec<String>> {
        let count = self.count(device)?;
        let mut strings = vec![0; 2 + ROOM * STRING_BYTES / 8];
        put(&mut strings, 0, GSTRINGS);
        put(&mut strings, 4, SS_STATS);
        put(&mut strings, 8, count as u32);
        self.ask(device, &mut strings)?;
        let found = get(&strings, 8).map_or(0, u32::from_ne_bytes) as usize;
        let names = (0..found.min(count)).filter_map(|index| {
            let name = get::<STRING_BYTES>(&strings, 12 + index * STRING_BYTES)?;
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            Some(String::from_utf8_lossy(&name[..end]).into_owned())
        });
        Ok(names.collect())
    }

    /// Their values; `count` of them, or an error where the device has another number by now.
    pub fn counters(&self, device: &str, count: usize) -> io::Result<Vec<u64>> {
        if count > MOST || self.count(device)? != count {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut counters = vec![0; 1 + ROOM];
        put(&mut counters, 0, GSTATS);
        put(&mut counters, 4, count as u32);
        self.ask(device, &mut counters)?;
        Ok(counters[1..=count].to_vec())
    }

    fn count(&self, device: &str) -> io::Result<usize> {
        // struct ethtool_sset_info: a mask of sets, then a number for each.
        let mut info = [0; 3];
        put(&mut info, 0, GSSET_INFO);
        info[1] = 1 << SS_STATS;
        self.ask(device, &mut info)?;
        let count = if info[1] == 0 { 0 } else { get(&info, 16).map_or(0, u32::from_ne_bytes) };
        Some(count as usize).filter(|it| *it <= MOST).ok_or(io::ErrorKind::OutOfMemory.into())
    }

    fn ask(&self, device: &str, data: &mut [u64]) -> io::Result<()> {
        let mut name = [0; IFNAMSIZ];
        if device.len() >= IFNAMSIZ {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        name[..device.len()].copy_from_slice(device.as_bytes());
        let mut request = Request { name, data: data.as_mut_ptr(), rest: [0; 2] };
        // SAFETY: `request` is a whole struct ifreq. The kernel writes into `data` what the command in its
        // first word asks for: a struct of fixed size that it holds, or as many strings or counters as the
        // driver has, for which there is twice the room of the most that we ask for.
        unsafe { ioctl(&self.0, Updater::<SIOCETHTOOL, Request>::new(&mut request)) }?;
        Ok(())
    }
}

/// In words, because the kernel writes numbers of 64 bits.
fn put(words: &mut [u64], at: usize, value: u32) {
    let mut bytes = words[at / 8].to_ne_bytes();
    bytes[at % 8..at % 8 + 4].copy_from_slice(&value.to_ne_bytes());
    words[at / 8] = u64::from_ne_bytes(bytes);
}

fn get<const N: usize>(words: &[u64], at: usize) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (offset, byte) in bytes.iter_mut().enumerate() {
        *byte = words.get((at + offset) / 8)?.to_ne_bytes()[(at + offset) % 8];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn ip(arguments: &str) -> String {
        let done = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        assert!(done.status.success(), "ip {arguments}");
        String::from_utf8(done.stdout).unwrap()
    }

    #[test]
    fn veth_tells_its_speed_and_counters_and_others_nothing() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add one type veth peer name other");
        let shown = ip("-oneline link show other");
        let other: u64 = shown.split(':').next().unwrap().parse().unwrap();
        let ethtool = Ethtool::open().unwrap();
        assert_eq!(ethtool.speed("one").unwrap(), Some(10_000));
        let names = ethtool.counter_names("one").unwrap();
        let peer = names.iter().position(|name| name == "peer_ifindex").unwrap();
        assert_eq!(ethtool.counters("one", names.len()).unwrap()[peer], other);
        assert!(ethtool.counters("one", names.len() + 1).is_err());
        assert!(ethtool.counter_names("lo").is_err() && ethtool.speed("none").is_err());
        assert!(ethtool.speed("longer-than-any-device").is_err());
    }
}
