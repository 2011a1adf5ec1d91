//! H1: what a stream may try, and beside each attempt something like it that must go on working.

use std::os::fd::AsFd;

use crate::support::{
    Detail, Dressed, Item, Jail, archive, dir, file, hard, header, node, padded, picture, symlink,
};
use crate::support::{end, pax, record};
use storage::layer::{Clash, Options, Whiteouts, apply_with};
use storage::tar::Kind;

/// The same tree by whichever door the stream comes in, and nothing outside touched.
#[track_caller]
fn check(items: &[Item], tree: &[&str]) {
    check_bytes(&archive(items), tree);
}

#[track_caller]
fn check_bytes(tar: &[u8], tree: &[&str]) {
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Delete, Whiteouts::Literal] {
        let jail = Jail::new();
        jail.extract(tar, whiteouts).unwrap();
        let expected: String = tree.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(picture(&jail.path(), Detail::Short), expected, "{whiteouts:?}");
        jail.untouched();
    }
}

/// Refused in these words, and nothing outside touched.
#[track_caller]
fn refused(items: &[Item], words: &str) {
    refused_bytes(&archive(items), words);
}

#[track_caller]
fn refused_bytes(tar: &[u8], words: &str) {
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Delete] {
        let jail = Jail::new();
        let error = jail.extract(tar, whiteouts).unwrap_err();
        assert!(error.chain().contains(words), "{whiteouts:?}: {}", error.chain());
        assert_eq!(error.kind(), stdx::Kind::Invalid, "{error:?}");
        jail.untouched();
    }
}

#[test]
fn names_that_climb_out() {
    refused(&[file("../pwned", "")], "\"../pwned\" is outside of the tree");
    refused(&[file("a/../../pwned", "")], "is outside of the tree");
    refused(&[dir("..")], "is outside of the tree");
    refused(&[symlink("../canary/link", "/etc")], "is outside of the tree");
    refused(&[hard("../pwned", "a")], "is outside of the tree");
    refused(&[node(Kind::Character, "../null", 1, 3)], "is outside of the tree");
    refused(&[file("../../canary/secret", "changed")], "is outside of the tree");
    refused(&[file("./../canary/secret", "changed")], "is outside of the tree");
    refused_bytes(
        &[pax(&record("path", "../pwned")), header(b'0', b"x", b"0", |_| {}), end()].concat(),
        "is outside",
    );
    // The twins: text that goes up and down again, and an absolute name, which begins at the root of the tree.
    check(&[file("a/b/../c", "1")], &["a 755 dir", "a/c 644 \"1\""]);
    check(&[file("/etc/hostname", "1")], &["etc 755 dir", "etc/hostname 644 \"1\""]);
    check(&[file("./x", "1"), file(".//y", "2")], &["x 644 \"1\"", "y 644 \"2\""]);
    check(&[file("..x", "1"), file("x..", "2")], &["..x 644 \"1\"", "x.. 644 \"2\""]);
}

#[test]
fn links_written_through() {
    // An absolute link means the tree's root, so what is written through it lands inside.
    check(&[symlink("a", "/"), file("a/pwned", "1")], &["a -> /", "pwned 644 \"1\""]);
    check(
        &[symlink("a", "../../../.."), file("a/pwned", "1")],
        &["a -> ../../../..", "pwned 644 \"1\""],
    );
    let outside = symlink("a", "../canary");
    check(
        &[outside, file("a/pwned", "1")],
        &["a -> ../canary", "canary 755 dir", "canary/pwned 644 \"1\""],
    );
    check(
        &[symlink("a", "b"), symlink("b", "c"), symlink("c", ".."), file("a/b2", "1")],
        &["a -> b", "b -> c", "b2 644 \"1\"", "c -> .."],
    );
    // A link of the process's own is not followed at all.
    refused(
        &[
            symlink("a", "/proc/self/root"),
            dir("proc"),
            dir("proc/self"),
            symlink("proc/self/root", "root"),
            file("a/x", "1"),
        ],
        "too many levels of symbolic links",
    );
    // The twin: the links of a real system.
    check(
        &[dir("run"), dir("var"), symlink("var/run", "/run"), file("var/run/pid", "1")],
        &["run 755 dir", "run/pid 644 \"1\"", "var 755 dir", "var/run -> /run"],
    );
    check(
        &[symlink("var/run", "../run"), file("var/run/pid", "1")],
        &["run 755 dir", "run/pid 644 \"1\"", "var 755 dir", "var/run -> ../run"],
    );
}

