//! What every driver promises, as tests: a driver keeps the contract when [`suite`] passes on it.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::Digest;
use stdx::Kind as ErrorKind;

use super::*;
use crate::layer::ChangeKind;
use crate::layer::Verified;
use crate::tar::{Entry, Kind, Writer};

/// Opens the driver under a directory, for the first time or again.
pub(crate) type Make<'a> = &'a dyn Fn(&Path, &Ground) -> Arc<dyn Driver>;

struct House {
    home: tempfile::TempDir,
    ground: Ground,
    driver: Arc<dyn Driver>,
}

impl House {
    fn new(make: Make<'_>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let trash = Trash::open(home.path()).unwrap();
        let ground =
            Ground { state: state::Store::in_memory(), trash, durable: Durable::default() };
        let driver = make(home.path(), &ground);
        Self { home, ground, driver }
    }

    fn unpack(&self, name: &str, parent: Option<&str>, tar: &[u8]) -> Result<Unpacked> {
        self.driver.unpack(&chain(name), parent.map(chain).as_ref(), &mut &tar[..])
    }

    /// An image of two layers, the upper one hiding and replacing.
    fn image(&self) -> [ChainId; 2] {
        let base = layer(&[
            at(Entry::new(Kind::Directory, "."), |entry| entry.mode = 0o711),
            at(Entry::new(Kind::Directory, "etc"), |entry| (entry.mode, entry.uid) = (0o750, 7)),
            data("etc/a", "base"),
            data("etc/b", "base"),
            Entry::new(Kind::Directory, "opaque").into(),
            data("opaque/old", "old"),
            data("gone", "gone"),
        ]);
        let top = layer(&[
            data("etc/b", "top"),
            data("etc/c", "top"),
            data(".wh.gone", ""),
            data("opaque/.wh..wh..opq", ""),
            data("opaque/new", "new"),
        ]);
        self.unpack("base", None, &base).unwrap();
        self.unpack("top", Some("base"), &top).unwrap();
        [chain("base"), chain("top")]
    }
}

