//! CRIU's requests and answers, as far as they are used here. The numbers are those of its `rpc.proto`.

use stdx::Result;

use super::wire::{Value, Writer, fields};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dump,
    Restore,
    Check,
    PreDump,
    Notify,
    Version,
    Other(i64),
}

impl Kind {
    const NUMBERS: [(Self, i64); 6] = [
        (Self::Dump, 1),
        (Self::Restore, 2),
        (Self::Check, 3),
        (Self::PreDump, 4),
        (Self::Notify, 6),
        (Self::Version, 10),
    ];

    fn number(self) -> i64 {
        match self {
            Self::Other(number) => number,
            known => {
                let found = Self::NUMBERS.iter().find(|(kind, _)| *kind == known);
                found.expect("every kind but the others is in the table").1
            }
        }
    }

    fn of(number: i64) -> Self {
        let found = Self::NUMBERS.iter().find(|(_, known)| *known == number);
        found.map_or(Self::Other(number), |(kind, _)| *kind)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dump => "DUMP",
            Self::Restore => "RESTORE",
            Self::Check => "CHECK",
            Self::PreDump => "PRE_DUMP",
            Self::Notify => "NOTIFY",
            Self::Version => "VERSION",
            Self::Other(_) => "UNKNOWN",
        }
    }
}

/// How control groups are kept: what CRIU calls `ignore`, `soft`, `full` and `strict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cgroups {
    Ignore,
    #[default]
    Soft,
    Full,
    Strict,
}

impl Cgroups {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "ignore" => Self::Ignore,
            "" | "soft" => Self::Soft,
            "full" => Self::Full,
            "strict" => Self::Strict,
            _ => return None,
        })
    }

    fn number(self) -> i64 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
        }
    }
}

/// What CRIU is told. Descriptors are ours by number: it opens them through our `/proc`, but for those to be inherited,
/// which are its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub images: i32,
    pub work: Option<i32>,
    pub log_file: String,
    pub pid: Option<i32>,
    pub root: Option<String>,
    pub parent_images: Option<String>,
    pub leave_running: bool,
    pub tcp_established: bool,
    pub tcp_skip_in_flight: bool,
    pub external_unix_sockets: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub link_remap: bool,
    pub track_memory: bool,
    pub auto_dedup: bool,
    pub notify: bool,
    pub orphan_terminal: bool,
    pub sibling: bool,
    pub cgroups: Option<Cgroups>,
    pub freeze_cgroup: Option<String>,
    /// By controller.
    pub cgroup_roots: Vec<(String, String)>,
    pub external: Vec<String>,
    pub inherit: Vec<(String, i32)>,
    /// Kinds of namespaces to be left empty, as `clone` flags.
    pub empty_namespaces: u32,
    pub lsm_profile: Option<String>,
}

/// All that it does is in its log.
const LOG_LEVEL: i64 = 4;

impl Options {
    fn write(&self, to: &mut Writer) {
        to.number(1, i64::from(self.images));
        if let Some(pid) = self.pid {
            to.number(2, i64::from(pid));
        }
        to.switch(3, self.leave_running);
        to.switch(4, self.external_unix_sockets);
        to.switch(5, self.tcp_established);
        to.switch(7, self.shell_job);
        to.switch(8, self.file_locks);
        if !self.log_file.is_empty() {
            to.number(9, LOG_LEVEL);
            to.bytes(10, self.log_file.as_bytes());
        }
        to.switch(12, self.notify);
        text(to, 13, self.root.as_deref());
        text(to, 14, self.parent_images.as_deref());
        to.switch(15, self.track_memory);
        to.switch(16, self.auto_dedup);
        if let Some(work) = self.work {
            to.number(17, i64::from(work));
        }
        to.switch(18, self.link_remap);
        for (controller, path) in &self.cgroup_roots {
            to.message(25, |root| {
                root.bytes(1, controller.as_bytes());
                root.bytes(2, path.as_bytes());
            });
        }
        to.switch(26, self.sibling);
        for (key, fd) in &self.inherit {
            to.message(27, |inherit| {
                inherit.bytes(1, key.as_bytes());
                inherit.number(2, i64::from(*fd));
            });
        }
        if let Some(cgroups) = self.cgroups {
            to.switch(24, cgroups != Cgroups::Ignore);
            to.number(34, cgroups.number());
        }
        for external in &self.external {
            to.bytes(37, external.as_bytes());
        }
        if self.empty_namespaces != 0 {
            to.number(38, i64::from(self.empty_namespaces));
        }
        text(to, 44, self.freeze_cgroup.as_deref());
        to.switch(46, self.tcp_skip_in_flight);
        to.switch(50, self.orphan_terminal);
        text(to, 53, self.lsm_profile.as_deref());
    }
}