#[test]
fn chains_of_links() {
    let link = |n: usize| symlink(&format!("l{n}"), &format!("l{}", n + 1));
    let mut chain: Vec<Item> = (0..41).map(link).collect();
    chain.push(file("l0/x", "1"));
    refused(&chain, "too many levels of symbolic links");
    refused(&[symlink("a", "a"), file("a/x", "1")], "too many levels of symbolic links");
    refused(
        &[symlink("a", "b"), symlink("b", "a"), file("a/x", "1")],
        "too many levels of symbolic links",
    );
    let mut chain: Vec<Item> = (0..30).map(link).collect();
    chain.push(file("l0/x", "1"));
    let jail = Jail::new();
    jail.extract(&archive(&chain), Whiteouts::Overlay).unwrap();
    assert_eq!(std::fs::read_to_string(jail.path().join("l30/x")).unwrap(), "1");
}

#[test]
fn the_last_component_is_never_followed() {
    check(&[symlink("a", "/etc/passwd"), file("a", "1")], &["a 644 \"1\""]);
    check(&[symlink("a", "../canary/secret"), file("a", "1")], &["a 644 \"1\""]);
    check(&[symlink("a", "../canary"), dir("a")], &["a 755 dir"]);
    check(&[symlink("a", "../canary/secret"), node(Kind::Fifo, "a", 0, 0)], &["a 666 fifo"]);
    check(&[symlink("a", "../canary/secret"), symlink("a", "b")], &["a -> b"]);
    check(
        &[file("f", "1"), symlink("a", "../canary/x"), hard("a", "f")],
        &["a 644 \"1\"", "f 644 \"1\""],
    );
    check(
        &[symlink("a", "../canary/secret"), node(Kind::Character, "a", 1, 3).mode(0o600)],
        &["a 600 char 1:3"],
    );
}

#[test]
fn directories_replaced_between_entries() {
    // The descriptor of a directory that was there must not outlive it.
    check(
        &[dir("a"), file("a/x", "1"), symlink("a", "../canary"), file("a/secret", "2")],
        &["a -> ../canary", "canary 755 dir", "canary/secret 644 \"2\""],
    );
    check(&[dir("a"), dir("a/b"), file("a", "1"), file("c", "2")], &["a 644 \"1\"", "c 644 \"2\""]);
    check(
        &[dir("a/b"), symlink("a", "/"), file("a/b/x", "1")],
        &["a -> /", "b 755 dir", "b/x 644 \"1\""],
    );
    check(
        &[
            dir("d"),
            symlink("s", "d"),
            file("s/x", "1"),
            dir("e"),
            symlink("s", "e"),
            file("s/x", "2"),
        ],
        &["d 755 dir", "d/x 644 \"1\"", "e 755 dir", "e/x 644 \"2\"", "s -> e"],
    );
    check(&[file("a", "1"), dir("a"), file("a/b", "2")], &["a 755 dir", "a/b 644 \"2\""]);
    // The twin: a directory described twice is one, with what it holds, as it is described last.
    check(&[dir("a"), file("a/x", "1"), dir("a").mode(0o700)], &["a 700 dir", "a/x 644 \"1\""]);
    check(&[file("a", "1"), file("a", "22")], &["a 644 \"22\""]);
}

