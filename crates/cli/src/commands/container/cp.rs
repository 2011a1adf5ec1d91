//! `cp`: files between a container and here, as tar streams of the archive API.

use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Method};
use stdx::units::human_size_precise;
use stdx::{Context, Error};

use super::path;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::Value;
use crate::pipes;

pub(crate) static COMMAND: Command = Command {
    names: &["container cp", "cp"],
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\ncp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files/folders between a container and the local filesystem",
    details: "Copy files/folders between a container and the local filesystem\n\nUse '-' as the source to read a tar archive from stdin\nand extract it to a directory destination in a container.\nUse '-' as the destination to stream a tar archive of a\ncontainer source to stdout.",
    args: Args::Exactly(2),
    flags: &[
        Flag::new("archive", Kind::Switch, "Archive mode (copy all uid/gid information)").short('a'),
        Flag::new("follow-link", Kind::Switch, "Always follow symbol link in SRC_PATH").short('L'),
        Flag::new("quiet", Kind::Switch, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached").short('q'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let (from, to) = (Place::of(call.arg(0)), Place::of(call.arg(1)));
    if call.arg(0).is_empty() {
        return Err(Failure::words("source can not be empty"));
    }
    if call.arg(1).is_empty() {
        return Err(Failure::words("destination can not be empty"));
    }
    match (from, to) {
        (Place::Inside(container, source), Place::Here(destination)) => {
            out_of(call, container, source, destination).await
        }
        (Place::Here(source), Place::Inside(container, destination)) => {
            into(call, source, container, destination).await
        }
        (Place::Inside(..), Place::Inside(..)) => {
            Err(Failure::words("copying between containers is not supported"))
        }
        (Place::Here(_), Place::Here(_)) => {
            Err(Failure::words("must specify at least one container source"))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place<'a> {
    Inside(&'a str, &'a str),
    Here(&'a str),
}

impl<'a> Place<'a> {
    /// `name:path` is in a container, unless it begins as a path of ours does.
    fn of(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((name, path)) if !text.starts_with(['/', '.']) => Self::Inside(name, path),
            _ => Self::Here(text),
        }
    }
}

/// What the daemon says about a path inside.
struct Stat {
    is_directory: bool,
    link_target: String,
}

const GO_DIRECTORY: i64 = 1 << 31;
const GO_SYMLINK: i64 = 1 << 27;

async fn stat(client: &Client, container: &str, inside: &str) -> Result<Stat> {
    let request = client.request(Method::HEAD, format!("{}/archive", path(container)));
    let response = request.query("path", inside).send().await?;
    stat_of(response.header("x-docker-container-path-stat"))
}

fn stat_of(header: &str) -> Result<Stat> {
    let unreadable = || Failure::words("unable to decode container path stat header");
    let text = STANDARD.decode(header).map_err(|_| unreadable())?;
    let stat: Value = serde_json::from_slice(&text).map_err(|_| unreadable())?;
    let mode = stat.int_at("mode");
    let link_target = if mode & GO_SYMLINK != 0 { stat.str_at("linkTarget") } else { "" };
    Ok(Stat { is_directory: mode & GO_DIRECTORY != 0, link_target: link_target.to_owned() })
}

async fn out_of(call: &Call<'_>, container: &str, source: &str, destination: &str) -> Result {
    let client = call.cli.client()?;
    let mut source = absolute_inside(source);
    if call.flags.on("follow-link") {
        let stat = stat(client, container, &source).await?;
        if !stat.link_target.is_empty() {
            source = resolved_link(&source, &stat.link_target);
        }
    }
    let request = client.get(format!("{}/archive", path(container))).query("path", &source);
    if destination == "-" {
        let mut response = request.send().await?;
        while let Some(chunk) = response.chunk().await? {
            call.cli.printer.bytes(&chunk)?;
        }
        return Ok(());
    }
    let response = request.send().await?;
    let stat = stat_of(response.header("x-docker-container-path-stat"))?;
    let plan = Plan::of(&source, stat.is_directory, destination, Seen::here(destination))?;
    let (folder, rename) = (PathBuf::from(&plan.folder), plan.rename);
    let owners = call.flags.on("archive");
    let copied = pipes::consumed(response, move |tar| {
        let mut counted = Counted { inner: tar, count: 0 };
        extract(&mut counted, &folder, rename.as_ref(), owners)?;
        Ok(counted.count)
    })
    .await?;
    let whole = std::path::absolute(destination).unwrap_or_else(|_| destination.into());
    report(call, copied, &whole.display().to_string());
    Ok(())
}

async fn into(call: &Call<'_>, source: &str, container: &str, destination: &str) -> Result {
    let client = call.cli.client()?;
    let mut inside = absolute_inside(destination);
    let mut seen = Seen::Nothing;
    if let Ok(found) = stat(client, container, &inside).await {
        if !found.link_target.is_empty() {
            inside = resolved_link(&inside, &found.link_target);
            if let Ok(found) = stat(client, container, &inside).await {
                seen = Seen::of(found.is_directory);
            }
        } else {
            seen = Seen::of(found.is_directory);
        }
    }
    let put = |folder: &str| {
        client
            .request(Method::PUT, format!("{}/archive", path(container)))
            .query("path", folder)
            .query("noOverwriteDirNonDir", "true")
            .query_flag("copyUIDGID", call.flags.on("archive"))
    };
    if source == "-" {
        if seen != Seen::Directory {
            return Err(Failure::words(format!(
                "destination \"{container}:{inside}\" must be a directory"
            )));
        }
        return Ok(put(&inside)
            .stream("application/x-tar", pipes::body(io::stdin()))
            .done()
            .await?);
    }
    let mut local = PathBuf::from(source);
    if call.flags.on("follow-link") {
        local = std::fs::canonicalize(&local).map_err(|err| missing(source, &err))?;
    }
    let meta = if asserts_directory(source) {
        std::fs::metadata(&local)
    } else {
        std::fs::symlink_metadata(&local)
    };
    let meta = meta.map_err(|err| missing(source, &err))?;
    let plan = Plan::of(&local.display().to_string(), meta.is_dir(), &inside, seen)?;
    let name = plan.rename.map_or_else(|| base(source), |(_, name)| name);
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = std::sync::Arc::clone(&count);
    let body = pipes::produced(move |out| {
        let mut counted = Counted { inner: out, count: 0 };
        let result = pack(&local, &name, &mut counted);
        counter.store(counted.count, std::sync::atomic::Ordering::Relaxed);
        result
    });
    put(&plan.folder).stream("application/x-tar", body).done().await?;
    report(
        call,
        count.load(std::sync::atomic::Ordering::Relaxed),
        &format!("{container}:{destination}"),
    );
    Ok(())
}

fn missing(source: &str, err: &io::Error) -> Failure {
    Failure::words(format!(
        "lstat {source}: {}",
        Error::from(io::Error::from_raw_os_error(err.raw_os_error().unwrap_or(2)))
    ))
}

fn report(call: &Call<'_>, copied: u64, whole: &str) {
    let quiet = call.flags.switch("quiet").unwrap_or(!call.cli.printer.out_is_terminal());
    if !quiet {
        call.cli.printer.complain(&format!(
            "Successfully copied {} to {whole}",
            human_size_precise(copied as f64, 3)
        ));
    }
}

/// What stands at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Directory,
    Other,
}

impl Seen {
    fn of(is_directory: bool) -> Self {
        if is_directory { Self::Directory } else { Self::Other }
    }

    fn here(path: &str) -> Self {
        std::fs::metadata(path).map_or(Self::Nothing, |meta| Self::of(meta.is_dir()))
    }
}

/// Where an archive of the source is to be extracted, and under which name.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    folder: String,
    /// The first part of every entry's path, and what to put in its place.
    rename: Option<(String, String)>,
}

impl Plan {
    fn of(source: &str, source_is_directory: bool, destination: &str, seen: Seen) -> Result<Self> {
        let rename = || Some((base(source), base(destination)));
        let parent = || {
            let parent = Path::new(destination.trim_end_matches('/')).parent();
            let parent = parent.map(|path| path.display().to_string()).unwrap_or_default();
            if parent.is_empty() { ".".to_owned() } else { parent }
        };
        match (seen, source_is_directory) {
            (Seen::Directory, _) => Ok(Self { folder: destination.to_owned(), rename: None }),
            (Seen::Other, true) => Err(Failure::words("cannot copy directory")),
            (Seen::Nothing, false) if asserts_directory(destination) => {
                Err(Failure::words("no such directory"))
            }
            (Seen::Other | Seen::Nothing, _) => Ok(Self { folder: parent(), rename: rename() }),
        }
    }
}

fn asserts_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.")
}

/// The last part of a path; `.` for a directory's contents.
fn base(path: &str) -> String {
    if path == "." || path.ends_with("/.") {
        return ".".to_owned();
    }
    let last = Path::new(path).file_name();
    last.map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn absolute_inside(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn resolved_link(link: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let parent = Path::new(link).parent().unwrap_or(Path::new("/"));
    parent.join(target).display().to_string()
}

/// Writes `source` as an archive whose first entry is `name`.
fn pack(source: &Path, name: &str, out: impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    tar.follow_symlinks(false);
    let name = if name == "/" { "." } else { name };
    if source.is_dir() && !source.is_symlink() || name == "." {
        tar.append_dir_all(name, source)?;
    } else {
        tar.append_path_with_name(source, name)?;
    }
    tar.finish()
}

/// Extracts below `folder`. No entry leaves it: not by its name, and not through a link that the archive made.
fn extract(
    tar: impl Read,
    folder: &Path,
    rename: Option<&(String, String)>,
    owners: bool,
) -> stdx::Result<()> {
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let Some(relative) = renamed(&name, rename) else { continue };
        let target = folder.join(&relative);
        if passes_link(folder, &relative) {
            return Err(Error::invalid(format!(
                "refusing to write through a link: {}",
                relative.display()
            )));
        }
        let words = || format!("cannot write {}", target.display());
        let header = entry.header();
        let mode = header.mode().unwrap_or(0o644);
        let (uid, gid) = (header.uid().unwrap_or(0), header.gid().unwrap_or(0));
        let kind = header.entry_type();
        if kind.is_dir() {
            std::fs::create_dir_all(&target).context(words)?;
        } else {
            if std::fs::symlink_metadata(&target).is_ok_and(|meta| !meta.is_dir()) {
                std::fs::remove_file(&target).context(words)?;
            }
            if let Some(link) = entry.link_name()?.filter(|_| kind.is_symlink()) {
                symlink(&link, &target).context(words)?;
                continue;
            }
            if let Some(link) = entry.link_name()?.filter(|_| kind.is_hard_link()) {
                let Some(link) = renamed(&link, rename) else { continue };
                std::fs::hard_link(folder.join(link), &target).context(words)?;
                continue;
            }
            if !kind.is_file() && !kind.is_contiguous() && !kind.is_gnu_sparse() {
                continue;
            }
            let mut file = std::fs::File::create(&target).context(words)?;
            io::copy(&mut entry, &mut file).context(words)?;
        }
        if owners {
            std::os::unix::fs::chown(&target, u32::try_from(uid).ok(), u32::try_from(gid).ok())
                .unwrap_or_default();
        }
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode & 0o7777))
            .context(words)?;
    }
    Ok(())
}

