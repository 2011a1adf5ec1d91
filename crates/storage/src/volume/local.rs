//! The local driver: `volumes/<name>/_data`, as Docker lays them out.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use stdx::{Context, Error, Kind, Result};

use crate::beneath;
use crate::durable::{self, OnDisk};
use crate::quota::{self, Limited, Quotas};
use crate::trash::Trash;
use crate::volume::options::no_quota;
use crate::volume::{Driver, Scope, Volume};

const DATA: &str = "_data";
/// What a volume is called before it has a name: no volume can be.
const STAGED: &str = ".new-";

/// The volumes under one data root.
pub struct Local {
    path: PathBuf,
    directory: OwnedFd,
    trash: Trash,
    quotas: Quotas,
}

impl Local {
    pub(crate) fn open(root: &Path, trash: &Trash, quotas: &Quotas) -> Result<Self> {
        let path = root.join("volumes");
        let directory = durable::directory(&path)?;
        // A volume's data belongs to whom the container says; the way there is for root, and may be passed through.
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o701)).on_disk()?;
        // Of a daemon that died while it filled them: nobody else is here.
        for name in beneath::names(directory.as_fd()).on_disk()? {
            if let Some(name) = name.to_str().ok().filter(|name| name.starts_with(STAGED)) {
                give_back(directory.as_fd(), name)?;
                trash.take(directory.as_fd(), name)?;
            }
        }
        Ok(Self { path, directory, trash: trash.clone(), quotas: quotas.clone() })
    }

    /// Makes a volume, or finds the one of that name. Returns where its data is.
    pub fn create(&self, name: &str) -> Result<PathBuf> {
        validate(name)?;
        let doing = || format!("cannot create volume {name}");
        if beneath::stat(self.directory.as_fd(), name.as_bytes()).on_disk()?.is_none() {
            self.create_whole(name).context(doing)?;
        }
        // It may have lost its data.
        let volume = durable::open_directory(self.directory.as_fd(), name).context(doing)?;
        make(&volume, DATA, 0o755).context(doing)?;
        Ok(self.data(name))
    }

    /// It has its name when it has its data: whoever finds it at that moment wants both. Another may have been faster.
    fn create_whole(&self, name: &str) -> Result<()> {
        let staged = format!("{STAGED}{}", stdx::Id::random().short());
        make(&self.directory, &staged, 0o701)?;
        let volume = durable::open_directory(self.directory.as_fd(), &staged)?;
        make(&volume, DATA, 0o755)?;
        let at = &self.directory;
        match rustix::fs::renameat_with(at, &staged, at, name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            failed => {
                self.trash.take(at.as_fd(), &staged)?;
                if failed == Err(Errno::EXIST) { Ok(()) } else { failed.on_disk() }
            }
        }
    }

    /// The same, of a new volume that may hold so many bytes. Refused in Docker's words where that cannot be seen to.
    pub fn create_limited(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let path = self.create(name)?;
        let limit = || {
            let volume = durable::open_directory(self.directory.as_fd(), name)?;
            let data = durable::open_directory(volume.as_fd(), DATA)?;
            self.limit(data.as_fd(), bytes)
        };
        match limit() {
            Ok(()) => Ok(path),
            Err(error) => {
                self.remove(name)?;
                Err(error)
            }
        }
    }

    fn limit(&self, data: BorrowedFd<'_>, bytes: u64) -> Result<()> {
        match self.quotas.limit(&[data], bytes)? {
            Limited::Yes => Ok(()),
            Limited::CannotBe => Err(no_quota()),
        }
    }

    /// Makes a volume whose data `fill` writes, and that may hold so many bytes if there are to be limits. It has its name
    /// when all of it is on disk; until then nobody sees it, and after a crash the next daemon throws it away.
    pub fn create_filled(
        &self,
        name: &str,
        bytes: Option<u64>,
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        validate(name)?;
        let staged = format!("{STAGED}{}", stdx::Id::random().short());
        let made = self.fill_and_name(&staged, name, bytes, fill);
        if made.is_err() {
            give_back(self.directory.as_fd(), &staged)?;
            self.trash.take(self.directory.as_fd(), &staged)?;
        }
        made
    }

    fn fill_and_name(
        &self,
        staged: &str,
        name: &str,
        bytes: Option<u64>,
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        make(&self.directory, staged, 0o701)?;
        let volume = durable::open_directory(self.directory.as_fd(), staged)?;
        make(&volume, DATA, 0o755)?;
        let data = durable::open_directory(volume.as_fd(), DATA)?;
        // What is made in it later is counted; what was there before would not be.
        bytes.map_or(Ok(()), |bytes| self.limit(data.as_fd(), bytes))?;
        fill(data.as_fd())?;
        rustix::fs::syncfs(&data).on_disk()?;
        self.give_name(staged, name)
    }

    /// Gives a volume another name, unless that is taken.
    pub fn rename(&self, name: &str, new: &str) -> Result<()> {
        validate(name)?;
        validate(new)?;
        self.give_name(name, new)
    }

    fn give_name(&self, from: &str, to: &str) -> Result<()> {
        let (at, only_new) = (&self.directory, RenameFlags::NOREPLACE);
        match rustix::fs::renameat_with(at, from, at, to, only_new) {
            Err(Errno::EXIST) => Err(Error::conflict(format!("volume {to} already exists"))),
            renamed => renamed.on_disk(),
        }?;
        rustix::fs::fsync(at).on_disk()
    }

    /// Where the data of a volume is.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let missing = || Error::not_found(format!("get {name}: no such volume"));
        // What cannot be a name is the name of none.
        validate(name).map_err(|_| missing())?;
        match beneath::stat(self.directory.as_fd(), name.as_bytes()).on_disk()? {
            Some(_) => Ok(self.data(name)),
            None => Err(missing()),
        }
    }

    /// Removes a volume with its data; one that is not there is gone already.
    pub fn remove(&self, name: &str) -> Result<()> {
        validate(name)?;
        give_back(self.directory.as_fd(), name)?;
        self.trash.take(self.directory.as_fd(), name)
    }

    /// Bytes of the files in a volume, each counted once.
    pub fn usage(&self, name: &str) -> Result<u64> {
        validate(name)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let data = [name.as_bytes(), b"/", DATA.as_bytes()].concat();
        let data = beneath::open_plain(self.directory.as_fd(), &data, flags).on_disk()?;
        crate::snapshot::usage(&data)
    }

    /// All volumes, sorted by name.
    pub fn list(&self) -> Result<Vec<String>> {
        let names = beneath::names(self.directory.as_fd()).on_disk()?;
        Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| validate(name).is_ok())
            .collect())
    }

    fn data(&self, name: &str) -> PathBuf {
        self.path.join(name).join(DATA)
    }
}

