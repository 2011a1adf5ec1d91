//! Logs under load, and while they are rotated.

use shim::logs::{Config, Follow, Next, Options, Reader};

use crate::house::House;

#[test]
fn a_follower_sees_every_line_once_while_files_are_rotated() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("seq 1 100000");
    launch.logs = Config { max_size: Some(1_000_000), max_file: 20, compress: true, ..launch.logs };
    let mut reader =
        Reader::of(&launch.logs, Options { follow: Follow::Yes, ..Options::default() }).unwrap();
    let mut container = house.launch(launch);
    let mut expected = 1;
    while expected <= 100_000 {
        match reader.next().unwrap() {
            Next::Entry(entry) => {
                assert_eq!(
                    std::str::from_utf8(entry.line).unwrap().trim().parse::<i32>().unwrap(),
                    expected
                );
                expected += 1;
            }
            Next::Wait => {
                let wake = reader.wake().unwrap();
                let mut fds = [rustix::event::PollFd::new(&wake, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fds, None).unwrap();
            }
            other => panic!("{other:?} before line {expected}"),
        }
    }
    assert_eq!(container.wait().code, 0);
    assert_eq!(container.logged().len(), 100_000);
    assert!(
        container.dir.join("json.log.1").exists() || container.dir.join("json.log.1.gz").exists()
    );
}

/// A measurement: `cargo test --release -p shim --test it -- --ignored --nocapture speed`.
#[test]
#[ignore = "a measurement, not a test"]
fn speed() {
    const LINES: u32 = 400_000;
    let Some(house) = House::open() else { return };
    // Lines of 60 bytes.
    let script = format!("yes $(seq 100 114 | tr '\\n' ' ') | head -n {LINES}");
    let mut launch = house.shell(&script);
    launch.logs.max_size = None;
    let begin = std::time::Instant::now();
    let mut container = house.launch(launch);
    assert_eq!(container.wait().code, 0);
    let written = begin.elapsed();
    let begin = std::time::Instant::now();
    let mut reader = Reader::of(&container.log, Options::default()).unwrap();
    let (mut lines, mut bytes) = (0, 0);
    while let Next::Entry(entry) = reader.next().unwrap() {
        (lines, bytes) = (lines + 1, bytes + entry.line.len());
    }
    assert_eq!(lines, LINES);
    eprintln!(
        "{lines} lines, {bytes} bytes: written in {written:?}, read in {:?}",
        begin.elapsed()
    );
}

#[test]
fn another_runtime_makes_no_difference() {
    const RUNC: &str = "/usr/sbin/runc";
    if !std::path::Path::new(RUNC).exists() {
        eprintln!("skipped: no runc");
        return;
    }
    let Some(house) = House::open() else { return };
    let house = house.with_runtime(RUNC);
    let mut container = house.launch(house.shell("echo from runc; exit 9"));
    assert_eq!(container.wait().code, 9);
    assert_eq!(container.logged(), [("stdout", "from runc\n".to_owned())]);
    container.client.delete().unwrap();
}

#[test]
fn the_journal_is_told_in_its_own_protocol() {
    let Some(house) = House::open() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut launch = house.shell("echo hello; echo oh >&2");
    launch.logs = Config {
        driver: shim::logs::Driver::Journald,
        journal: Some(path),
        tag: "web".to_owned(),
        cache: true,
        ..launch.logs
    };
    let mut container = house.launch(launch);
    assert_eq!(container.wait().code, 0);
    let mut entries: Vec<String> = (0..2)
        .map(|_| {
            let mut bytes = [0; 4096];
            let count = journal.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        })
        .collect();
    entries.sort();
    assert!(entries[0].starts_with("MESSAGE=hello\nPRIORITY=6\n"), "{}", entries[0]);
    assert!(entries[0].contains("\nSYSLOG_IDENTIFIER=web\n"), "{}", entries[0]);
    assert!(entries[1].starts_with("MESSAGE=oh\nPRIORITY=3\n"), "{}", entries[1]);
    // And kept for those who ask here.
    let kept = container.logged();
    assert_eq!(kept.len(), 2, "{kept:?}");
}
