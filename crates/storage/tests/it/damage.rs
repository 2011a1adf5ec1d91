//! F20 for bytes: what is broken is found and named, and repair leaves nothing but what is right.

use std::collections::BTreeSet;
use std::fs;

use oci::Digest;
use storage::{Depth, Known, Remedy, Storage};

use crate::support::{archive, chain, dir, file, hard, open, symlink};

struct House {
    home: tempfile::TempDir,
    storage: Storage,
    known: Known,
}

fn house(driver: &str) -> House {
    let home = tempfile::tempdir().unwrap();
    let storage = open(home.path(), driver);
    let base = archive(&[
        dir("d"),
        file("d/a", "one"),
        hard("b", "d/a"),
        symlink("l", "b"),
        file("e", ""),
    ]);
    let top = archive(&[file("d/c", "three"), file(".wh.b", "")]);
    storage.snapshots.unpack(&chain("base"), None, &mut &base[..]).unwrap();
    storage.snapshots.unpack(&chain("top"), Some(&chain("base")), &mut &top[..]).unwrap();
    storage.snapshots.prepare("c1", &[chain("base"), chain("top")]).unwrap();
    let blob = storage.content.put(b"config").unwrap().digest;
    let known = Known {
        layers: BTreeSet::from([chain("base"), chain("top")]),
        containers: BTreeSet::from(["c1".to_owned()]),
        blobs: BTreeSet::from([blob]),
        ..Known::default()
    };
    House { home, storage, known }
}

impl House {
    fn path(&self, driver: &str, layer: &str, rest: &str) -> std::path::PathBuf {
        self.home.path().join(driver).join("layers").join(chain(layer).hex()).join(rest)
    }

    fn findings(&self, depth: Depth) -> Vec<(String, Remedy)> {
        let findings = self.storage.check(depth, &self.known).unwrap();
        findings.iter().map(|finding| (finding.to_string(), finding.remedy)).collect()
    }
}

#[test]
fn a_sound_house_has_no_findings() {
    for driver in ["overlay2", "vfs"] {
        let house = house(driver);
        assert_eq!(house.findings(Depth::Strict), [], "{driver}");
        assert_eq!(house.findings(Depth::Quick), []);
    }
}

#[test]
fn layers_that_were_changed() {
    type Damage = fn(&House, &str);
    let damages: [(Damage, &str, bool); 8] = [
        (
            |house, driver| fs::write(house.path(driver, "base", "fs/d/a"), "two").unwrap(),
            "its content has changed",
            false,
        ),
        (
            |house, driver| fs::write(house.path(driver, "base", "fs/d/a"), "").unwrap(),
            "bytes, not",
            true,
        ),
        (
            |house, driver| fs::write(house.path(driver, "base", "fs/new"), "").unwrap(),
            "names, not",
            true,
        ),
        (
            |house, driver| fs::remove_file(house.path(driver, "base", "fs/e")).unwrap(),
            "names, not",
            true,
        ),
        (
            |house, driver| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
                fs::set_permissions(house.path(driver, "base", "fs/e"), mode).unwrap();
            },
            "its content has changed",
            false,
        ),
        (
            |house, driver| {
                fs::remove_file(house.path(driver, "base", "fs/l")).unwrap();
                std::os::unix::fs::symlink("d", house.path(driver, "base", "fs/l")).unwrap();
            },
            "its content has changed",
            false,
        ),
        (
            |house, driver| fs::remove_dir_all(house.path(driver, "base", "fs")).unwrap(),
            "is not complete",
            true,
        ),
        (
            |house, driver| fs::write(house.path(driver, "base", "layer.json"), "{}").unwrap(),
            "cannot read layer.json",
            true,
        ),
    ];
    for driver in ["overlay2", "vfs"] {
        for (damage, words, quick) in damages {
            let house = house(driver);
            damage(&house, driver);
            let strict = house.findings(Depth::Strict);
            assert_eq!(strict.len(), 1, "{strict:?}");
            assert!(
                strict[0].0.contains(words) && strict[0].0.contains(chain("base").as_str()),
                "{strict:?}"
            );
            assert_eq!(strict[0].1, Remedy::Replace);
            assert_eq!(!house.findings(Depth::Quick).is_empty(), quick, "{words}");
            house
                .storage
                .repair(&house.storage.check(Depth::Strict, &house.known).unwrap())
                .unwrap();
            assert!(!house.storage.snapshots.has_layer(&chain("base")));
            let after = house.findings(Depth::Strict);
            assert_eq!(after, [(format!("layer {}: is missing", chain("base")), Remedy::Replace)]);
        }
    }
}

