//! Which devices a container may open or make: the spec's rules for v1's files and as v2's program.
//!
//! What the rules mean: for each device and each of read, write and mknod, the last rule that speaks of it decides; if none
//! does, the answer is no. v2's program says just that. v1's files cannot say everything, and what they would silently say
//! differently is refused.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use oci::runtime::DeviceRule;
use stdx::{Context, Error, Result};
use sys::bpf::Instruction;

use crate::userns::in_initial_user_namespace;

/// A rule, its words read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    device: Device,
    access: u8,
}

/// What a rule speaks of. `None` is every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Device {
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Block,
    Char,
}

// BPF_DEVCG_ACC_*.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

const EVERYTHING: Device = Device { kind: None, major: None, minor: None };

pub(super) fn parse(rules: &[DeviceRule]) -> Result<Vec<Rule>> {
    rules.iter().map(rule).collect()
}

/// What every container may use, after and above its own rules: the specification's default devices and terminals, and the
/// making of any node (which still cannot be opened). As runc.
pub(super) fn defaults() -> impl Iterator<Item = Rule> {
    let char = |major, minor| Device { kind: Some(Kind::Char), major: Some(major), minor };
    let making = [Kind::Block, Kind::Char].map(|kind| Rule {
        allow: true,
        device: Device { kind: Some(kind), ..EVERYTHING },
        access: MKNOD,
    });
    let using = [
        char(1, Some(3)), // null
        char(1, Some(5)), // zero
        char(1, Some(7)), // full
        char(1, Some(8)), // random
        char(1, Some(9)), // urandom
        char(5, Some(0)), // tty
        char(5, Some(2)), // ptmx
        char(136, None),  // pts/*
    ];
    making.into_iter().chain(using.map(|device| Rule { allow: true, device, access: ALL }))
}

fn rule(rule: &DeviceRule) -> Result<Rule> {
    let invalid = |what: String| Error::invalid(format!("invalid device rule: {what}"));
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => {
            u32::try_from(number).map(Some).map_err(|_| invalid(format!("device number {number}")))
        }
    };
    let kind = match rule.kind.as_str() {
        "" | "a" => None,
        "b" => Some(Kind::Block),
        "c" | "u" => Some(Kind::Char),
        other => return Err(invalid(format!("device type {other:?}"))),
    };
    let mut access = 0;
    for letter in rule.access.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            other => return Err(invalid(format!("device access {other:?}"))),
        };
    }
    let access = if access == 0 { ALL } else { access };
    Ok(Rule {
        allow: rule.allow,
        device: Device { kind, major: number(rule.major)?, minor: number(rule.minor)? },
        access,
    })
}

impl Device {
    /// Is there a device that both speak of?
    fn meets(self, other: Self) -> bool {
        fn meet<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        meet(self.kind, other.kind)
            && meet(self.major, other.major)
            && meet(self.minor, other.minor)
    }
}

/// What a v1 group holds: one answer for all devices, and exceptions from it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    allow: bool,
    exceptions: BTreeMap<Device, u8>,
}

/// The writes that bring a v1 group to these rules; `present` is its `devices.list` if it is not new.
pub(super) fn v1(rules: &[Rule], present: Option<&str>) -> Result<Vec<(&'static str, String)>> {
    let wanted = Table::of(rules)?;
    let mut writes = Vec::new();
    let mut write = |allow: bool, device: Device, access: u8| {
        writes.push((if allow { "devices.allow" } else { "devices.deny" }, text(device, access)));
    };
    let present = match present.map(Table::parse) {
        // Nobody who lives there loses for a moment what he keeps.
        Some(present) if !present.allow && !wanted.allow => present,
        _ => {
            write(wanted.allow, EVERYTHING, ALL);
            Table { allow: wanted.allow, exceptions: BTreeMap::new() }
        }
    };
    for (device, access) in &present.exceptions {
        let surplus = access & !wanted.exceptions.get(device).copied().unwrap_or(0);
        if surplus != 0 {
            write(wanted.allow, *device, surplus);
        }
    }
    for (device, access) in &wanted.exceptions {
        let lacking = access & !present.exceptions.get(device).copied().unwrap_or(0);
        if lacking != 0 {
            write(!wanted.allow, *device, lacking);
        }
    }
    Ok(writes)
}

impl Table {
    /// As the kernel would end up, were the rules written one by one; but where it would pass over one in silence, an error.
    fn of(rules: &[Rule]) -> Result<Self> {
        let mut table = Self { allow: false, exceptions: BTreeMap::new() };
        for rule in rules {
            if rule.device == EVERYTHING && rule.access == ALL {
                table = Self { allow: rule.allow, exceptions: BTreeMap::new() };
                continue;
            }
            // The kernel takes `a` for everything whatever follows, so all types is each of them.
            let kinds = match rule.device.kind {
                Some(kind) => vec![kind],
                None => vec![Kind::Block, Kind::Char],
            };
            for kind in kinds {
                let device = Device { kind: Some(kind), ..rule.device };
                if rule.allow == table.allow {
                    table.forget(device, rule.access)?;
                } else {
                    *table.exceptions.entry(device).or_default() |= rule.access;
                }
            }
        }
        Ok(table)
    }