#[test]
fn files_where_directories_would_have_to_be() {
    refused(&[file("a", "1"), file("a/b", "2")], "mkdir /a: not a directory");
    refused(&[node(Kind::Fifo, "a", 0, 0), file("a/b/c", "2")], "mkdir /a: not a directory");
    refused(&[node(Kind::Character, "a", 1, 3), dir("a/b")], "mkdir /a: not a directory");
    refused(&[file("f", "1"), symlink("a", "f"), file("a/b", "2")], "not a directory");
}

#[test]
fn hard_links() {
    refused(&[hard("a", "/etc/shadow")], "link /etc/shadow /a: no such file or directory");
    refused(&[hard("a", "../canary/secret")], "is outside of the tree");
    refused(&[symlink("s", "/"), hard("a", "s/../../canary/secret")], "is outside of the tree");
    refused(&[symlink("s", "../canary"), hard("a", "s/secret")], "no such file or directory");
    refused(&[dir("d"), hard("a", "d")], "operation not permitted");
    refused(&[hard("a", "")], "no such file or directory");
    refused(&[hard("a", ".")], "no such file or directory");
    refused(&[hard("a", "a")], "no such file or directory");
    refused(&[dir("d"), file("d/f", "1"), hard("d", "d/f")], "no such file or directory");
    // To a link: the link itself gets a second name, not what it points to.
    check(
        &[symlink("s", "../canary/secret"), hard("a", "s")],
        &["a -> ../canary/secret", "s -> ../canary/secret"],
    );
    // The twins: absolute, before a slash, through a link inside, and one that is there already.
    check(
        &[file("bin/f", "1"), hard("a", "/bin/f")],
        &["a 644 \"1\"", "bin 755 dir", "bin/f 644 \"1\""],
    );
    check(
        &[file("f", "1"), hard("a", "./f"), hard("b", "a")],
        &["a 644 \"1\"", "b 644 \"1\"", "f 644 \"1\""],
    );
    check(
        &[dir("d"), file("d/f", "1"), symlink("s", "/d"), hard("a", "s/f")],
        &["a 644 \"1\"", "d 755 dir", "d/f 644 \"1\"", "s -> /d"],
    );
    check(&[file("f", "1"), hard("a", "f"), hard("a", "f")], &["a 644 \"1\"", "f 644 \"1\""]);
    check(
        &[node(Kind::Character, "n", 1, 3), hard("a", "n")],
        &["a 666 char 1:3", "n 666 char 1:3"],
    );
    let jail = Jail::new();
    jail.extract(&archive(&[file("f", "1"), hard("a", "f")]), Whiteouts::Overlay).unwrap();
    let inode = |name| {
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(jail.path().join(name)).unwrap())
    };
    assert_eq!(inode("a"), inode("f"));
}

#[test]
fn devices_and_pipes() {
    // A device gets its mode without being opened: a FIFO would block and a device might act.
    check(&[node(Kind::Character, "dev/ptmx", 5, 2)], &["dev 755 dir", "dev/ptmx 666 char 5:2"]);
    check(&[node(Kind::Block, "sda", 8, 0).mode(0o640).owner(0, 6)], &["sda 640 0:6 block 8:0"]);
    check(&[node(Kind::Fifo, "p", 0, 0).mode(0o1600).owner(5, 6)], &["p 1600 5:6 fifo"]);
    check(&[node(Kind::Character, "big", 4095, 1_048_575)], &["big 666 char 4095:1048575"]);
    refused(&[node(Kind::Character, "a", 4096, 0)], "invalid device number 4096:0");
    refused(&[node(Kind::Block, "a", 0, 1 << 20)], "invalid device number");
}