fn text(to: &mut Writer, field: u32, value: Option<&str>) {
    if let Some(value) = value {
        to.bytes(field, value.as_bytes());
    }
}

pub(super) fn request(kind: Kind, options: Option<&Options>) -> Vec<u8> {
    let mut request = Writer::default();
    request.number(1, kind.number());
    if let Some(options) = options {
        request.message(2, |to| options.write(to));
    }
    request.finish()
}

/// Go on, after a notification.
pub(super) fn heard() -> Vec<u8> {
    let mut request = Writer::default();
    request.number(1, Kind::Notify.number());
    request.switch(3, true);
    request.finish()
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub kind: Kind,
    pub success: bool,
    /// Of what was restored.
    pub pid: Option<i32>,
    /// What a notification is about.
    pub script: String,
    pub errno: i64,
    pub message: String,
    /// Major, minor and sub-level.
    pub version: [i64; 3],
}

impl Answer {
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let mut answer = Self {
            kind: Kind::Other(0),
            success: false,
            pid: None,
            script: String::new(),
            errno: 0,
            message: String::new(),
            version: [0; 3],
        };
        for (field, value) in fields(bytes)? {
            match field {
                1 => answer.kind = Kind::of(value.number()),
                2 => answer.success = value.number() != 0,
                4 => answer.pid = inner(value, 1)?.and_then(|pid| pid.number().try_into().ok()),
                5 => answer.script = inner(value, 1)?.map(words).unwrap_or_default(),
                7 => answer.errno = value.number(),
                9 => answer.message = words(value),
                10 => {
                    for (place, field) in [1, 2, 4].into_iter().enumerate() {
                        answer.version[place] = inner(value, field)?.map_or(0, Value::number);
                    }
                }
                _ => {}
            }
        }
        Ok(answer)
    }
}

fn inner(message: Value<'_>, wanted: u32) -> Result<Option<Value<'_>>> {
    let found = fields(message.bytes())?;
    Ok(found.into_iter().find(|(field, _)| *field == wanted).map(|(_, value)| value))
}

fn words(value: Value) -> String {
    String::from_utf8_lossy(value.bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_real_one() {
        // criu 3.17.1, asked for its version and for a check that fails.
        let version = Answer::read(b"\x08\x0a\x10\x01R\x06\x08\x03\x10\x11 \x01").unwrap();
        assert_eq!((version.kind, version.success), (Kind::Version, true));
        assert_eq!(version.version, [3, 17, 1]);
        let check = Answer::read(b"\x08\x03\x10\x00").unwrap();
        assert_eq!((check.kind, check.success), (Kind::Check, false));
    }

    #[test]
    fn a_restored_process_has_a_number() {
        let restored = Answer::read(b"\x08\x02\x10\x01\x22\x03\x08\xac\x02").unwrap();
        assert_eq!((restored.kind, restored.pid), (Kind::Restore, Some(300)));
    }

    #[test]
    fn only_what_is_asked_for_is_sent() {
        let options = Options { images: 5, ..Options::default() };
        assert_eq!(request(Kind::Version, None), [8, 10]);
        assert_eq!(request(Kind::Dump, Some(&options)), [8, 1, 0x12, 2, 8, 5]);
        assert_eq!(heard(), [8, 6, 0x18, 1]);
    }

    #[test]
    fn words_for_control_groups() {
        for (word, cgroups) in
            [("", Some(Cgroups::Soft)), ("full", Some(Cgroups::Full)), ("x", None)]
        {
            assert_eq!(Cgroups::parse(word), cgroups, "{word}");
        }
    }
}
