//! Published ports, through the real docker CLI: where they are reached, who is refused, what survives whom (N7, N12).

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use testkit::house::{PATIENCE, shown};
use testkit::{House, port};

use crate::containers::house;
use crate::inside::{pid, within};

/// A container that answers `GET /` on port 80 with the word `hello`.
const WEB: [&str; 4] = [
    "busybox",
    "sh",
    "-c",
    "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www",
];

pub(crate) fn run_web(house: &House, name: &str, flags: &[&str]) {
    house.ok(&[&["run", "-d", "--name", name][..], flags, &WEB].concat());
}

/// What a web server says; it may not have begun to listen.
pub(crate) fn get(at: SocketAddr) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        match try_get(at) {
            Ok(answer) if answer.ends_with("hello\n") => return answer,
            outcome => assert!(Instant::now() < end, "{at}: {outcome:?}"),
        }
        std::thread::yield_now();
    }
}

pub(crate) fn try_get(at: SocketAddr) -> std::io::Result<String> {
    try_get_in(at, "/", Duration::from_secs(5))
}

pub(crate) fn try_get_in(at: SocketAddr, path: &str, time: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, time)?;
    stream.set_read_timeout(Some(time))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The places that `docker port` names.
pub(crate) fn places(house: &House, name: &str, port: &str) -> Vec<SocketAddr> {
    let address = |text: &str| text.parse().unwrap_or_else(|_| panic!("no address: {text}"));
    house.ok(&["port", name, port]).lines().map(address).collect()
}

pub(crate) fn local(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn refusal(house: &House, flags: &[&str]) -> String {
    let args = [&["run", "--rm"][..], flags, &["busybox", "true"]].concat();
    let output = house.docker(&args).output().expect("docker can be executed");
    assert_eq!(output.status.code(), Some(125), "{}", shown(&output));
    let text = shown(&output);
    text.lines().find(|line| line.contains("Error response")).unwrap_or(&text).to_owned()
}

/// Kills netd, and returns when it is dead.
pub(crate) fn kill_netd(house: &House) {
    let number = network::netd::pid(&house.exec_root()).expect("netd runs");
    let pid = Pid::from_raw(number as i32).expect("a process");
    let process =
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("it lives");
    kill_process(pid, Signal::KILL).expect("it can be killed");
    let mut dead = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut dead, None).expect("it dies");
}

