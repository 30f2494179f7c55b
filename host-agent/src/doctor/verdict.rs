// SPDX-License-Identifier: Apache-2.0
//! What a program can return, read off its instructions: which constants can
//! be in r0 at an exit. Values are followed through moves, masks, arithmetic,
//! branches and what a compiler puts aside on the stack; what comes from
//! memory, a helper or a tail call is unknown, and the answer says so; it never
//! guesses. A value in the answer may need a path that no packet takes; a value
//! that is not there cannot be returned.

mod operation;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use bpf::survey::Instruction;
use serde::Serialize;

use self::operation::*;
use self::values::{
    FRAME, MOST_VALUES, MachineState, REGISTERS, Value, arithmetic, branch, clobber,
};

/// The verdicts of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Returns {
    pub values: BTreeSet<i32>,
    /// False if it may also return a value that is unknown.
    pub complete: bool,
    /// Whether it may go on in another program, which decides then.
    pub tail_calls: bool,
}

impl Returns {
    pub fn unknown() -> Self {
        Self::default()
    }

    pub fn exactly(values: &[i32]) -> Self {
        Self { values: values.iter().copied().collect(), complete: true, tail_calls: false }
    }
}

/// Programs above this are not looked into; the kernel's bound on what it verifies is a million.
const MOST_INSTRUCTIONS: usize = 100_000;
const DEEPEST_CALL: usize = 8;
/// Within so many instructions after a copy of the frame's top an address of the stack is made of it.
const ADDRESS_WITHIN: usize = 8;

/// What a program with these instructions can return.
pub fn returns(instructions: &[Instruction]) -> Returns {
    let code: Vec<Operation> = instructions.iter().map(Operation::read).collect();
    if code.is_empty() || code.len() > MOST_INSTRUCTIONS {
        return Returns::unknown();
    }
    let private_below = private_below(&code);
    let mut scan =
        Scan { code: &code, private_below, functions: BTreeMap::new(), tail_calls: false };
    let Exits { values, complete } = scan.function(0, 0);
    let tail_calls = scan.tail_calls;
    let complete = complete && !values.is_empty() && !tail_calls;
    // A verdict is an int: the lower half of the register.
    let values = values.into_iter().map(|value| value as u32 as i32).collect();
    Returns { values, complete, tail_calls }
}

struct Scan<'a> {
    code: &'a [Operation],
    /// Places of the stack below this belong to the instructions that name them, and to nothing else.
    private_below: i32,
    /// What the function at this place returns.
    functions: BTreeMap<usize, Exits>,
    tail_calls: bool,
}

/// What r0 can be at the exits of a function.
#[derive(Clone, Default)]
struct Exits {
    values: BTreeSet<u64>,
    complete: bool,
}

impl Exits {
    fn add(&mut self, value: Value) {
        self.complete &= value.is_some();
        self.values.extend(value.unwrap_or_default());
    }
}

