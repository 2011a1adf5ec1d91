//! Logging drivers: where lines go, what `docker logs` still knows, and servers that are slow, gone or never were.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use testkit::House;
use testkit::house::{PATIENCE, shown};

use crate::containers::house;

fn run(house: &House, name: &str, options: &[&str], command: &str) {
    let mut args = vec!["run", "-d", "--name", name, "--network", "none"];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", command]);
    house.ok(&args);
}

#[test]
fn local_files() {
    let house = house();
    let kept = ["--log-driver", "local", "--log-opt", "max-size=10k", "--log-opt", "max-file=3"];
    run(&house, "local", &kept, "seq 1 2000; echo err >&2");
    house.ok(&["wait", "local"]);
    let lines = house.ok(&["logs", "--tail", "3", "local"]);
    assert!(lines.contains("2000\n"), "{lines}");
    assert_eq!(
        house.ok(&["inspect", "-f", "{{.LogPath}}|{{.HostConfig.LogConfig}}", "local"]),
        "|{local map[max-file:3 max-size:10k]}\n"
    );
    let id = house.ok(&["inspect", "-f", "{{.Id}}", "local"]);
    let dir = house.data_root().join("containers").join(id.trim());
    let files = std::fs::read_dir(dir).expect("a directory").count();
    assert!((2..=3).contains(&files), "{files}");
    let refused = house
        .docker(&["run", "--log-driver", "local", "--log-opt", "max-file=0", "busybox", "true"])
        .output()
        .expect("docker");
    assert!(shown(&refused).contains("compression cannot be enabled when max file count is 1"));
}

#[test]
fn a_follower_goes_through_compressed_files() {
    let house = house();
    let options = ["--log-opt", "max-size=8k", "--log-opt", "max-file=200"];
    let options = [&options[..], &["--log-opt", "compress=true"]].concat();
    let command = "mkfifo /go; exec 3<>/go; for n in 0 1 2 3 4 5 6 7; do read go <&3; seq $((n*200+1)) $((n*200+200)); done";
    let name = ["-d", "--name", "many", "--network", "none"];
    house.ok(&[&["run"], &name[..], &options, &["busybox", "sh", "-c", command]].concat());
    let follower = |args: &[&str]| {
        let mut command = house.docker(&[&["logs", "-f"], args, &["many"]].concat());
        command.stdout(Stdio::piped()).spawn().expect("docker")
    };
    let read = |child: Child| {
        let output = child.wait_with_output().expect("docker ends");
        String::from_utf8(output.stdout).expect("numbers")
    };
    let numbers =
        |from: u32, to: u32| (from..=to).map(|number| format!("{number}\n")).collect::<String>();
    let from_the_start = follower(&[]);
    let speak = "until [ -p /go ]; do usleep 1000; done; echo >/go";
    let go = || house.ok(&["exec", "many", "sh", "-c", speak]);
    go();
    let id = house.ok(&["inspect", "-f", "{{.Id}}", "many"]);
    let directory = house.data_root().join("containers").join(id.trim());
    let files = || {
        let names = std::fs::read_dir(&directory).expect("a place").flatten();
        names.filter(|file| file.file_name().to_string_lossy().ends_with(".gz")).count()
    };
    let compressed = |count: usize| {
        let deadline = Instant::now() + PATIENCE;
        while files() < count {
            assert!(Instant::now() < deadline, "{} of {count} files", files());
            std::thread::yield_now();
        }
    };
    // Nothing is rotated while a file is being compressed: one for each round.
    compressed(1);
    for round in 2..=4 {
        go();
        compressed(round);
    }
    // These begin within files that are compressed already.
    let from_the_middle = follower(&["--tail", "500"]);
    let mut lines = BufReader::new(follower(&[]).stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "1");
    for round in 5..=8 {
        go();
        compressed(round);
    }
    assert_eq!(read(from_the_start), numbers(1, 1600));
    assert_eq!(read(from_the_middle), numbers(301, 1600));
    let rest: String = lines.map(|line| line.expect("text") + "\n").collect();
    assert_eq!(rest, numbers(2, 1600));
}

