//! Whatever a container does to its files, the layer made of it does it again; and both drivers tell the same story.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use storage::layer::{Limits, apply, export};
use storage::snapshot::Driver;

use crate::support::{
    Detail, Dressed, Item, Jail, Memory, archive, chain, dir, file, open, picture, symlink, through,
};

/// Something done inside a container, on a handful of paths so that they meet.
#[derive(Clone, Debug)]
enum Act {
    Write(&'static str, u8),
    Directory(&'static str),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
    Remove(&'static str),
    Rename(&'static str, &'static str),
    Mode(&'static str, u32),
}

const PATHS: [&str; 9] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "f"];

impl Act {
    /// What cannot be done is not done.
    fn run(&self, root: &Path) {
        match self {
            Self::Write(path, byte) => drop(fs::write(root.join(path), [*byte; 3])),
            Self::Directory(path) => drop(fs::create_dir(root.join(path))),
            Self::Link(path, to) => drop(std::os::unix::fs::symlink(to, root.join(path))),
            Self::Hard(path, to) => drop(fs::hard_link(root.join(to), root.join(path))),
            // Overlayfs refuses to rename a directory of a lower layer; `mv` copies it then.
            Self::Rename(from, to) => match fs::symlink_metadata(root.join(from)) {
                Ok(meta) if !meta.is_dir() => drop(fs::rename(root.join(from), root.join(to))),
                _ => {}
            },
            Self::Mode(path, mode) => match fs::symlink_metadata(root.join(path)) {
                Ok(meta) if !meta.is_symlink() => {
                    fs::set_permissions(root.join(path), PermissionsExt::from_mode(*mode)).unwrap();
                }
                _ => {}
            },
            Self::Remove(path) => match fs::symlink_metadata(root.join(path)) {
                Ok(meta) if meta.is_dir() => fs::remove_dir_all(root.join(path)).unwrap(),
                Ok(_) => fs::remove_file(root.join(path)).unwrap(),
                Err(_) => {}
            },
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let path = || prop::sample::select(&PATHS[..]);
    prop_oneof![
        3 => (path(), any::<u8>()).prop_map(|(path, byte)| Act::Write(path, byte)),
        3 => path().prop_map(Act::Directory),
        1 => (path(), path()).prop_map(|(path, to)| Act::Link(path, to)),
        1 => (path(), path()).prop_map(|(path, to)| Act::Hard(path, to)),
        4 => path().prop_map(Act::Remove),
        2 => (path(), path()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => (path(), prop::sample::select(&[0o755, 0o4711, 0o600][..])).prop_map(|(path, mode)| Act::Mode(path, mode)),
    ]
}

/// Without hard links: overlayfs breaks those of lower layers when one of the names is written to.
fn base() -> Vec<u8> {
    let mut items = [
        dir("."),
        file("a", "a").mode(0o640).owner(1, 2),
        symlink("b", "a"),
        dir("d").mode(0o711).owner(3, 4),
        file("d/a", "da"),
        file("d/b", "db"),
        dir("d/e"),
        file("d/e/a", "dea").mode(0o4755),
        file("d/e/b", "deb").xattr("user.x", b"1"),
    ];
    // Of different ages: copying drivers know a changed file by its size and time.
    (0..).zip(&mut items).for_each(|(age, (entry, _))| entry.modified.seconds = age);
    archive(&items)
}

/// Runs the acts in a container and returns the changes as text, the tree, and the layer.
fn live(driver: &Arc<dyn Driver>, acts: &[Act]) -> (Vec<String>, String, Vec<u8>) {
    driver.unpack(&chain("base"), None, &mut &base()[..]).unwrap();
    driver.prepare("c", &[chain("base")]).unwrap();
    let view = driver.view_writable("c").unwrap();
    acts.iter().for_each(|act| act.run(&through(&view.root)));
    let tree = without_places(&picture(&through(&view.root), Detail::Short));
    drop(view);
    let changes = driver.changes("c").unwrap();
    let changes = changes
        .iter()
        .map(|change| format!("{:?} {}", change.kind, change.path.display()))
        .collect();
    let mut layer = Vec::new();
    driver.diff("c", &mut layer).unwrap();
    (changes, tree, layer)
}

/// A container's tree has places for mounts that no layer has.
fn without_places(picture: &str) -> String {
    let ours = |line: &&str| {
        let top = line.split(['/', ' ']).next().unwrap_or_default();
        [".dockerenv", "dev", "etc", "proc", "sys"].contains(&top)
    };
    picture.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_layer_does_again_what_was_done(acts in prop::collection::vec(act(), 1..12)) {
        let mut told = Vec::new();
        for name in ["overlay2", "vfs"] {
            let disk = Memory::new("32m", "0");
            let storage = open(&disk.path().join("data"), name);
            let driver = &storage.snapshots;
            let (changes, tree, layer) = live(driver, &acts);
            driver.unpack(&chain("top"), Some(&chain("base")), &mut &layer[..]).unwrap();
            let again = driver.view_layers(&[chain("base"), chain("top")]).unwrap();
            prop_assert_eq!(&picture(&through(&again.root), Detail::Short), &tree, "{}", name);
            prop_assert_eq!(driver.verify_layer(&chain("top"), storage::Depth::Strict).unwrap(), None);
            // A layer written from its directory is that layer again.
            let mut rewritten = Vec::new();
            driver.layer_tar(&chain("top"), &mut rewritten).unwrap();
            driver.unpack(&chain("again"), Some(&chain("base")), &mut &rewritten[..]).unwrap();
            let again = driver.view_layers(&[chain("base"), chain("again")]).unwrap();
            prop_assert_eq!(&picture(&through(&again.root), Detail::Short), &tree, "{}", name);
            told.push((changes, tree));
        }
        prop_assert_eq!(&told[0], &told[1]);
    }

    #[test]
    fn an_export_is_the_tree(acts in prop::collection::vec(act(), 1..12)) {
        let jail = Jail::new();
        apply(std::os::fd::AsFd::as_fd(&jail.root()), &mut &base()[..], &Limits::default()).unwrap();
        acts.iter().for_each(|act| act.run(&jail.path()));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        export(std::os::fd::AsFd::as_fd(&jail.root()), &mut first).unwrap();
        let other = Jail::new();
        apply(std::os::fd::AsFd::as_fd(&other.root()), &mut &first[..], &Limits::default()).unwrap();
        export(std::os::fd::AsFd::as_fd(&other.root()), &mut second).unwrap();
        prop_assert_eq!(picture(&jail.path(), Detail::Short), picture(&other.path(), Detail::Short));
        prop_assert!(first == second, "the same tree gives the same bytes");
    }
}

/// Another reader of the format agrees with our writer, and our reader with another writer.
#[test]
fn strangers_understand() {
    let items: Vec<Item> =
        vec![dir("d"), file("d/f", "data"), symlink("l", "d/f"), file(&*"long/".repeat(40), "x")];
    let bytes = archive(&items);
    let mut archive = tar::Archive::new(&bytes[..]);
    let read: Vec<_> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned()).collect();
    assert_eq!(read, items.iter().map(|(entry, _)| entry.path.clone()).collect::<Vec<_>>());
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    builder.append_data(&mut header, "x/".repeat(80) + "f", &b"data"[..]).unwrap();
    let jail = Jail::new();
    let bytes = builder.into_inner().unwrap();
    jail.extract(&bytes, storage::layer::Whiteouts::Literal).unwrap();
    assert_eq!(fs::read_to_string(jail.path().join("x/".repeat(80) + "f")).unwrap(), "data");
}

/// `tar` itself, in both directions, with sparse files and long names.
#[test]
fn gnu_tar_understands() {
    let jail = Jail::new();
    let root = jail.path();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"middle", 1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", (3 << 20) - 3).unwrap();
    fs::create_dir(root.join("d".repeat(150))).unwrap();
    fs::write(root.join("d".repeat(150)).join("ü".repeat(60)), "x").unwrap();
    fs::hard_link(root.join("sparse"), root.join("twin")).unwrap();
    std::os::unix::fs::symlink("t".repeat(200), root.join("link")).unwrap();
    let before = picture(&root, Detail::Short);
    for format in [
        "--format=gnu",
        "--format=posix",
        "--format=pax --sparse-version=0.0",
        "--format=pax --sparse-version=0.1",
        "--format=pax --sparse-version=1.0",
    ] {
        let output = std::process::Command::new("tar")
            .args(format.split(' '))
            .args(["--sparse", "--xattrs", "-C", root.to_str().unwrap(), "-c", "."])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let other = Jail::new();
        other.extract(&output.stdout, storage::layer::Whiteouts::Overlay).unwrap();
        assert_eq!(picture(&other.path(), Detail::Short), before, "{format}");
        let blocks = std::os::unix::fs::MetadataExt::blocks(
            &fs::metadata(other.path().join("sparse")).unwrap(),
        );
        assert!(blocks < 200, "{format}: {blocks}");
    }
    let mut bytes = Vec::new();
    export(std::os::fd::AsFd::as_fd(&jail.root()), &mut bytes).unwrap();
    let other = Jail::new();
    let file = other.home.path().join("a.tar");
    fs::write(&file, bytes).unwrap();
    let status = std::process::Command::new("tar")
        .arg("-xf")
        .arg(&file)
        .arg("-C")
        .arg(other.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(picture(&other.path(), Detail::Short), before);
}