#[test]
fn garbage_is_found_and_goes() {
    for driver in ["overlay2", "vfs"] {
        let house = house(driver);
        let root = house.home.path().join(driver);
        fs::create_dir_all(root.join("layers").join("a".repeat(64)).join("fs")).unwrap();
        fs::create_dir(root.join("layers/nonsense")).unwrap();
        fs::create_dir(root.join("containers/nobodys")).unwrap();
        fs::create_dir(root.join("staging/half")).unwrap();
        let stray = house.storage.content.put(b"stray").unwrap().digest;
        house.storage.snapshots.unpack(&chain("stray"), None, &mut &archive(&[])[..]).unwrap();
        house.storage.snapshots.prepare("stray", &[]).unwrap();
        let mut findings = house.findings(Depth::Strict);
        findings.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [
            format!("content {stray}: is used by no image"),
            "directory containers/nobodys: belongs to nothing".to_owned(),
            format!("directory layers/{}: belongs to nothing", "a".repeat(64)),
            "directory layers/nonsense: belongs to nothing".to_owned(),
            "directory staging/half: belongs to nothing".to_owned(),
            "files of container stray: belong to no container".to_owned(),
            format!("layer {}: is used by no image", chain("stray")),
        ];
        assert_eq!(findings, expected.map(|words| (words, Remedy::Remove)));
        house.storage.repair(&house.storage.check(Depth::Strict, &house.known).unwrap()).unwrap();
        assert_eq!(house.findings(Depth::Strict), []);
        assert!(house.storage.reap().unwrap() >= 6);
        assert_eq!(house.storage.trash().unwrap(), 0);
    }
}

#[test]
fn blobs() {
    let mut house = house("overlay2");
    let blob = house.known.blobs.first().unwrap().clone();
    fs::write(house.home.path().join("content/blobs/sha256").join(blob.hex()), "cnofig").unwrap();
    assert_eq!(house.findings(Depth::Quick), []);
    assert_eq!(
        house.findings(Depth::Strict),
        [(format!("content {blob}: is damaged"), Remedy::Replace)]
    );
    house.known.blobs = BTreeSet::from([Digest::of(b"never")]);
    house.known.containers.insert("lost".to_owned());
    let findings = house.findings(Depth::Quick);
    assert_eq!(findings.len(), 3);
    assert!(findings.contains(&("files of container lost: are missing".to_owned(), Remedy::None)));
}

#[test]
fn a_container_whose_files_were_lost_starts_afresh() {
    for driver in ["overlay2", "vfs"] {
        let house = house(driver);
        fs::remove_dir_all(house.home.path().join(driver).join("containers/c1")).unwrap();
        house.storage.snapshots.rootfs("c1").unwrap();
        assert_eq!(house.storage.snapshots.changes("c1").unwrap(), []);
    }
}

#[test]
fn what_a_dead_process_left_is_cleared_at_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path(), "overlay2"));
    fs::create_dir_all(home.path().join("overlay2/staging/dead/fs/etc")).unwrap();
    let storage = open(home.path(), "overlay2");
    assert_eq!(storage.snapshots.garbage().unwrap(), []);
    assert_eq!(storage.reap().unwrap(), 1);
}

#[test]
fn trash_of_any_depth() {
    let home = tempfile::tempdir().unwrap();
    let storage = open(home.path(), "vfs");
    storage.snapshots.prepare("deep", &[]).unwrap();
    let view = storage.snapshots.view_writable("deep").unwrap();
    // Deeper than a path can be long, and than there are descriptors.
    let mut at = view.root;
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::from_raw_mode(0o700)).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
        at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap();
    }
    storage.snapshots.remove("deep").unwrap();
    assert_eq!(storage.reap().unwrap(), 1);
    assert_eq!(storage.trash().unwrap(), 0);
}
