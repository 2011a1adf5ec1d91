//! Blobs: H3 and H12's digests, resuming, and many writers at once.

use std::io::{Read, Write};

use oci::Digest;
use stdx::Kind;
use storage::content::Store;

fn store() -> (tempfile::TempDir, Store) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    (home, store)
}

#[test]
fn what_is_written_is_found_by_its_digest() {
    let (home, store) = store();
    let digest = Digest::of(b"hello");
    assert!(!store.contains(&digest));
    let mut ingest = store.ingest("layer-1").unwrap();
    ingest.write_all(b"hel").unwrap();
    ingest.write_all(b"lo").unwrap();
    assert_eq!(ingest.offset(), 5);
    let stored = ingest.commit(Some(&digest), Some(5)).unwrap();
    assert_eq!((stored.digest, stored.size), (digest.clone(), 5));
    assert_eq!(store.read(&digest, 5).unwrap(), b"hello");
    assert_eq!(store.size(&digest).unwrap(), 5);
    let mut text = String::new();
    store.open_blob(&digest).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(store.ingests().unwrap(), []);
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(home.path().join("content/blobs/sha256").join(digest.hex()).is_file());
    assert_eq!(store.read(&digest, 4).unwrap_err().kind(), Kind::Invalid);
    // Private, whatever the umask.
    let mode = |path: &str| {
        std::os::unix::fs::MetadataExt::mode(&home.path().join(path).metadata().unwrap()) & 0o77
    };
    assert_eq!((mode("content"), mode("content/blobs/sha256")), (0, 0));
    store.delete(&digest).unwrap();
    store.delete(&digest).unwrap();
    assert_eq!(store.open_blob(&digest).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn wrong_bytes_are_refused_and_thrown_away() {
    let (_home, store) = store();
    let write = |bytes: &[u8]| {
        let mut ingest = store.ingest("x").unwrap();
        ingest.write_all(bytes).unwrap();
        ingest
    };
    let expected = Digest::of(b"right");
    let error = write(b"wrong").commit(Some(&expected), Some(5)).unwrap_err();
    let words = format!("unexpected commit digest {}, expected {expected}", Digest::of(b"wrong"));
    assert_eq!((error.kind(), error.to_string()), (Kind::Invalid, words));
    let error = write(b"right and more").commit(Some(&expected), Some(5)).unwrap_err();
    assert_eq!(error.to_string(), "unexpected commit size 14, expected 5");
    assert_eq!(store.ingests().unwrap(), []);
    assert_eq!(store.list().unwrap(), []);
    // Too few are the beginning of the right ones.
    let error = write(b"rig").commit(Some(&expected), Some(5)).unwrap_err();
    assert_eq!(error.to_string(), "unexpected commit size 3, expected 5");
    let mut rest = store.ingest("x").unwrap();
    assert_eq!(rest.offset(), 3);
    rest.write_all(b"ht").unwrap();
    rest.commit(Some(&expected), Some(5)).unwrap();
}

#[test]
fn a_download_goes_on_after_a_restart() {
    let (home, store) = store();
    let mut ingest = store.ingest("layer-2").unwrap();
    ingest.write_all(b"first half, ").unwrap();
    drop(ingest);
    let partial = &store.ingests().unwrap()[0];
    assert_eq!((&*partial.key, partial.size), ("layer-2", 12));
    drop(store);
    let store = Store::open(home.path()).unwrap();
    let mut ingest = store.ingest("layer-2").unwrap();
    assert_eq!(ingest.offset(), 12);
    ingest.write_all(b"second half").unwrap();
    let digest = Digest::of(b"first half, second half");
    assert_eq!(ingest.commit(Some(&digest), None).unwrap().size, 23);
    let mut ingest = store.ingest("layer-3").unwrap();
    ingest.write_all(b"useless").unwrap();
    ingest.restart().unwrap();
    assert_eq!(ingest.offset(), 0);
    ingest.write_all(b"useful").unwrap();
    ingest.commit(Some(&Digest::of(b"useful")), Some(6)).unwrap();
    store.ingest("layer-4").unwrap().abort().unwrap();
    assert_eq!(store.ingests().unwrap(), []);
}

#[test]
fn one_writer_for_each_name() {
    let (_home, store) = store();
    let first = store.ingest("x").unwrap();
    let error = store.ingest("x").err().unwrap();
    assert_eq!(
        (error.kind(), error.chain()),
        (Kind::Unavailable, "cannot write content x: ref x locked".to_owned())
    );
    drop(first);
    store.ingest("x").unwrap();
    for bad in ["", ".", "..", "a/b", "../x", "a b", "a\0b", &"x".repeat(201)] {
        assert_eq!(store.ingest(bad).err().unwrap().kind(), Kind::Invalid, "{bad:?}");
    }
}

#[test]
fn other_algorithms() {
    let (home, store) = store();
    let mut hasher = oci::Hasher::new(oci::Algorithm::Sha512);
    hasher.update(b"hello");
    let digest = hasher.finish();
    let mut ingest = store.ingest("x").unwrap();
    ingest.write_all(b"hello").unwrap();
    assert_eq!(ingest.commit(Some(&digest), None).unwrap().digest, digest);
    assert_eq!(store.read(&digest, 100).unwrap(), b"hello");
    assert!(home.path().join("content/blobs/sha512").join(digest.hex()).is_file());
    assert_eq!(store.list().unwrap()[0].digest, digest);
}

#[test]
fn many_bring_the_same() {
    let (_home, store) = store();
    let bytes: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(&bytes);
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (store, bytes, digest) = (&store, &bytes, &digest);
            scope.spawn(move || {
                let mut ingest = store.ingest(&format!("writer-{writer}")).unwrap();
                bytes.chunks(10_000).for_each(|piece| ingest.write_all(piece).unwrap());
                ingest.commit(Some(digest), Some(bytes.len() as u64)).unwrap();
            });
        }
    });
    assert!(store.verify(&digest).unwrap());
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.ingests().unwrap(), []);
    assert_eq!(store.put(&bytes).unwrap().digest, digest);
}

#[test]
fn damage_is_noticed() {
    let (home, store) = store();
    let digest = store.put(b"hello").unwrap().digest;
    std::fs::write(home.path().join("content/blobs/sha256").join(digest.hex()), "hullo").unwrap();
    assert!(!store.verify(&digest).unwrap());
    let error = store.read(&digest, 100).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
}