#[test]
fn where_ports_are_reached() {
    let house = house();
    let (port, alone, six) = (port::free(), port::free(), port::free());
    let flags = [
        format!("-p={port}:80"),
        format!("-p=127.0.0.1:{alone}:80"),
        format!("-p=[::1]:{six}:80"),
        "-p=127.0.0.2::80".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    run_web(&house, "web", &flags);
    get(local("127.0.0.1", port));
    get(local("::1", port));
    get(local("127.0.0.1", alone));
    get(local("::1", six));
    let all = places(&house, "web", "80/tcp");
    let ephemeral =
        all.iter().find(|place| place.ip() == "127.0.0.2".parse::<IpAddr>().expect("an address"));
    get(*ephemeral.expect("a place of its own"));
    assert_eq!(all.len(), 5, "{all:?}");
    assert!(all.contains(&local("0.0.0.0", port)) && all.contains(&local("::", port)), "{all:?}");
    assert!(try_get(local("127.0.0.2", alone)).is_err());
    assert!(try_get(local("::1", alone)).is_err());
    let ports = house.ok(&["ps", "--format", "{{.Ports}}"]);
    for place in [
        format!("0.0.0.0:{port}->80/tcp"),
        format!("[::]:{port}->80/tcp"),
        format!("127.0.0.1:{alone}->80/tcp"),
        format!("[::1]:{six}->80/tcp"),
    ] {
        assert!(ports.contains(&place), "{place}: {ports}");
    }
    let filter = |filter: &str| house.ok(&["ps", "-q", "--filter", filter]).lines().count();
    assert_eq!(filter(&format!("publish={port}")), 1);
    assert_eq!(filter("publish=1/udp"), 0);
    // What is taken back is free at once.
    house.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(house.ok(&["port", "web"]), "");
    drop(TcpListener::bind(("0.0.0.0", port)).expect("the port is free"));
    house.ok(&["start", "web"]);
    get(local("127.0.0.1", port));
    house.ok(&["restart", "-t", "0", "web"]);
    get(local("127.0.0.1", port));
}

#[test]
fn ranges_and_all_that_is_exposed() {
    let house = house();
    let first = port::free() - 16_000;
    let range = format!("{first}-{}", first + 20);
    run_web(&house, "one", &["-p", &format!("127.0.0.1:{range}:80")]);
    run_web(&house, "two", &["-p", &format!("127.0.0.1:{range}:80")]);
    let (one, two) = (places(&house, "one", "80"), places(&house, "two", "80"));
    assert_ne!(one, two);
    for place in one.into_iter().chain(two) {
        assert!((first..=first + 20).contains(&place.port()), "{place}");
        get(place);
    }
    run_web(&house, "all", &["-P", "--expose", "80", "--expose", "53/udp"]);
    let web = places(&house, "all", "80/tcp");
    assert_eq!(web.len(), 2, "{web:?}");
    assert_eq!(web[0].port(), web[1].port(), "both families get the same number");
    get(local("127.0.0.1", web[0].port()));
    assert_eq!(places(&house, "all", "53/udp").len(), 2);
    let exposed = house.ok(&["ps", "--filter", "expose=53/udp", "--format", "{{.Names}}"]);
    assert_eq!(exposed, "all\n");
}

#[test]
fn datagrams_come_back_from_where_they_went() {
    let house = house();
    house.ok(&["run", "-d", "--name", "echo", "-p", "5000/udp", "busybox", "sleep", "1000"]);
    let port = places(&house, "echo", "5000/udp")[0].port();
    let pid = pid(&house, "echo");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            within(pid, || {
                let socket = UdpSocket::bind("0.0.0.0:5000").expect("the container's own port");
                let mut buffer = vec![0; 65536];
                loop {
                    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
                    socket.send_to(&buffer[..length], from).expect("an answer");
                    if &buffer[..length] == b"end" {
                        return;
                    }
                }
            });
        });
        let echo = |to: SocketAddr, word: &[u8]| {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("a port");
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a deadline");
            // Only an answer from there is heard.
            socket.connect(to).expect("a way");
            let mut buffer = vec![0; 65536];
            let end = Instant::now() + PATIENCE;
            loop {
                // The other side may not listen yet.
                let _refused = socket.send(word);
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        assert_eq!(&buffer[..length], word, "{to}");
                        return;
                    }
                    Err(err) => assert!(Instant::now() < end, "{to}: {err}"),
                }
            }
        };
        echo(local("127.0.0.1", port), b"one");
        echo(local("127.0.0.9", port), b"two");
        echo(local("::1", port), b"three");
        echo(local("127.0.0.1", port), &vec![b'x'; 20_000]);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.send_to(b"end", ("127.0.0.1", port)).expect("it can be sent");
    });
}

#[test]
fn refused_in_dockers_words() {
    let house = house();
    let thief = TcpListener::bind("0.0.0.0:0").expect("a port");
    let stolen = thief.local_addr().expect("an address").port();
    let words = refusal(&house, &["--name", "late", "-p", &format!("{stolen}:80")]);
    let (begin, end) = words.split_once(" (").expect("an endpoint's id");
    assert_eq!(
        begin,
        "docker: Error response from daemon: failed to set up container networking: driver failed programming external \
         connectivity on endpoint late"
    );
    assert_eq!(
        end.split_once("): ").expect("a reason").1,
        format!("failed to bind host port 0.0.0.0:{stolen}/tcp: address already in use")
    );
    run_web(&house, "web", &["-p", "127.0.0.1::80"]);
    let taken = places(&house, "web", "80")[0].port();
    let words = refusal(&house, &["-p", &format!("{taken}:80")]);
    assert!(
        words
            .ends_with(&format!("): Bind for 127.0.0.1:{taken} failed: port is already allocated")),
        "{words}"
    );
    let words = refusal(&house, &["-p", "10.255.1.2:80:80"]);
    assert!(
        words.ends_with(
            "failed to bind host port 10.255.1.2:80/tcp: cannot assign requested address"
        ),
        "{words}"
    );
    assert_eq!(
        refusal(&house, &["-p", "80:80", "--network", "container:web"]),
        "docker: Error response from daemon: conflicting options: port publishing and the container type network mode"
    );
    for (ports, words) in [
        (
            json!({ "99999/tcp": [{ "HostPort": "80" }] }),
            "invalid port '99999': value out of range",
        ),
        (json!({ "x": [{ "HostPort": "80" }] }), "invalid port 'x': invalid syntax"),
        (json!({ "0/tcp": [{ "HostPort": "80" }] }), "invalid port specification: \"0/tcp\""),
        (json!({ "80/tcp": [{ "HostPort": "x" }] }), "invalid port specification: \"x\""),
    ] {
        let body =
            json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "PortBindings": ports } });
        let answer = house.api("POST", "/containers/create", Some(&body));
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["message"], words);
    }
    // Nothing of the refused is left.
    drop(thief);
    drop(TcpListener::bind(("0.0.0.0", stolen)).expect("the port is free"));
}