#[test]
fn modes_and_owners() {
    // chown takes the set-id bits away, so the mode has to come after it.
    check(&[file("su", "1").mode(0o4755).owner(1000, 1000)], &["su 4755 1000:1000 \"1\""]);
    check(&[file("a", "").mode(0o6111), dir("d").mode(0o3777)], &["a 6111 \"\"", "d 3777 dir"]);
    check(
        &[dir("d").mode(0o2775).owner(0, 50), file("d/f", "1"), symlink("d/l", "f"), dir("d/e")],
        &["d 2775 0:50 dir", "d/e 755 dir", "d/f 644 \"1\"", "d/l -> f"],
    );
    check(
        &[file("a", "").mode(0), dir("d").mode(0), file("d/x", "1")],
        &["a 0 \"\"", "d 0 dir", "d/x 644 \"1\""],
    );
    check(&[file("a", "").owner(u32::MAX - 1, 70_000)], &["a 644 4294967294:70000 \"\""]);
    let out_of_range = |key, value| {
        let tar = [pax(&record(key, value)), header(b'0', b"x", b"0", |_| {}), end()].concat();
        refused_bytes(&tar, &format!("owner {value} is out of range"));
    };
    // -1 and its unsigned twin mean "leave the owner" to the kernel, which would be root.
    out_of_range("uid", "-1");
    out_of_range("uid", "4294967295");
    out_of_range("gid", "4294967296");
    out_of_range("uid", "9223372036854775807");
}

#[test]
fn the_root_itself() {
    for name in [".", "/", "./", "a/.."] {
        let jail = Jail::new();
        let items = [dir(name).mode(0o1711).owner(7, 8), file("x", "1")];
        jail.extract(&archive(&items), Whiteouts::Overlay).unwrap();
        let root = picture(&jail.path(), Detail::All);
        assert!(root.starts_with(" 1711 7:8 dir @0.000000000"), "{root}");
        jail.untouched();
    }
    refused(&[symlink(".", "/etc")], "the root of the tree can only be a directory");
    refused(&[file("/", "")], "the root of the tree can only be a directory");
    refused(&[file("a", ""), hard("/", "a")], "the root of the tree can only be a directory");
}

#[test]
fn whiteouts_that_are_none() {
    for name in [".wh.", "a/.wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."] {
        refused(&[dir("a"), file(name, "")], "invalid whiteout name");
    }
    refused(&[file("../.wh.canary", "")], "is outside of the tree");
    refused(&[file(".wh..wh..opq/../../.wh.canary", "")], "is outside of the tree");
    // AUFS's own files mean nothing, wherever their links point.
    let tree: &[&str] = &[];
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Delete] {
        let jail = Jail::new();
        jail.extract(&archive(&[file(".wh..wh.aufs", "1"), dir(".wh..wh.plnk")]), whiteouts)
            .unwrap();
        assert_eq!(picture(&jail.path(), Detail::Short), tree.concat());
    }
    // For `docker cp` these are names like any other.
    let jail = Jail::new();
    jail.extract(&archive(&[file(".wh.a", "1")]), Whiteouts::Literal).unwrap();
    assert_eq!(picture(&jail.path(), Detail::Short), ".wh.a 644 \"1\"\n");
}

#[test]
fn whiteouts_through_links() {
    let delete = |items: &[Item]| {
        let jail = Jail::new();
        jail.extract(
            &archive(&[dir("d"), file("d/x", "1"), symlink("s", "../canary")]),
            Whiteouts::Delete,
        )
        .unwrap();
        jail.extract(&archive(items), Whiteouts::Delete).unwrap();
        jail.untouched();
        picture(&jail.path(), Detail::Short)
    };
    // What is behind the link is inside the tree, where there is nothing.
    assert_eq!(
        delete(&[file("s/.wh.secret", "")]),
        "canary 755 dir\nd 755 dir\nd/x 644 \"1\"\ns -> ../canary\n"
    );
    assert_eq!(
        delete(&[file("s/.wh..wh..opq", "")]),
        "canary 755 dir\nd 755 dir\nd/x 644 \"1\"\ns -> ../canary\n"
    );
    assert_eq!(delete(&[file(".wh.s", "")]), "d 755 dir\nd/x 644 \"1\"\n");
    assert_eq!(delete(&[file(".wh.d", "")]), "s -> ../canary\n");
    assert_eq!(delete(&[file("d/.wh..wh..opq", "")]), "d 755 dir\ns -> ../canary\n");
    assert_eq!(delete(&[file(".wh.nothing", "")]), "d 755 dir\nd/x 644 \"1\"\ns -> ../canary\n");
}

