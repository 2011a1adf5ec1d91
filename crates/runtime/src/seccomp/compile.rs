//! An OCI profile, understood: for every architecture and every number, what happens.
//!
//! The words have quirks that grew in libseccomp and runc, and profiles rely on them; each is kept where it is named below.

use std::collections::{BTreeMap, BTreeSet};

use oci::runtime::{Seccomp, SeccompAction, SeccompArg, SeccompOperator, SeccompSyscall};
use stdx::{Error, Result};
use sys::seccomp::Flags;

use super::emit::{Comparison, Condition, Filter, Machine, Rule, Verdict, emit};
use super::syscalls::{self, Numbers};
use super::{Arch, Program};

/// Compiles a profile for this host. Refuses what it cannot express.
pub fn compile(profile: &Seccomp) -> Result<Program> {
    let filter = filter(profile, Arch::NATIVE)?;
    Ok(Program { instructions: emit(&filter)?, flags: flags(profile)? })
}

// SECCOMP_RET_* from linux/seccomp.h.
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const KILL_THREAD: u32 = 0;
pub(super) const TRAP: u32 = 0x0003_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
pub(super) const USER_NOTIFICATION: u32 = 0x7fc0_0000;
pub(super) const TRACE: u32 = 0x7ff0_0000;
pub(super) const LOG: u32 = 0x7ffc_0000;
pub(super) const ALLOW: u32 = 0x7fff_0000;

pub(super) const EPERM: u32 = 1;
pub(super) const ENOSYS: u32 = 38;
/// The kernel's own ceiling for an error number (MAX_ERRNO); above it the verdict would silently be another one.
const HIGHEST_ERRNO: u32 = 4095;

/// Where 32-bit ARM keeps its private calls, far above the numbers that grow.
const ARM_PRIVATE: u32 = 0x000f_0000;

pub(super) fn filter(profile: &Seccomp, native: Arch) -> Result<Filter> {
    if profile.default_action == SeccompAction::Notify {
        return Err(Error::invalid("SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let default = action(profile.default_action, profile.default_errno_ret)?;
    let mut rules = Vec::new();
    let named: Vec<Vec<Named>> = profile.syscalls.iter().map(named).collect();
    for (call, names) in profile.syscalls.iter().zip(&named) {
        if call.action == SeccompAction::Notify && call.names.iter().any(|name| name == "write") {
            // A supervisor in the same process would wait for itself.
            return Err(Error::invalid("SCMP_ACT_NOTIFY cannot be used for the write syscall"));
        }
        let action = action(call.action, call.errno_ret)?;
        // A rule that says what the default says is no rule (runc), whatever else is said of its calls.
        if action != default {
            rules.push(Written { names, action, alternatives: alternatives(&call.args)? });
        }
    }
    let mut machines: Vec<Machine> = Vec::new();
    for arch in architectures(profile, native)? {
        let machine = match machines.iter().position(|machine| machine.audit == arch.audit()) {
            Some(at) => &mut machines[at],
            None => {
                let empty = Machine {
                    audit: arch.audit(),
                    wide: BTreeSet::new(),
                    calls: BTreeMap::new(),
                    others: BTreeMap::new(),
                };
                machines.push(empty);
                machines.last_mut().expect("just pushed")
            }
        };
        add(machine, arch, &rules, default);
        let newest = named
            .iter()
            .flatten()
            .filter_map(|(_, numbers)| numbers.on(arch))
            .filter(|number| *number < ARM_PRIVATE)
            .max();
        if let (Some(newest), false) = (newest, is_lenient(default)) {
            // A call newer than the profile does not exist, instead of being forbidden: the C library then tries the older
            // one, but takes EPERM for an answer (runc, since 1.0.0-rc93).
            machine.others.insert(arch.number_bit() | (newest + 1), ERRNO | ENOSYS);
            if arch == Arch::Arm {
                machine.others.insert(ARM_PRIVATE, default);
            }
        }
    }
    for machine in machines.iter_mut().filter(|machine| machine.audit == Arch::X32.audit()) {
        // Not asked for, so a stranger; except -1, which is what a tracer writes to have a call skipped.
        machine.others.entry(Arch::X32.number_bit()).or_insert(KILL_PROCESS);
        machine.others.entry(u32::MAX).or_insert(default);
    }
    Ok(Filter { machines, stranger: KILL_PROCESS })
}

/// One entry of the profile, its words read.
struct Written<'a> {
    names: &'a [Named<'a>],
    action: u32,
    /// It holds if one of them does; each is a list of conditions that must all hold. Never empty: no condition is one
    /// alternative that always holds.
    alternatives: Vec<Vec<Condition>>,
}

/// A call, and its numbers, which every architecture asks for.
type Named<'a> = (&'a str, Numbers);