impl Scan<'_> {
    /// What the function that starts here returns, whatever its arguments are.
    fn function(&mut self, start: usize, depth: usize) -> Exits {
        if let Some(known) = self.functions.get(&start) {
            return known.clone();
        }
        let mut states: BTreeMap<usize, MachineState> = BTreeMap::new();
        let mut work = vec![(start, MachineState::default())];
        let mut exits = Exits { complete: depth <= DEEPEST_CALL, ..Exits::default() };
        while let Some((at, state)) = work.pop().filter(|_| depth <= DEEPEST_CALL) {
            let Some(state) = arrive(&mut states, at, state) else { continue };
            let step = self.code.get(at).copied().map(|op| self.step(at, op, state, depth));
            match step.flatten() {
                Some(Step::Exit(value)) => exits.add(value),
                Some(Step::Go(next)) => work.extend(next),
                // An instruction of a kernel newer than this, or none.
                None => exits.complete = false,
            }
        }
        self.functions.insert(start, exits.clone());
        exits
    }

    fn step(
        &mut self,
        at: usize,
        op: Operation,
        mut state: MachineState,
        depth: usize,
    ) -> Option<Step> {
        if op.to >= REGISTERS {
            return None;
        }
        match op.class() {
            ALU | ALU64 => arithmetic(op, &mut state),
            LD if op.code == LD_IMM64 => {
                let high = self.code.get(at + 1)?.immediate;
                let whole = (high as u32 as u64) << 32 | op.immediate as u32 as u64;
                // A number only where no register says that it is an address.
                state[op.to] = (op.from == 0).then(|| BTreeSet::from([whole]));
                return Some(Step::to(at + 2, state));
            }
            LDX => {
                let known = op.from == FRAME && op.mode() == MEM;
                state[op.to] = known.then(|| state.load(op.offset, op.bytes())).flatten();
            }
            STX if op.mode() == ATOMIC => {
                *state.registers.get_mut(op.from)? = None;
                state[op.to] = None;
                state[0] = None;
                if op.to == FRAME {
                    state.store(op.offset, 8, None);
                }
            }
            ST | STX if op.to == FRAME => {
                let value = match op.class() {
                    ST => Some(BTreeSet::from([op.immediate as i64 as u64])),
                    _ => state.registers.get(op.from)?.clone(),
                };
                let end = i32::from(op.offset) + i32::from(op.bytes());
                let value = value.filter(|_| end <= self.private_below);
                state.store(op.offset, op.bytes(), value);
            }
            ST | STX => {}
            JMP | JMP32 => return self.jump(at, op, state, depth),
            _ => return None,
        }
        Some(Step::to(at + 1, state))
    }

    fn jump(
        &mut self,
        at: usize,
        op: Operation,
        mut state: MachineState,
        depth: usize,
    ) -> Option<Step> {
        let target = |distance: i64| usize::try_from(at as i64 + 1 + distance).ok();
        match op.operation() {
            EXIT => Some(Step::Exit(state[0].clone())),
            CALL => {
                let value = self.call(at, op, depth)?;
                clobber(&mut state);
                state[0] = value;
                Some(Step::to(at + 1, state))
            }
            // In the 32-bit class the distance is where the number is.
            JA if op.class() == JMP32 => Some(Step::to(target(op.immediate.into())?, state)),
            JA => Some(Step::to(target(op.offset.into())?, state)),
            _ => {
                let mut next = Vec::new();
                let jumped = target(op.offset.into())?;
                for (place, holds) in [(jumped, true), (at + 1, false)] {
                    next.extend(branch(op, &state, holds).map(|state| (place, state)));
                }
                Some(Step::Go(next))
            }
        }
    }

    /// What a call gives back; the dump has the distance of a function in the offset
    /// (kernel/bpf/verifier.c, jit_subprogs).
    fn call(&mut self, at: usize, op: Operation, depth: usize) -> Option<Value> {
        if op.code & FROM_REGISTER != 0 {
            return Some(None);
        }
        if op.from == PSEUDO_CALL {
            let start = usize::try_from(at as i64 + 1 + i64::from(op.offset)).ok()?;
            let Exits { values, complete } = self.function(start, depth + 1);
            return Some((complete && values.len() <= MOST_VALUES).then_some(values));
        }
        if op.from == 0 && op.immediate == FUNC_TAIL_CALL {
            self.tail_calls = true;
        }
        Some(None)
    }
}

/// The lowest address of the stack that is handed about: a helper or another function may write
/// there and above. Compiled code never goes below an object's start. Where an address is made in a
/// way that is not seen through, nothing is private.
fn private_below(code: &[Operation]) -> i32 {
    let copies = |op: &Operation| op.code == MOV | FROM_REGISTER | ALU64 && op.from == FRAME;
    let of = |(at, op): (usize, &Operation)| {
        let mut rest = code[at + 1..].iter().take(ADDRESS_WITHIN);
        let next = rest.find(|next| next.to == op.to || next.from == op.to);
        let is_sum = |next: &&Operation| next.code == ADD | ALU64 && next.to == op.to;
        next.filter(is_sum).map_or(i32::MIN, |next| next.immediate)
    };
    let addresses = code.iter().enumerate().filter(|(_, op)| copies(op)).map(of);
    addresses.min().unwrap_or(0)
}