#[test]
fn whiteouts_do_not_hide_their_own_layer() {
    let of = |items: &[Item], whiteouts| {
        let jail = Jail::new();
        if whiteouts == Whiteouts::Delete {
            jail.extract(
                &archive(&[dir("d"), file("d/old", "0"), dir("d/in"), file("d/in/old", "0")]),
                whiteouts,
            )
            .unwrap();
        }
        jail.extract(&archive(items), whiteouts).unwrap();
        picture(&jail.path(), Detail::Short)
    };
    let (new, gone, opaque) = (file("d/new", "1"), file(".wh.d", ""), file("d/.wh..wh..opq", ""));
    for items in [
        [dir("d"), new.clone(), opaque.clone()],
        [dir("d"), opaque.clone(), new.clone()],
        [opaque, dir("d"), new.clone()],
        [dir("d"), new.clone(), gone.clone()],
        [gone.clone(), dir("d"), new.clone()],
    ] {
        assert_eq!(of(&items, Whiteouts::Delete), "d 755 dir\nd/new 644 \"1\"\n");
        assert_eq!(
            of(&items, Whiteouts::Overlay),
            "d 755 dir trusted.overlay.opaque=y\nd/new 644 \"1\"\n"
        );
    }
    assert_eq!(of(&[gone.clone(), new.clone()], Whiteouts::Delete), "d 755 dir\nd/new 644 \"1\"\n");
    assert_eq!(
        of(&[gone.clone(), new], Whiteouts::Overlay),
        "d 755 dir trusted.overlay.opaque=y\nd/new 644 \"1\"\n"
    );
    // A hidden inner directory goes, one that this layer describes stays without its old content.
    assert_eq!(
        of(
            &[dir("d"), dir("d/in"), file("d/in/new", "1"), file("d/.wh..wh..opq", "")],
            Whiteouts::Delete
        ),
        "d 755 dir\nd/in 755 dir\nd/in/new 644 \"1\"\n"
    );
    assert_eq!(of(&[file("d/.wh.old", "")], Whiteouts::Overlay), "d 755 dir\nd/old 0 char 0:0\n");
    // A device 0:0 is what overlayfs makes of a whiteout, so it is one by every door.
    assert_eq!(of(&[node(Kind::Character, "d", 0, 0)], Whiteouts::Delete), "");
    assert_eq!(of(&[node(Kind::Character, "d", 0, 0)], Whiteouts::Overlay), "d 0 char 0:0\n");
    // A link to what is not there is refused, also when a whiteout stands in its place.
    let jail = Jail::new();
    assert!(jail.extract(&archive(&[gone, hard("a", "d")]), Whiteouts::Overlay).is_err());
}

#[test]
fn attributes() {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    // Set after owner and mode, which would take it away again.
    check(
        &[file("ping", "1").owner(1000, 1000).mode(0o4711).xattr("security.capability", capability)],
        &[r"ping 4711 1000:1000 ".to_owned() + r#""1" security.capability=\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"#]
            .each_ref()
            .map(String::as_str),
    );
    check(
        &[file("a", "1").xattr("user.b", b"2"), dir("d").xattr("user.e", b"")],
        &["a 644 \"1\" user.b=2", "d 755 dir user.e="],
    );
    check(&[symlink("l", "a").xattr("trusted.t", b"1")], &["l -> a trusted.t=1"]);
    // Overlay's own would turn a file into something else below our feet; user attributes on a link are not allowed.
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.whiteout",
        "trusted.overlay.origin",
        "user.overlay.opaque",
        "user.overlay.whiteout",
    ] {
        check(
            &[file("a", "1").xattr(name, b"y"), dir("d").xattr(name, b"y")],
            &["a 644 \"1\"", "d 755 dir"],
        );
    }
    check(&[symlink("l", "a").xattr("user.b", b"1")], &["l -> a"]);
    check(&[file("a", "1").xattr("nonsense", b"1")], &["a 644 \"1\""]);
    refused(
        &[file("a", "1").xattr("security.capability", &[1; 60_000])],
        "invalid extended attribute security.capability",
    );
    refused(
        &[file("a", "1").xattr("user.b", &[1; 65_537])],
        "exceeds the budget of 65536 bytes in an extended attribute",
    );
}

