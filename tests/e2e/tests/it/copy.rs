//! `docker cp`, both ways: the same words typed at the docker command and at ours, to our daemon and to Debian's.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use serde_json::{Value, json};
use testkit::House;
use testkit::house::shown;

use crate::containers::house;
use crate::foreign::{Dockerd, theirs};

/// Everything that `cp` can meet: `>` into the container, `<` out of it.
const COPIES: &str = "
> src c:/w/new | > src c:/w/dir | > src/ c:/w/dir/ | > src/. c:/w/q | > src/a c:/w/file | > src/a c:/w/nodir/
> src/a c:/w/no/x | > src c:/w/no/x | > src c:/w/file | > src/sub c:/w/dir/a2/ | > src/a c:/w/ldir
> src/sub/b c:/w/lfile | > src/a c:/w/lnone | > lsrc c:/w/ls1 | > -L lsrc c:/w/ls2 | > src/l c:/w/l1
> -L src/l c:/w/l2 | > src/nope c:/w | > src/a/ c:/w | > -a src/a c:/w/aa | > -q src/a c:/w/ab | > src/p c:/w/pipe
> src/a nobody:/x | > src/a c:/vol/a | > src/a c:/ro/a
< c:/w /nowhere/x | < c:/w/file out | < c:/w/file out/f2 | < c:/w/file out/no/ | < c:/w/file out/no/x
< c:/w/dir out/f2 | < c:/w/dir out | < c:/w/dir/. out/dd | < c:/w/dir/ out/d2/ | < c:/w/lfile out/l1
< -L c:/w/lfile out/l2 | < c:/w/ldir out/l3 | < -L c:/w/ldir out/l4 | < c:/w/ldir/ out/l5 | < c:/w/l1 out/
< -a c:/w/aa out/aa | < c:/nope out | < c:/w/q/p out/pp | < c:/w/file dangling | < c:/w/file lout | < c:/w/file lout/
< c:/vol/a out/va | < c:/w/dir out/f2 | < c: x | < c:/a c:/b | < a b | < c:/w/q out/dir | < c:/w/file out/dir/src
";

/// Types all of it with one client to one daemon, and writes down what was said and what was made, here and inside.
fn session(client: &dyn Fn(&[&str]) -> Command, name: &str, here: &Path) -> String {
    let run = |words: &[&str]| {
        let output = client(words).current_dir(here).output().expect("the client can be executed");
        let said = shown(&output).replace(name, "c").replace(&here.display().to_string(), "HERE");
        // What docker's archiver logs when nobody listens to it any more.
        let lines = said.lines().filter(|line| !line.starts_with("time="));
        (output.status.code(), lines.collect::<Vec<_>>().join("\n"))
    };
    let inside = |script: &str| run(&["exec", name, "sh", "-c", script]).1;
    for dir in ["src/sub", "out", "lands"] {
        fs::create_dir_all(here.join(dir)).expect("a directory");
    }
    fs::write(here.join("src/a"), "a").expect("a file");
    fs::write(here.join("src/sub/b"), "bb").expect("a file");
    fs::set_permissions(here.join("src/a"), fs::Permissions::from_mode(0o640)).expect("a mode");
    std::os::unix::fs::chown(here.join("src/a"), Some(77), Some(88)).expect("an owner");
    for (target, link) in [
        ("a", "src/l"),
        ("none", "src/br"),
        ("src", "lsrc"),
        ("lands", "lout"),
        ("new", "dangling"),
    ] {
        symlink(target, here.join(link)).expect("a link");
    }
    let pipe = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, here.join("src/p"), pipe, mode, 0).expect("a pipe");
    let old = fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(981_158_400));
    let file = fs::File::options().write(true).open(here.join("src/a")).expect("a file");
    file.set_times(old).expect("a time");
    inside(
        "mkdir -p /w/dir /w/q; echo x > /w/file; ln -s dir /w/ldir; ln -s file /w/lfile; ln -s /w/q/none /w/lnone",
    );

    let mut text = String::new();
    for copy in COPIES.split(['|', '\n']).map(str::trim).filter(|copy| !copy.is_empty()) {
        let words: Vec<String> = copy[2..]
            .split(' ')
            .map(|word| match word.strip_prefix("c:") {
                Some(path) => format!("{name}:{path}"),
                None => word.to_owned(),
            })
            .collect();
        let words: Vec<&str> =
            std::iter::once("cp").chain(words.iter().map(String::as_str)).collect();
        let (code, said) = run(&words);
        text += &format!("$ cp {}\n{said}[{code:?}]\n", &copy[2..]);
    }
    text += &inside(
        "cd /w; find . /vol /ro | sort | while read f; do stat -c '%n %A %u:%g %F' $f; done; stat -c '%n %Y' aa new/a; for l in l1 ls1 dir/src/br; do readlink -n $l; echo; done",
    );
    text += "\n";
    for dir in ["out", "lands", "new"] {
        list(here, &here.join(dir), &mut text);
    }
    text
}

