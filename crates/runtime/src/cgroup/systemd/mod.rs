//! The host's systemd as the maker of containers' groups: a scope for each, in the slice that was asked for, given over to
//! us to do in it as we like (`Delegate`). It is told of limits so that it does not write others when it reads its units
//! again; the files are written by us all the same.

mod holder;
mod properties;
mod unit;

use std::path::{Path, PathBuf};
use std::time::Duration;

use dbus::{Absent, Answer, Bus, Message, Question, SYSTEM_BUS, Value};
use oci::runtime::Resources;
use stdx::{Context, Error, Kind, Result};

use super::Mode;
use crate::userns::in_initial_user_namespace;
pub(super) use holder::Holder;
use properties::{Given, properties};
pub(super) use unit::Unit;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
/// What an answer, and a job, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether systemd is the first process here.
pub fn runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Who makes our scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// The host's first process.
    Host,
    /// The one that runs for a user, who has been given a part of the groups.
    User(u32),
}

impl Manager {
    /// The host's is root's; a user has his own, also when he is root in namespaces of his.
    pub(super) fn ours() -> Self {
        let user = dbus::own_uid();
        let root = rustix::process::geteuid().is_root() && in_initial_user_namespace();
        // Root of a container that has a systemd is a user to those outside, but has none of theirs.
        match !root && Path::new(&format!("/run/user/{user}/systemd")).is_dir() {
            true => Self::User(user),
            false => Self::Host,
        }
    }

    /// Below what its slices are, from the root of a hierarchy.
    pub(super) fn group(self) -> PathBuf {
        match self {
            Self::Host => PathBuf::new(),
            Self::User(uid) => format!("user.slice/user-{uid}.slice/user@{uid}.service").into(),
        }
    }

    fn bus(self) -> PathBuf {
        match self {
            Self::Host => SYSTEM_BUS.into(),
            Self::User(uid) => format!("/run/user/{uid}/bus").into(),
        }
    }

    fn connect(self) -> Result<Systemd> {
        let none = match self {
            Self::Host => "cannot ask systemd for a scope: there is no system bus",
            Self::User(_) => {
                "cannot ask the user's systemd for a scope: there is no bus of the user's (its package is called \
                 dbus-user-session)"
            }
        };
        Systemd::at(&self.bus(), none)
    }
}

/// Whether a user's systemd makes scopes for us: it has a bus, and we live in its part of the one tree, since nobody moves
/// a process from one that is not his.
pub fn users_runs() -> bool {
    let manager = Manager::ours();
    let one_tree = Mode::detect().is_ok_and(|mode| mode == Mode::V2);
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let is_his = one_tree && lives_below(&own, &manager.group());
    matches!(manager, Manager::User(_)) && is_his && manager.bus().exists()
}

fn lives_below(proc_self_cgroup: &str, group: &Path) -> bool {
    let own = proc_self_cgroup.lines().find_map(|line| line.strip_prefix("0::/"));
    own.is_some_and(|own| Path::new(own).starts_with(group))
}

/// Makes the scope. Who answers lives in it until the container does.
pub(super) fn begin(unit: &Unit, resources: &Resources, mode: Mode) -> Result<Holder> {
    let limits = properties(resources, mode)?;
    let mut systemd = Manager::ours().connect()?;
    let holder = Holder::new()?;
    systemd.start(unit, holder.pid.as_raw_nonzero().get().unsigned_abs(), &limits, mode)?;
    Ok(holder)
}

/// Ends the scope with all that is in it. One that has ended by itself is none.
pub(super) fn end(unit: &Unit) -> Result<()> {
    Manager::ours().connect()?.stop(unit)
}

/// Tells of new limits.
pub(super) fn update(unit: &Unit, resources: &Resources, mode: Mode) -> Result<()> {
    let limits = properties(resources, mode)?;
    match limits.is_empty() {
        true => Ok(()),
        false => Manager::ours().connect()?.set(unit, &limits),
    }
}

struct Systemd(Bus);

impl Systemd {
    /// `none` says that there is no bus.
    fn at(bus: &Path, none: &'static str) -> Result<Self> {
        Bus::connect(bus, PATIENCE)?.map(Self).ok_or_else(|| Error::new(Kind::Unavailable, none))
    }

