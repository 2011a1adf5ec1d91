//! What daemon and shim say to each other: length-prefixed JSON. Both ends are in this crate.
//!
//! A shim lives as long as its container, so it talks to daemons of the version before and after its own: unknown fields
//! are ignored, absent ones have defaults, a request it does not know is refused in words. Descriptors travel beside the
//! frame that names them, in the order in which it names them.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use oci::runtime::{Process, Resources, Rootfs, Spec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stdx::time::Timestamp;
use stdx::{Context, Error, Kind, Result};

use crate::exit::Exit;
use crate::logs;

/// Raised when a shim of an older number would misunderstand, not when it would merely know less.
pub(crate) const VERSION: u32 = 1;

/// A spec with thousands of mounts and a large environment stays under this.
const LIMIT: usize = 16 << 20;

/// One request, as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) version: u32,
    pub(crate) request: Request,
}

impl Call {
    pub(crate) fn new(request: Request) -> Self {
        Self { version: VERSION, request }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    State,
    Kill {
        signal: i32,
        whom: Whom,
    },
    Pause,
    Resume,
    Update {
        resources: Box<Resources>,
    },
    Stats,
    /// Host pids of everything in the container's cgroup.
    Processes,
    Resize {
        target: Target,
        size: Size,
    },
    CloseStdin {
        target: Target,
    },
    /// With a descriptor if `attach` is there.
    Exec {
        id: String,
        process: Box<Process>,
        tty: bool,
        size: Option<Size>,
        attach: Option<AttachOptions>,
        #[serde(default)]
        limit: Option<Duration>,
    },
    /// With the client's stream as descriptor.
    Attach {
        options: AttachOptions,
    },
    /// Makes this connection a stream of events.
    Watch,
    /// Begins a new log file, or opens the log anew if somebody else has moved it.
    RotateLogs,
    ReopenLogs,
    Delete,
}

/// All a shim needs in order to bring a container to life. Descriptors: the user namespace if `userns`, the network namespace if
/// `netns`, one mount per entry of `trees`, then one stream per entry of `attach`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchCall {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) spec: Box<Spec>,
    pub(crate) rootfs: Rootfs,
    #[serde(default)]
    pub(crate) userns: bool,
    pub(crate) netns: bool,
    #[serde(default)]
    pub(crate) trees: Vec<PathBuf>,
    pub(crate) logs: logs::Config,
    pub(crate) open_stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    #[serde(default)]
    pub(crate) size: Option<Size>,
    pub(crate) attach: Vec<AttachOptions>,
    #[serde(default)]
    pub(crate) init: bool,
    #[serde(default)]
    pub(crate) cgroup_driver: runtime::cgroup::Driver,
    #[serde(default)]
    pub(crate) filter: Option<runtime::seccomp::Program>,
    #[serde(default)]
    pub(crate) runtime: Option<PathBuf>,
    #[serde(default)]
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// What a container is brought back from, instead of being begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The directory of images.
    pub images: PathBuf,
    /// The program that made them.
    pub criu: PathBuf,
}

/// The first thing a new shim says: it exists, and who it is. Before it nothing of the launch has happened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) shim_pid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchReply {
    pub(crate) pid: u32,
    pub(crate) started_at: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecReply {
    pub(crate) pid: u32,
}

/// An answer: what was asked for, or why not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply<T> {
    Done(T),
    Failed(Failure),
}

impl<T> From<Result<T, Failure>> for Reply<T> {
    fn from(result: Result<T, Failure>) -> Self {
        match result {
            Ok(value) => Self::Done(value),
            Err(failure) => Self::Failed(failure),
        }
    }
}

impl<T> Reply<T> {
    pub(crate) fn into_result(self) -> Result<T, Failure> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Failed(failure) => Err(failure),
        }
    }
}

/// An error on its way through a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: String,
    pub(crate) message: String,
    /// The exit code Docker gives a container or exec that fails so: 126, 127 or 128.
    #[serde(default)]
    pub(crate) exit_code: Option<i32>,
    /// Of a launch: how far it came.
    #[serde(default)]
    pub(crate) stage: Option<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nothing of the container ever ran.
    Create,
    /// The user's program could not be executed.
    Start,
}

const KINDS: [(Kind, &str); 9] = [
    (Kind::NotFound, "not_found"),
    (Kind::Invalid, "invalid"),
    (Kind::Conflict, "conflict"),
    (Kind::Unauthorized, "unauthorized"),
    (Kind::Forbidden, "forbidden"),
    (Kind::NotImplemented, "not_implemented"),
    (Kind::Unavailable, "unavailable"),
    (Kind::NotModified, "not_modified"),
    (Kind::Internal, "internal"),
];

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = KINDS
            .iter()
            .find(|(kind, _)| *kind == error.kind())
            .map_or("internal", |(_, name)| name);
        Self { kind: kind.to_owned(), message: error.chain(), exit_code: None, stage: None }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let kind = KINDS
            .iter()
            .find(|(_, name)| *name == failure.kind)
            .map_or(Kind::Internal, |(kind, _)| *kind);
        Self::new(kind, failure.message)
    }
}

/// Which of a container's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

impl Stream {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What an attached client wants of the three streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Whether it is told in frames what came from where; unless said, all but a terminal are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framed: Option<bool>,
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    /// The container's first process.
    Init,
    /// Every process in its cgroup.
    All,
}