    fn forget(&mut self, device: Device, access: u8) -> Result<()> {
        if let Some(held) = self.exceptions.get_mut(&device) {
            *held &= !access;
        }
        self.exceptions.retain(|_, held| *held != 0);
        match self
            .exceptions
            .iter()
            .find(|(other, held)| other.meets(device) && **held & access != 0)
        {
            // A rule for more devices or fewer would go on to hold.
            Some((other, held)) => Err(Error::invalid(format!(
                "device rule {} cannot be kept by cgroup v1 beside {}",
                text(device, access),
                text(*other, *held)
            ))),
            None => Ok(()),
        }
    }

    /// Reads `devices.list`. A group that allows by default does not list its exceptions.
    fn parse(list: &str) -> Self {
        let mut table = Self { allow: false, exceptions: BTreeMap::new() };
        for line in list.lines() {
            let mut words = line.split([' ', ':']);
            let (kind, major, minor, access) =
                (words.next(), words.next(), words.next(), words.next());
            let number = |word: Option<&str>| word.and_then(|word| word.parse().ok());
            let kind = match kind {
                Some("b") => Kind::Block,
                Some("c") => Kind::Char,
                _ => {
                    table.allow = true;
                    continue;
                }
            };
            let letters = access.unwrap_or_default();
            let access = [('r', READ), ('w', WRITE), ('m', MKNOD)]
                .iter()
                .filter(|(letter, _)| letters.contains(*letter))
                .fold(0, |access, (_, bit)| access | bit);
            let device = Device { kind: Some(kind), major: number(major), minor: number(minor) };
            table.exceptions.insert(device, access);
        }
        table
    }
}

/// A rule as v1's files take it: `c 1:3 rwm`.
fn text(device: Device, access: u8) -> String {
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let kind = match device.kind {
        None => "a",
        Some(Kind::Block) => "b",
        Some(Kind::Char) => "c",
    };
    let letter = |bit, letter| if access & bit != 0 { letter } else { "" };
    format!(
        "{kind} {}:{} {}{}{}",
        number(device.major),
        number(device.minor),
        letter(READ, "r"),
        letter(WRITE, "w"),
        letter(MKNOD, "m")
    )
}

/// Puts the rules over a v2 group as a program; the one before is replaced in one step.
pub(super) fn attach(cgroup: BorrowedFd<'_>, rules: &[Rule]) -> Result<()> {
    let what = || "cannot attach the device program to the cgroup".to_owned();
    let program = match sys::bpf::load_device_program(&program(rules)) {
        // Who is root in a user namespace only may not load it. Nor can anybody there make a device's node, or open one
        // that was not given.
        Err(err)
            if err.kind() == io::ErrorKind::PermissionDenied && !in_initial_user_namespace() =>
        {
            return Ok(());
        }
        loaded => loaded.context(|| "cannot load the device program".to_owned())?,
    };
    let before = sys::bpf::device_programs(cgroup).context(what)?;
    match before.as_slice() {
        [one] => sys::bpf::attach_device_program(cgroup, program.as_fd(), Some(one.as_fd()))
            .context(what),
        several => {
            sys::bpf::attach_device_program(cgroup, program.as_fd(), None).context(what)?;
            for old in several {
                sys::bpf::detach_device_program(cgroup, old.as_fd()).context(what)?;
            }
            Ok(())
        }
    }
}

// Registers: 0 is the answer, 1 the question (`struct bpf_cgroup_dev_ctx`), 2 the type, 3 what is still asked for, 4 and 5 the
// numbers.
const ANSWER: u8 = 0;
const QUESTION: u8 = 1;
const KIND: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// BPF opcodes: class, operation, and K for an immediate operand.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_EQUAL: u8 = 0x15;
/// On 32 bits: a device number is unsigned, and the immediate of a 64-bit comparison is extended by its sign.
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

