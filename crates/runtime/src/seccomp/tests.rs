//! Programs are run by the interpreter and must say what the profile says; the kernel itself is asked in the room's tests.

use oci::runtime::{Seccomp, SeccompAction, SeccompArg, SeccompOperator, SeccompSyscall};

use super::compile::*;
use super::emit::emit;
use super::interpret::{Call, run};
use super::profile::{Profile, Surroundings};
use super::{Arch, syscalls};

fn rule(names: &[&str], action: SeccompAction, args: &[SeccompArg]) -> SeccompSyscall {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    SeccompSyscall { names, action, errno_ret: None, args: args.to_vec() }
}

fn arg(index: u32, op: SeccompOperator, value: u64, value_two: u64) -> SeccompArg {
    SeccompArg { index, value, value_two, op }
}

fn profile(default_action: SeccompAction, syscalls: Vec<SeccompSyscall>) -> Seccomp {
    let architectures =
        [Arch::X86_64, Arch::X86, Arch::X32].map(|arch| arch.name().to_owned()).to_vec();
    Seccomp { default_action, architectures, syscalls, ..Seccomp::default() }
}

fn program(profile: &Seccomp, native: Arch) -> Vec<sys::seccomp::Instruction> {
    emit(&filter(profile, native).unwrap()).unwrap()
}

/// The verdict on a call by name.
fn verdict(profile: &Seccomp, arch: Arch, name: &str, arguments: [u64; 6]) -> u32 {
    let number = syscalls::number(name, arch).unwrap() | arch.number_bit();
    verdict_on(profile, arch.audit(), number, arguments)
}

fn verdict_on(profile: &Seccomp, audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    run(&program(profile, Arch::X86_64), Call { audit, number, arguments }).0
}

const NONE: [u64; 6] = [0; 6];

fn first(value: u64) -> [u64; 6] {
    [value, 0, 0, 0, 0, 0]
}