    fn ask(&mut self, member: &str, arguments: &[Value<'_>]) -> Result<Answer> {
        // A user's bus is started by who asks it first, and his systemd comes to it then.
        let absent = Absent::IsAwaited;
        let question =
            Question { destination: SYSTEMD, path: PATH, interface: MANAGER, member, absent };
        self.0.ask(&question, arguments)
    }

    fn start(&mut self, unit: &Unit, pid: u32, limits: &[(&str, Given)], mode: Mode) -> Result<()> {
        let what = format!("unable to start unit {:?}", unit.name);
        let description = format!("container {}", unit.name.trim_end_matches(".scope"));
        let pids = [pid];
        let counts_io = if mode == Mode::V2 { "IOAccounting" } else { "BlockIOAccounting" };
        let mut properties = vec![
            ("Description", Value::Text(&description)),
            ("Slice", Value::Text(&unit.slice)),
            ("Delegate", Value::Flag(true)),
            ("PIDs", Value::Numbers(&pids)),
            // It ends when its slice does, and not before what is stopped first at a shutdown.
            ("DefaultDependencies", Value::Flag(false)),
            // A scope that failed would keep its name.
            ("CollectMode", Value::Text("inactive-or-failed")),
            ("CPUAccounting", Value::Flag(true)),
            ("MemoryAccounting", Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
            (counts_io, Value::Flag(true)),
        ];
        properties.extend(limits.iter().map(|(name, given)| (*name, given.value())));
        let arguments = [
            Value::Text(&unit.name),
            Value::Text("replace"),
            Value::Properties(&properties),
            Value::Nothing("(sa(sv))"),
        ];
        self.hear_of_jobs()?;
        let mut answer = self.ask("StartTransientUnit", &arguments)?;
        if is(&answer, "UnitExists") {
            // What is left of one that is not gone yet, or failed.
            self.stop(unit)?;
            answer = self.ask("StartTransientUnit", &arguments)?;
        }
        match self.result(answer.ok(&what)?)?.as_str() {
            "done" => Ok(()),
            other => Err(Error::unavailable(format!("{what}: {other}"))),
        }
    }

    fn stop(&mut self, unit: &Unit) -> Result<()> {
        let what = format!("unable to stop unit {:?}", unit.name);
        self.hear_of_jobs()?;
        let answer = self.ask("StopUnit", &[Value::Text(&unit.name), Value::Text("replace")])?;
        if is(&answer, "NoSuchUnit") {
            return Ok(());
        }
        self.result(answer.ok(&what)?)?;
        let reset = self.ask("ResetFailedUnit", &[Value::Text(&unit.name)])?;
        match is(&reset, "NoSuchUnit") {
            true => Ok(()),
            false => reset.ok(&what).map(drop),
        }
    }

    fn set(&mut self, unit: &Unit, limits: &[(&str, Given)]) -> Result<()> {
        let what = format!("unable to set properties of unit {:?}", unit.name);
        let limits: Vec<_> = limits.iter().map(|(name, given)| (*name, given.value())).collect();
        // Until the next boot, as the scope itself.
        let arguments = [Value::Text(&unit.name), Value::Flag(true), Value::Properties(&limits)];
        self.ask("SetUnitProperties", &arguments)?.ok(&what).map(drop)
    }

    fn hear_of_jobs(&mut self) -> Result<()> {
        let what = "systemd does not tell of its jobs";
        self.0.ask_bus("AddMatch", &[Value::Text(JOBS)])?.ok(what)?;
        match self.ask("Subscribe", &[])? {
            already if is(&already, "AlreadySubscribed") => Ok(()),
            answer => answer.ok(what).map(drop),
        }
    }

    /// How the job has ended that was answered.
    fn result(&mut self, answer: Vec<String>) -> Result<String> {
        let job = answer.into_iter().next();
        let job = job.context(|| "systemd has not said what it does".to_owned())?;
        let removed = |message: &Message| {
            message.member == "JobRemoved" && message.texts.first() == Some(&job)
        };
        let told = self.0.wait_for(removed).context(|| "systemd has not done it".to_owned())?;
        told.texts.into_iter().nth(2).context(|| "systemd has not said how it went".to_owned())
    }
}

fn is(answer: &Answer, error: &str) -> bool {
    matches!(answer, Answer::Refused { name, .. } if name.rsplit('.').next() == Some(error))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread::JoinHandle;

    use super::*;

    /// What systemd does when it is asked for this.
    #[derive(Clone, Copy)]
    enum Does {
        Answers,
        Refuses(&'static str),
        /// Answers with a job, which ends so, after another's.
        Works(&'static str),
    }

    use Does::{Answers, Refuses, Works};

    /// A bus with a systemd on it that does as the script says; answers what was asked, its texts after it.
    fn systemd(script: &'static [(&str, Does)]) -> (tempfile::TempDir, JoinHandle<Vec<String>>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("bus")).unwrap();
        let answers = move || {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(&stream);
            reader.read_line(&mut line).unwrap();
            (&stream).write_all(b"OK 0123\r\n").unwrap();
            line.clear();
            reader.read_line(&mut line).unwrap();
            assert_eq!(line, "BEGIN\r\n");
            let (hello, serial) = asked(&mut reader).unwrap();
            assert_eq!(hello, "Hello");
            answer(&stream, serial, Answers, &mut 0);
            let (mut told, mut jobs) = (Vec::new(), 0);
            for (member, does) in script {
                let (said, serial) = asked(&mut reader).unwrap();
                assert_eq!(said.split(' ').next(), Some(*member), "{said}");
                told.push(said);
                answer(&stream, serial, *does, &mut jobs);
            }
            assert!(asked(&mut reader).is_none());
            told
        };
        (dir, std::thread::spawn(answers))
    }

    /// Its member and the texts it begins with, and its number.
    fn asked(reader: &mut BufReader<&UnixStream>) -> Option<(String, u32)> {
        let mut bytes = vec![0; 16];
        reader.read_exact(&mut bytes).ok()?;
        let length = dbus::length(bytes.first_chunk().unwrap()).unwrap();
        bytes.resize(length, 0);
        reader.read_exact(&mut bytes[16..]).unwrap();
        let message = dbus::parse(&bytes).unwrap();
        let serial = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
        Some(([vec![message.member], message.texts].concat().join(" "), serial))
    }

    fn answer(mut stream: &UnixStream, serial: u32, does: Does, jobs: &mut u32) {
        let mut send = |kind, fields: &[Field<'_>], body: &[Part<'_>]| {
            stream.write_all(&message(kind, fields, body)).unwrap();
        };
        match does {
            Answers => send(2, &[Field::ReplyTo(serial)], &[]),
            Refuses(error) => send(3, &[Field::ReplyTo(serial), Field::Error(error)], &[]),
            Works(result) => {
                *jobs += 1;
                let job = format!("/job/{jobs}");
                // Somebody else's, and the end before the answer: both happen.
                for (job, result) in [("/job/other", "failed"), (job.as_str(), result)] {
                    let body =
                        [Part::Number(7), Part::Path(job), Part::Text("u"), Part::Text(result)];
                    send(4, &[Field::Member("JobRemoved")], &body);
                }
                send(2, &[Field::ReplyTo(serial)], &[Part::Path(&job)]);
            }
        }
    }

    enum Field<'a> {
        Member(&'a str),
        Error(&'a str),
        ReplyTo(u32),
    }

    enum Part<'a> {
        Number(u32),
        Text(&'a str),
        Path(&'a str),
    }

    /// As the specification lays it out.
    fn message(kind: u8, fields: &[Field<'_>], body: &[Part<'_>]) -> Vec<u8> {
        fn number(bytes: &mut Vec<u8>, number: u32) {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(number.to_le_bytes());
        }
        fn text(bytes: &mut Vec<u8>, text: &str) {
            number(bytes, text.len() as u32);
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        let (mut packed, mut signature) = (Vec::new(), String::new());
        for part in body {
            match part {
                Part::Number(part) => number(&mut packed, *part),
                Part::Text(part) | Part::Path(part) => text(&mut packed, part),
            }
            signature.push(match part {
                Part::Number(_) => 'u',
                Part::Text(_) => 's',
                Part::Path(_) => 'o',
            });
        }
        let mut bytes = vec![b'l', kind, 0, 1];
        number(&mut bytes, packed.len() as u32);
        number(&mut bytes, 1);
        number(&mut bytes, 0);
        for field in fields {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            match field {
                Field::Member(name) => {
                    bytes.extend(b"\x03\x01s\0");
                    text(&mut bytes, name);
                }
                Field::Error(name) => {
                    bytes.extend(b"\x04\x01s\0");
                    text(&mut bytes, name);
                }
                Field::ReplyTo(serial) => {
                    bytes.extend(b"\x05\x01u\0");
                    number(&mut bytes, *serial);
                }
            }
        }
        if !signature.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes.extend(b"\x08\x01g\0");
            bytes.push(signature.len() as u8);
            bytes.extend(signature.as_bytes());
            bytes.push(0);
        }
        let length = (bytes.len() - 16) as u32;
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(packed);
        bytes
    }

    fn unit() -> Unit {
        Unit::parse("a.slice:p:n", "id").unwrap()
    }

    fn connect(dir: &tempfile::TempDir) -> Systemd {
        Systemd::at(&dir.path().join("bus"), "none").unwrap()
    }

    #[test]
    fn a_scope_is_there_when_its_job_is_done() {
        let (dir, bus) = systemd(&[
            ("AddMatch", Answers),
            ("Subscribe", Answers),
            ("StartTransientUnit", Works("done")),
        ]);
        let limits = [("MemoryMax", Given::Number(7))];
        connect(&dir).start(&unit(), 1, &limits, Mode::V2).unwrap();
        assert_eq!(bus.join().unwrap()[2], "StartTransientUnit p-n.scope replace");
    }

    #[test]
    fn what_is_left_of_a_former_one_makes_room() {
        let (dir, bus) = systemd(&[
            ("AddMatch", Answers),
            ("Subscribe", Refuses("org.freedesktop.systemd1.AlreadySubscribed")),
            ("StartTransientUnit", Refuses("org.freedesktop.systemd1.UnitExists")),
            ("AddMatch", Answers),
            ("Subscribe", Answers),
            ("StopUnit", Works("done")),
            ("ResetFailedUnit", Refuses("org.freedesktop.systemd1.NoSuchUnit")),
            ("StartTransientUnit", Works("done")),
        ]);
        connect(&dir).start(&unit(), 1, &[], Mode::V2).unwrap();
        bus.join().unwrap();
    }

    #[test]
    fn a_job_that_fails_is_a_failure() {
        let (dir, bus) = systemd(&[
            ("AddMatch", Answers),
            ("Subscribe", Answers),
            ("StartTransientUnit", Works("failed")),
        ]);
        let failed = connect(&dir).start(&unit(), 1, &[], Mode::V2).unwrap_err();
        assert_eq!(failed.chain(), "unable to start unit \"p-n.scope\": failed");
        bus.join().unwrap();
    }

    #[test]
    fn who_is_gone_is_stopped() {
        let (dir, bus) = systemd(&[
            ("AddMatch", Answers),
            ("Subscribe", Answers),
            ("StopUnit", Refuses("org.freedesktop.systemd1.NoSuchUnit")),
        ]);
        connect(&dir).stop(&unit()).unwrap();
        assert_eq!(bus.join().unwrap()[2], "StopUnit p-n.scope replace");
    }

    #[test]
    fn limits_are_told_until_the_next_boot() {
        let (dir, bus) = systemd(&[("SetUnitProperties", Answers)]);
        connect(&dir).set(&unit(), &[("TasksMax", Given::Number(7))]).unwrap();
        assert_eq!(bus.join().unwrap(), ["SetUnitProperties p-n.scope"]);
    }

    #[test]
    fn a_host_without_a_bus_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Systemd::at(&dir.path().join("bus"), "there is none").err().unwrap();
        assert_eq!(refused.to_string(), "there is none");
    }

    #[test]
    fn a_user_has_a_part_of_the_groups() {
        let group = Manager::User(7).group();
        for (own, expected) in [
            ("0::/user.slice/user-7.slice/user@7.service/app.slice/a.service\n", true),
            ("1:name=systemd:/x\n0::/user.slice/user-7.slice/session-1.scope\n", false),
            ("1:name=systemd:/user.slice/user-7.slice/user@7.service/a\n", false),
        ] {
            assert_eq!(lives_below(own, &group), expected, "{own}");
        }
        assert_eq!(Manager::Host.group(), Path::new(""));
    }

    #[test]
    fn a_holder_ends_with_its_value() {
        let holder = Holder::new().unwrap();
        let place = format!("/proc/{}", holder.pid.as_raw_nonzero());
        assert!(Path::new(&place).exists());
        drop(holder);
        assert!(!Path::new(&place).exists());
    }
}
