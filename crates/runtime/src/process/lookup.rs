//! Which file a command means: looked up in the container, as its user, by its own `PATH`. In Go's words, because they are
//! what a user of Docker reads.

use std::ffi::{CStr, CString};
use std::io;

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;
use stdx::{Context, Error, Kind, Result};
use sys::process::StringArray;

/// A program that was found.
#[derive(Debug)]
pub(crate) struct Program {
    path: CString,
}

impl Program {
    /// Looks `name` up. Nothing is opened, and no path of the host is in reach any more.
    pub(crate) fn find(name: &CStr, search: Option<&CStr>) -> Result<Self> {
        let shown = name.to_string_lossy();
        if name.to_bytes().contains(&b'/') {
            return match check(name) {
                Ok(()) => Ok(Self { path: name.to_owned() }),
                Err(refusal) => Err(refusal.error(&shown)),
            };
        }
        let mut denied = false;
        for directory in search.map(CStr::to_bytes).unwrap_or_default().split(|byte| *byte == b':')
        {
            // An empty entry is the working directory, which Go refuses to run from without being told to.
            if directory.is_empty() || name.is_empty() {
                continue;
            }
            let Ok(path) = CString::new([directory, b"/", name.to_bytes()].concat()) else {
                continue;
            };
            match check(&path) {
                Ok(()) if !path.to_bytes().starts_with(b"/") => {
                    let words = format!(
                        "exec: {shown:?}: cannot run executable found relative to current directory"
                    );
                    return Err(Error::invalid(words).with_errno(Errno::ACCESS.raw_os_error()));
                }
                Ok(()) => return Ok(Self { path }),
                Err(Refusal::Errno(Errno::ACCESS | Errno::PERM)) => denied = true,
                Err(_) => {}
            }
        }
        if denied {
            return Err(Refusal::Errno(Errno::ACCESS).error(&shown));
        }
        let words = format!("exec: {shown:?}: executable file not found in $PATH");
        Err(Error::invalid(words).with_errno(Errno::NOENT.raw_os_error()))
    }
}

/// Becomes the program; comes back with the reason why not.
pub(crate) fn execute(program: &Program, argv: &StringArray, env: &StringArray) -> Error {
    let err = sys::process::execve(&program.path, argv, env);
    let words = format!("exec {}", program.path.to_string_lossy());
    let error = Err::<(), _>(err).context(|| words).expect_err("it was one");
    error.with_kind(Kind::Invalid)
}

enum Refusal {
    Stat(Errno),
    Directory,
    Errno(Errno),
}

impl Refusal {
    fn error(&self, name: &str) -> Error {
        let words = |errno: &Errno| Error::from(io::Error::from(*errno)).to_string();
        let (text, errno) = match self {
            Self::Stat(errno) => (format!("exec: {name:?}: stat {name}: {}", words(errno)), *errno),
            Self::Directory => (format!("exec: {name:?}: is a directory"), Errno::ISDIR),
            Self::Errno(errno) => (format!("exec: {name:?}: {}", words(errno)), *errno),
        };
        Error::invalid(text).with_errno(errno.raw_os_error())
    }
}

/// Whether the user we are by now may execute this.
fn check(path: &CStr) -> Result<(), Refusal> {
    let found = rustix::fs::statat(CWD, path, AtFlags::empty()).map_err(Refusal::Stat)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Err(Refusal::Directory);
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        // faccessat2 is younger than some seccomp profiles: then the mode says whether anybody may.
        Err(Errno::NOSYS | Errno::PERM) if found.st_mode & 0o111 != 0 => Ok(()),
        Err(errno) => Err(Refusal::Errno(if errno == Errno::PERM { Errno::ACCESS } else { errno })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str, path: &str) -> Result<String> {
        let (name, path) = (CString::new(name).unwrap(), CString::new(path).unwrap());
        Ok(Program::find(&name, Some(&path))?.path.into_string().unwrap())
    }

    #[test]
    fn the_words_are_gos() {
        let refusal = |name| {
            let error = find(name, "/nowhere:/bin").unwrap_err();
            (error.chain(), error.errno())
        };
        assert_eq!(find("sh", "/nowhere:/bin").unwrap(), "/bin/sh");
        assert_eq!(
            refusal("nosuch"),
            ("exec: \"nosuch\": executable file not found in $PATH".into(), Some(2))
        );
        assert_eq!(refusal(""), ("exec: \"\": executable file not found in $PATH".into(), Some(2)));
        assert_eq!(
            refusal("/no/such"),
            ("exec: \"/no/such\": stat /no/such: no such file or directory".into(), Some(2))
        );
        assert_eq!(
            refusal("/etc/passwd"),
            ("exec: \"/etc/passwd\": permission denied".into(), Some(13))
        );
        assert_eq!(refusal("/etc"), ("exec: \"/etc\": is a directory".into(), Some(21)));
    }

    #[test]
    fn a_file_nobody_may_execute_is_passed_over() {
        assert_eq!(find("passwd", "/etc:/usr/bin").unwrap(), "/usr/bin/passwd");
        assert_eq!(find("passwd", "/etc").unwrap_err().errno(), Some(13));
    }
}