/// The entry's path with its first part exchanged; `None` for what must not be written at all.
fn renamed(name: &Path, rename: Option<&(String, String)>) -> Option<PathBuf> {
    let mut parts: Vec<&std::ffi::OsStr> = Vec::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let whole = |parts: &[&std::ffi::OsStr]| parts.iter().collect::<PathBuf>();
    let below = |to: &str, parts: &[&std::ffi::OsStr]| match parts {
        [] => PathBuf::from(to),
        parts => Path::new(to).join(whole(parts)),
    };
    match rename {
        Some((from, to)) if from == "." || from == "/" => Some(below(to, &parts)),
        Some((from, to)) if parts.first().is_some_and(|first| *first == from.as_str()) => {
            Some(below(to, &parts[1..]))
        }
        _ => Some(whole(&parts)),
    }
}

/// Whether a folder on the way to `relative` is a link.
fn passes_link(folder: &Path, relative: &Path) -> bool {
    let mut path = folder.to_owned();
    let mut components = relative.components().peekable();
    while let Some(component) = components.next() {
        path.push(component);
        if components.peek().is_some() && path.is_symlink() {
            return true;
        }
    }
    false
}

struct Counted<T> {
    inner: T,
    count: u64,
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(Place::of("c:/x"), Place::Inside("c", "/x"));
        assert_eq!(Place::of("./c:/x"), Place::Here("./c:/x"));
        assert_eq!(Place::of("-"), Place::Here("-"));
    }

    #[test]
    fn plans() {
        let plan = |source, is_dir, destination, seen| {
            Plan::of(source, is_dir, destination, seen).map_or_else(
                |failure| failure.text().to_owned(),
                |plan| match plan.rename {
                    Some((from, to)) => format!("{} {from}->{to}", plan.folder),
                    None => plan.folder,
                },
            )
        };
        assert_eq!(plan("/a", false, "/d", Seen::Directory), "/d");
        assert_eq!(plan("/a", false, "/d/b", Seen::Nothing), "/d a->b");
        assert_eq!(plan("/a", true, "b", Seen::Nothing), ". a->b");
        assert_eq!(plan("/a", true, "/f", Seen::Other), "cannot copy directory");
        assert_eq!(plan("/a", false, "/d/", Seen::Nothing), "no such directory");
    }

    #[test]
    fn there_and_back() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "text").unwrap();
        symlink("file", source.join("link")).unwrap();
        let mut archive = Vec::new();
        pack(&source, "source", &mut archive).unwrap();
        let rename = ("source".to_owned(), "copy".to_owned());
        extract(&archive[..], directory.path(), Some(&rename), false).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("copy/file")).unwrap(), "text");
        assert_eq!(
            std::fs::read_link(directory.path().join("copy/link")).unwrap(),
            Path::new("file")
        );
    }

    #[test]
    fn a_file_under_another_name() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "text").unwrap();
        let mut archive = Vec::new();
        pack(&directory.path().join("a"), "a", &mut archive).unwrap();
        extract(&archive[..], directory.path(), Some(&("a".to_owned(), "b".to_owned())), false)
            .unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("b")).unwrap(), "text");
    }

    #[test]
    fn nothing_leaves_the_folder() {
        let directory = tempfile::tempdir().unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, "door", "/tmp").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, "door/gantry-cp-escaped", &b"x"[..]).unwrap();
        let archive = tar.into_inner().unwrap();
        let err = extract(&archive[..], directory.path(), None, false).unwrap_err();
        assert_eq!(err.to_string(), "refusing to write through a link: door/gantry-cp-escaped");
        assert!(!Path::new("/tmp/gantry-cp-escaped").exists());
    }
}
