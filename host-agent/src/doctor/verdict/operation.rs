// SPDX-License-Identifier: Apache-2.0
//! An instruction taken apart, by the kernel's numbers.

use bpf::survey::Instruction;

/// struct bpf_insn.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    pub(super) code: u8,
    pub(super) to: usize,
    pub(super) from: usize,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// Numbers of include/uapi/linux/bpf_common.h and bpf.h.
pub(super) const CLASS: u8 = 0x07;
pub(super) const LD: u8 = 0x00;
pub(super) const LDX: u8 = 0x01;
pub(super) const ST: u8 = 0x02;
pub(super) const STX: u8 = 0x03;
pub(super) const ALU: u8 = 0x04;
pub(super) const JMP: u8 = 0x05;
pub(super) const JMP32: u8 = 0x06;
pub(super) const ALU64: u8 = 0x07;
pub(super) const OPERATION: u8 = 0xf0;
pub(super) const FROM_REGISTER: u8 = 0x08;
pub(super) const LD_IMM64: u8 = 0x18;
pub(super) const JA: u8 = 0x00;
pub(super) const JEQ: u8 = 0x10;
pub(super) const JNE: u8 = 0x50;
pub(super) const CALL: u8 = 0x80;
pub(super) const EXIT: u8 = 0x90;
pub(super) const PSEUDO_CALL: usize = 1;
pub(super) const FUNC_TAIL_CALL: i32 = 12;
pub(super) const ADD: u8 = 0x00;
pub(super) const SUB: u8 = 0x10;
pub(super) const OR: u8 = 0x40;
pub(super) const AND: u8 = 0x50;
pub(super) const LSH: u8 = 0x60;
pub(super) const RSH: u8 = 0x70;
pub(super) const NEG: u8 = 0x80;
pub(super) const XOR: u8 = 0xa0;
pub(super) const MOV: u8 = 0xb0;
pub(super) const ARSH: u8 = 0xc0;
/// Atomic operations put what they give back into r0, the source or the destination.
pub(super) const ATOMIC: u8 = 0xc0;
pub(super) const MODE: u8 = 0xe0;
pub(super) const MEM: u8 = 0x60;
pub(super) const SIZE: u8 = 0x18;

impl Operation {
    pub(super) fn read(bytes: &Instruction) -> Self {
        let [code, registers, o0, o1, i0, i1, i2, i3] = *bytes;
        let (low, high) = (usize::from(registers & 0xf), usize::from(registers >> 4));
        let (to, from) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
        let offset = i16::from_ne_bytes([o0, o1]);
        let immediate = i32::from_ne_bytes([i0, i1, i2, i3]);
        Self { code, to, from, offset, immediate }
    }

    pub(super) fn class(self) -> u8 {
        self.code & CLASS
    }

    pub(super) fn operation(self) -> u8 {
        self.code & OPERATION
    }

    pub(super) fn mode(self) -> u8 {
        self.code & MODE
    }

    /// Of a load or store.
    pub(super) fn bytes(self) -> i16 {
        match self.code & SIZE {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        }
    }

    pub(super) fn is_wide(self) -> bool {
        matches!(self.class(), ALU64 | JMP)
    }
}
