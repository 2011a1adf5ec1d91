//! A tree becomes a stream, as Docker writes it: names without `./` in front, sorted within each directory, whole
//! seconds, no user names. The same tree gives the same bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use stdx::{Context, Result};

use crate::durable::OnDisk;
use crate::tar::{Entry, Kind, Time, Writer};
use crate::walk::Walk;
use crate::{beneath, xattr};

/// Writes all that is in `root`, not the root itself: `docker export`.
pub fn export(root: BorrowedFd<'_>, out: &mut dyn Write) -> Result<()> {
    let mut packer = Packer::new(out);
    let mut walk = Walk::new(root)?;
    while let Some(item) = walk.next()? {
        packer.add(walk.directory()?, item.name.as_bytes(), &item.path, &item.stat)?;
    }
    packer.finish()
}

/// An archive being filled from directories.
pub(crate) struct Packer<'a> {
    writer: Writer<&'a mut dyn Write>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<'a> Packer<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { writer: Writer::new(out), links: HashMap::new() }
    }

    /// Adds `name` in `directory` as `path`. Sockets have no place in an archive and are left out.
    pub(crate) fn add(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<()> {
        let kind = match beneath::kind(stat) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Character,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(()),
        };
        let mut entry = describe(kind, path, stat);
        if kind != Kind::Directory && stat.st_nlink > 1 {
            let first =
                self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_owned());
            if *first != path {
                entry.kind = Kind::HardLink;
                entry.link = first.clone();
                entry.device = (0, 0);
                return self.writer.append(&entry);
            }
        }
        let reading = || format!("cannot read /{}", String::from_utf8_lossy(path));
        let attributes = match xattr::all(directory, name) {
            Err(Errno::NOENT) => return Ok(()),
            outcome => outcome.on_disk().context(reading)?,
        };
        entry.xattrs = attributes.into_iter().filter(|(name, _)| xattr::travels(name)).collect();
        match kind {
            Kind::File => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
                    // It vanished since it was seen: a living container does that.
                    Err(Errno::NOENT) => return Ok(()),
                    outcome => File::from(outcome.on_disk().context(reading)?),
                };
                let now = rustix::fs::fstat(&file).on_disk()?;
                if beneath::kind(&now) != FileType::RegularFile {
                    return Ok(());
                }
                entry.size = now.st_size as u64;
                self.writer.append_file(&entry, &mut &file).context(reading)
            }
            Kind::Symlink => {
                match rustix::fs::readlinkat(directory, name, Vec::new()) {
                    Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                    outcome => entry.link = outcome.on_disk().context(reading)?.into_bytes(),
                }
                self.writer.append(&entry)
            }
            _ => self.writer.append(&entry),
        }
    }

    /// Adds an empty file that says something by its name.
    pub(crate) fn mark(&mut self, path: Vec<u8>) -> Result<()> {
        self.writer.append(&Entry { mode: 0, ..Entry::new(Kind::File, path) })
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.writer.finish().map(drop)
    }
}

fn describe(kind: Kind, path: &[u8], stat: &Stat) -> Entry {
    let mut path = path.to_owned();
    if kind == Kind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    let devices = matches!(kind, Kind::Character | Kind::Block);
    Entry {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: Time { seconds: stat.st_mtime, nanos: 0 },
        device: match devices {
            true => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            false => (0, 0),
        },
        ..Entry::new(kind, path)
    }
}
