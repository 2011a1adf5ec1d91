//! Classic BPF, written from the end to the beginning.
//!
//! BPF jumps only forward, so whatever is jumped to is written before the jump is, and every distance is known at once. A
//! conditional jump reaches 255 instructions far; [`Assembler::test`] puts a stepping stone in between where that is not
//! enough.

use stdx::{Error, Result};
use sys::seccomp::Instruction;

/// A place in the program, counted from its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(usize);

#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
}

// From linux/bpf_common.h. The kernel's own cache of verdicts (5.11) understands just these and no others.
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// BPF_MAXINSNS: the kernel takes no more.
const LONGEST: usize = 4096;
/// How far a conditional jump reaches.
const REACH: usize = 255;

#[derive(Default)]
pub(super) struct Assembler {
    /// The last instruction first.
    reversed: Vec<Instruction>,
}

impl Assembler {
    /// `return action`. The one written last serves again while it is in reach.
    pub(super) fn ret(&mut self, action: u32) -> Label {
        let wanted = plain(RETURN, action);
        let near = self.reversed.len().saturating_sub(REACH / 2);
        match self.reversed[near..].iter().rposition(|instruction| *instruction == wanted) {
            Some(at) => Label(near + at),
            None => self.push(wanted),
        }
    }

    /// `if accumulator <test> value goto yes else goto no`.
    pub(super) fn test(&mut self, test: Test, value: u32, yes: Label, no: Label) -> Label {
        // A stepping stone for `no` would push `yes` one further away.
        let yes = self.near(yes, 1);
        let no = self.near(no, 0);
        let code = match test {
            Test::Equal => EQUAL,
            Test::Greater => GREATER,
            Test::GreaterOrEqual => GREATER_OR_EQUAL,
        };
        let (yes, no) = (self.distance(yes), self.distance(no));
        let reach = |distance: usize| u8::try_from(distance).expect("just brought near");
        self.push(Instruction { code, jt: reach(yes), jf: reach(no), k: value })
    }

    /// `accumulator = data[offset]; goto then`.
    pub(super) fn load(&mut self, offset: u32, then: Label) -> Label {
        self.before(plain(LOAD, offset), then)
    }

    /// `accumulator &= mask; goto then`.
    pub(super) fn and(&mut self, mask: u32, then: Label) -> Label {
        self.before(plain(AND, mask), then)
    }

    /// The program in the order it runs, starting at `entry`.
    pub(super) fn finish(mut self, entry: Label) -> Result<Vec<Instruction>> {
        if self.distance(entry) != 0 {
            self.jump(entry);
        }
        if self.reversed.len() > LONGEST {
            let length = self.reversed.len();
            return Err(Error::invalid(format!(
                "seccomp filter has {length} instructions, the kernel takes {LONGEST}"
            )));
        }
        self.reversed.reverse();
        Ok(self.reversed)
    }

    /// An instruction that runs on into `then`.
    fn before(&mut self, instruction: Instruction, then: Label) -> Label {
        if self.distance(then) != 0 {
            self.jump(then);
        }
        self.push(instruction)
    }

    /// The place itself if the instruction after `more` others reaches it, else a copy of it or a jump to it.
    fn near(&mut self, label: Label, more: usize) -> Label {
        if self.distance(label) + more <= REACH {
            return label;
        }
        match self.reversed[label.0] {
            instruction if instruction.code == RETURN => self.push(instruction),
            _ => self.jump(label),
        }
    }

    fn jump(&mut self, to: Label) -> Label {
        let distance = u32::try_from(self.distance(to)).expect("programs are short");
        self.push(plain(JUMP, distance))
    }

    fn push(&mut self, instruction: Instruction) -> Label {
        self.reversed.push(instruction);
        Label(self.reversed.len() - 1)
    }

    /// How many instructions lie between the next one written and this place.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0 - 1
    }
}

fn plain(code: u16, value: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k: value }
}
