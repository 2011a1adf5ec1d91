//! H4: bytes that could be read in two ways have one reading, which is Go's, or none.

use crate::support::{Detail, Jail, end, header, padded, pax, picture, record};
use storage::layer::Whiteouts;

#[track_caller]
fn check(tar: &[Vec<u8>], tree: &str) {
    let jail = Jail::new();
    jail.extract(&tar.concat(), Whiteouts::Overlay).unwrap();
    assert_eq!(picture(&jail.path(), Detail::Short), tree);
}

#[track_caller]
fn refused(tar: &[Vec<u8>], words: &str) {
    let jail = Jail::new();
    let error = jail.extract(&tar.concat(), Whiteouts::Overlay).unwrap_err();
    assert!(error.chain().contains(words), "{}", error.chain());
    assert_eq!(error.kind(), stdx::Kind::Invalid);
}

fn plain(name: &str, size: &str) -> Vec<u8> {
    header(b'0', name.as_bytes(), size.as_bytes(), |_| {})
}

fn octal(number: usize) -> String {
    format!("{number:011o}")
}

#[test]
fn the_size_of_the_records_counts() {
    // Where the header's counted, `hidden` would be an entry.
    let hidden = plain("hidden", "0");
    check(
        &[pax(&record("size", "512")), plain("x", "0"), hidden, plain("y", "0"), end()],
        &format!("x 644 {:?}\ny 644 \"\"\n", String::from_utf8_lossy(&plain("hidden", "0"))),
    );
    check(
        &[pax(&record("size", "0")), plain("x", &octal(512)), plain("y", "0"), end()],
        "x 644 \"\"\ny 644 \"\"\n",
    );
    refused(
        &[pax(&record("size", "-1")), plain("x", "0"), end()],
        "archive/tar: invalid tar header",
    );
}

#[test]
fn the_last_of_several_counts() {
    check(
        &[pax(&(record("path", "a") + &record("path", "b"))), plain("x", "0"), end()],
        "b 644 \"\"\n",
    );
    check(
        &[pax(&record("path", "a")), pax(&record("path", "b")), plain("x", "0"), end()],
        "b 644 \"\"\n",
    );
    // A whole header replaces the one before it.
    check(
        &[pax(&record("path", "a")), pax(&record("uid", "5")), plain("x", "0"), end()],
        "x 644 5:0 \"\"\n",
    );
    check(
        &[pax(&record("path", "a")), plain("x", "0"), plain("y", "0"), end()],
        "a 644 \"\"\ny 644 \"\"\n",
    );
}

#[test]
fn only_files_have_data() {
    for flag in *b"123456" {
        let odd = header(flag, b"x", octal(512).as_bytes(), |block| block[157] = b'y');
        let tar = [plain("y", "0"), odd, plain("z", "0"), end()].concat();
        let jail = Jail::new();
        jail.extract(&tar, Whiteouts::Overlay).unwrap();
        assert!(picture(&jail.path(), Detail::Short).contains("z 644"), "{}", char::from(flag));
    }
}

#[test]
fn where_an_archive_ends() {
    let ghost = plain("ghost", "0");
    check(&[plain("x", "0"), end(), ghost.clone()], "x 644 \"\"\n");
    check(&[plain("x", "0")], "x 644 \"\"\n");
    check(&[plain("x", "0"), vec![0; 512]], "x 644 \"\"\n");
    check(&[], "");
    check(&[end()], "");
    check(&[plain("x", &octal(3)), b"abc".to_vec()], "x 644 \"abc\"\n");
    refused(&[plain("x", "0"), vec![0; 512], ghost], "archive/tar: invalid tar header");
    refused(&[plain("x", &octal(3)), b"ab".to_vec()], "unexpected EOF");
    refused(&[plain("x", "0"), vec![1; 100]], "unexpected EOF");
    refused(&[plain("x", "0")[..300].to_vec()], "unexpected EOF");
    refused(&[vec![b'x'; 512]], "archive/tar: invalid tar header");
}

#[test]
fn checksums() {
    let mut wrong = plain("x", "0");
    wrong[0] = b'y';
    refused(&[wrong, end()], "archive/tar: invalid tar header");
    // Some old tars summed signed bytes.
    let mut signed = header(b'0', b"\xe4", b"0", |_| {});
    let sum: i32 = signed
        .iter()
        .enumerate()
        .map(|(at, c)| if (148..156).contains(&at) { 32 } else { i32::from(*c as i8) })
        .sum();
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    check(&[signed, end()], "\\xe4 644 \"\"\n");
}