/// The rules from the last to the first. What one allows is no longer wanted; when nothing is, the answer is yes.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        load(KIND, 0),
        register(MOVE_REGISTER, WANTED, KIND),
        immediate(AND, KIND, 0xffff),
        immediate(SHIFT_RIGHT, WANTED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let verdict = verdict(rule);
        let mut tests = Vec::new();
        // BPF_DEVCG_DEV_*.
        tests.extend(rule.device.kind.map(|kind| (KIND, if kind == Kind::Block { 1 } else { 2 })));
        tests.extend(rule.device.major.map(|major| (MAJOR, major)));
        tests.extend(rule.device.minor.map(|minor| (MINOR, minor)));
        let tests_left = |at: usize| tests.len() - at - 1;
        for (at, (number, value)) in tests.iter().enumerate() {
            let past = tests_left(at) + verdict.len();
            code.push(jump(JUMP_UNLESS_EQUAL, *number, value.cast_signed(), past));
        }
        code.extend(&verdict);
        if tests.is_empty() && rule.access == ALL {
            // The verifier refuses what can never be reached.
            return code;
        }
    }
    code.extend(answer(false));
    code
}

/// What a rule does to a device it speaks of.
fn verdict(rule: &Rule) -> Vec<Instruction> {
    let others = i32::from(!rule.access & ALL);
    match (rule.allow, rule.access) {
        (allow, ALL) => answer(allow).to_vec(),
        (true, _) => {
            let [yes, exit] = answer(true);
            vec![immediate(AND, WANTED, others), jump(JUMP_UNLESS_EQUAL, WANTED, 0, 2), yes, exit]
        }
        (false, access) => {
            let [no, exit] = answer(false);
            vec![
                register(MOVE_REGISTER, ANSWER, WANTED),
                immediate(AND, ANSWER, i32::from(access)),
                jump(JUMP_IF_EQUAL, ANSWER, 0, 2),
                no,
                exit,
            ]
        }
    }
}

fn answer(allow: bool) -> [Instruction; 2] {
    [immediate(MOVE, ANSWER, i32::from(allow)), immediate(EXIT, 0, 0)]
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: register | QUESTION << 4, offset, immediate: 0 }
}

