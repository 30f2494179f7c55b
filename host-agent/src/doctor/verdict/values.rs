// SPDX-License-Identifier: Apache-2.0
//! What is known of registers and stack at one place of a program, and what an
//! instruction makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};

use super::operation::*;

/// More values than this are as good as unknown; it also bounds the work.
pub(super) const MOST_VALUES: usize = 8;
/// r0 to r10, and the one that the verifier uses for its own.
pub(super) const REGISTERS: usize = 12;
pub(super) const FRAME: usize = 10;
const LOW: u64 = u32::MAX as u64;

/// None is unknown.
pub(super) type Value = Option<BTreeSet<u64>>;

/// What is known at one place of the program.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MachineState {
    pub(super) registers: [Value; REGISTERS],
    /// By place below the frame's top; what is not here is unknown.
    stack: BTreeMap<i16, StackSlot>,
}

/// Something put aside on the stack, of four or eight bytes.
#[derive(Clone, Debug, PartialEq)]
struct StackSlot {
    bytes: i16,
    values: BTreeSet<u64>,
}

impl Index<usize> for MachineState {
    type Output = Value;

    fn index(&self, register: usize) -> &Value {
        &self.registers[register]
    }
}

impl IndexMut<usize> for MachineState {
    fn index_mut(&mut self, register: usize) -> &mut Value {
        &mut self.registers[register]
    }
}

impl MachineState {
    pub(super) fn store(&mut self, place: i16, bytes: i16, value: Value) {
        let (from, to) = (i32::from(place), i32::from(place) + i32::from(bytes));
        let overlaps = |at: i16, slot: &StackSlot| {
            i32::from(at) < to && from < i32::from(at) + i32::from(slot.bytes)
        };
        self.stack.retain(|at, slot| !overlaps(*at, slot));
        if let Some(values) = value.filter(|_| bytes >= 4) {
            let values = values.into_iter().map(|v| if bytes == 4 { v & LOW } else { v }).collect();
            self.stack.insert(place, StackSlot { bytes, values });
        }
    }

    pub(super) fn load(&self, place: i16, bytes: i16) -> Value {
        let slot = self.stack.get(&place).filter(|slot| slot.bytes == bytes)?;
        Some(slot.values.clone())
    }

    /// What is true however one got here.
    pub(super) fn join(&self, other: Self) -> Self {
        let mut pairs = self.registers.iter().cloned().zip(other.registers);
        let registers = std::array::from_fn(|_| pairs.next().and_then(|(a, b)| join(a, b)));
        let both = self.stack.iter().filter_map(|(place, a)| {
            let b = other.stack.get(place).filter(|b| b.bytes == a.bytes)?;
            let values = join(Some(a.values.clone()), Some(b.values.clone()))?;
            Some((*place, StackSlot { bytes: a.bytes, values }))
        });
        Self { registers, stack: both.collect() }
    }
}

fn join(a: Value, b: Value) -> Value {
    let joined: BTreeSet<u64> = a?.into_iter().chain(b?).collect();
    (joined.len() <= MOST_VALUES).then_some(joined)
}

/// A call leaves nothing in r0 to r5.
pub(super) fn clobber(state: &mut MachineState) {
    state.registers[..6].fill(None);
}

pub(super) fn arithmetic(op: Operation, state: &mut MachineState) {
    let operand = match op.code & FROM_REGISTER != 0 {
        true => state.registers.get(op.from).cloned().flatten(),
        false => Some(BTreeSet::from([op.immediate as i64 as u64])),
    };
    let before = state[op.to].clone();
    // Moves with an offset extend the sign of a part.
    let plain = op.offset == 0;
    let value = match (op.operation(), before, operand) {
        (MOV, _, operand) if plain => operand,
        (NEG, Some(values), _) => Some(values.iter().map(|v| v.wrapping_neg()).collect()),
        (AND, None, Some(masks)) => subsets(&masks),
        (operation, Some(left), Some(right)) => pairs(op, operation, &left, &right),
        _ => None,
    };
    state[op.to] = value.map(|values| match op.is_wide() {
        true => values,
        false => values.into_iter().map(|value| value & LOW).collect(),
    });
    if state[op.to].as_ref().is_some_and(|values| values.len() > MOST_VALUES) {
        state[op.to] = None;
    }
}

/// All that an unknown value can be under a mask of few bits.
fn subsets(masks: &BTreeSet<u64>) -> Value {
    let mask = masks.iter().fold(0, |all, mask| all | mask);
    if 1 << mask.count_ones().min(63) > MOST_VALUES {
        return None;
    }
    let (mut values, mut subset) = (BTreeSet::from([0]), mask);
    while subset != 0 {
        values.insert(subset);
        subset = (subset - 1) & mask;
    }
    Some(values)
}

fn pairs(op: Operation, operation: u8, left: &BTreeSet<u64>, right: &BTreeSet<u64>) -> Value {
    let bits = if op.is_wide() { 64 } else { 32 };
    let one = |a: u64, b: u64| -> Option<u64> {
        let a = if bits == 32 { a & LOW } else { a };
        let shift = (b % bits) as u32;
        Some(match operation {
            ADD => a.wrapping_add(b),
            SUB => a.wrapping_sub(b),
            OR => a | b,
            AND => a & b,
            XOR => a ^ b,
            LSH => a << shift,
            RSH => a >> shift,
            ARSH if bits == 32 => ((a as u32).cast_signed() >> shift) as u32 as u64,
            ARSH => (a.cast_signed() >> shift).cast_unsigned(),
            _ => return None,
        })
    };
    let all = left.iter().flat_map(|a| right.iter().map(|b| (*a, *b)));
    all.map(|(a, b)| one(a, b)).collect()
}

/// The state on one side of a branch; None if nothing can come there. Only comparisons with a
/// number for equality gives something.
pub(super) fn branch(op: Operation, state: &MachineState, holds: bool) -> Option<MachineState> {
    let equal = match op.operation() {
        JEQ => holds,
        JNE => !holds,
        _ => return Some(state.clone()),
    };
    if op.code & FROM_REGISTER != 0 {
        return Some(state.clone());
    }
    let wide = op.is_wide();
    let number = op.immediate as i64 as u64;
    let same = |value: u64| match wide {
        true => value == number,
        false => value as u32 == number as u32,
    };
    let mut state = state.clone();
    state[op.to] = match (state[op.to].take(), equal) {
        (Some(mut values), equal) => {
            values.retain(|value| same(*value) == equal);
            if values.is_empty() {
                return None;
            }
            Some(values)
        }
        // Of a wider register the upper half stays unknown.
        (None, true) if wide => Some(BTreeSet::from([number])),
        (None, _) => None,
    };
    Some(state)
}