/// Whoever binds a port says also that somebody listens there, as the command does.
#[test]
fn bound_and_not_exposed() {
    let house = house();
    let port = port::free();
    let at = json!([{ "HostIp": "127.0.0.1", "HostPort": port.to_string() }]);
    let mut body = json!({
        "Image": "busybox",
        "Cmd": ["sleep", "86400"],
        "StopSignal": "KILL",
        "HostConfig": { "PortBindings": { "80/tcp": at } },
    });
    let shown = |name: &str| {
        let made = house.api("GET", &format!("/containers/{name}/json"), None).json();
        (made["NetworkSettings"]["Ports"].clone(), made["HostConfig"]["PortBindings"].clone())
    };
    for (name, exposed, ports) in [
        ("hidden", json!({}), json!({})),
        ("told", json!({ "80/tcp": {} }), json!({ "80/tcp": at })),
    ] {
        body["ExposedPorts"] = exposed;
        let made = house.api("POST", &format!("/containers/create?name={name}"), Some(&body));
        assert_eq!(made.status, 201, "{}", made.text());
        house.ok(&["start", name]);
        assert_eq!(shown(name), (ports, json!({ "80/tcp": at })), "{name}");
    }
    house.ok(&["rm", "-f", "told"]);
    // What is published later is exposed by that.
    let add = format!("--publish-add=127.0.0.1:{port}:81");
    let update = house.gantry(&["update", &add, "hidden"]).output().expect("it can be executed");
    assert!(update.status.success(), "{}", testkit::house::shown(&update));
    assert_eq!(house.ok(&["port", "hidden"]), format!("81/tcp -> 127.0.0.1:{port}\n"));
    house.ok(&["restart", "-t", "0", "hidden"]);
    assert_eq!(house.ok(&["port", "hidden"]), format!("81/tcp -> 127.0.0.1:{port}\n"));
    house.ok(&["rm", "-f", "hidden"]);
    house.check();
}

#[test]
fn whoever_dies_the_port_lives() {
    let mut house = house();
    let port = port::free();
    run_web(&house, "web", &["-p", &format!("{port}:80"), "-p", "127.0.0.1::81/udp"]);
    get(local("127.0.0.1", port));
    let before = house.ok(&["port", "web"]);

    house.kill();
    get(local("127.0.0.1", port));
    get(local("::1", port));
    assert!(TcpListener::bind(("0.0.0.0", port)).is_err(), "nobody else gets it");
    house.start();
    assert_eq!(house.ok(&["port", "web"]), before);
    get(local("::1", port));
    house.check();

    kill_netd(&house);
    get(local("::1", port));
    assert_eq!(house.ok(&["port", "web"]), before);

    house.kill();
    kill_netd(&house);
    house.start();
    get(local("127.0.0.1", port));
    get(local("::1", port));
    assert_eq!(house.ok(&["port", "web"]), before);
    house.check();

    house.stop();
    get(local("::1", port));
    house.start();
    house.ok(&["rm", "-f", "web"]);
    drop(TcpListener::bind(("0.0.0.0", port)).expect("the port is free"));
    let dir = house.exec_root();
    house.stop();
    assert!(network::netd::pid(&dir).is_none(), "nothing is left to be held, nobody holds it");
    assert!(!dir.join("netd.sock").exists());
    house.start();
}

/// What our processes listen on is what was asked for, and nothing else.
#[test]
fn nothing_else_listens() {
    let house = house();
    let port = port::free();
    run_web(&house, "web", &["-p", &format!("127.0.0.1:{port}:80")]);
    get(local("127.0.0.1", port));
    let ours = [house.pid(), network::netd::pid(&house.exec_root()).expect("netd runs")];
    let inodes: Vec<String> = ours.iter().flat_map(|pid| sockets_of(*pid)).collect();
    let mut listening = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"] {
        let text = std::fs::read_to_string(Path::new("/proc/net").join(table)).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (local, state) = (words.get(1).copied(), words.get(3).copied());
            let inode = words.get(if table == "packet" { 8 } else { 9 });
            // A stream that is connected is a conversation, not a door.
            let open = !table.starts_with("tcp") || state == Some("0A");
            if open && inode.is_some_and(|inode| inodes.iter().any(|own| own == inode)) {
                listening.push(format!("{table} {}", local.unwrap_or_default()));
            }
        }
    }
    assert_eq!(listening, [format!("tcp 0100007F:{port:04X}")]);
    let socket = std::fs::metadata(house.exec_root().join("netd.sock")).expect("it is there");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

fn sockets_of(pid: u32) -> Vec<String> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
    fds.flatten()
        .filter_map(|fd| {
            let target = std::fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned();
            Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect()
}