/// Whose terminal or stdin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Init,
    Exec(String),
}

/// A terminal's, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// One more process in a running container.
#[derive(Debug)]
pub struct ExecRequest {
    /// Chosen by the caller; events and resizes name it.
    pub id: String,
    pub process: Process,
    pub tty: bool,
    pub size: Option<Size>,
    /// Without a client its output is drained and dropped, and its stdin is empty.
    pub attach: Option<(AttachOptions, UnixStream)>,
    /// After so long it is killed, with its process group; whether a daemon is there or not.
    pub limit: Option<Duration>,
}

/// Why an exec did not come to life, and the exit code Docker gives it.
#[derive(Debug)]
pub struct ExecFailure {
    pub error: Error,
    /// 126 (cannot be invoked), 127 (not found) where the program was at fault.
    pub exit_code: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Running,
    Paused,
    Exited,
}

/// A container as its shim sees it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub id: String,
    /// The version of the protocol this shim speaks.
    pub version: u32,
    pub shim_pid: u32,
    /// The first process, as the host numbers it.
    pub pid: u32,
    pub status: Status,
    pub started_at: Timestamp,
    #[serde(default)]
    pub exit: Option<Exit>,
    #[serde(default)]
    pub oom_seen: bool,
    /// Execs that run.
    #[serde(default)]
    pub execs: Vec<ExecState>,
    /// The latest execs that have ended, oldest first: a daemon that was away misses none (of the last 256).
    #[serde(default)]
    pub exec_exits: Vec<ExecExit>,
    /// Log lines that could not be written, because the disk was full.
    #[serde(default)]
    pub log_lines_dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    pub id: String,
    pub pid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecExit {
    pub id: String,
    pub code: i32,
    pub at: Timestamp,
    /// Killed because its time was over.
    #[serde(default)]
    pub overdue: bool,
}

/// What a watch connection carries. The first is always [`Event::State`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    State(Box<State>),
    /// The exit record is on disk.
    Exit(Exit),
    /// Told before the exec's attached stream ends.
    ExecExit(ExecExit),
    Oom,
    Paused,
    Resumed,
    /// Of a later version; to be ignored.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// Takes the next whole event out of what was fed to `decoder`.
    pub fn decode(decoder: &mut Decoder) -> Result<Option<Self>> {
        decoder.next()
    }
}

/// Writes `value` as one frame: four bytes of length, big-endian, then JSON.
pub(crate) fn frame(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, value)
        .map_err(io::Error::from)
        .context(|| "cannot encode a message".to_owned())?;
    let length = bytes.len() - 4;
    if length > LIMIT {
        return Err(Error::invalid(format!(
            "a message of {length} bytes is too large for the shim"
        )));
    }
    let length = u32::try_from(length).expect("16 MiB fit in 32 bits");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// Bytes in, whole messages out: for readers that wait in their own way.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, or `None` until more is fed.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(header) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*header) as usize;
        if length > LIMIT {
            return Err(Error::invalid(format!("a message of {length} bytes is too large")));
        }
        let Some(body) = self.bytes.get(4..4 + length) else { return Ok(None) };
        let value = serde_json::from_slice(body)
            .map_err(|err| Error::not_implemented(format!("not understood: {err}")));
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        value.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let sent = [
            Event::Oom,
            Event::Exit(Exit { code: 3, at: Timestamp::NEVER, oom_killed: false, reason: None }),
            Event::Paused,
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(|event| frame(event).unwrap()).collect();
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::new();
            let mut got = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.feed(part);
                while let Some(event) = Event::decode(&mut decoder).unwrap() {
                    got.push(event);
                }
            }
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn f18_a_later_version_is_tolerated() {
        let mut decoder = Decoder::new();
        decoder.feed(&frame(&serde_json::json!({"exec_exit": {"id": "x", "code": 1, "at": "2026-01-01T00:00:00Z", "core": 1}})).unwrap());
        decoder.feed(&frame(&serde_json::json!("checkpointed")).unwrap());
        assert!(
            matches!(Event::decode(&mut decoder).unwrap(), Some(Event::ExecExit(exit)) if exit.code == 1)
        );
        assert_eq!(Event::decode(&mut decoder).unwrap(), Some(Event::Unknown));
    }

    #[test]
    fn an_unknown_request_is_refused_and_the_next_understood() {
        let mut decoder = Decoder::new();
        decoder.feed(&frame(&serde_json::json!({"version": 9, "request": {"fly": {}}})).unwrap());
        decoder.feed(&frame(&Call::new(Request::State)).unwrap());
        assert_eq!(decoder.next::<Call>().unwrap_err().kind(), Kind::NotImplemented);
        assert!(matches!(decoder.next::<Call>().unwrap().unwrap().request, Request::State));
    }

    #[test]
    fn errors_keep_kind_and_words() {
        let failure = Failure::from(Error::conflict("Container x is not running"));
        let error = Error::from(failure);
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (Kind::Conflict, "Container x is not running")
        );
    }

    #[test]
    fn an_absurd_length_is_refused() {
        let mut decoder = Decoder::new();
        decoder.feed(&[0xff; 8]);
        assert!(Event::decode(&mut decoder).is_err());
    }
}
