//! `docker cp`, both ways: what is at a path inside, as a description, as an archive, and from an archive.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use api::container::PathStat;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use rustix::fs::{AtFlags, FileType, Stat, StatVfsMountFlags, StatxFlags};
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};
use storage::layer::{self, Clash, Limits, Options, Owners, Place, Whiteouts};
use tokio::sync::{MutexGuard, oneshot};

use super::Container;
use super::ids::Ids;
use super::mounts::absolute;
use super::view::{Access, Parts};
use crate::ByteStream;

/// A container that is not up cannot start while somebody writes to it. Who sends nothing for as long as this has given up.
const SILENCE: Duration = Duration::from_secs(60);

/// Where an archive goes, and how.
#[derive(Clone, Debug, Default)]
pub struct ExtractRequest {
    pub path: String,
    /// A directory is not replaced by something else, nor something else by a directory.
    pub keep_kinds: bool,
    /// All of it will belong to the container's user.
    pub to_user: bool,
}

impl Container {
    /// What is at `path` inside. What is not there is [`Kind::NotFound`].
    pub async fn stat_path(&self, path: &str) -> Result<PathStat> {
        let path = Asked::of(path);
        let (tell, told) = oneshot::channel();
        self.parts_to_read().await?.look(move |root| {
            let _gone =
                tell.send(root.and_then(|root| describe(root, &path).map(|(_, stat)| stat)));
        })?;
        heard(told).await
    }