#[test]
fn numbers_too_large() {
    let size = |field: &'static [u8]| header(b'0', b"x", field, |_| {});
    refused(
        &[size(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), end()],
        "invalid tar header",
    );
    refused(
        &[size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), end()],
        "invalid tar header",
    );
    refused(
        &[size(b"\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), end()],
        "exceeds the budget",
    );
    refused(&[size(b"777777777777"), end()], "unexpected EOF");
    refused(
        &[size(b"\x80\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x01"), end()],
        "the budget of 68719476736 bytes",
    );
    refused(&[size(b"0000000000x"), end()], "invalid tar header");
    check(
        &[size(b"\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03"), padded(b"abc"), end()],
        "x 644 \"abc\"\n",
    );
    let mtime = |field: &'static [u8]| {
        header(b'0', b"x", b"0", |block| block[136..148].copy_from_slice(field))
    };
    let jail = Jail::new();
    let before = mtime(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    jail.extract(&[before, end()].concat(), Whiteouts::Overlay).unwrap();
    assert!(picture(&jail.path(), Detail::All).contains("@-2.0"));
}

/// A file of `size` bytes with letters at these places.
fn expected(size: usize, data: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (at, text) in data {
        bytes[*at..at + text.len()].copy_from_slice(text);
    }
    bytes
}

#[track_caller]
fn sparse(tar: &[Vec<u8>], name: &str, size: usize, data: &[(usize, &[u8])]) {
    let jail = Jail::new();
    let applied = jail.extract(&tar.concat(), Whiteouts::Overlay).unwrap();
    let path = jail.path().join(name);
    assert_eq!(std::fs::read(&path).unwrap(), expected(size, data));
    assert_eq!(applied.size, size as u64);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap());
    assert!(size < 1 << 20 || blocks < 1000, "holes are holes: {blocks}");
}

fn old_gnu(size: usize, stored: usize, map: &[(usize, usize)], extended: bool) -> Vec<u8> {
    header(b'S', b"s", octal(stored).as_bytes(), |block| {
        block[257..265].copy_from_slice(b"ustar  \0");
        pairs(&mut block[386..482], map);
        block[482] = extended.into();
        block[483..494].copy_from_slice(octal(size).as_bytes());
    })
}

fn pairs(field: &mut [u8], map: &[(usize, usize)]) {
    for (pair, (offset, length)) in field.chunks_exact_mut(24).zip(map) {
        pair[..11].copy_from_slice(octal(*offset).as_bytes());
        pair[12..23].copy_from_slice(octal(*length).as_bytes());
    }
}

#[test]
fn sparse_old_gnu() {
    let big = 4 << 20;
    sparse(
        &[old_gnu(big, 6, &[(0, 3), (big - 3, 3)], false), padded(b"abcdef"), end()],
        "s",
        big,
        &[(0, b"abc"), (big - 3, b"def")],
    );
    sparse(&[old_gnu(100, 0, &[(100, 0)], false), end()], "s", 100, &[]);
    let mut extension = vec![0; 512];
    pairs(&mut extension[..504], &[(40, 1), (50, 1)]);
    let map = [(0, 1), (10, 1), (20, 1), (30, 1)];
    let data: Vec<(usize, &[u8])> =
        vec![(0, b"a"), (10, b"b"), (20, b"c"), (30, b"d"), (40, b"e"), (50, b"f")];
    sparse(&[old_gnu(60, 6, &map, true), extension, padded(b"abcdef"), end()], "s", 60, &data);
    for map in [&[(0, 3), (2, 3)][..], &[(5, 3), (0, 3)], &[(98, 6)], &[(0, 5)], &[(0, 7)]] {
        refused(&[old_gnu(100, 6, map, false), padded(b"abcdef"), end()], "invalid tar header");
    }
    // Only GNU's dialect has them.
    let ustar = header(b'S', b"s", b"0", |_| {});
    refused(&[ustar, end()], "invalid tar header");
}