struct Item(Entry, &'static str);

impl From<Entry> for Item {
    fn from(entry: Entry) -> Self {
        Self(entry, "")
    }
}

fn at(mut entry: Entry, change: impl FnOnce(&mut Entry)) -> Item {
    change(&mut entry);
    entry.into()
}

fn data(path: &str, text: &'static str) -> Item {
    Item(Entry { size: text.len() as u64, ..Entry::new(Kind::File, path) }, text)
}

fn layer(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for Item(entry, text) in items {
        writer.append_file(entry, &mut text.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn chain(name: &str) -> ChainId {
    ChainId::base(&Digest::of(name.as_bytes()))
}

fn path(view: &View) -> PathBuf {
    format!("/proc/self/fd/{}/", view.root.as_raw_fd()).into()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn text(view: &View, name: &str) -> String {
    fs::read_to_string(path(view).join(name)).unwrap()
}

/// Runs everything a driver promises.
pub(crate) fn suite(make: Make<'_>) {
    layers_come_and_go(make);
    layers_lie_on_each_other(make);
    any_order(make);
    directories_nobody_described(make);
    half_a_layer_is_none(make);
    many_at_once(make);
    containers_come_and_go(make);
    places_are_no_changes(make);
    changes_and_diff(make);
    after_a_restart(make);
}

fn layers_come_and_go(make: Make<'_>) {
    let house = House::new(make);
    let unpacked = house.unpack("a", None, &layer(&[data("x", "four"), data("y", "2")])).unwrap();
    assert_eq!(unpacked, Unpacked { size: 5, entries: 2 });
    assert!(house.driver.has_layer(&chain("a")));
    assert!(!house.driver.has_layer(&chain("b")));
    // Again: nothing is read, the answer is the same.
    let again = house.driver.unpack(&chain("a"), None, &mut Unreadable).unwrap();
    assert_eq!(again, unpacked);
    house.unpack("b", Some("a"), &layer(&[])).unwrap();
    assert_eq!(house.driver.layers().unwrap().len(), 2);
    let error = house.driver.remove_layer(&chain("a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    house.driver.prepare("c", &[chain("a"), chain("b")]).unwrap();
    assert_eq!(house.driver.remove_layer(&chain("b")).unwrap_err().kind(), ErrorKind::Conflict);
    house.driver.remove("c").unwrap();
    house.driver.remove_layer(&chain("b")).unwrap();
    house.driver.remove_layer(&chain("a")).unwrap();
    house.driver.remove_layer(&chain("a")).unwrap();
    assert_eq!(house.driver.layers().unwrap(), []);
    assert_eq!(house.ground.trash.reap().unwrap(), 3);
}

struct Unreadable;

impl Read for Unreadable {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        panic!("nobody should read this")
    }
}

fn layers_lie_on_each_other(make: Make<'_>) {
    let house = House::new(make);
    let image = house.image();
    let view = house.driver.view_layers(&image).unwrap();
    assert_eq!(names(&path(&view)), ["etc", "opaque"]);
    assert_eq!(names(&path(&view).join("opaque")), ["new"]);
    assert_eq!(
        [text(&view, "etc/a"), text(&view, "etc/b"), text(&view, "etc/c")],
        ["base", "top", "top"]
    );
    let below = house.driver.view_layers(&image[..1]).unwrap();
    assert_eq!(names(&path(&below)), ["etc", "gone", "opaque"]);
    assert_eq!(text(&below, "etc/b"), "base");
    assert_eq!(names(&path(&house.driver.view_layers(&[]).unwrap())), [""; 0]);
    // All below is hidden by a root that says so.
    house
        .unpack("alone", Some("top"), &layer(&[data("only", ""), data(".wh..wh..opq", "")]))
        .unwrap();
    let alone =
        house.driver.view_layers(&[image[0].clone(), image[1].clone(), chain("alone")]).unwrap();
    assert_eq!(names(&path(&alone)), ["only"]);
}

fn any_order(make: Make<'_>) {
    let house = House::new(make);
    let top = layer(&[data("etc/b", "top")]);
    if house.driver.needs_parent() {
        let error = house.unpack("top", Some("base"), &top).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        return;
    }
    house.unpack("top", Some("base"), &top).unwrap();
    let base = layer(&[at(Entry::new(Kind::Directory, "etc"), |entry| {
        (entry.mode, entry.gid) = (0o2750, 9)
    })]);
    house.unpack("base", None, &base).unwrap();
    house.driver.prepare("c", &[chain("base"), chain("top")]).unwrap();
    let view = house.driver.view("c").unwrap();
    let etc = fs::metadata(path(&view).join("etc")).unwrap();
    assert_eq!((etc.mode() & 0o7777, etc.gid()), (0o2750, 9));
    assert_eq!(house.driver.verify_layer(&chain("top"), Depth::Strict).unwrap(), None);
}

/// A layer that has `etc/b` and does not say what `etc` is leaves it as it was below; so with the root.
fn directories_nobody_described(make: Make<'_>) {
    let house = House::new(make);
    let image = house.image();
    house.driver.prepare("c", &image).unwrap();
    for view in [house.driver.view_layers(&image).unwrap(), house.driver.view("c").unwrap()] {
        let etc = fs::metadata(path(&view).join("etc")).unwrap();
        assert_eq!((etc.mode() & 0o7777, etc.uid(), etc.mtime()), (0o750, 7, 0));
        assert_eq!(fs::metadata(path(&view)).unwrap().mode() & 0o7777, 0o711);
    }
    assert_eq!(house.driver.changes("c").unwrap(), []);
    assert_eq!(house.driver.verify_layer(&image[1], Depth::Strict).unwrap(), None);
}

fn half_a_layer_is_none(make: Make<'_>) {
    let house = House::new(make);
    let whole = layer(&[data("x", "1"), data("y", "2")]);
    for length in [100, 512, 1100] {
        assert_eq!(
            house.unpack("a", None, &whole[..length]).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
    // The right stream to the last byte, but not the one that was asked for.
    let mut wrong = Verified::new(&whole[..], &Digest::of(b"another"));
    let error = house.driver.unpack(&chain("a"), None, &mut wrong).unwrap_err();
    assert!(error.chain().contains("wrong diff id calculated on extraction"), "{}", error.chain());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!house.driver.has_layer(&chain("a")));
    assert_eq!(house.driver.garbage().unwrap(), []);
    let mut right = Verified::new(&whole[..], &Digest::of(&whole));
    house.driver.unpack(&chain("a"), None, &mut right).unwrap();
    assert!(house.driver.has_layer(&chain("a")));
}

fn many_at_once(make: Make<'_>) {
    let house = House::new(make);
    house.unpack("base", None, &layer(&[data("x", "1")])).unwrap();
    let same = layer(&[data("y", "1")]);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (house, same) = (&house, &same);
            scope.spawn(move || {
                house.unpack("same", Some("base"), same).unwrap();
                let name = format!("c{number}");
                house.driver.prepare(&name, &[chain("base"), chain("same")]).unwrap();
                fs::write(path(&house.driver.view_writable(&name).unwrap()).join("mine"), &name)
                    .unwrap();
            });
        }
    });
    assert_eq!(house.driver.layers().unwrap().len(), 2);
    assert_eq!(house.driver.names().unwrap().len(), 8);
    assert_eq!(text(&house.driver.view("c3").unwrap(), "mine"), "c3");
    assert_eq!(house.driver.garbage().unwrap(), []);
}

fn containers_come_and_go(make: Make<'_>) {
    let house = House::new(make);
    let image = house.image();
    house.driver.prepare("c1", &image).unwrap();
    house.driver.prepare("c2", &[]).unwrap();
    assert_eq!(house.driver.names().unwrap(), ["c1", "c2"]);
    assert_eq!(house.driver.prepare("c1", &image).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(
        house.driver.prepare("c3", &[chain("nobody's")]).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(house.driver.rootfs("c3").unwrap_err().kind(), ErrorKind::NotFound);
    for bad in ["", ".", "..", "a/b", ".a", "-a"] {
        assert_eq!(
            house.driver.prepare(bad, &[]).unwrap_err().kind(),
            ErrorKind::Invalid,
            "{bad:?}"
        );
    }
    // What one does the other does not see.
    fs::write(path(&house.driver.view_writable("c1").unwrap()).join("etc/a"), "changed").unwrap();
    house.driver.prepare("c4", &image).unwrap();
    assert_eq!(text(&house.driver.view("c4").unwrap(), "etc/a"), "base");
    assert_eq!(text(&house.driver.view("c1").unwrap(), "etc/a"), "changed");
    match house.driver.rootfs("c1").unwrap() {
        Rootfs::Directory { path } => {
            assert_eq!(fs::read_to_string(path.join("etc/a")).unwrap(), "changed")
        }
        Rootfs::Overlay { lowers, upper, work, .. } => {
            assert_eq!(lowers.len(), 3);
            assert_eq!(fs::read_to_string(lowers[0].join("etc/b")).unwrap(), "top");
            assert_eq!(fs::read_to_string(upper.join("etc/a")).unwrap(), "changed");
            assert!(work.is_dir());
        }
    }
    house.driver.remove("c1").unwrap();
    house.driver.remove("c1").unwrap();
    assert_eq!(house.driver.names().unwrap(), ["c2", "c4"]);
    house.driver.prepare("c1", &image).unwrap();
    assert_eq!(text(&house.driver.view("c1").unwrap(), "etc/a"), "base");
}

/// Every container has places for what is mounted into it; they hide nothing of the image and are not its changes.
fn places_are_no_changes(make: Make<'_>) {
    let house = House::new(make);
    let own = [
        data("etc/hosts", "mine"),
        at(Entry::new(Kind::Symlink, "proc"), |entry| {
            entry.link = b"/elsewhere".to_vec();
        }),
    ];
    house.unpack("own", None, &layer(&own)).unwrap();
    house.driver.prepare("c", &[chain("own")]).unwrap();
    let view = house.driver.view_writable("c").unwrap();
    let root = path(&view);
    assert_eq!(names(&root), [".dockerenv", "dev", "etc", "proc", "sys"]);
    assert_eq!(names(&root.join("etc")), ["hostname", "hosts", "mtab", "resolv.conf"]);
    assert_eq!(text(&view, "etc/hosts"), "mine");
    assert_eq!(fs::read_link(root.join("proc")).unwrap(), Path::new("/elsewhere"));
    assert_eq!(fs::read_link(root.join("etc/mtab")).unwrap(), Path::new("/proc/mounts"));
    assert_eq!(house.driver.changes("c").unwrap(), []);
    fs::write(root.join("etc/hostname"), "written").unwrap();
    drop(view);
    let changes = house.driver.changes("c").unwrap();
    assert_eq!(changes.last().unwrap().path, Path::new("/etc/hostname"));
}

fn changes_and_diff(make: Make<'_>) {
    let house = House::new(make);
    let image = house.image();
    house.driver.prepare("c", &image).unwrap();
    let before = house.driver.usage("c").unwrap();
    let view = house.driver.view_writable("c").unwrap();
    let root = path(&view);
    fs::write(root.join("etc/a"), "longer than before").unwrap();
    fs::remove_file(root.join("etc/b")).unwrap();
    fs::create_dir_all(root.join("new/inner")).unwrap();
    fs::write(root.join("new/inner/file"), "1").unwrap();
    fs::remove_dir_all(root.join("opaque")).unwrap();
    fs::create_dir(root.join("opaque")).unwrap();
    fs::write(root.join("opaque/newer"), "1").unwrap();
    // Opened for writing and closed again: nothing changed.
    drop(fs::OpenOptions::new().append(true).open(root.join("etc/c")).unwrap());
    drop(view);
    let changes = house.driver.changes("c").unwrap();
    let lines: Vec<_> =
        changes.iter().map(|change| (change.kind, change.path.to_str().unwrap())).collect();
    use ChangeKind::{Added, Deleted, Modified};
    assert_eq!(
        lines,
        [
            (Modified, "/etc"),
            (Modified, "/etc/a"),
            (Deleted, "/etc/b"),
            (Added, "/new"),
            (Added, "/new/inner"),
            (Added, "/new/inner/file"),
            (Modified, "/opaque"),
            (Deleted, "/opaque/new"),
            (Added, "/opaque/newer"),
        ]
    );
    assert!(house.driver.usage("c").unwrap() > before);
    let mut tar = Vec::new();
    house.driver.diff("c", &mut tar).unwrap();
    house.unpack("committed", Some("top"), &tar).unwrap();
    let view = house
        .driver
        .view_layers(&[image[0].clone(), image[1].clone(), chain("committed")])
        .unwrap();
    assert_eq!(names(&path(&view)), ["etc", "new", "opaque"]);
    assert_eq!(names(&path(&view).join("etc")), ["a", "c"]);
    assert_eq!(names(&path(&view).join("opaque")), ["newer"]);
    assert_eq!(text(&view, "etc/a"), "longer than before");
    let mut same = Vec::new();
    house.driver.diff("c", &mut same).unwrap();
    assert!(tar == same, "the same changes are the same bytes");
    // Only the mode: that is a change too, and in a directory it is the only one.
    house.driver.prepare("modes", &image).unwrap();
    let view = house.driver.view_writable("modes").unwrap();
    fs::set_permissions(path(&view).join("etc"), PermissionsExt::from_mode(0o700)).unwrap();
    drop(view);
    let changes = house.driver.changes("modes").unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].kind, changes[0].path.to_str().unwrap()), (Modified, "/etc"));
}

fn after_a_restart(make: Make<'_>) {
    let house = House::new(make);
    let image = house.image();
    house.driver.prepare("c", &image).unwrap();
    fs::write(path(&house.driver.view_writable("c").unwrap()).join("etc/a"), "changed").unwrap();
    let again = make(house.home.path(), &house.ground);
    assert!(image.iter().all(|chain| again.has_layer(chain)));
    assert_eq!(again.names().unwrap(), ["c"]);
    assert_eq!(text(&again.view("c").unwrap(), "etc/a"), "changed");
    assert_eq!(again.changes("c").unwrap().len(), 2);
    assert_eq!(again.garbage().unwrap(), []);
}

#[test]
fn overlay_keeps_the_contract() {
    suite(&|root, ground| Arc::new(Overlay::open(root, ground).unwrap()));
}

#[test]
fn vfs_keeps_the_contract() {
    suite(&|root, ground| Arc::new(Vfs::open(root, ground).unwrap()));
}

#[test]
fn the_driver_used_before_is_used_again() {
    let home = tempfile::tempdir().unwrap();
    let trash = Trash::open(home.path()).unwrap();
    let ground = Ground { state: state::Store::in_memory(), trash, durable: Durable::default() };
    assert_eq!(open(home.path(), Some("vfs"), &ground).unwrap().name(), "vfs");
    assert_eq!(open(home.path(), None, &ground).unwrap().name(), "vfs");
    assert_eq!(open(home.path(), Some("overlay2"), &ground).unwrap().name(), "overlay2");
    assert_eq!(open(home.path(), None, &ground).unwrap().name(), "overlay2");
    let error = open(home.path(), Some("zfs"), &ground).err().unwrap();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Invalid, "driver not supported: zfs".to_owned())
    );
}

/// An overlay takes no other as its upper directory.
#[test]
fn files_are_copied_where_overlayfs_does_not_work() {
    let below = tempfile::tempdir().unwrap();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| below.path().join(name));
    for path in [&lower, &upper, &work] {
        fs::create_dir(path).unwrap();
    }
    let layer = |path| sys::overlay::Layer::Path(path);
    let overlay = sys::overlay::Overlay {
        lowers: vec![layer(&lower)],
        upper: Some((layer(&upper), layer(&work))),
        options: Vec::new(),
        detached: Vec::new(),
    };
    let home = overlay.mount().unwrap();
    let root = sys::fd::path(std::os::fd::AsFd::as_fd(&home));
    let trash = Trash::open(&root).unwrap();
    let ground = Ground { state: state::Store::in_memory(), trash, durable: Durable::default() };
    for _start in 0..2 {
        assert_eq!(open(&root, None, &ground).unwrap().name(), "vfs");
    }
    assert!(open(&root, Some("overlay2"), &ground).is_err());
    assert!(!root.join("overlay2").exists());
    assert_eq!(open(&root, None, &ground).unwrap().name(), "vfs");
}