enum Step {
    Exit(Value),
    Go(Vec<(usize, MachineState)>),
}

impl Step {
    fn to(place: usize, state: MachineState) -> Self {
        Self::Go(vec![(place, state)])
    }
}

/// The state with which to go on from here; None if it holds nothing new.
fn arrive(
    states: &mut BTreeMap<usize, MachineState>,
    at: usize,
    state: MachineState,
) -> Option<MachineState> {
    let Some(before) = states.get(&at) else {
        states.insert(at, state.clone());
        return Some(state);
    };
    let joined = before.join(state);
    if joined == *before {
        return None;
    }
    states.insert(at, joined.clone());
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
        let [o0, o1] = offset.to_ne_bytes();
        let [i0, i1, i2, i3] = immediate.to_ne_bytes();
        [code, from << 4 | to, o0, o1, i0, i1, i2, i3]
    }

    const EXIT_OP: Instruction = [0x95, 0, 0, 0, 0, 0, 0, 0];

    fn mov(to: u8, value: i32) -> Instruction {
        op(0xb7, to, 0, 0, value)
    }

    fn mov32(to: u8, value: i32) -> Instruction {
        op(0xb4, to, 0, 0, value)
    }

    fn load(to: u8) -> Instruction {
        op(0x61, to, 1, 0, 0)
    }

    #[test]
    fn a_constant_is_the_verdict_in_either_width() {
        assert_eq!(returns(&[mov(0, -1), EXIT_OP]), Returns::exactly(&[-1]));
        assert_eq!(returns(&[mov32(0, -1), EXIT_OP]), Returns::exactly(&[-1]));
        assert_eq!(returns(&[mov(0, 0), EXIT_OP]), Returns::exactly(&[0]));
    }

    #[test]
    fn both_ways_of_a_branch_count_and_a_saved_register_is_followed() {
        // r6 = 2; if r2 > 5 goto +1; r6 = 0; call; r0 = r6; exit
        let code = [
            mov(6, 2),
            load(2),
            op(0x25, 2, 0, 1, 5),
            mov(6, 0),
            op(0x85, 0, 0, 0, 1234),
            op(0xbf, 0, 6, 0, 0),
            EXIT_OP,
        ];
        assert_eq!(returns(&code), Returns::exactly(&[0, 2]));
    }

    #[test]
    fn arithmetic_on_a_truth_value_is_followed() {
        // r0 = unknown & 1; r0 <<= 1: 0 or 2, as clang writes `bad ? SHOT : OK`.
        let code = [load(0), op(0x57, 0, 0, 0, 1), op(0x67, 0, 0, 0, 1), EXIT_OP];
        assert_eq!(returns(&code), Returns::exactly(&[0, 2]));
    }

    #[test]
    fn what_comes_from_memory_a_helper_or_a_tail_call_is_unknown() {
        assert_eq!(returns(&[load(0), EXIT_OP]), Returns::unknown());
        assert_eq!(returns(&[op(0x85, 0, 0, 0, 1234), EXIT_OP]), Returns::unknown());
        let tail = returns(&[op(0x85, 0, 0, 0, FUNC_TAIL_CALL), mov(0, 2), EXIT_OP]);
        assert_eq!((tail.complete, tail.tail_calls), (false, true));
        assert_eq!(tail.values, BTreeSet::from([2]));
        assert_eq!(returns(&[]), Returns::unknown());
    }

    /// Stores of r0 and loads into it, at a place of the stack.
    fn store(place: i16) -> Instruction {
        op(0x7b, 10, 0, place, 0)
    }

    fn fetch(place: i16) -> Instruction {
        op(0x79, 0, 10, place, 0)
    }

    #[test]
    fn what_is_put_aside_on_the_stack_is_found_again() {
        let code = [mov(0, 2), store(-16), load(0), fetch(-16), EXIT_OP];
        assert_eq!(returns(&code), Returns::exactly(&[2]));
        // Half of a stored value is another value.
        let narrow = op(0x63, 10, 1, -12, 0);
        assert!(!returns(&[mov(0, 2), store(-16), narrow, fetch(-16), EXIT_OP]).complete);
        assert!(!returns(&[mov(0, 2), store(-16), fetch(-8), EXIT_OP]).complete);
    }

    #[test]
    fn a_place_that_others_may_write_to_is_unknown() {
        // r2 = r10; r2 += base; call
        let handed = |base| [op(0xbf, 2, 10, 0, 0), op(0x07, 2, 0, 0, base), op(0x85, 0, 0, 0, 1)];
        let code =
            |base| [&[mov(0, 2), store(-16)][..], &handed(base), &[fetch(-16), EXIT_OP]].concat();
        assert_eq!(returns(&code(-8)), Returns::exactly(&[2]));
        assert!(!returns(&code(-16)).complete);
        assert!(!returns(&code(-24)).complete);
        let copied = [op(0xbf, 2, 10, 0, 0), op(0x1f, 2, 3, 0, 0)];
        let code = [&copied[..], &[mov(0, 2), store(-16), fetch(-16), EXIT_OP]].concat();
        assert!(!returns(&code).complete);
    }

    #[test]
    fn a_function_returns_what_it_returns() {
        // call +1; exit; r0 = 7; exit
        let code = [op(0x85, 0, 1, 1, 0), EXIT_OP, mov(0, 7), EXIT_OP];
        assert_eq!(returns(&code), Returns::exactly(&[7]));
    }

    #[test]
    fn equality_tells_the_value_and_a_way_that_cannot_be_is_not_gone() {
        // r0 = helper(); if r0 == 0 goto exit; r0 = -1; exit
        let code = [op(0x85, 0, 0, 0, 1234), op(0x15, 0, 0, 1, 0), mov(0, -1), EXIT_OP];
        assert_eq!(returns(&code), Returns::exactly(&[-1, 0]));
        // r0 = 1; if r0 == 1 goto +1; r0 = 9; exit
        let code = [mov(0, 1), op(0x15, 0, 0, 1, 1), mov(0, 9), EXIT_OP];
        assert_eq!(returns(&code), Returns::exactly(&[1]));
    }

    #[test]
    fn loops_and_nonsense_end() {
        // r0 = 0; r0 += 1; goto -2: never exits, so it returns nothing.
        let code = [mov(0, 0), op(0x07, 0, 0, 0, 1), op(0x05, 0, 0, -2, 0)];
        assert_eq!(returns(&code).values, BTreeSet::new());
        assert!(!returns(&[op(0x05, 0, 0, 77, 0)]).complete);
        assert!(!returns(&[op(0x27, 15, 15, 0, 0), EXIT_OP]).complete);
        assert!(!returns(&[mov(0, 0)]).complete);
        let all: Vec<Instruction> = (0..=255).map(|code| op(code, 0, 0, 0, 0)).collect();
        assert!(!returns(&all).complete);
    }
    #[test]
    fn any_bytes_at_all_are_got_through() {
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        // Codes that go on, so that a program is not over at its first instruction.
        let codes = [0x05, 0x07, 0x15, 0x18, 0x55, 0x61, 0x63, 0x79, 0x7b, 0x85, 0x95, 0xb7, 0xbf];
        for _ in 0..2_000 {
            let code: Vec<Instruction> = (0..64)
                .map(|_| {
                    let mut bytes = next().to_ne_bytes();
                    bytes[0] = codes[bytes[0] as usize % codes.len()];
                    bytes[1] &= 0x7b;
                    // Near enough to stay inside the program, as a rule.
                    let offset = i16::from(bytes[2] % 32) - 16;
                    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
                    bytes
                })
                .collect();
            let found = returns(&code);
            assert!(!found.complete || !found.values.is_empty());
        }
    }
}