#[test]
fn sparse_in_records() {
    let v00 = record("GNU.sparse.size", "20")
        + &record("GNU.sparse.numblocks", "2")
        + &record("GNU.sparse.offset", "0")
        + &record("GNU.sparse.numbytes", "2")
        + &record("GNU.sparse.offset", "10")
        + &record("GNU.sparse.numbytes", "1");
    sparse(
        &[pax(&v00), plain("s", &octal(3)), padded(b"abc"), end()],
        "s",
        20,
        &[(0, b"ab"), (10, b"c")],
    );
    let v01 = |map: &str| {
        record("GNU.sparse.size", "20")
            + &record("GNU.sparse.name", "real")
            + &record("GNU.sparse.map", map)
    };
    sparse(
        &[pax(&v01("0,2,10,1")), plain("GNUSparseFile.0/s", &octal(3)), padded(b"abc"), end()],
        "real",
        20,
        &[(0, b"ab"), (10, b"c")],
    );
    for map in ["0,2,1,1", "0,2,10", "0,2,19,2", "0,4", "a,b", "0,3,18446744073709551615,1"] {
        refused(
            &[pax(&v01(map)), plain("x", &octal(3)), padded(b"abc"), end()],
            "invalid tar header",
        );
    }
    // The name in the map is a name like any other.
    let out = record("GNU.sparse.size", "3")
        + &record("GNU.sparse.name", "../real")
        + &record("GNU.sparse.map", "0,3");
    refused(&[pax(&out), plain("x", &octal(3)), padded(b"abc"), end()], "is outside of the tree");
}

#[test]
fn sparse_in_the_data() {
    let v10 = |size: usize| {
        record("GNU.sparse.major", "1")
            + &record("GNU.sparse.minor", "0")
            + &record("GNU.sparse.name", "real")
            + &record("GNU.sparse.realsize", &size.to_string())
    };
    let entry = |map: &str, stored: usize| {
        plain("GNUSparseFile.0/s", &octal(padded(map.as_bytes()).len() + stored))
    };
    let tar = |map: &str, data: &[u8], size| {
        vec![
            pax(&v10(size)),
            entry(map, data.len()),
            padded(map.as_bytes()),
            padded(data),
            plain("after", "0"),
            end(),
        ]
    };
    sparse(&tar("2\n0\n2\n10\n1\n", b"abc", 20), "real", 20, &[(0, b"ab"), (10, b"c")]);
    let big = 8 << 20;
    sparse(&tar(&format!("1\n{}\n3\n", big - 3), b"abc", big), "real", big, &[(big - 3, b"abc")]);
    // A map longer than a block, with a number across its edge.
    let many: String = (0..200).map(|n| format!("{}\n1\n", n * 2)).collect();
    let letters = vec![b'x'; 200];
    let places: Vec<(usize, &[u8])> = (0..200).map(|n| (n * 2, &b"x"[..])).collect();
    sparse(&tar(&format!("200\n{many}"), &letters, 400), "real", 400, &places);
    for map in ["1\n0\n4\n", "3\n0\n1\n", "x\n", "2\n5\n1\n0\n2\n", "-1\n"] {
        refused(&tar(map, b"abc", 20), "invalid tar header");
    }
    refused(&tar(&"9".repeat(600), b"abc", 20), "invalid tar header");
    refused(&tar("16385\n", b"abc", 20), "exceeds the budget of 16384 segments in a sparse file");
    let unknown = record("GNU.sparse.major", "2") + &record("GNU.sparse.minor", "0");
    refused(&[pax(&unknown), plain("x", &octal(3)), padded(b"abc"), end()], "invalid tar header");
}

#[test]
fn a_name_split_in_two() {
    let prefix = |block: &mut [u8; 512]| block[345..348].copy_from_slice(b"dir");
    check(&[header(b'0', b"x", b"0", prefix), end()], "dir 755 dir\ndir/x 644 \"\"\n");
    // GNU has times in that place; only what cannot be a time is a prefix, as Go before 1.8 wrote it.
    let gnu = |block: &mut [u8; 512]| {
        block[257..265].copy_from_slice(b"ustar  \0");
        block[345..356].copy_from_slice(b"14217441012");
    };
    check(&[header(b'0', b"x", b"0", gnu), end()], "x 644 \"\"\n");
    let old_go = |block: &mut [u8; 512]| {
        block[257..265].copy_from_slice(b"ustar  \0");
        block[345..348].copy_from_slice(b"dir");
    };
    check(&[header(b'0', b"x", b"0", old_go), end()], "dir 755 dir\ndir/x 644 \"\"\n");
    check(&[header(b'0', b"x", b"0", |block| block[257..345].fill(0)), end()], "x 644 \"\"\n");
}