#[test]
fn every_operator_on_both_halves() {
    let interesting =
        [0, 1, 5, 0xffff_ffff, 1 << 32, (1 << 32) + 5, 5 << 32, u64::MAX - 1, u64::MAX];
    type Holds = fn(u64, u64, u64) -> bool;
    let operators: [(SeccompOperator, Holds); 7] = [
        (SeccompOperator::NotEqual, |is, than, _| is != than),
        (SeccompOperator::LessThan, |is, than, _| is < than),
        (SeccompOperator::LessOrEqual, |is, than, _| is <= than),
        (SeccompOperator::Equal, |is, than, _| is == than),
        (SeccompOperator::GreaterOrEqual, |is, than, _| is >= than),
        (SeccompOperator::GreaterThan, |is, than, _| is > than),
        (SeccompOperator::MaskedEqual, |is, mask, value| is & mask == value),
    ];
    for (op, holds) in operators {
        for value in interesting {
            for value_two in [0, 5, 1 << 32] {
                let wanted = [arg(2, op, value, value_two)];
                let profile = profile(
                    SeccompAction::Errno,
                    vec![rule(&["read"], SeccompAction::Allow, &wanted)],
                );
                let program = program(&profile, Arch::X86_64);
                for is in interesting {
                    let arguments = [9, 9, is, 9, 9, 9];
                    let wide = Call { audit: Arch::X86_64.audit(), number: 0, arguments };
                    let allowed = if holds(is, value, value_two) { ALLOW } else { ERRNO | EPERM };
                    assert_eq!(
                        run(&program, wide).0,
                        allowed,
                        "{op:?} {value:#x} {value_two:#x}: {is:#x}"
                    );

                    let low = |value: u64| value & 0xffff_ffff;
                    let narrow = Call { audit: Arch::X86.audit(), number: 3, arguments };
                    let allowed = if holds(low(is), low(value), low(value_two)) {
                        ALLOW
                    } else {
                        ERRNO | EPERM
                    };
                    assert_eq!(
                        run(&program, narrow).0,
                        allowed,
                        "32 bits: {op:?} {value:#x} {value_two:#x}: {is:#x}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_action_has_its_verdict() {
    for (action, expected) in [
        (SeccompAction::KillProcess, KILL_PROCESS),
        (SeccompAction::KillThread, KILL_THREAD),
        (SeccompAction::Trap, TRAP),
        (SeccompAction::Errno, ERRNO | EPERM),
        (SeccompAction::Trace, TRACE | EPERM),
        (SeccompAction::Log, LOG),
        (SeccompAction::Notify, USER_NOTIFICATION),
    ] {
        let profile = profile(SeccompAction::Allow, vec![rule(&["read"], action, &[])]);
        assert_eq!(verdict(&profile, Arch::X86_64, "read", NONE), expected, "{action:?}");
        assert_eq!(verdict(&profile, Arch::X86_64, "write", NONE), ALLOW);
    }
}

#[test]
fn each_rule_has_its_own_error() {
    let mut one = rule(&["read"], SeccompAction::Errno, &[]);
    one.errno_ret = Some(13);
    let two = rule(&["close"], SeccompAction::Errno, &[]);
    let profile =
        Seccomp { default_errno_ret: Some(7), ..profile(SeccompAction::Errno, vec![one, two]) };
    assert_eq!(verdict(&profile, Arch::X86_64, "read", NONE), ERRNO | 13);
    assert_eq!(verdict(&profile, Arch::X86_64, "close", NONE), ERRNO | EPERM);
    assert_eq!(verdict(&profile, Arch::X86_64, "write", NONE), ERRNO | 7);
}

#[test]
fn all_conditions_of_a_rule_must_hold_and_any_rule_may() {
    let both = [arg(0, SeccompOperator::Equal, 1, 0), arg(1, SeccompOperator::Equal, 2, 0)];
    let rules = vec![
        rule(&["read"], SeccompAction::Allow, &both),
        rule(&["read"], SeccompAction::Log, &[arg(0, SeccompOperator::Equal, 3, 0)]),
    ];
    let profile = profile(SeccompAction::Errno, rules);
    assert_eq!(verdict(&profile, Arch::X86_64, "read", [1, 2, 0, 0, 0, 0]), ALLOW);
    assert_eq!(verdict(&profile, Arch::X86_64, "read", [1, 3, 0, 0, 0, 0]), ERRNO | EPERM);
    assert_eq!(verdict(&profile, Arch::X86_64, "read", [3, 2, 0, 0, 0, 0]), LOG);
}

#[test]
fn two_conditions_on_one_argument_are_alternatives() {
    let either = [arg(0, SeccompOperator::Equal, 1, 0), arg(0, SeccompOperator::Equal, 2, 0)];
    let profile =
        profile(SeccompAction::Errno, vec![rule(&["read"], SeccompAction::Allow, &either)]);
    assert_eq!(verdict(&profile, Arch::X86_64, "read", first(2)), ALLOW);
    assert_eq!(verdict(&profile, Arch::X86_64, "read", first(3)), ERRNO | EPERM);
}

#[test]
fn a_rule_without_conditions_wins() {
    let rules = vec![
        rule(&["read"], SeccompAction::KillProcess, &[arg(0, SeccompOperator::Equal, 1, 0)]),
        rule(&["read"], SeccompAction::Allow, &[]),
        rule(&["read"], SeccompAction::Log, &[]),
    ];
    assert_eq!(
        verdict(&profile(SeccompAction::Errno, rules), Arch::X86_64, "read", first(1)),
        ALLOW
    );
}

#[test]
fn strangers_die() {
    let only_native = Seccomp { architectures: vec![], ..profile(SeccompAction::Allow, vec![]) };
    assert_eq!(verdict_on(&only_native, Arch::X86_64.audit(), 0, NONE), ALLOW);
    assert_eq!(verdict_on(&only_native, Arch::X86.audit(), 3, NONE), KILL_PROCESS);
    assert_eq!(verdict_on(&only_native, Arch::X86_64.audit(), 1 << 30, NONE), KILL_PROCESS);
    assert_eq!(verdict_on(&only_native, Arch::X86_64.audit(), u32::MAX, NONE), ALLOW);
    let with_x32 = profile(SeccompAction::Allow, vec![]);
    assert_eq!(verdict_on(&with_x32, Arch::X86_64.audit(), 1 << 30, NONE), ALLOW);
}

#[test]
fn a_call_newer_than_the_profile_does_not_exist() {
    let profile =
        profile(SeccompAction::Errno, vec![rule(&["read", "openat2"], SeccompAction::Allow, &[])]);
    for (audit, bit) in
        [(Arch::X86_64.audit(), 0), (Arch::X86.audit(), 0), (Arch::X32.audit(), 1 << 30)]
    {
        assert_eq!(verdict_on(&profile, audit, bit | 437, NONE), ALLOW);
        assert_eq!(verdict_on(&profile, audit, bit | 438, NONE), ERRNO | ENOSYS);
        assert_eq!(verdict_on(&profile, audit, bit | 200, NONE), ERRNO | EPERM);
    }
}

#[test]
fn what_goes_through_a_multiplexer_is_kept_on_the_safe_side() {
    let only = |value| [arg(0, SeccompOperator::Equal, value, 0)];
    let refusing = profile(
        SeccompAction::Allow,
        vec![rule(&["socket", "shmget"], SeccompAction::Errno, &only(38))],
    );
    assert_eq!(verdict(&refusing, Arch::X86, "socketcall", first(1)), ERRNO | EPERM);
    assert_eq!(verdict(&refusing, Arch::X86, "socketcall", first(2)), ALLOW);
    assert_eq!(verdict(&refusing, Arch::X86, "ipc", first(23)), ERRNO | EPERM);
    let permitting = vec![
        rule(&["socket"], SeccompAction::Allow, &only(1)),
        rule(&["bind"], SeccompAction::Allow, &[]),
    ];
    let permitting = profile(SeccompAction::Errno, permitting);
    assert_eq!(verdict(&permitting, Arch::X86, "socketcall", first(1)), ERRNO | EPERM);
    assert_eq!(verdict(&permitting, Arch::X86, "socketcall", first(2)), ALLOW);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let refusal = |profile: &Seccomp| compile(profile).unwrap_err().to_string();
    assert_eq!(
        refusal(&profile(SeccompAction::Notify, vec![])),
        "SCMP_ACT_NOTIFY cannot be used as default action"
    );
    assert_eq!(
        refusal(&profile(SeccompAction::Allow, vec![rule(&["write"], SeccompAction::Notify, &[])])),
        "SCMP_ACT_NOTIFY cannot be used for the write syscall"
    );
    let mut strange = rule(&["read"], SeccompAction::Trap, &[]);
    strange.errno_ret = Some(3);
    assert_eq!(
        refusal(&profile(SeccompAction::Allow, vec![strange])),
        "seccomp action Trap takes no errnoRet"
    );
    let high = rule(&["read"], SeccompAction::Trap, &[arg(6, SeccompOperator::Equal, 0, 0)]);
    assert_eq!(
        refusal(&profile(SeccompAction::Allow, vec![high])),
        "seccomp argument index 6 is not one of 0 to 5"
    );
    let arch = Seccomp {
        architectures: vec!["x86_64".to_owned()],
        ..profile(SeccompAction::Allow, vec![])
    };
    assert_eq!(refusal(&arch), "string x86_64 is not a valid arch for seccomp");
    let flag = Seccomp {
        flags: vec!["SECCOMP_FILTER_FLAG_X".to_owned()],
        ..profile(SeccompAction::Allow, vec![])
    };
    assert_eq!(refusal(&flag), "seccomp flag \"SECCOMP_FILTER_FLAG_X\" not known to runtime");
}

/// The whole default profile, every number of every architecture, against a reading of the profile that is as plain as
/// possible.
#[test]
fn the_default_profile_says_what_it_says() {
    for capabilities in [vec![], vec!["CAP_SYS_ADMIN".to_owned(), "CAP_SYSLOG".to_owned()]] {
        let surroundings = Surroundings { capabilities: &capabilities, kernel: (6, 1) };
        let profile = Profile::default_profile().resolve(surroundings);
        let program = program(&profile, Arch::X86_64);
        assert!(program.len() < 2500, "{} instructions", program.len());
        let mut longest = 0;
        for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
            let newest = profile.syscalls.iter().flat_map(|call| &call.names);
            let newest = newest.filter_map(|name| syscalls::number(name, arch)).max().unwrap();
            for number in 0..600 {
                for value in [0, 8, 38, 39, 40, 41, 0x1000_0000, 0x7e02_0000, 0xffff_ffff] {
                    let call = Call {
                        audit: arch.audit(),
                        number: number | arch.number_bit(),
                        arguments: first(value),
                    };
                    let (verdict, steps) = run(&program, call);
                    longest = longest.max(steps);
                    let expected = plainly(&profile, arch, number, value, newest);
                    assert_eq!(verdict, expected, "{arch:?} {number} {value:#x} {capabilities:?}");
                }
            }
        }
        assert!(longest < 50, "{longest} steps");
    }
}

fn plainly(profile: &Seccomp, arch: Arch, number: u32, value: u64, newest: u32) -> u32 {
    let mut found = ERRNO | if number > newest { ENOSYS } else { EPERM };
    for call in &profile.syscalls {
        if !call.names.iter().any(|name| syscalls::number(name, arch) == Some(number)) {
            continue;
        }
        let is = |index| if index == 0 { value } else { 0 };
        let holds = call.args.iter().all(|arg| match arg.op {
            SeccompOperator::Equal => is(arg.index) == arg.value,
            SeccompOperator::LessThan => is(arg.index) < arg.value,
            SeccompOperator::GreaterThan => is(arg.index) > arg.value,
            SeccompOperator::MaskedEqual => is(arg.index) & arg.value == arg.value_two,
            other => panic!("the default profile has no {other:?}"),
        });
        if holds {
            found = action(call.action, call.errno_ret).unwrap();
        }
    }
    found
}

/// So many rules that no conditional jump reaches across them.
#[test]
fn long_ways_are_bridged() {
    let one = |value| arg(0, SeccompOperator::Equal, value, 0);
    let mut rules: Vec<_> =
        (0..120).map(|value| rule(&["read"], SeccompAction::Allow, &[one(value * 3)])).collect();
    rules.extend((0..120).map(|value| rule(&["close"], SeccompAction::Log, &[one(value * 3)])));
    let profile = profile(SeccompAction::Errno, rules);
    let program = program(&profile, Arch::X86_64);
    assert!(program.len() > 1000);
    for value in 0..360 {
        for (number, hit) in [(0, ALLOW), (3, LOG)] {
            let call = Call { audit: Arch::X86_64.audit(), number, arguments: first(value) };
            let expected = if value % 3 == 0 { hit } else { ERRNO | EPERM };
            assert_eq!(run(&program, call).0, expected, "{number} {value}");
        }
    }
    let other = Call { audit: Arch::X86_64.audit(), number: 1, arguments: NONE };
    assert_eq!(run(&program, other).0, ERRNO | EPERM);
}

#[test]
fn arm_knows_its_private_calls() {
    let profile = Seccomp {
        architectures: vec![Arch::Arm.name().to_owned()],
        ..profile(
            SeccompAction::Errno,
            vec![rule(&["read", "cacheflush"], SeccompAction::Allow, &[])],
        )
    };
    let program = program(&profile, Arch::Aarch64);
    let verdict = |audit, number| run(&program, Call { audit, number, arguments: NONE }).0;
    assert_eq!(verdict(Arch::Aarch64.audit(), 63), ALLOW);
    assert_eq!(verdict(Arch::Arm.audit(), 3), ALLOW);
    assert_eq!(verdict(Arch::Arm.audit(), 4), ERRNO | ENOSYS);
    assert_eq!(verdict(Arch::Arm.audit(), 0x000f_0001), ERRNO | EPERM);
    assert_eq!(verdict(Arch::Arm.audit(), 0x000f_0002), ALLOW);
}
