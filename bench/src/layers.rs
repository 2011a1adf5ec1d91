//! Images: the small ones all other work needs, and a large one to load and to pull.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::images::{Compression, Entry, Packed, Style, tar};
use testkit::{Registry, TestImage};

use crate::engine::Engine;
use crate::network::Place;
use crate::table::{Budget, Row, Table, Unit};
use crate::turns::{Round, Turns, clock};

const SIZE: u64 = 120 << 20;
const NAME: &str = "gantry-bench";
const PEER: Budget = Budget { ratio: 1.0 / 3.0, words: "a third" };
const FLOOR: Budget = Budget { ratio: 1.3, words: "1.3 of it" };

/// The images that containers are made of, by their usual names.
pub(crate) fn load_small_images(engine: &Engine) -> Result<()> {
    let program = std::fs::read("/bin/busybox").context("busybox-static is needed")?;
    let hello = TestImage::new(
        vec![tar(&[Entry::File("busybox".to_owned(), program, 0o755)])],
        &json!({ "Cmd": ["/busybox", "echo", "Hello from a container!"] }),
    );
    load(engine, &TestImage::busybox().docker_archive(&["busybox:latest"]))?;
    load(engine, &hello.docker_archive(&["hello-world:latest"]))
}

/// A large image in the three shapes it travels in.
pub(crate) struct Large {
    packed: Packed,
    archive: Vec<u8>,
    id: String,
}

impl Large {
    /// One layer of this machine's own programs, libraries and documents, compressed as registries have it.
    pub(crate) fn new() -> Result<Self> {
        let mut layer = tar::Builder::new(Vec::new());
        layer.follow_symlinks(false);
        let mut left = SIZE;
        for (dir, share) in [("usr/bin", 3), ("usr/lib", 2), ("usr/share", 1)] {
            let mut here = left / share;
            left -= here;
            append(&mut layer, Path::new(dir), &mut here)?;
            left += here;
        }
        let image = TestImage::new(vec![layer.into_inner()?], &json!({ "Cmd": ["true"] }));
        let packed = image.pack(Style::Docker, Compression::Gzip);
        let manifest = json!([{
            "Config": "config.json",
            "RepoTags": [format!("{NAME}:load")],
            "Layers": ["layer.tar.gz"],
        }]);
        let archive = tar(&[
            Entry::File("layer.tar.gz".to_owned(), packed.blobs[0].clone(), 0o644),
            Entry::File("config.json".to_owned(), image.config.clone(), 0o644),
            Entry::file("manifest.json", &manifest.to_string()),
        ]);
        Ok(Self { packed, archive, id: image.id().to_string() })
    }

    /// What it takes `gzip` and `tar` to unpack the layer.
    fn unpacked_by_tar(&self, scratch: &Path) -> Result<Vec<f64>> {
        let (layer, root) = (scratch.join("layer.tar.gz"), scratch.join("unpacked"));
        std::fs::write(&layer, &self.packed.blobs[0])?;
        std::fs::create_dir(&root)?;
        rustix::fs::sync();
        let (time, status) = clock(|| {
            let mut gzip =
                Command::new("gzip").arg("-dc").arg(&layer).stdout(Stdio::piped()).spawn()?;
            let pipe = gzip.stdout.take().context("a pipe")?;
            let status = Command::new("tar").arg("xC").arg(&root).stdin(pipe).status()?;
            gzip.wait()?;
            Ok(status)
        })?;
        ensure!(status.success(), "tar: {status}");
        std::fs::remove_dir_all(&root)?;
        Ok(vec![time])
    }

    /// Takes it away again, which is not measured.
    fn forget(&self, engine: &Engine) -> Result<()> {
        let path = format!("/images/{}?force=1", self.id);
        engine.connect()?.ask("DELETE", &path, None)?;
        rustix::fs::sync();
        Ok(())
    }
}