#[test]
fn syslog_of_every_kind() {
    let house = house();
    let path = house.path("syslog");
    let datagrams = UnixDatagram::bind(&path).expect("a socket");
    datagrams.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    udp.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let option = |address: &str| format!("syslog-address={address}");
    let local = option(&format!("unixgram://{}", path.display()));
    let near = option(&format!("udp://{}", udp.local_addr().expect("an address")));
    let far = option(&format!("tcp://{}", tcp.local_addr().expect("an address")));
    let common = ["--log-driver", "syslog", "--log-opt"];
    let mut bytes = [0; 1024];

    let tag = ["--log-opt", "tag={{.ImageName}}/{{.Name}}", "--log-opt", "syslog-facility=local1"];
    run(&house, "near", &[&common[..], &[&local], &tag].concat(), "echo out; echo err >&2");
    let mut said: Vec<String> = (0..2)
        .map(|_| {
            let count = datagrams.recv(&mut bytes).expect("a message");
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        })
        .collect();
    said.sort();
    assert!(said[0].starts_with("<139>") && said[0].ends_with("]: err\n"), "{said:?}");
    assert!(said[1].starts_with("<142>") && said[1].contains(" busybox/near["), "{said:?}");

    let format = ["--log-opt", "syslog-format=rfc5424"];
    run(&house, "udp", &[&common[..], &[&near], &format].concat(), "echo hello");
    let count = udp.recv(&mut bytes).expect("a message");
    let message = String::from_utf8_lossy(&bytes[..count]).into_owned();
    assert!(message.starts_with("<30>1 20") && message.ends_with(" - hello\n"), "{message}");

    run(&house, "tcp", &[&common[..], &[&far]].concat(), "seq 1 1000");
    let (client, _) = tcp.accept().expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let lines: Vec<String> =
        BufReader::new(client).lines().take(1000).map(|line| line.expect("a line")).collect();
    assert!(lines[999].ends_with("]: 1000"), "{}", lines[999]);
    // Kept here, too.
    house.ok(&["wait", "tcp"]);
    assert_eq!(house.ok(&["logs", "--tail", "2", "tcp"]), "999\n1000\n");

    let uncached = ["--log-opt", "cache-disabled=true"];
    run(&house, "uncached", &[&common[..], &[&near], &uncached].concat(), "echo x");
    let refused = house.docker(&["logs", "uncached"]).output().expect("docker");
    let words = "configured logging driver does not support reading";
    assert!(shown(&refused).contains(words), "{}", shown(&refused));
    let plugins = house.ok(&["info", "-f", "{{.Plugins.Log}}"]);
    let all = "awslogs fluentd gcplogs gelf journald json-file local none splunk syslog";
    assert_eq!(plugins, format!("[{all}]\n"));
}

#[test]
fn a_server_that_is_not_there() {
    let house = house();
    let nowhere =
        ["--log-driver", "syslog", "--log-opt", "syslog-address=unixgram:///nonexistent/log"];
    let args = [&["run", "--rm", "--network", "none"][..], &nowhere, &["busybox", "true"]].concat();
    let refused = house.docker(&args).output().expect("docker");
    let words = "failed to create task for container: failed to initialize logging driver: dial unixgram /nonexistent/log: connect: no such file or directory";
    assert!(shown(&refused).contains(words), "{}", shown(&refused));
    assert_eq!(house.ok(&["ps", "-aq"]), "");
    // A tag is understood when there is something to log, as with Docker.
    let tag = ["--log-driver", "syslog", "--log-opt", "tag={{.Nope}}", "busybox", "true"];
    house.ok(&[&["create", "--name", "tagged", "--network", "none"][..], &tag].concat());
    let refused = house.docker(&["start", "tagged"]).output().expect("docker");
    assert!(shown(&refused).contains("failed to initialize logging driver: template: log-tag:1"));
}

/// Reads as slowly as it is told to.
fn accept(server: &TcpListener) -> TcpStream {
    let (client, _) = server.accept().expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    client
}

#[test]
fn a_slow_server_is_waited_for_or_not() {
    let house = house();
    let server = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = server.local_addr().expect("an address");
    let address = format!("syslog-address=tcp://{address}");
    let common = ["--log-driver", "syslog", "--log-opt", &address];
    let speak = "seq 1 2000000; exit 3";
    let hasty = ["--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k"];
    run(&house, "hasty", &[&common[..], &hasty].concat(), speak);
    let _silent = accept(&server);
    // It ends though nobody has read a byte.
    assert_eq!(house.ok(&["wait", "hasty"]).trim(), "3");

    // Another's: what is left of the first may be sent again when that has gone.
    let other = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = other.local_addr().expect("an address");
    let address = format!("syslog-address=tcp://{address}");
    run(&house, "patient", &["--log-driver", "syslog", "--log-opt", &address], speak);
    let client = accept(&other);
    let mut last = String::new();
    let mut count = 0;
    for line in BufReader::new(client).lines() {
        last = line.expect("a line");
        count += 1;
        if count == 2_000_000 {
            break;
        }
    }
    assert!(last.ends_with("]: 2000000"), "{last}");
    assert_eq!(house.ok(&["wait", "patient"]).trim(), "3");
}

#[test]
fn a_server_that_comes_back_is_told_the_rest() {
    let house = house();
    let server = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = format!("syslog-address=tcp://{}", server.local_addr().expect("an address"));
    let mut child = house
        .docker(&[
            "run",
            "-i",
            "--name",
            "talk",
            "--network",
            "none",
            "--log-driver",
            "syslog",
            "--log-opt",
            &address,
            "busybox",
            "cat",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("docker can be executed");
    let mut input = child.stdin.take().expect("a pipe");
    let mut client = BufReader::new(accept(&server));
    let mut line = String::new();
    input.write_all(b"one\n").expect("it reads");
    client.read_line(&mut line).expect("a line");
    assert!(line.ends_with("]: one\n"), "{line}");
    drop(client);
    input.write_all(b"two\n").expect("it reads");
    let mut client = accept(&server);
    client.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
    input.write_all(b"three\n").expect("it reads");
    drop(input);
    let mut rest = String::new();
    client.read_to_string(&mut rest).expect("text");
    assert!(rest.contains("]: three\n"), "{rest}");
    child.wait().expect("it ends");
    assert_eq!(house.ok(&["logs", "talk"]), "one\ntwo\nthree\n");
}
