//! The kernel's half of seccomp, for tests: runs a program over one system call.

use sys::seccomp::Instruction;

use super::assembler::{AND, EQUAL, GREATER, GREATER_OR_EQUAL, JUMP, LOAD, RETURN};

/// What seccomp shows to a program of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) audit: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

/// The verdict, and after how many instructions it fell.
pub(super) fn run(program: &[Instruction], call: Call) -> (u32, usize) {
    let word = |offset: u32| match offset {
        0 => call.number,
        4 => call.audit,
        16..64 if offset.is_multiple_of(4) => {
            let argument = call.arguments[(offset as usize - 16) / 8];
            (if offset.is_multiple_of(8) { argument } else { argument >> 32 }) as u32
        }
        _ => panic!("the program reads at {offset}"),
    };
    let (mut accumulator, mut at, mut steps) = (0, 0, 0);
    loop {
        let Instruction { code, jt: yes, jf: no, k: value } = program[at];
        at += 1;
        steps += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { yes } else { no });
        match code {
            LOAD => accumulator = word(value),
            AND => accumulator &= value,
            JUMP => at += value as usize,
            EQUAL => branch(accumulator == value),
            GREATER => branch(accumulator > value),
            GREATER_OR_EQUAL => branch(accumulator >= value),
            RETURN => return (value, steps),
            _ => panic!("the program has an instruction {code:#x}"),
        }
    }
}
