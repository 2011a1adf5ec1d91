//! A decided filter becomes a program: which verdict for which number on which architecture, as a search tree.
//!
//! The path that decides by number alone uses only what the kernel's own emulator understands (5.11's bitmap of constant
//! verdicts): a call that is always allowed never runs the program at all. The rest pay eight or nine comparisons.

use std::collections::{BTreeMap, BTreeSet};

use stdx::Result;
use sys::seccomp::Instruction;

use super::assembler::{Assembler, Label, Test};

/// A whole filter, decided.
#[derive(Debug)]
pub(super) struct Filter {
    /// One for each value of `seccomp_data.arch`, the likeliest first.
    pub(super) machines: Vec<Machine>,
    /// What happens to a call of an architecture that is not listed.
    pub(super) stranger: u32,
}

/// The calls of one `AUDIT_ARCH_*`.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) audit: u32,
    /// Registers as wide as the machine's: the upper half of an argument counts on 64 bits only.
    pub(super) wide: BTreeSet<u32>,
    pub(super) calls: BTreeMap<u32, Verdict>,
    /// What holds for all other numbers, each from where it stands up to the next. Starts with 0.
    pub(super) others: BTreeMap<u32, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Always(u32),
    /// The first rule that holds; if none does, `otherwise`.
    Depends {
        rules: Vec<Rule>,
        otherwise: u32,
    },
}

/// All the conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) argument: u32,
    pub(super) comparison: Comparison,
    pub(super) value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// `argument & mask == value`.
    MaskedEqual {
        mask: u64,
    },
}

// Where the fields stand in the kernel's `seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
/// The first argument; on little-endian machines, the only ones here, its low half comes first.
const ARGUMENTS: u32 = 16;

pub(super) fn emit(filter: &Filter) -> Result<Vec<Instruction>> {
    let mut asm = Assembler::default();
    let mut entries = Vec::new();
    for machine in filter.machines.iter().rev() {
        entries.push((machine.audit, self::machine(&mut asm, machine)));
    }
    let mut next = asm.ret(filter.stranger);
    for (audit, entry) in entries {
        next = asm.test(Test::Equal, audit, entry, next);
    }
    let entry = asm.load(ARCH, next);
    asm.finish(entry)
}

fn machine(asm: &mut Assembler, machine: &Machine) -> Label {
    let mut branches = BTreeMap::new();
    for (number, verdict) in &machine.calls {
        if let Verdict::Depends { rules, otherwise } = verdict {
            branches.insert(
                *number,
                self::rules(asm, rules, *otherwise, machine.wide.contains(number)),
            );
        }
    }
    let tree = search(asm, &ranges(machine), &branches);
    asm.load(NUMBER, tree)
}

/// Where the search ends: a verdict by number alone, or the rules of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Return(u32),
    Rules(u32),
}

/// All numbers as ranges of the same leaf, each from its start up to the next one's.
fn ranges(machine: &Machine) -> Vec<(u32, Leaf)> {
    let mut starts: BTreeSet<u32> = machine.others.keys().copied().collect();
    for number in machine.calls.keys() {
        starts.insert(*number);
        starts.extend(number.checked_add(1));
    }
    let mut ranges: Vec<(u32, Leaf)> = Vec::new();
    for start in starts {
        let leaf = match machine.calls.get(&start) {
            Some(Verdict::Always(action)) => Leaf::Return(*action),
            Some(Verdict::Depends { .. }) => Leaf::Rules(start),
            None => {
                let (_, action) =
                    machine.others.range(..=start).next_back().expect("others start with 0");
                Leaf::Return(*action)
            }
        };
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((start, leaf));
        }
    }
    ranges
}

fn search(asm: &mut Assembler, ranges: &[(u32, Leaf)], branches: &BTreeMap<u32, Label>) -> Label {
    let leaf = |asm: &mut Assembler, leaf| match leaf {
        Leaf::Return(action) => asm.ret(action),
        Leaf::Rules(number) => branches[&number],
    };
    match ranges {
        [(_, only)] => leaf(asm, *only),
        // One number within a range of others: one comparison instead of two.
        [(_, around), (number, inner), (end, after)] if around == after && number + 1 == *end => {
            let (inner, around) = (leaf(asm, *inner), leaf(asm, *around));
            asm.test(Test::Equal, *number, inner, around)
        }
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let above = search(asm, high, branches);
            let below = search(asm, low, branches);
            asm.test(Test::GreaterOrEqual, high[0].0, above, below)
        }
    }
}

fn rules(asm: &mut Assembler, rules: &[Rule], otherwise: u32, wide: bool) -> Label {
    let mut next = asm.ret(otherwise);
    for rule in rules.iter().rev() {
        let mut holds = asm.ret(rule.action);
        for condition in rule.conditions.iter().rev() {
            holds = self::condition(asm, *condition, wide, holds, next);
        }
        next = holds;
    }
    next
}

fn condition(
    asm: &mut Assembler,
    condition: Condition,
    wide: bool,
    yes: Label,
    no: Label,
) -> Label {
    let argument = Argument { offset: ARGUMENTS + 8 * condition.argument, wide };
    let value = condition.value;
    match condition.comparison {
        Comparison::Equal => argument.equal(asm, u64::MAX, value, yes, no),
        Comparison::NotEqual => argument.equal(asm, u64::MAX, value, no, yes),
        Comparison::MaskedEqual { mask } => argument.equal(asm, mask, value, yes, no),
        Comparison::Greater => argument.above(asm, Test::Greater, value, yes, no),
        Comparison::GreaterOrEqual => argument.above(asm, Test::GreaterOrEqual, value, yes, no),
        Comparison::LessOrEqual => argument.above(asm, Test::Greater, value, no, yes),
        Comparison::Less => argument.above(asm, Test::GreaterOrEqual, value, no, yes),
    }
}

/// An argument is 64 bits and the accumulator 32: the halves are compared one after the other.
#[derive(Clone, Copy)]
struct Argument {
    offset: u32,
    wide: bool,
}

impl Argument {
    fn equal(self, asm: &mut Assembler, mask: u64, value: u64, yes: Label, no: Label) -> Label {
        let low = Self::half(asm, self.offset, low(mask), low(value), yes, no);
        match self.wide {
            true if (high(mask), high(value)) != (0, 0) => {
                Self::half(asm, self.offset + 4, high(mask), high(value), low, no)
            }
            _ => low,
        }
    }

    fn half(
        asm: &mut Assembler,
        offset: u32,
        mask: u32,
        value: u32,
        yes: Label,
        no: Label,
    ) -> Label {
        let test = asm.test(Test::Equal, value, yes, no);
        let test = if mask == u32::MAX { test } else { asm.and(mask, test) };
        asm.load(offset, test)
    }

    fn above(self, asm: &mut Assembler, test: Test, value: u64, yes: Label, no: Label) -> Label {
        let low_test = asm.test(test, low(value), yes, no);
        let low_half = asm.load(self.offset, low_test);
        if !self.wide {
            return low_half;
        }
        let equal = asm.test(Test::Equal, high(value), low_half, no);
        let greater = asm.test(Test::Greater, high(value), yes, equal);
        asm.load(self.offset + 4, greater)
    }
}

fn low(value: u64) -> u32 {
    (value & u64::from(u32::MAX)) as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}