fn immediate(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn register(code: u8, to: u8, from: u8) -> Instruction {
    Instruction { code, registers: to | from << 4, offset: 0, immediate: 0 }
}

fn jump(code: u8, register: u8, value: i32, past: usize) -> Instruction {
    let offset = i16::try_from(past).expect("a rule is a few instructions");
    Instruction { code, registers: register, offset, immediate: value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+c 1:3 rw` and `-a`: the way rules are written here.
    fn rules(text: &str) -> Vec<Rule> {
        let one = |text: &str| {
            let mut words = text[1..].split([' ', ':']);
            let kind = words.next().unwrap().to_owned();
            let number = |word: Option<&str>| word.and_then(|word| word.parse().ok());
            let (major, minor) = (number(words.next()), number(words.next()));
            let access = words.next().unwrap_or("rwm").to_owned();
            rule(&DeviceRule { allow: text.starts_with('+'), kind, major, minor, access }).unwrap()
        };
        text.split(',').map(str::trim).map(one).collect()
    }

    const DOCKERS: &str =
        "-a *:* rwm, +c *:* m, +b *:* m, +c 1:3 rwm, +c 1:5 rwm, +c 5:0 rwm, +c 136:* rwm";

    fn writes(text: &str, present: Option<&str>) -> String {
        match v1(&rules(text), present) {
            Ok(writes) => writes.iter().map(|(file, rule)| format!("{file} {rule}\n")).collect(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_new_v1_group_gets_all_rules() {
        assert_eq!(
            writes("-a *:* rwm, +c *:* m, +c 1:3 rw, +c 1:3 m", None),
            "devices.deny a *:* rwm\ndevices.allow c *:* m\ndevices.allow c 1:3 rwm\n"
        );
        assert_eq!(writes("+a *:* rwm", None), "devices.allow a *:* rwm\n");
        assert_eq!(
            writes("+a *:* rwm, -a *:* m", None),
            "devices.allow a *:* rwm\ndevices.deny b *:* m\ndevices.deny c *:* m\n"
        );
    }

    #[test]
    fn a_v1_group_that_lives_gets_the_difference() {
        let present = "c 1:3 rwm\nc *:* m\nb 8:0 r\n";
        assert_eq!(writes("-a *:* rwm, +c *:* m, +c 1:3 rwm, +b 8:0 r", Some(present)), "");
        assert_eq!(
            writes("-a *:* rwm, +c 1:3 r, +c 1:5 r", Some(present)),
            "devices.deny b 8:0 r\ndevices.deny c *:* m\ndevices.deny c 1:3 wm\ndevices.allow c 1:5 r\n"
        );
        assert_eq!(
            writes("-a *:* rwm, +c 1:3 r", Some("a *:* rwm\n")),
            "devices.deny a *:* rwm\ndevices.allow c 1:3 r\n"
        );
    }

    #[test]
    fn what_v1_would_pass_over_is_refused() {
        assert_eq!(
            writes("-a *:* rwm, +c *:* rw, -c 1:3 rw", None),
            "device rule c 1:3 rw cannot be kept by cgroup v1 beside c *:* rw"
        );
        assert_eq!(
            writes("+a *:* rwm, -c 1:* w, +c 1:3 w", None),
            "device rule c 1:3 w cannot be kept by cgroup v1 beside c 1:* w"
        );
    }

    #[test]
    fn the_program_says_what_the_rules_say() {
        let several = [
            DOCKERS,
            "+a *:* rwm",
            "-a *:* rwm",
            "+c 1:3 r",
            "-a *:* rwm, +c 1:3 r, +c 1:3 w",
            "+a *:* rwm, -c 1:* w, +c 1:3 w",
            "-a *:* rwm, +a *:* r, -b 8:* r, +b 8:1 rw",
            "+a 1:* rw",
        ];
        for text in several {
            let rules = rules(text);
            let program = program(&rules);
            for kind in [Kind::Block, Kind::Char] {
                for (major, minor) in
                    [(1, 3), (1, 5), (1, 9), (5, 0), (8, 0), (8, 1), (136, 77), (u32::MAX, 0)]
                {
                    for access in 1..=ALL {
                        let mut asked =
                            [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0);
                        let expected = asked.all(|bit| allowed(&rules, kind, major, minor, bit));
                        let found = run(&program, kind, major, minor, access);
                        assert_eq!(
                            found, expected,
                            "{text}: {kind:?} {major}:{minor} {access:03b}"
                        );
                    }
                }
            }
        }
    }

    /// The meaning, as the module says it.
    fn allowed(rules: &[Rule], kind: Kind, major: u32, minor: u32, bit: u8) -> bool {
        let asked = Device { kind: Some(kind), major: Some(major), minor: Some(minor) };
        rules
            .iter()
            .rev()
            .find(|rule| rule.device.meets(asked) && rule.access & bit != 0)
            .is_some_and(|rule| rule.allow)
    }

    /// The kernel's part.
    fn run(program: &[Instruction], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let kind = if kind == Kind::Block { 1 } else { 2 };
        let question = [u32::from(access) << 16 | kind, major, minor];
        let mut registers = [0u64; 16];
        let mut at = 0usize;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[at];
            at += 1;
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            let value = i64::from(immediate).cast_unsigned();
            let jump = usize::try_from(offset).unwrap();
            match code {
                LOAD_WORD => registers[to] = u64::from(question[jump / 4]),
                MOVE => registers[to] = value,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_IF_EQUAL if registers[to] == value => at += jump,
                JUMP_UNLESS_EQUAL if registers[to] as u32 != value as u32 => at += jump,
                JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[usize::from(ANSWER)] != 0,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        let refusal = |rule: DeviceRule| super::rule(&rule).unwrap_err().to_string();
        let one = DeviceRule { kind: "x".to_owned(), ..DeviceRule::default() };
        assert_eq!(refusal(one), "invalid device rule: device type \"x\"");
        let one = DeviceRule { access: "rx".to_owned(), ..DeviceRule::default() };
        assert_eq!(refusal(one), "invalid device rule: device access 'x'");
        let one = DeviceRule { major: Some(-2), ..DeviceRule::default() };
        assert_eq!(refusal(one), "invalid device rule: device number -2");
    }

    /// The kernel's verifier takes the program, and it is obeyed: the v2 half on hosts whose devices are guarded by v1.
    #[test]
    fn the_kernel_obeys_the_program() {
        use std::os::fd::AsFd;
        use std::process::{Command, Stdio};

        let host = super::super::host::host().unwrap();
        let (Some(unified), true) = (&host.unified, rustix::process::geteuid().is_root()) else {
            eprintln!("SKIPPED: needs root and a v2 hierarchy");
            return;
        };
        let path = unified.mount_point.join(format!("gantry-test-devices-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let cgroup = std::fs::File::open(&path).unwrap();
        // The processes have ended by then.
        let refused = |device: &str| {
            let script =
                format!("echo 0 > {}/cgroup.procs && exec head -c0 {device}", path.display());
            let mut command = Command::new("sh");
            let output = command.args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
            String::from_utf8_lossy(&output.stderr).contains("Operation not permitted")
        };
        let answers = || (refused("/dev/zero"), refused("/dev/null"), refused("/dev/kmsg"));
        let before = answers();
        attach(cgroup.as_fd(), &rules(DOCKERS)).unwrap();
        let after = answers();
        // Attached again, in the place of the first.
        attach(cgroup.as_fd(), &rules("-a *:* rwm, +c 1:3 rw, +c 1:11 r")).unwrap();
        let replaced = answers();
        let count = sys::bpf::device_programs(cgroup.as_fd()).unwrap().len();
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(before, (false, false, false));
        assert_eq!(after, (false, false, true));
        assert_eq!(replaced, (true, false, false));
        assert_eq!(count, 1);
    }
}