    /// What is at `path` inside, and all below it, as an archive.
    pub async fn archive(&self, path: &str) -> Result<(PathStat, ByteStream)> {
        let path = Asked::of(path);
        let (mut writer, stream) = ByteStream::pair();
        let (tell, told) = oneshot::channel();
        self.parts_to_read().await?.look(move |root| {
            match root.and_then(|root| describe(root, &path)) {
                Ok((place, stat)) => {
                    if tell.send(Ok(stat)).is_ok() {
                        let outcome = place.pack(path.name.as_bytes(), &mut writer);
                        writer.finish(outcome);
                    }
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        let stat = heard(told).await?;
        self.event("archive-path", &[]);
        Ok((stat, stream))
    }

    /// Extracts an archive, in any compression, into a directory inside.
    pub async fn extract(
        &self,
        request: ExtractRequest,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> Result<()> {
        let this = self.clone();
        tokiox::to_the_end(async move {
            let gate = this.gate_of_one_at_rest().await;
            let body: Box<dyn Read + Send> = match &gate {
                Some(_) => Box::new(image::reader(within(SILENCE, body))),
                None => Box::new(image::reader(body)),
            };
            let container = this.clone();
            let parts = tokiox::blocking(move || container.parts(Access::Write)).await?;
            let (tell, told) = oneshot::channel();
            let record = this.record();
            let user = record.config.user.clone();
            // On disk are the container's own numbers; in a mount that it sees, those of the host.
            let ids = record.ids.clone().filter(|_| record.state.phase.is_up());
            parts.look(move |root| {
                let outcome = root.and_then(|root| match ids.as_ref().and_then(Ids::root) {
                    None => extract(root, &request, &user, None, body),
                    Some((uid, gid)) => {
                        let owners = ids.as_ref().map(Ids::owners);
                        let extract = || extract(root, &request, &user, owners, body);
                        sys::caps::with_files_of(uid, gid, extract)?
                    }
                });
                let _gone = tell.send(outcome);
            })?;
            heard(told).await?;
            this.event("extract-to-dir", &[]);
            Ok(())
        })
        .await
    }

    async fn parts_to_read(&self) -> Result<Parts> {
        // Held until everything is open: from then on it may start.
        let _gate = self.gate_of_one_at_rest().await;
        let this = self.clone();
        tokiox::blocking(move || this.parts(Access::Read)).await
    }

    /// Keeps a container that is not up from starting. One that is up needs no keeping.
    async fn gate_of_one_at_rest(&self) -> Option<MutexGuard<'_, ()>> {
        if self.record().state.phase.is_up() {
            return None;
        }
        let gate = self.cell.gate.lock().await;
        (!self.record().state.phase.is_up()).then_some(gate)
    }
}

/// A path as it was asked for, cleaned as Docker cleans it.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// Absolute; a slash or a dot at its end is kept, because it means the directory that a link leads to.
    path: String,
    /// What an archive of it calls it: its last part, `.` or `/`.
    name: String,
}

impl Asked {
    fn of(text: &str) -> Self {
        let clean = absolute(&format!("/{text}")).unwrap_or_else(|| "/".to_owned());
        let bare = text.trim_end_matches('/');
        let dot = bare == "." || bare.ends_with("/.");
        let (end, name) = match (dot, text.ends_with('/')) {
            (true, _) => ("/.", "."),
            (false, true) => ("/", ""),
            (false, false) => ("", ""),
        };
        let last = clean.rsplit('/').next().unwrap_or_default().to_owned();
        let name = match (name, last.as_str()) {
            (".", _) => ".".to_owned(),
            (_, "") => "/".to_owned(),
            _ => last,
        };
        let path = if clean == "/" { "/".to_owned() } else { format!("{clean}{end}") };
        Self { path, name }
    }
}

fn describe(root: BorrowedFd<'_>, path: &Asked) -> Result<(Place, PathStat)> {
    let place = Place::find(root, path.path.as_bytes())?;
    let link_target = match place.kind() {
        FileType::Symlink => layer::destination(root, path.path.as_bytes())?,
        _ => Vec::new(),
    };
    let stat = place.stat();
    let nanos = i128::from(stat.st_mtime) * 1_000_000_000 + stat.st_mtime_nsec as i128;
    let stat = PathStat {
        name: path.name.clone(),
        size: stat.st_size,
        mode: mode_of_go(stat),
        mtime: Timestamp::from_unix_nanos(nanos),
        link_target: String::from_utf8_lossy(&link_target).into_owned(),
    };
    Ok((place, stat))
}

/// Go's `os.FileMode`: the kernel's permissions with bits of its own for everything else.
fn mode_of_go(stat: &Stat) -> u32 {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special: u32 =
        special.iter().filter(|(kernel, _)| stat.st_mode & kernel != 0).map(|(_, go)| go).sum();
    kind | special | stat.st_mode & 0o777
}

fn extract(
    root: BorrowedFd<'_>,
    request: &ExtractRequest,
    user: &str,
    owners: Option<Owners>,
    body: impl Read + Send + 'static,
) -> Result<()> {
    let path = Asked::of(&request.path).path;
    let directory = layer::directory(root, path.as_bytes()).or_else(|error| {
        let plain = path.trim_end_matches("/.").trim_end_matches('/');
        match error.errno() == Some(rustix::io::Errno::NOTDIR.raw_os_error()) {
            true => Place::find(root, plain.as_bytes())
                .and(Err(Error::invalid("extraction point is not a directory"))),
            false => Err(error),
        }
    })?;
    let words = || format!("cannot look at {path}");
    let flags = rustix::fs::fstatvfs(&directory).context(words)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        let whole = mount_id(root).context(words)? == mount_id(directory.as_fd()).context(words)?;
        return Err(Error::invalid(match whole {
            true => "container rootfs is marked read-only",
            false => "mounted volume is marked read-only",
        }));
    }
    let owner = match request.to_user && !user.is_empty() {
        true => Some(runtime::user_in(root, user)?),
        false => None,
    };
    let options = Options {
        whiteouts: Whiteouts::Literal,
        clash: if request.keep_kinds { Clash::Refuse } else { Clash::Replace },
        owner,
        owners,
        below: Some(path.trim_matches('/').trim_end_matches("/.").as_bytes().to_vec()),
        limits: Limits::default(),
    };
    let mut tar = layer::compression::decoder(body)?;
    layer::apply_with(root, &mut tar, &options).map(drop)
}

fn mount_id(place: BorrowedFd<'_>) -> Result<u64, rustix::io::Errno> {
    Ok(rustix::fs::statx(place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// The pieces of a body, each of which comes within a time, or the body ends here.
fn within(
    time: Duration,
    body: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static {
    let pieces = futures_util::stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(time, body.next()).await {
            Ok(piece) => Some((piece?, Some(body))),
            Err(_) => {
                let words = format!("nothing has arrived for {} seconds", time.as_secs());
                Some((Err(std::io::Error::other(words)), None))
            }
        }
    });
    Box::pin(pieces)
}

async fn heard<T>(told: oneshot::Receiver<Result<T>>) -> Result<T> {
    told.await.map_err(|_| Error::internal("the thread that looked into the container panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_their_end_and_have_a_name() {
        for (text, path, name) in [
            ("/", "/", "/"),
            (".", "/", "."),
            ("/.", "/", "."),
            ("", "/", "/"),
            ("/d", "/d", "d"),
            ("d/", "/d/", "d"),
            ("/d/.", "/d/.", "."),
            ("/d/./", "/d/.", "."),
            ("/a/../d/f", "/d/f", "f"),
            ("../../etc/passwd", "/etc/passwd", "passwd"),
            ("/d/...", "/d/...", "..."),
            ("/d/..", "/", "/"),
        ] {
            let expected = Asked { path: path.to_owned(), name: name.to_owned() };
            assert_eq!(Asked::of(text), expected, "{text:?}");
        }
    }
}