fn list(top: &Path, path: &Path, text: &mut String) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    let name = path.strip_prefix(top).expect("it is below").display();
    *text += &format!("{name} {:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
    if meta.is_file() {
        *text += &format!(" {:?}", fs::read_to_string(path).expect("text"));
    }
    if meta.mtime() == 981_158_400 {
        *text += " old";
    }
    *text += "\n";
    if meta.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path)
            .expect("a directory")
            .map(|entry| entry.expect("a name").path())
            .collect();
        names.sort();
        names.iter().for_each(|path| list(top, path, text));
    }
}

fn start(command: impl Fn(&[&str]) -> String, name: &str) {
    let mut all = vec!["run", "-d", "--name", name, "--network", "none"];
    all.extend(["-v", "/vol", "-v", "common:/ro:ro", "busybox", "sleep", "1000"]);
    command(&all);
}

#[test]
fn two_clients_and_two_daemons_copy_alike() {
    let house = house();
    let places = tempfile::tempdir().expect("a place");
    let at = |name: &str| {
        let place = places.path().join(name);
        fs::create_dir(&place).expect("a directory");
        place
    };
    start(|args| house.ok(args), "c-docker");
    start(|args| house.ok(args), "c-gantry");
    let dockers = session(&|args| house.docker(args), "c-docker", &at("docker"));
    let ours = session(&|args| house.gantry(args), "c-gantry", &at("gantry"));
    assert_eq!(dockers, ours);
    assert!(dockers.contains("out/aa 100640 0:0 \"a\" old"), "{dockers}");

    let dockerd = Dockerd::new(&theirs!("dockerd"));
    start(|args| dockerd.ok(args), "c-peer");
    let theirs = session(&|args| dockerd.command(args), "c-peer", &at("peer"));
    assert_eq!(theirs, ours);
}

/// A little archive: `f` of somebody's, and `d/g`.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    tar.append_data(&mut header, "d/", std::io::empty()).expect("it fits");
    for (name, text) in [("f", "one"), ("d/g", "two")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o4750);
        header.set_uid(1234);
        header.set_gid(4321);
        tar.append_data(&mut header, name, text.as_bytes()).expect("it fits");
    }
    tar.into_inner().expect("it fits")
}

fn put(house: &House, container: &str, query: &str, body: &[u8]) -> (u16, String) {
    let path = format!("/containers/{container}/archive?path={query}");
    let answer = house.send("PUT", &path, "application/x-tar", body);
    (answer.status, answer.text())
}

fn stat(house: &House, container: &str, path: &str) -> Result<Value, u16> {
    let path = format!("/containers/{container}/archive?path={path}");
    let answer = house.api("HEAD", &path, None);
    let header = answer.headers.iter().find(|(name, _)| name == "x-docker-container-path-stat");
    let Some((_, text)) = header else { return Err(answer.status) };
    let json = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
    Ok(serde_json::from_slice(&json).expect("JSON"))
}

