//! A conversation with `criu swrk`: requests and answers over a socket pair.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags};
use stdx::{Context, Error, Result};

use super::rpc::{self, Answer, Kind, Options};

/// What CRIU needs to find the programs that it executes itself.
pub(super) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An installed CRIU.
#[derive(Clone, Debug)]
pub struct Criu(PathBuf);

impl Criu {
    /// The first one in these directories.
    pub fn find(directories: &[PathBuf]) -> Result<Self> {
        let found = directories.iter().map(|directory| directory.join("criu")).find(|path| {
            path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
        });
        found.map(Self).ok_or_else(|| {
            Error::not_implemented("checkpoints need the program criu, and it is not installed")
        })
    }

    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self(program.into())
    }

    pub fn program(&self) -> &Path {
        &self.0
    }

    /// Whether it works with this kernel, by its own judgement. Its log of that is left in `work`.
    pub(super) fn check(&self, work: &Work) -> Result<()> {
        let options = Options {
            images: work.number(),
            work: Some(work.number()),
            log_file: "check.log".to_owned(),
            ..Options::default()
        };
        let checked = self.begin()?.finish(Kind::Check, &options, work);
        checked.map(drop).map_err(|error| {
            let [major, minor, sub] = self.version().unwrap_or_default();
            Error::not_implemented(format!(
                "criu {major}.{minor}.{sub} does not work with this kernel"
            ))
            .caused_by(error)
        })
    }

    fn version(&self) -> Result<[i64; 3]> {
        let conversation = self.begin()?;
        let answer = conversation.ask(&rpc::request(Kind::Version, None))?;
        conversation.end()?;
        Ok(answer.version)
    }

    pub(super) fn begin(&self) -> Result<Conversation> {
        let (ours, theirs) = sys::socket::pair().context(|| "cannot make a socket".to_owned())?;
        let mut command = Command::new(&self.0);
        command.args(["swrk", "0"]).env_clear().envs(PATH.split_once('=')).current_dir("/");
        let child = command
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context(|| format!("cannot execute {}", self.0.display()))?;
        Ok(Conversation { socket: ours, child: Some(child), terminal: None.into() })
    }
}

/// A directory that CRIU works in. It opens it by our number of it.
#[derive(Debug)]
pub(super) struct Work {
    pub path: PathBuf,
    fd: OwnedFd,
}

impl Work {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { path: path.to_owned(), fd })
    }

    pub(super) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The first error in one of its logs: those after it only say what became of it.
    fn complaint(&self, log: &str) -> Option<String> {
        const LONGEST: usize = 4 << 20;
        let file = fs::File::open(self.path.join(log)).ok()?;
        let bytes = stdx::bounded::read_to_end(file, LONGEST, log).ok()?;
        complaint(&String::from_utf8_lossy(&bytes))
    }
}

/// `(00.001) Error (criu/x.c:1): what went wrong`, without the moment.
fn complaint(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("Error ("))?;
    Some(line[line.find("Error (")?..].trim_end().to_owned())
}

#[derive(Debug)]
pub(super) struct Conversation {
    socket: OwnedFd,
    /// Somebody else waits for one that was forked.
    child: Option<std::process::Child>,
    /// What it sent when it restored a terminal.
    terminal: std::cell::RefCell<Option<OwnedFd>>,
}

impl Conversation {
    pub(super) fn over(socket: OwnedFd) -> Self {
        Self { socket, child: None, terminal: None.into() }
    }

    pub(super) fn take_terminal(&self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// What it works in, as it has it where it is; or why it could not begin.
    pub(super) fn take_directories(&self) -> Result<[OwnedFd; 2]> {
        let mut bytes = vec![0; 4 << 10];
        let received = sys::socket::recv_with_fds(&self.socket, &mut bytes)
            .context(|| "cannot hear criu".to_owned())?;
        received.fds.try_into().map_err(|_| match &bytes[..received.bytes] {
            [] => Error::internal("criu could not be begun"),
            why => Error::internal(String::from_utf8_lossy(why)),
        })
    }

    /// One request to its last answer; notifications on the way are taken note of.
    pub(super) fn ask(&self, request: &[u8]) -> Result<Answer> {
        self.send(request)?;
        let mut bytes = vec![0; 64 << 10];
        loop {
            let received = sys::socket::recv_with_fds(&self.socket, &mut bytes)
                .context(|| "cannot hear criu".to_owned())?;
            if received.bytes == 0 {
                return Err(Error::internal("criu ended without an answer"));
            }
            let answer = Answer::read(&bytes[..received.bytes])?;
            if answer.kind != Kind::Notify {
                return Ok(answer);
            }
            if answer.script == "orphan-pts-master" {
                self.terminal.replace(received.fds.into_iter().next());
            }
            self.send(&rpc::heard())?;
        }
    }

    /// The only request of a conversation; a failure has CRIU's own words.
    pub(super) fn finish(self, kind: Kind, options: &Options, work: &Work) -> Result<Answer> {
        let answer = self.ask(&rpc::request(kind, Some(options)));
        self.end()?;
        judge(answer?, kind, work, &options.log_file)
    }

    fn send(&self, request: &[u8]) -> Result<()> {
        sys::socket::send_with_fds(&self.socket, request, &[])
            .context(|| "cannot tell criu".to_owned())?;
        Ok(())
    }

    fn end(self) -> Result<()> {
        drop(self.socket);
        if let Some(mut child) = self.child {
            child.wait().context(|| "cannot wait for criu".to_owned())?;
        }
        Ok(())
    }
}

pub(super) fn judge(answer: Answer, kind: Kind, work: &Work, log: &str) -> Result<Answer> {
    if answer.success && answer.kind == kind {
        return Ok(answer);
    }
    let complaint =
        work.complaint(log).or_else(|| Some(answer.message).filter(|message| !message.is_empty()));
    let (name, errno) = (kind.name(), answer.errno);
    let failed = format!("criu failed: type {name} errno {errno}");
    Err(Error::internal(match complaint {
        Some(complaint) => format!("{failed}: {complaint}"),
        None => failed,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_what_counts() {
        let log = "(00.01) Warn  (a.c:1): x\n(00.02) Error (a.c:2): first\n(00.03) Error (b.c:3): last\n(00.04) bye\n";
        assert_eq!(complaint(log).unwrap(), "Error (a.c:2): first");
        assert_eq!(complaint("(00.01) all is well\n"), None);
    }

    #[test]
    fn only_a_program_is_one() {
        let place = tempfile::tempdir().unwrap();
        let directories = [place.path().to_owned()];
        let error = Criu::find(&directories).unwrap_err();
        assert_eq!(error.kind(), stdx::Kind::NotImplemented);
        fs::write(place.path().join("criu"), "").unwrap();
        assert!(Criu::find(&directories).is_err(), "not executable");
    }
}