/// Whole files in order of their names, until there is no room for one more.
fn append(layer: &mut tar::Builder<Vec<u8>>, dir: &Path, left: &mut u64) -> Result<()> {
    let mut entries =
        std::fs::read_dir(Path::new("/").join(dir))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (kind, inside) = (entry.file_type()?, dir.join(entry.file_name()));
        if kind.is_dir() {
            append(layer, &inside, left)?;
        } else if kind.is_symlink() {
            layer.append_path_with_name(entry.path(), inside)?;
        } else if kind.is_file() && entry.metadata()?.len() <= *left {
            *left -= entry.metadata()?.len();
            layer.append_path_with_name(entry.path(), inside)?;
        }
    }
    Ok(())
}

pub(crate) fn measure_load(
    turns: &Turns,
    scratch: &Path,
    large: &Large,
    ours: &Engine,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    let round = |engine: &Engine| {
        let (time, ()) = clock(|| load(engine, &large.archive))?;
        large.forget(engine)?;
        Ok(vec![time])
    };
    let mut contestants: Vec<Round> =
        vec![Box::new(|| large.unpacked_by_tar(scratch)), Box::new(|| round(ours))];
    if let Some(theirs) = theirs {
        contestants.push(Box::new(|| round(theirs)));
    }
    report("load, 120 MiB", &turns.fewer(), contestants, table)
}

pub(crate) fn measure_pull(
    turns: &Turns,
    scratch: &Path,
    large: &Large,
    ours: &Engine,
    theirs: Option<&Engine>,
    table: &mut Table,
) -> Result<()> {
    // One registry where each engine finds it on its own loopback.
    let here = registry_in(&ours.network_namespace())?;
    let there = theirs.map(|peer| registry_in(&peer.network_namespace())).transpose()?;
    for registry in [Some(&here), there.as_ref()].into_iter().flatten() {
        large.packed.push(registry, NAME, Some("pull"));
    }
    let round = |engine: &Engine, registry: &Registry| {
        let path = format!("/images/create?fromImage={}&tag=pull", registry.reference(NAME));
        let (time, answer) = clock(|| engine.connect()?.ask("POST", &path, None))?;
        let words = String::from_utf8_lossy(&answer);
        ensure!(!words.contains("\"error\""), "{}: {words}", engine.name);
        large.forget(engine)?;
        Ok(vec![time])
    };
    let mut contestants: Vec<Round> =
        vec![Box::new(|| large.unpacked_by_tar(scratch)), Box::new(|| round(ours, &here))];
    if let (Some(theirs), Some(there)) = (theirs, &there) {
        contestants.push(Box::new(move || round(theirs, there)));
    }
    report("pull, 120 MiB", &turns.fewer(), contestants, table)
}

/// Two rows of the same values of ours: against the tools' speed, and against the peer.
fn report(name: &str, turns: &Turns, mut contestants: Vec<Round>, table: &mut Table) -> Result<()> {
    let mut all = turns.take(&mut contestants)?.into_iter().map(|mut rows| rows.swap_remove(0));
    let (floor, ours) = (all.next().unwrap_or_default(), all.next().unwrap_or_default());
    let rows = [Some(("gzip | tar", floor, FLOOR)), all.next().map(|it| ("dockerd", it, PEER))];
    for (against, values, budget) in rows.into_iter().flatten() {
        table.push(Row {
            name: name.to_owned(),
            unit: Unit::Milliseconds,
            ours: ours.clone(),
            against: Some((against, values)),
            budget: Some(budget),
        });
    }
    Ok(())
}

fn load(engine: &Engine, archive: &[u8]) -> Result<()> {
    let mut http = engine.connect()?;
    let answer = http.send("POST", "/images/load?quiet=1", "application/x-tar", archive)?;
    let words = String::from_utf8_lossy(&answer);
    ensure!(words.contains("Loaded image"), "{}: {words}", engine.name);
    Ok(())
}

/// A registry on the loopback of another network namespace.
fn registry_in(namespace: &Path) -> Result<Registry> {
    Place::at(namespace)?.within(|| Ok(Registry::start()))
}