#[test]
fn a_default_acl_does_not_reach_what_the_layer_describes() {
    let acl = |tag: u16, permissions: u16| {
        [tag.to_le_bytes(), permissions.to_le_bytes(), [255; 2], [255; 2]].concat()
    };
    let value = [2u32.to_le_bytes().to_vec(), acl(1, 7), acl(4, 0), acl(0x20, 0)].concat();
    let jail = Jail::new();
    let items = [
        dir("d").xattr("system.posix_acl_default", &value),
        file("d/f", "1").mode(0o666),
        dir("d/e").mode(0o777),
    ];
    jail.extract(&archive(&items), Whiteouts::Overlay).unwrap();
    let tree = picture(&jail.path(), Detail::Short);
    assert!(tree.contains("d/f 666 \"1\"\n") && tree.contains("d/e 777 dir\n"), "{tree}");
    assert!(tree.contains("system.posix_acl_default"), "{tree}");
}

#[test]
fn strange_names() {
    check(
        &[file("a\nb", "1"), file("\u{e4}\u{1F433}", "2")],
        &["\\xc3\\xa4\\xf0\\x9f\\x90\\xb3 644 \"2\"", "a\\nb 644 \"1\""],
    );
    check(&[file(b"\xff\xfe".to_vec(), "1")], &["\\xff\\xfe 644 \"1\""]);
    check(&[file("File", "1"), file("file", "2")], &["File 644 \"1\"", "file 644 \"2\""]);
    let longest = "n".repeat(255);
    check(&[file(&*longest, "1")], &[&format!("{longest} 644 \"1\"")]);
    refused(&[file(&*"n".repeat(256), "1")], "file name too long");
    refused_bytes(
        &[pax(&record("path", "a\0b")), header(b'0', b"x", b"0", |_| {}), end()].concat(),
        "archive/tar: invalid tar header",
    );
    refused(&[symlink("a", "")], "invalid symlink");
    // As GNU tar and old archives write them.
    let gnu = |flag, text: &[u8]| {
        let size = format!("{:011o}", text.len());
        let magic = |block: &mut [u8; 512]| block[257..265].copy_from_slice(b"ustar  \0");
        [header(flag, b"././@LongLink", size.as_bytes(), magic), padded(text)].concat()
    };
    let name = format!("d/{}", "g".repeat(200));
    let tar =
        [gnu(b'L', format!("{name}\0").as_bytes()), header(b'0', b"cut", b"0", |_| {}), end()]
            .concat();
    check_bytes(&tar, &["d 755 dir", &format!("{name} 644 \"\"")]);
    let target = "t".repeat(300);
    let tar = [gnu(b'K', target.as_bytes()), header(b'2', b"l", b"0", |_| {}), end()].concat();
    check_bytes(&tar, &[&format!("l -> {target}")]);
    let tar = [header(0, b"old/", b"0", |block| block[257..265].fill(0)), end()].concat();
    check_bytes(&tar, &["old 644 dir"]);
}

