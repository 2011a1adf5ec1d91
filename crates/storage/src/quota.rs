//! How much a directory may hold, where its file system counts by projects (ext4 and xfs with `prjquota`).

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use stdx::{Context, Result};

/// Where our projects begin: others' (`/etc/projid`, another engine's) are small numbers.
const FIRST: u32 = 0x6774_0000;

/// Gives projects away: to one at a time, that none is given twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quotas(Arc<Mutex<()>>);

/// Whether a limit was set, or could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limited {
    Yes,
    /// The file system does not count.
    CannotBe,
}

impl Quotas {
    /// Whether there could be a limit here.
    pub(crate) fn support(&self, directories: &[BorrowedFd]) -> Result<Limited> {
        let Some(&first) = directories.first() else { return Ok(Limited::CannotBe) };
        match sys::quota::space(first, FIRST) {
            Err(error) if is_unsupported(&error) => Ok(Limited::CannotBe),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(|| "cannot look at quotas".to_owned())
            }
            _ => Ok(Limited::Yes),
        }
    }

    /// Limits what all of these, which are new and neighbours, hold together.
    pub(crate) fn limit(&self, directories: &[BorrowedFd], bytes: u64) -> Result<Limited> {
        let Some(&first) = directories.first() else { return Ok(Limited::CannotBe) };
        let _alone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let doing = || "cannot limit the size of a directory".to_owned();
        let project = match free_project(|project| sys::quota::space(first, project)) {
            Ok(project) => project,
            Err(error) if is_unsupported(&error) => return Ok(Limited::CannotBe),
            Err(error) => return Err(error).context(doing),
        };
        match sys::quota::set_limit(first, project, bytes) {
            Err(error) if is_unsupported(&error) => return Ok(Limited::CannotBe),
            set => set.context(doing)?,
        }
        for directory in directories {
            if let Err(error) = sys::quota::join_project(*directory, project) {
                // Nobody is in it.
                sys::quota::set_limit(first, project, 0).context(doing)?;
                return Err(error).context(doing);
            }
        }
        Ok(Limited::Yes)
    }
}

/// Gives a directory's project back, before the directory goes. One that has none of ours is left alone.
pub(crate) fn give_back(directory: BorrowedFd) -> Result<()> {
    match sys::quota::project(directory) {
        Ok(project) if project >= FIRST => sys::quota::set_limit(directory, project, 0)
            .context(|| "cannot give the quota of a directory back".to_owned()),
        // The file system knows no projects.
        _ => Ok(()),
    }
}

/// The first project that holds nothing and has no limit.
fn free_project(space: impl Fn(u32) -> io::Result<sys::quota::Space>) -> io::Result<u32> {
    for project in FIRST.. {
        match space(project) {
            Ok(space) if space == sys::quota::Space::default() => return Ok(project),
            Ok(_) => {}
            // xfs has no record of what was never used.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(project),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("all projects are taken"))
}

fn is_unsupported(error: &io::Error) -> bool {
    const ESRCH: i32 = 3;
    const EPERM: i32 = 1;
    const EINVAL: i32 = 22;
    const ENOTTY: i32 = 25;
    const ENOSYS: i32 = 38;
    const EOPNOTSUPP: i32 = 95;
    [ESRCH, EPERM, EINVAL, ENOTTY, ENOSYS, EOPNOTSUPP]
        .iter()
        .any(|number| error.raw_os_error() == Some(*number))
}

#[cfg(test)]
mod tests {
    use sys::quota::Space;

    use super::*;

    #[test]
    fn a_project_is_given_to_one() {
        let taken = |project| match project - FIRST {
            0 => Ok(Space { limit: 1 << 20, used: 0 }),
            // Removed, and not yet freed.
            1 => Ok(Space { limit: 0, used: 4096 }),
            _ => Ok(Space::default()),
        };
        assert_eq!(free_project(taken).unwrap(), FIRST + 2);
        let unknown = |_| Err(io::Error::from_raw_os_error(2));
        assert_eq!(free_project(unknown).unwrap(), FIRST);
        let off = |_| Err(io::Error::from_raw_os_error(3));
        assert!(is_unsupported(&free_project(off).unwrap_err()));
    }
}