fn names(archive: &[u8]) -> String {
    let mut tar = tar::Archive::new(archive);
    let entries = tar.entries().expect("an archive").map(|entry| entry.expect("an entry"));
    let names: Vec<_> = entries.map(|entry| entry.path_bytes().into_owned()).collect();
    names.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_archive_calls_word_for_word() {
    let house = house();
    start(|args| house.ok(args), "ca");
    let fill = "mkdir -p /d/e; echo hi > /d/f; ln -s /d /ld; ln -s nowhere /broken; ln -s loop /loop; mkfifo /p; chmod 6755 /d/f";
    house.ok(&["exec", "ca", "sh", "-c", fill]);

    // Go's bits of the mode: a directory, a link, a pipe, set-user-id and set-group-id.
    for (path, name, mode, target) in [
        ("/d/", "d", 1_u64 << 31 | 0o755, ""),
        ("/d/.", ".", 1 << 31 | 0o755, ""),
        ("/", "/", 1 << 31 | 0o755, ""),
        ("/ld", "ld", 1 << 27 | 0o777, "/d"),
        ("/ld/", "ld", 1 << 31 | 0o755, ""),
        ("/broken", "broken", 1 << 27 | 0o777, "/nowhere"),
        ("/p", "p", 1 << 25 | 0o644, ""),
        ("/d/f", "f", 1 << 23 | 1 << 22 | 0o755, ""),
        ("../../d/f", "f", 1 << 23 | 1 << 22 | 0o755, ""),
    ] {
        let stat = stat(&house, "ca", path).expect("it is there");
        assert_eq!(stat["name"], name, "{path}");
        assert_eq!(stat["mode"], mode, "{path}");
        assert_eq!(stat["linkTarget"], target, "{path}");
    }
    assert_eq!(stat(&house, "ca", "/d/f").expect("it is there")["size"], 3);
    for (path, status) in [("/nope", 404), ("/d/f/", 500), ("/loop/x", 500), ("", 400)] {
        assert_eq!(stat(&house, "ca", path), Err(status), "{path}");
    }
    let get = |path: &str| house.api("GET", &format!("/containers/ca/archive?path={path}"), None);
    for (path, expected) in
        [("/d", "d/ d/e/ d/f"), ("/ld/", "ld/ ld/e/ ld/f"), ("/d/.", "./ ./e/ ./f"), ("/ld", "ld")]
    {
        assert_eq!(names(&get(path).body), expected, "{path}");
    }
    for (path, words) in [
        ("/nope/", "Could not find the file /nope/ in container ca"),
        ("/d/f/.", "lstat /d/f/.: not a directory"),
        ("", "bad parameter: pathcannot be empty"),
    ] {
        assert_eq!(get(path).json()["message"], words);
    }

    let archive = archive();
    assert_eq!(put(&house, "ca", "/ld", &archive), (200, String::new()));
    let listed = house.ok(&["exec", "ca", "stat", "-c", "%a %u:%g", "/d/f", "/d/d", "/d/d/g"]);
    assert_eq!(listed, "4750 1234:4321\n755 0:0\n4750 1234:4321\n");
    for (query, status, words) in [
        ("/nope", 404, "Could not find the file /nope in container ca"),
        ("/d/f", 400, "extraction point is not a directory"),
        ("/ro", 400, "mounted volume is marked read-only"),
        ("/loop", 500, "open /loop: too many levels of symbolic links"),
        ("", 400, "bad parameter: pathcannot be empty"),
    ] {
        let (found, text) = put(&house, "ca", query, &archive);
        assert_eq!((found, text.contains(words)), (status, true), "{query}: {text}");
    }
    house.ok(&["exec", "ca", "sh", "-c", "mkdir -p /clash/f; echo > /clash/d"]);
    let (status, text) = put(&house, "ca", "/clash&noOverwriteDirNonDir=1", &archive);
    let words = "cannot overwrite non-directory \\\"/clash/d\\\" with directory \\\"/clash\\\"";
    assert_eq!((status, text.contains(words)), (400, true), "{text}");
    assert_eq!(put(&house, "ca", "/clash", &archive).0, 200);
    assert_eq!(house.ok(&["exec", "ca", "cat", "/clash/f", "/clash/d/g"]), "onetwo");

    let until = house.ok(&["system", "info", "-f", "{{.SystemTime}}"]);
    let events = ["events", "--since", "0", "--until", until.trim(), "--format", "{{.Action}}"];
    let events = house.ok(&events);
    let count = |action: &str| events.lines().filter(|line| *line == action).count();
    // Only what was found, and what arrived.
    assert_eq!((count("archive-path"), count("extract-to-dir")), (4, 2), "{events}");
}

#[test]
fn where_a_program_will_work_is_there_before_it_runs() {
    let house = house();
    let create = |name: &str, at: &str, more: &[&str]| {
        let flags = ["create", "--name", name, "--network", "none", "-w", at];
        let output = house.docker(&[&flags[..], more, &["busybox", "ls", "/data"]].concat());
        let output = { output }.output().expect("docker");
        (output.status.code(), shown(&output))
    };
    assert_eq!(create("new", "/not/there", &[]).0, Some(0));
    let made = stat(&house, "new", "/not/there").expect("it was made");
    assert_eq!(made["mode"], json!((1_u64 << 31) | 0o755));
    assert!(house.ok(&["diff", "new"]).contains("A /not/there\n"));
    assert_eq!(create("there", "/etc", &[]).0, Some(0));
    assert_eq!(house.ok(&["diff", "there"]), "");
    let words = "Error response from daemon: Cannot mkdir: /etc/passwd is not a directory\n";
    assert_eq!(create("file", "/etc/passwd", &[]), (Some(1), words.to_owned()));
    assert!(!house.ok(&["ps", "-a"]).contains("file"));
    // What is there when a volume is filled goes into it.
    assert_eq!(create("filled", "/data/deep", &["-v", "fresh:/data"]).0, Some(0));
    assert_eq!(house.ok(&["start", "-a", "filled"]), "deep\n");
}

#[test]
fn one_that_does_not_run_is_copied_from_and_into_as_well() {
    let house = house();
    let archive = archive();
    // Its volumes have no place in the image yet.
    house.ok(&[
        "create",
        "--name",
        "ca",
        "--network",
        "none",
        "-v",
        "/made/up",
        "-v",
        "named:/other",
        "busybox",
        "sh",
        "-c",
        "cat /made/up/f /other/d/g /tmp/f",
    ]);
    assert!(stat(&house, "ca", "/made/up").is_ok());
    for place in ["/made/up", "/other", "/tmp"] {
        assert_eq!(put(&house, "ca", place, &archive), (200, String::new()), "{place}");
    }
    let got = house.api("GET", "/containers/ca/archive?path=/made", None);
    assert_eq!(names(&got.body), "made/ made/up/ made/up/d/ made/up/d/g made/up/f");
    assert_eq!(house.ok(&["start", "-a", "ca"]), "onetwoone");
    let got = house.api("GET", "/containers/ca/archive?path=/other/.", None);
    assert_eq!(names(&got.body), "./ ./d/ ./d/g ./f");

    // What may not be written to from inside may not be written to from outside either.
    house.ok(&[
        "create",
        "--name",
        "cb",
        "--network",
        "none",
        "--read-only",
        "-v",
        "named:/other",
        "--tmpfs",
        "/scratch",
        "busybox",
    ]);
    let (status, text) = put(&house, "cb", "/tmp", &archive);
    assert_eq!(
        (status, text.contains("container rootfs is marked read-only")),
        (400, true),
        "{text}"
    );
    assert_eq!(put(&house, "cb", "/other", &archive).0, 200);

    // Everything to the container's user, by the container's own files.
    house.ok(&[
        "create",
        "--name",
        "cc",
        "--network",
        "none",
        "-u",
        "1000:7",
        "busybox",
        "stat",
        "-c",
        "%u:%g",
        "/tmp/d/g",
    ]);
    assert_eq!(put(&house, "cc", "/tmp&copyUIDGID=1", &archive).0, 200);
    assert_eq!(house.ok(&["start", "-a", "cc"]), "1000:7\n");
}

#[test]
fn an_archive_through_a_pipe() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "1000"]);
    for client in [House::docker, House::gantry] {
        let mut into = client(&house, &["cp", "-", "ca:/tmp"]);
        let mut child = into.stdin(Stdio::piped()).spawn().expect("the client");
        let mut stdin = child.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, &archive()).expect("it reads");
        drop(stdin);
        assert!(child.wait().expect("it ends").success());
        let out = client(&house, &["cp", "ca:/tmp/.", "-"]).output().expect("the client");
        assert_eq!(names(&out.stdout), "./ ./d/ ./d/g ./f");
        let refused = client(&house, &["cp", "-", "ca:/tmp/f"]).output().expect("the client");
        let words = "destination \"ca:/tmp/f\" must be a directory";
        assert!(shown(&refused).contains(words), "{}", shown(&refused));
    }
}
