// SPDX-License-Identifier: Apache-2.0
//! Ethernet frames of 1500 bytes of IPv4, as input of test runs.

use std::fs;

const IP_BYTES: u16 = 1500;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    Tcp,
    Udp,
}

impl Frame {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// Where [`write`] puts it.
    pub fn path(self) -> &'static str {
        match self {
            Self::Tcp => "/run/tcp.frame",
            Self::Udp => "/run/udp.frame",
        }
    }

    fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// From port 40000 to 5201, no payload but zeros.
    fn header(self) -> Vec<u8> {
        let ports = [40000u16.to_be_bytes(), 5201u16.to_be_bytes()].concat();
        let rest = match self {
            // Sequence, acknowledgement; five words, ACK; window, checksum, pointer.
            Self::Tcp => [[0, 0, 0, 1], [0, 0, 0, 1], [0x50, 0x10, 1, 0], [0; 4]].concat(),
            Self::Udp => [(IP_BYTES - 20).to_be_bytes(), [0; 2]].concat(),
        };
        [ports, rest].concat()
    }
}

pub fn write(frame: Frame) {
    let mut bytes = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
    bytes.extend([0x08, 0x00]);
    bytes.extend(ip_header(frame.protocol()));
    bytes.extend(frame.header());
    bytes.resize(14 + usize::from(IP_BYTES), 0);
    fs::write(frame.path(), bytes).expect("write a frame");
}

fn ip_header(protocol: u8) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&IP_BYTES.to_be_bytes());
    (header[6], header[8], header[9]) = (0x40, 64, protocol);
    header[12..16].copy_from_slice(&[10, 1, 0, 2]);
    header[16..20].copy_from_slice(&[10, 1, 0, 9]);
    let words =
        header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    header
}