#[test]
fn types_nobody_knows() {
    refused_bytes(
        &[header(b'V', b"x", b"0", |_| {}), end()].concat(),
        "unhandled tar header type 86",
    );
    refused_bytes(
        &[header(b'D', b"x", b"0", |_| {}), end()].concat(),
        "unhandled tar header type 68",
    );
    // Global records are passed over, as Docker does.
    let global = record("path", "../pwned");
    let size = format!("{:011o}", global.len());
    let tar = [
        header(b'g', b"g", size.as_bytes(), |_| {}),
        padded(global.as_bytes()),
        header(b'0', b"x", b"0", |_| {}),
        end(),
    ];
    check_bytes(&tar.concat(), &["x 644 \"\""]);
}

#[test]
fn times() {
    let tar = [
        pax(&(record("mtime", "-1.5") + &record("atime", "3.25"))),
        header(b'0', b"before", b"0", |_| {}),
        pax(&record("mtime", "1700000000.123456789")),
        header(b'5', b"d", b"0", |_| {}),
        header(b'0', b"d/f", b"0", |block| block[136..147].copy_from_slice(b"00000000012")),
        pax(&record("mtime", "5.5")),
        header(b'2', b"l", b"0", |block| block[157] = b'x'),
        end(),
    ];
    let jail = Jail::new();
    jail.extract(&tar.concat(), Whiteouts::Overlay).unwrap();
    let tree = picture(&jail.path(), Detail::All);
    for line in [
        "before 644 \"\" @-2.500000000",
        "d 644 dir @1700000000.123456789",
        "d/f 644 \"\" @10.000000000",
        "l -> x @5.500000000",
    ] {
        assert!(tree.contains(line), "{line} in\n{tree}");
    }
}

#[test]
fn depth_and_length() {
    let deep = |levels: usize| "d/".repeat(levels - 1) + "f";
    let jail = Jail::new();
    jail.extract(&archive(&[file(&*deep(255), "1")]), Whiteouts::Overlay).unwrap();
    refused(&[file(&*deep(256), "1")], "exceeds the budget of 255 nested directories");
    refused(&[file(&*"n".repeat(4097), "1")], "exceeds the budget of 4096 bytes in a path");
    refused(&[symlink("a", &"n".repeat(4097))], "exceeds the budget of 4096 bytes in a path");
    // Through links a path could become deeper than it is written.
    let mut items = vec![dir("a/a/a/a"), symlink("a/a/a/a/l", &"b/".repeat(120))];
    items.push(file(&*("a/a/a/a/l/".to_owned() + &"c/".repeat(140) + "x"), "1"));
    refused(&items, "exceeds the budget of 255 nested directories");
}

#[test]
fn the_wrong_kind_is_refused_where_asked() {
    let options =
        Options { whiteouts: Whiteouts::Literal, clash: Clash::Refuse, ..Options::default() };
    let put = |items: &[Item]| {
        let jail = Jail::new();
        jail.extract(&archive(&[dir("d"), file("f", "1")]), Whiteouts::Literal).unwrap();
        let tar = archive(items);
        let outcome = apply_with(jail.root().as_fd(), &mut &tar[..], &options);
        outcome.map_err(|error| error.chain())
    };
    assert!(
        put(&[file("d", "")])
            .unwrap_err()
            .ends_with("cannot overwrite directory \"/d\" with non-directory \"/\"")
    );
    assert!(
        put(&[dir("f")])
            .unwrap_err()
            .ends_with("cannot overwrite non-directory \"/f\" with directory \"/\"")
    );
    put(&[file("f", "2"), dir("d"), file("d/x", "3")]).unwrap();
}

#[test]
fn everything_to_one_owner() {
    let options = Options { owner: Some((12, 34)), ..Options::default() };
    let jail = Jail::new();
    let tar = archive(&[file("a/f", "1").owner(5, 6), symlink("l", "x")]);
    apply_with(jail.root().as_fd(), &mut &tar[..], &options).unwrap();
    assert_eq!(
        picture(&jail.path(), Detail::Short),
        "a 755 12:34 dir\na/f 644 12:34 \"1\"\nl -> x\n"
    );
}
