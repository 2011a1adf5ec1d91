//! `cp`: files between a container and here, as tar streams of the archive API.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Method};
use stdx::Error;
use stdx::units::human_size_precise;

use super::archive::{extract, pack};
use super::path;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::Value;
use crate::pipes::{self, Pour};

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
    /// `name:path` is in a container, unless it begins as a path of ours does; without a name it is here.
    fn of(text: &'a str) -> Self {
        match text.split_once(':') {
            Some(("", path)) => Self::Here(path),
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
    if destination != "-" {
        check_output(&absolute_here(destination))?;
    }
    let mut source = source.to_owned();
    // What the archive calls it: the name that was asked for, also where that is a link.
    let mut called = None;
    if call.flags.on("follow-link")
        && let Ok(stat) = stat(client, container, &source).await
        && !stat.link_target.is_empty()
    {
        called = Some((base(&stat.link_target), base(&source)));
        source = resolved_link(&source, &stat.link_target);
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
    let whole = absolute_here(destination);
    let landing = landing(&whole);
    let plan = Plan::of(&source, stat.is_directory, &landing, Seen::here(&landing))?;
    let (folder, rename) = (PathBuf::from(&plan.folder), plan.rename.or(called));
    let copied = pipes::consumed(response, move |tar| {
        let mut counted = Counted { inner: tar, count: 0 };
        extract(&mut counted, &folder, rename.as_ref())?;
        Ok(counted.count)
    })
    .await?;
    report(call, copied, whole.trim_end_matches('/'));
    Ok(())
}

/// Refuses what cannot become a file or directory, before anything is asked for.
fn check_output(destination: &str) -> Result {
    let clean = Path::new(destination.trim_end_matches("/.").trim_end_matches('/'));
    let parent = clean.parent().filter(|parent| !parent.exists());
    if let Some(parent) = parent {
        return Err(Failure::words(format!(
            "invalid output path: directory {parent:?} does not exist"
        )));
    }
    match std::fs::metadata(destination) {
        Ok(meta) if meta.is_dir() || meta.is_file() => Ok(()),
        Ok(_) => Err(Failure::words(format!(
            "invalid output path: {destination:?} must be a directory or a regular file: got a device"
        ))),
        Err(_) => Ok(()),
    }
}

/// Where a path leads, also when nothing is there yet.
fn landing(path: &str) -> String {
    let mut path = path.to_owned();
    for _ in 0..10 {
        match std::fs::read_link(&path) {
            Ok(target) => path = resolved_link(&path, &target.to_string_lossy()),
            Err(_) => break,
        }
    }
    path
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
    let source = &absolute_here(source);
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
    if err.kind() == io::ErrorKind::NotADirectory {
        return Failure::words("not a directory");
    }
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

/// From the root, with the slash or dot at its end that means a directory.
fn absolute_here(path: &str) -> String {
    let bare = path.trim_end_matches('/');
    let end = match (bare == "." || bare.ends_with("/."), path.ends_with('/')) {
        (true, _) => "/.",
        (false, true) => "/",
        (false, false) => "",
    };
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let whole = whole.display().to_string();
    match whole.trim_end_matches("/.").trim_end_matches('/') {
        "" if end.is_empty() => "/".to_owned(),
        clean => format!("{clean}{end}"),
    }
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

impl<T: Pour> Pour for Counted<T> {
    fn pour(&mut self, from: &mut dyn Read, size: u64) -> io::Result<u64> {
        let count = self.inner.pour(from, size)?;
        self.count += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(Place::of("c:/x"), Place::Inside("c", "/x"));
        assert_eq!(Place::of("./c:/x"), Place::Here("./c:/x"));
        assert_eq!(Place::of(":/x"), Place::Here("/x"));
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
}
