//! H9: little in, much out. The budget says so, memory stays flat, and what is merely large goes through.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use crate::support::{Jail, alone, archive, dir, end, file, growth, header, open, pax, record};
use storage::layer::compression::{decoder, decoder_within};
use storage::layer::{Limits, Options, Whiteouts, apply_with};

/// Bytes that are never all in memory.
fn zeros(count: u64) -> impl Read + Send {
    std::io::repeat(0).take(count)
}

fn gzip(mut data: impl Read) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    std::io::copy(&mut data, &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn drain(reader: impl Read) -> Result<u64, String> {
    let mut reader = reader;
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => total += count as u64,
            Err(io) => return Err(io.to_string()),
        }
    }
}

#[test]
fn a_ratio_that_no_layer_has() {
    let bzip2 = |mut data: Box<dyn Read>| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        std::io::copy(&mut data, &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    let xz = |mut data: Box<dyn Read>| {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
        std::io::copy(&mut data, &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    alone("bombs::a_ratio_that_no_layer_has", || {
        let data = || Box::new(zeros(64 << 20));
        let bombs = [gzip(data()), zstd::encode_all(data(), 3).unwrap(), bzip2(data()), xz(data())];
        let limits = Limits { free: 8 << 20, ratio: 100, ..Limits::default() };
        for bomb in bombs {
            let (outcome, grown) = growth(|| drain(decoder_within(&bomb[..], &limits).unwrap()));
            assert_eq!(
                outcome.unwrap_err(),
                "the archive exceeds the budget of 100:1 for its compression"
            );
            assert!(grown < 32, "{grown} MiB");
        }
    });
}

#[test]
fn a_file_of_zeros_is_no_bomb() {
    // `dd if=/dev/zero` in a layer, as every test of Docker's does: below the default budget.
    let large = gzip(zeros(160 << 20));
    assert!(large.len() < 200_000);
    assert_eq!(drain(decoder(&large[..]).unwrap()), Ok(160 << 20));
    let small = zstd::encode_all(zeros(60 << 20), 3).unwrap();
    assert_eq!(drain(decoder(&small[..]).unwrap()), Ok(60 << 20));
}

/// A zstd frame that says how large a window it wants (RFC 8878, 3.1.1) and holds one small raw block.
fn window(log: u8) -> Vec<u8> {
    [b"\x28\xb5\x2f\xfd\x00".as_slice(), &[(log - 10) << 3], b"\x29\0\0small"].concat()
}

/// An xz stream whose block header says how large a dictionary it wants.
fn dictionary(bits: u8) -> Vec<u8> {
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    options.dict_size(1 << 16);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let check = liblzma::stream::Check::Crc32;
    let stream = liblzma::stream::Stream::new_stream_encoder(&filters, check).unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(b"small").unwrap();
    let mut bytes = encoder.finish().unwrap();
    assert_eq!(bytes[14..16], [0x21, 1], "the header of an LZMA2 filter");
    bytes[16] = bits;
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..20]);
    bytes[20..24].copy_from_slice(&crc.sum().to_le_bytes());
    bytes
}

#[test]
fn windows_and_dictionaries() {
    alone("bombs::windows_and_dictionaries", || {
        // 2 GiB and 4 GiB, for a few bytes.
        for bomb in [window(31), dictionary(40)] {
            let (outcome, grown) = growth(|| drain(decoder(&bomb[..]).unwrap()));
            let error = outcome.unwrap_err();
            assert!(error.contains("cannot decompress"), "{error}");
            assert!(grown < 8, "{grown} MiB");
        }
        // As large as `zstd --ultra -22` and `xz -9` want.
        for large in [window(27), dictionary(28)] {
            assert_eq!(drain(decoder(&large[..]).unwrap()), Ok(5));
        }
    });
}

#[test]
fn many_members() {
    let mut stream = gzip(&b"first"[..]);
    let empty = gzip(&b""[..]);
    for _ in 0..100_000 {
        stream.extend_from_slice(&empty);
    }
    stream.extend_from_slice(&gzip(&b"last"[..]));
    assert_eq!(drain(decoder(&stream[..]).unwrap()), Ok(9));
    let frames = [
        zstd::encode_all(&b"a"[..], 1).unwrap(),
        b"\x50\x2a\x4d\x18\x02\0\0\0xx".to_vec(),
        zstd::encode_all(&b"b"[..], 1).unwrap(),
    ];
    assert_eq!(drain(decoder(&frames.concat()[..]).unwrap()), Ok(2));
    let skipped_first =
        [b"\x5f\x2a\x4d\x18\x00\0\0\0".to_vec(), zstd::encode_all(&b"b"[..], 1).unwrap()];
    assert_eq!(drain(decoder(&skipped_first.concat()[..]).unwrap()), Ok(1));
}

#[test]
fn streams_cut_short_or_damaged() {
    let whole = gzip(zeros(100_000));
    for cut in [1, 5, 11, whole.len() - 1] {
        let outcome = drain(decoder(&whole[..cut]).unwrap());
        assert!(cut < 3 || outcome.is_err(), "{cut}: {outcome:?}");
    }
    let mut damaged = whole.clone();
    let middle = damaged.len() - 6;
    damaged[middle] ^= 1;
    assert!(drain(decoder(&damaged[..]).unwrap()).is_err());
    let zstd = zstd::encode_all(zeros(100_000), 1).unwrap();
    assert!(drain(decoder(&zstd[..zstd.len() - 2]).unwrap()).is_err());
    // Not compressed at all, and shorter than a signature.
    assert_eq!(drain(decoder(&b"x"[..]).unwrap()), Ok(1));
    assert_eq!(drain(decoder(&b""[..]).unwrap()), Ok(0));
}

#[track_caller]
fn over(tar: &mut (impl Read + Send), limits: Limits, words: &str) {
    let jail = Jail::new();
    let options = Options { whiteouts: Whiteouts::Overlay, limits, ..Options::default() };
    let (outcome, grown) = growth(|| apply_with(jail.root().as_fd(), tar, &options));
    let error = outcome.unwrap_err();
    assert!(error.chain().ends_with(words), "{}", error.chain());
    assert_eq!(error.kind(), stdx::Kind::Invalid);
    assert!(grown < 32, "{grown} MiB");
    jail.untouched();
}

#[test]
fn budgets_have_names() {
    alone("bombs::budgets_have_names", || {
        let few = Limits { entries: 3, ..Limits::default() };
        let four = archive(&[dir("a"), dir("b"), dir("c"), dir("d")]);
        over(&mut &four[..], few, "the archive exceeds the budget of 3 entries");
        let small = Limits { bytes: 1 << 20, ..Limits::default() };
        let large = header(b'0', b"x", b"00010000000", |_| {});
        over(
            &mut (&large[..]).chain(zeros(2 << 20)),
            small.clone(),
            "the archive exceeds the budget of 1048576 bytes",
        );
        // CVE-2017-14992: nothing but padding behind the archive.
        let padding = archive(&[dir("a")]);
        over(
            &mut (&padding[..]).chain(zeros(1 << 40)),
            small.clone(),
            "the archive exceeds the budget of 1048576 bytes",
        );
        // Holes count as what they would be when read.
        let hole =
            record("GNU.sparse.size", &(1u64 << 40).to_string()) + &record("GNU.sparse.map", "0,0");
        let hole = [pax(&hole), header(b'0', b"x", b"0", |_| {}), end()].concat();
        over(&mut &hole[..], small, "the archive exceeds the budget of 1048576 bytes");
    });
}

#[test]
fn headers_that_never_end() {
    alone("bombs::headers_that_never_end", || {
        let words =
            "the archive exceeds the budget of 1048576 bytes of extended headers for one entry";
        for flag in *b"xgLK" {
            let huge = header(flag, b"x", b"07777777777", |_| {});
            over(&mut (&huge[..]).chain(std::io::repeat(b'1')), Limits::default(), words);
        }
        // Many that are small each.
        let one = pax(&record("comment", &"c".repeat(100_000)));
        let many = one.repeat(11);
        over(&mut &many[..], Limits::default(), words);
        let map = (0..16_400).map(|n| format!("{},0", n * 2)).collect::<Vec<_>>().join(",");
        let map = [pax(&record("GNU.sparse.map", &map)), header(b'0', b"x", b"0", |_| {})].concat();
        over(
            &mut &map[..],
            Limits::default(),
            "the archive exceeds the budget of 16384 segments in a sparse file",
        );
        // A chain of empty extensions of an old GNU map.
        let first = header(b'S', b"s", b"0", |block| {
            block[257..265].copy_from_slice(b"ustar  \0");
            block[482] = 1;
        });
        let mut next = vec![0; 512];
        next[504] = 1;
        let chain = [first, next.repeat(5000)].concat();
        let few = Limits { entries: 1000, ..Limits::default() };
        over(
            &mut &chain[..],
            few,
            "the archive exceeds the budget of 16384 segments in a sparse file",
        );
    });
}

#[test]
fn a_refused_layer_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let storage = open(home.path(), "overlay2");
    let bomb = gzip((&header(b'0', b"zeros", b"04000000000", |_| {})[..]).chain(zeros(512 << 20)));
    let limits = Limits { free: 8 << 20, ratio: 100, ..Limits::default() };
    let chain = crate::support::chain("bomb");
    let error = storage
        .snapshots
        .unpack(&chain, None, &mut decoder_within(&bomb[..], &limits).unwrap())
        .unwrap_err();
    assert_eq!(error.kind(), stdx::Kind::Invalid);
    assert!(!storage.snapshots.has_layer(&chain));
    assert_eq!(storage.snapshots.garbage().unwrap(), []);
    storage.snapshots.unpack(&chain, None, &mut &archive(&[file("f", "1")])[..]).unwrap();
    assert!(storage.snapshots.has_layer(&chain));
}
