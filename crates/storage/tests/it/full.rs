//! F11 and F12: a full disk is an answer, not an accident.

use std::io::Write;

use stdx::Kind;

use crate::support::{Item, Memory, archive, chain, dir, file, open};

#[test]
fn a_layer_that_does_not_fit() {
    for (size, inodes, layer) in [
        ("2m", "0", vec![dir("d"), file("d/large", &"x".repeat(4 << 20))]),
        ("64m", "100", (0..200).map(|n| file(format!("f{n}"), "1")).collect::<Vec<Item>>()),
    ] {
        for driver in ["overlay2", "vfs"] {
            let disk = Memory::new(size, inodes);
            let root = disk.path().join("data");
            let storage = open(&root, driver);
            let small = archive(&[file("etc/small", "1")]);
            storage.snapshots.unpack(&chain("small"), None, &mut &small[..]).unwrap();
            let error = storage
                .snapshots
                .unpack(&chain("large"), None, &mut &archive(&layer)[..])
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable);
            assert!(error.chain().ends_with("no space left on device"), "{}", error.chain());
            // Nothing of it is left, so what is small still works, and so do removals.
            assert_eq!(storage.snapshots.garbage().unwrap(), []);
            storage.snapshots.prepare("c1", &[chain("small")]).unwrap();
            storage.snapshots.remove("c1").unwrap();
            storage.snapshots.remove_layer(&chain("small")).unwrap();
            assert_eq!(storage.reap().unwrap(), 2);
        }
    }
}

#[test]
fn a_blob_that_does_not_fit() {
    let disk = Memory::new("1m", "0");
    let storage = open(&disk.path().join("data"), "vfs");
    let mut ingest = storage.content.ingest("large").unwrap();
    let error = ingest.write_all(&vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(28));
    let kept = ingest.offset();
    assert!(kept > 0);
    drop(ingest);
    // What fitted is there to go on with, or to throw away.
    let ingest = storage.content.ingest("large").unwrap();
    assert_eq!(ingest.offset(), kept);
    ingest.abort().unwrap();
    storage.content.put(b"small").unwrap();
}