fn named(call: &SeccompSyscall) -> Vec<Named<'_>> {
    call.names.iter().map(|name| (name.as_str(), Numbers::of(name))).collect()
}

fn add(machine: &mut Machine, arch: Arch, written: &[Written<'_>], default: u32) {
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for Written { names, action, alternatives } in written {
        for (name, numbers) in *names {
            // A name this architecture or this table does not have is passed over, as libseccomp does: profiles list the
            // calls of all architectures and of kernels to come.
            for conditions in alternatives {
                if let Some(number) = numbers.on(arch) {
                    let rule = Rule { conditions: conditions.clone(), action: *action };
                    rules.entry(number).or_default().push(rule);
                }
                if let Some((number, condition)) = multiplexed(arch, name, conditions, *action) {
                    rules
                        .entry(number)
                        .or_default()
                        .push(Rule { conditions: vec![condition], action: *action });
                }
            }
        }
    }

    let bit = arch.number_bit();
    machine.others.insert(bit, default);
    for (number, rules) in rules {
        let number = number | bit;
        if arch.is_wide() {
            machine.wide.insert(number);
        }
        machine.calls.insert(number, verdict(rules, default));
    }
}

/// A rule without conditions wins over those with, wherever it stands; of two such, the first (libseccomp).
fn verdict(rules: Vec<Rule>, default: u32) -> Verdict {
    match rules.iter().find(|rule| rule.conditions.is_empty()) {
        Some(rule) => Verdict::Always(rule.action),
        None => Verdict::Depends { rules, otherwise: default },
    }
}

/// 32-bit x86 has two ways to most socket and System V calls: their own, and one through a multiplexer that takes the kind
/// as first argument and the rest behind a pointer, which no filter can follow.
///
/// A rule with conditions can so only be kept on the safe side: a refusal refuses all, a permission permits nothing.
fn multiplexed(
    arch: Arch,
    name: &str,
    conditions: &[Condition],
    action: u32,
) -> Option<(u32, Condition)> {
    if arch != Arch::X86 || (!conditions.is_empty() && is_lenient(action)) {
        return None;
    }
    let through = |multiplexer, kind: usize| {
        let number = syscalls::number(multiplexer, arch).expect("x86 has it");
        (number, Condition { argument: 0, comparison: Comparison::Equal, value: kind as u64 })
    };
    // From linux/net.h, counted from 1, and linux/ipc.h.
    const SOCKET_CALLS: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC_CALLS: [(&str, usize); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(at) = SOCKET_CALLS.iter().position(|known| *known == name) {
        return Some(through("socketcall", at + 1));
    }
    let (_, kind) = IPC_CALLS.iter().find(|(known, _)| *known == name)?;
    Some(through("ipc", *kind))
}

/// The native one first, whether listed or not, then the others in their order.
fn architectures(profile: &Seccomp, native: Arch) -> Result<Vec<Arch>> {
    let mut found = vec![native];
    for name in &profile.architectures {
        match Arch::parse(name) {
            Some(arch) if found.contains(&arch) => {}
            Some(arch) => found.push(arch),
            // Known to libseccomp and not to us: this machine cannot run its code either, and if it ever could, a call of
            // an architecture that is not in the filter is deadly.
            None if name.starts_with("SCMP_ARCH_") => {}
            None => {
                return Err(Error::invalid(format!(
                    "string {name} is not a valid arch for seccomp"
                )));
            }
        }
    }
    Ok(found)
}

pub(super) fn action(action: SeccompAction, errno: Option<u32>) -> Result<u32> {
    let number = match errno {
        Some(errno) if errno > HIGHEST_ERRNO => {
            return Err(Error::invalid(format!("seccomp errnoRet {errno} is not an error number")));
        }
        Some(errno) => errno,
        None => EPERM,
    };
    let verdict = match action {
        SeccompAction::Errno => return Ok(ERRNO | number),
        SeccompAction::Trace => return Ok(TRACE | number),
        SeccompAction::KillProcess => KILL_PROCESS,
        SeccompAction::KillThread => KILL_THREAD,
        SeccompAction::Trap => TRAP,
        SeccompAction::Notify => USER_NOTIFICATION,
        SeccompAction::Log => LOG,
        SeccompAction::Allow => ALLOW,
    };
    match errno {
        // Demanded by the specification. Zero is what programs write that cannot leave a field out.
        Some(errno) if errno != 0 => {
            Err(Error::invalid(format!("seccomp action {action:?} takes no errnoRet")))
        }
        _ => Ok(verdict),
    }
}

/// Does the call go through in the end? A tracer is trusted to answer for calls it does not know.
fn is_lenient(action: u32) -> bool {
    matches!(action & 0xffff_0000, ALLOW | LOG | TRACE)
}

fn alternatives(args: &[SeccompArg]) -> Result<Vec<Vec<Condition>>> {
    let conditions = args.iter().map(condition).collect::<Result<Vec<_>>>()?;
    let distinct: BTreeSet<u32> = conditions.iter().map(|condition| condition.argument).collect();
    Ok(match distinct.len() == conditions.len() {
        true => vec![conditions],
        // Two conditions on one argument make all of the entry's conditions alternatives (runc: libseccomp 2.2 could not
        // say otherwise, and profiles were written for it).
        false => conditions.into_iter().map(|condition| vec![condition]).collect(),
    })
}

fn condition(arg: &SeccompArg) -> Result<Condition> {
    if arg.index > 5 {
        return Err(Error::invalid(format!(
            "seccomp argument index {} is not one of 0 to 5",
            arg.index
        )));
    }
    let (comparison, value) = match arg.op {
        SeccompOperator::NotEqual => (Comparison::NotEqual, arg.value),
        SeccompOperator::LessThan => (Comparison::Less, arg.value),
        SeccompOperator::LessOrEqual => (Comparison::LessOrEqual, arg.value),
        SeccompOperator::Equal => (Comparison::Equal, arg.value),
        SeccompOperator::GreaterOrEqual => (Comparison::GreaterOrEqual, arg.value),
        SeccompOperator::GreaterThan => (Comparison::Greater, arg.value),
        SeccompOperator::MaskedEqual => {
            (Comparison::MaskedEqual { mask: arg.value }, arg.value_two)
        }
    };
    Ok(Condition { argument: arg.index, comparison, value })
}

fn flags(profile: &Seccomp) -> Result<Flags> {
    let notifies = profile.syscalls.iter().any(|call| call.action == SeccompAction::Notify);
    // Without SPEC_ALLOW, kernels before 5.16 slow the whole container down for a mitigation nobody asked for (runc).
    let mut flags = if profile.flags.is_empty() { Flags::SPEC_ALLOW } else { Flags::default() };
    for flag in &profile.flags {
        flags = flags
            | match flag.as_str() {
                // The init has one thread: there is nobody to synchronise with.
                "SECCOMP_FILTER_FLAG_TSYNC" => Flags::default(),
                "SECCOMP_FILTER_FLAG_LOG" => Flags::LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Flags::SPEC_ALLOW,
                // The kernel takes it only together with a listener.
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" if !notifies => Flags::default(),
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Flags::WAIT_KILLABLE_RECV,
                _ => {
                    return Err(Error::invalid(format!(
                        "seccomp flag {flag:?} not known to runtime"
                    )));
                }
            };
    }
    Ok(if notifies { flags | Flags::NEW_LISTENER } else { flags })
}