impl Driver for Local {
    fn name(&self) -> &str {
        "local"
    }

    fn scope(&self) -> Scope {
        Scope::Local
    }

    fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()> {
        if !options.is_empty() {
            return Err(Error::not_implemented(
                "options of the local volume driver are not supported yet",
            ));
        }
        self.create(name).map(drop)
    }

    fn get(&self, name: &str) -> Result<Option<Volume>> {
        match self.path(name) {
            Ok(path) => {
                let mountpoint = Some(path);
                Ok(Some(Volume { name: name.to_owned(), mountpoint, ..Volume::default() }))
            }
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self) -> Result<Vec<Volume>> {
        let volume = |name: String| {
            let mountpoint = Some(self.data(&name));
            Volume { name, mountpoint, ..Volume::default() }
        };
        Ok(self.list()?.into_iter().map(volume).collect())
    }

    /// A directory is where it is, however many look at it.
    fn mount(&self, name: &str, _: &str) -> Result<PathBuf> {
        self.path(name)
    }

    fn unmount(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.remove(name)
    }
}

/// Takes the limit of a volume away, if it is there and has one.
fn give_back(volumes: BorrowedFd<'_>, name: &str) -> Result<()> {
    if beneath::stat(volumes, name.as_bytes()).on_disk()?.is_some() {
        let data = [name.as_bytes(), b"/", DATA.as_bytes()].concat();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        // A broken one has no data, and is removed all the same.
        if let Ok(data) = beneath::open_plain(volumes, &data, flags) {
            quota::give_back(data.as_fd())?;
        }
    }
    Ok(())
}

/// Makes a directory, whatever the umask; one that is there already is fine.
fn make(at: &OwnedFd, name: &str, mode: u32) -> Result<()> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(mode)) {
        Ok(()) => {
            let made = durable::open_directory(at.as_fd(), name)?;
            rustix::fs::fchmod(made, Mode::from_raw_mode(mode)).on_disk()
        }
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).on_disk(),
    }
}

/// Docker's rule and words for names.
pub fn validate(name: &str) -> Result<()> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    if name.len() == 1 {
        return Err(Error::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    let starts = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if !starts || !name.bytes().all(plain) || name.len() > 255 {
        return Err(Error::invalid(format!(
            "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_its_name_has_its_data() {
        let root = tempfile::tempdir().unwrap();
        let trash = Trash::open(root.path()).unwrap();
        let volumes = Local::open(root.path(), &trash, &Quotas::default()).unwrap();
        for number in 0..300 {
            let name = format!("data{number}");
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| volumes.create(&name).unwrap());
                }
                let found = std::iter::repeat_with(|| volumes.path(&name)).find_map(Result::ok);
                assert!(found.unwrap().is_dir(), "{name}");
            });
        }
        assert_eq!(volumes.list().unwrap().len(), 300);
        let all = beneath::names(volumes.directory.as_fd()).unwrap();
        assert_eq!(all.len(), 300, "{all:?}");
        // What has lost its data is given it again.
        std::fs::remove_dir(volumes.data("data7")).unwrap();
        assert!(volumes.create("data7").unwrap().is_dir());
    }

    #[test]
    fn names_become_directories() {
        for right in ["ab", "a.b-c_d", "0f"] {
            validate(right).unwrap();
        }
        for wrong in ["", "a", "..", ".a", "a/b", "a b", "-a", "é0"] {
            assert!(validate(wrong).is_err(), "{wrong:?}");
        }
    }
}
