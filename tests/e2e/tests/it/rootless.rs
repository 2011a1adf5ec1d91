//! A daemon of a user who is not root: everything as with root's, and nothing of root's needed.
//!
//! The user exists in a mount namespace of the test only; the host he is on is a network namespace with one way out.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use testkit::house::{PATIENCE, run_dir, shown, succeed};
use testkit::{House, Netns, TestImage};

use crate::inside::in_namespace;

/// Executes a daemon's command line as a user: `$1` is his number, the rest is what the house says.
const AS_USER: &str = r#"
set -e
uid=$1; shift
dir=$(dirname "${4#unix://}") run=$8 first=$((100000000 + uid % 50000 * 65536))
mkdir -p "$dir/etc" "$dir/home"
cp /etc/passwd /etc/group "$dir/etc"
echo "gt:x:$uid:$uid::$dir/home:/bin/sh" >>"$dir/etc/passwd"
echo "gt:x:$uid:" >>"$dir/etc/group"
echo "${IDS-gt:$first:65536}" | tee "$dir/etc/subuid" >"$dir/etc/subgid"
for file in passwd group subuid subgid; do mount --bind "$dir/etc/$file" "/etc/$file"; done
[ -z "$RESOLV" ] || { echo "$RESOLV" >"$dir/etc/resolv.conf"; mount --bind "$dir/etc/resolv.conf" /etc/resolv.conf; }
for program in $MISSING; do mount --bind /etc/passwd "/usr/bin/$program"; done
[ -e "$dir/tun" ] || mknod -m 666 "$dir/tun" c 10 200
mount --bind "$dir/tun" /dev/net/tun
: >>"$dir/gantry"
mount --bind "$1" "$dir/gantry"
chown "$uid:$uid" "$dir" "$run" "$dir/home"
[ -z "$NOTIFY_SOCKET" ] || chmod 666 "$NOTIFY_SOCKET"
shift
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups -- \
    env HOME="$dir/home" XDG_RUNTIME_DIR="$dir" "$dir/gantry" "$@"
"#;

/// The host of a test, and what lies beyond it.
struct Lab {
    host: Netns,
    world: Netns,
}

const HOST: &str = "192.0.2.10";
const WORLD: &str = "192.0.2.1";

impl Lab {
    fn new() -> Self {
        let lab = Self { host: Netns::new(), world: Netns::new() };
        let ip = |netns: &Netns, words: &str| {
            let mut command = netns.command("ip");
            command.args(words.split(' '));
            succeed(command);
        };
        let name = |netns: &Netns| netns.path().display().to_string();
        ip(
            &lab.host,
            &format!("link add eth0 type veth peer name eth0 netns {}", name(&lab.world)),
        );
        for (netns, address) in [(&lab.host, HOST), (&lab.world, WORLD)] {
            ip(netns, &format!("addr add {address}/24 dev eth0"));
            ip(netns, "link set eth0 up");
        }
        ip(&lab.host, &format!("route add default via {WORLD}"));
        lab
    }

    /// Says hello to everybody who comes, and whom it sees.
    fn serve(&self, netns: &Netns, at: &str) {
        let listener = within(netns, || TcpListener::bind(at).expect("a free port"));
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let peer = client.peer_addr().map(|peer| peer.ip().to_string());
                let _gone = writeln!(client, "hello {}", peer.unwrap_or_default());
            }
        });
    }

    /// Answers every question for a name with one address.
    fn serve_names(&self, netns: &Netns, at: &str) {
        let socket = within(netns, || std::net::UdpSocket::bind(at).expect("a free port"));
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let end = question[12..length].iter().position(|byte| *byte == 0).unwrap_or(0) + 17;
                let mut answer = question[..end].to_vec();
                answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
                let _gone = socket.send_to(&answer, from);
            }
        });
    }
}

fn within<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> T {
    in_namespace(&File::open(netns.path()).expect("it is there"), work)
}

/// A user with a daemon.
struct Person {
    house: Option<House>,
    uid: u32,
    lab: Lab,
}

impl Person {
    fn new(environment: &[&str]) -> Self {
        Self::on(Lab::new(), environment, &[])
    }

    fn on(lab: Lab, environment: &[&str], flags: &[&str]) -> Self {
        let uid = 1_000_000 + std::process::id();
        let house = House::through_with(&words(&wrapper(&lab, uid, environment)), flags);
        house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
        Self { house: Some(house), uid, lab }
    }

    fn house(&mut self) -> &mut House {
        self.house.as_mut().expect("it lives")
    }

    fn ok(&mut self, args: &[&str]) -> String {
        self.house().ok(args)
    }

    fn refusal(&mut self, args: &[&str]) -> String {
        let output = self.house().docker(args).output().expect("docker can be executed");
        assert!(!output.status.success(), "{}", shown(&output));
        shown(&output)
    }

    /// The daemon ends, and with it, since nothing else needs them, everybody who belongs to the user.
    fn leave(mut self) {
        drop(self.house.take());
        all_end(self.uid);
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        drop(self.house.take());
        if std::thread::panicking() {
            for pid in processes(self.uid) {
                let _gone = pidfd_open(pid, PidfdFlags::empty())
                    .and_then(|process| pidfd_send_signal(process, Signal::KILL));
            }
        }
    }
}

fn wrapper(lab: &Lab, uid: u32, environment: &[&str]) -> Vec<String> {
    let netns = format!("--net={}", lab.host.path().display());
    let uid = uid.to_string();
    [
        &["nsenter", &netns, "--", "env"],
        environment,
        &["unshare", "-m", "sh", "-c", AS_USER, "sh", &uid],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

fn words(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// Waits until a user has no process any more.
fn all_end(uid: u32) {
    let end = Instant::now() + PATIENCE;
    while let Some(pid) = processes(uid).first() {
        let Ok(process) = pidfd_open(*pid, PidfdFlags::empty()) else { continue };
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: 0 };
        let mut dead = [PollFd::new(&process, PollFlags::IN)];
        let count = poll(&mut dead, Some(&left)).expect("it can be waited for");
        assert!(count > 0, "left behind: {}", command_of(*pid));
    }
}

/// The user's processes, those of his containers' users too.
fn processes(uid: u32) -> Vec<Pid> {
    let first = 100_000_000 + uid % 50_000 * 65_536;
    let his = |owner: u32| owner == uid || (first..first + 65_536).contains(&owner);
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter(|entry| entry.metadata().is_ok_and(|found| his(found.uid())))
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        // What has ended and waits to be buried does nothing any more.
        .filter(|pid| !command_of(*pid).is_empty())
        .collect()
}

fn command_of(pid: Pid) -> String {
    let words =
        std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

fn hear(at: &str) -> std::io::Result<String> {
    let at: SocketAddr = at.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// What is said at an address of the host; whoever says it may not have begun.
fn heard(netns: &Netns, at: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        match within(netns, || hear(at)) {
            Ok(said) if !said.is_empty() => return said,
            outcome => assert!(Instant::now() < end, "{at}: {outcome:?}"),
        }
        std::thread::yield_now();
    }
}

/// Greets everybody who comes to port 80.
const GREETER: [&str; 4] = ["busybox", "sh", "-c", "exec nc -ll -p 80 -e echo greetings"];

#[test]
fn a_user_has_containers() {
    let mut person = Person::new(&[]);
    let uid = person.uid;
    let info = person.ok(&["info", "-f", "{{.SecurityOptions}} {{.Driver}} {{.DriverStatus}}"]);
    assert!(info.contains("name=rootless"), "{info}");
    assert!(info.contains("overlay2") && info.contains("[userxattr true]"), "{info}");
    assert_eq!(person.ok(&["run", "--rm", "busybox", "id", "-u"]), "0\n");

    // Root inside is the user outside, and the others are his.
    person.ok(&["run", "-d", "--name", "sleeper", "busybox", "sleep", "1000"]);
    let pid = person.ok(&["inspect", "-f", "{{.State.Pid}}", "sleeper"]);
    assert_eq!(std::fs::metadata(format!("/proc/{}", pid.trim())).unwrap().uid(), uid);
    let home = person.house().path("home").display().to_string();
    let script = "touch /h/root /h/five; chown 5:6 /h/five";
    person.ok(&["run", "--rm", "-v", &format!("{home}:/h"), "busybox", "sh", "-c", script]);
    let owner = |name: &str| {
        let found = std::fs::metadata(format!("{home}/{name}")).unwrap();
        (found.uid(), found.gid())
    };
    let first = 100_000_000 + uid % 50_000 * 65_536;
    assert_eq!((owner("root"), owner("five")), ((uid, uid), (first + 4, first + 5)));
    let volume = ["run", "--rm", "-v", "vol:/v", "busybox"];
    person.ok(&[
        &volume[..],
        &["sh", "-c", "echo kept >/v/x; chown 7 /v/x; rm -r /home; mkdir /home"],
    ]
    .concat());
    assert_eq!(person.ok(&[&volume[..], &["stat", "-c", "%u", "/v/x"]].concat()), "7\n");
    assert_eq!(person.ok(&["exec", "-u", "9", "sleeper", "id", "-u"]), "9\n");
    let archive = person.house().docker(&["cp", "sleeper:/bin/busybox", "-"]).output().unwrap();
    assert!(archive.stdout.len() > 10_000, "{}", shown(&archive));
    assert!(person.ok(&["top", "sleeper"]).contains("sleep 1000"));

    // What only the host's root can have, it has not; what is his, it has.
    let privileged = ["run", "--rm", "--privileged", "busybox", "sh", "-c"];
    person.ok(&[&privileged[..], &["mount -t tmpfs none /tmp && ls /dev/null"]].concat());
    person.refusal(&[&privileged[..], &["echo 1 >/proc/sys/kernel/panic"]].concat());
    person.refusal(&[&privileged[..], &["mknod /dev/sd b 8 0"]].concat());
    let device = ["run", "--rm", "--device", "/dev/net/tun", "busybox", "stat", "-c", "%t:%T"];
    assert_eq!(person.ok(&[&device[..], &["/dev/net/tun"]].concat()), "a:c8\n");
    let limited = ["run", "--rm", "-m", "64m", "--cpus", "0.5", "busybox", "true"];
    limits_are_dropped_in_words(&person.house().docker(&limited).output().unwrap());

    // His own command finds him.
    let house = person.house();
    symlink("s", house.path("gantry.sock")).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups", "--"])
        .arg(House::binary())
        .args(["ps", "--format", "{{.Names}}"])
        .env("XDG_RUNTIME_DIR", house.socket().parent().unwrap())
        .env("HOME", house.path("home"))
        .env_remove("DOCKER_HOST");
    // Unless the tests' binary lies where no user may look.
    if let Ok(output) = command.output().map(|output| shown(&output))
        && !output.contains("Permission denied")
    {
        assert_eq!(output, "sleeper\n");
    }
    person.leave();
}

/// A machine whose users have cgroups of their own keeps them instead.
fn limits_are_dropped_in_words(output: &Output) {
    assert!(output.status.success(), "{}", shown(output));
    let said = shown(output);
    if Path::new("/sys/fs/cgroup/memory").exists() {
        for words in [
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
        ] {
            assert!(said.contains(words), "{said}");
        }
    }
}

/// Out by the link, in by sockets of the host's; and all of it while no daemon lives.
#[test]
fn a_user_has_networks() {
    let mut person = Person::new(&["RESOLV=nameserver 127.0.0.1"]);
    person.lab.serve(&person.lab.world, &format!("{WORLD}:8000"));
    person.lab.serve(&person.lab.host, "127.0.0.1:8000");
    person.lab.serve_names(&person.lab.host, "127.0.0.1:53");
    let nc = |at: &str| format!("mkfifo /f; nc -w 5 {} <>/f", at.replace(':', " "));
    let run = ["run", "--rm", "busybox", "sh", "-c"];
    let said = person.ok(&[&run[..], &[&nc(&format!("{WORLD}:8000"))]].concat());
    assert_eq!(said, format!("hello {HOST}\n"), "the world sees the host");
    // The host's loopback is nobody's but the host's, its name server can be asked all the same.
    person.refusal(&[&run[..], &[&nc("10.0.2.2:8000")]].concat());
    person.ok(&["network", "create", "front"]);
    for network in ["bridge", "front"] {
        let lookup = ["run", "--rm", "--network", network, "busybox", "nslookup", "anything.test"];
        let output = person.house().docker(&lookup).output().unwrap();
        assert!(shown(&output).contains("192.0.2.77"), "{network}: {}", shown(&output));
    }

    let publish = |name: &'static str, port: &'static str| {
        [&["run", "-d", "--name", name, "--network", "front", "-p", port][..], &GREETER].concat()
    };
    person.ok(&publish("web", "8080:80"));
    person.ok(&publish("hidden", "127.0.0.1:8081:80"));
    let greeted = |person: &Person| {
        assert_eq!(heard(&person.lab.host, "127.0.0.1:8080"), "greetings\n");
        assert_eq!(heard(&person.lab.world, &format!("{HOST}:8080")), "greetings\n");
        assert_eq!(heard(&person.lab.host, "127.0.0.1:8081"), "greetings\n");
    };
    greeted(&person);
    assert!(within(&person.lab.world, || hear(&format!("{HOST}:8081"))).is_err());
    let neighbour = ["run", "--rm", "--network", "front", "busybox", "sh", "-c"];
    assert_eq!(
        person.ok(&[&neighbour[..], &["ping -c 1 -W 5 web >/dev/null && echo yes"]].concat()),
        "yes\n"
    );

    // The bound socket is the allocation, whoever binds.
    let taken = within(&person.lab.host, || TcpListener::bind("0.0.0.0:8082").unwrap());
    for (port, words) in [
        ("8080:80", "Bind for 0.0.0.0:8080 failed: port is already allocated"),
        ("8082:80", "failed to bind host port 0.0.0.0:8082/tcp: address already in use"),
        (
            "80:80",
            "cannot expose privileged port 80, you can add 'net.ipv4.ip_unprivileged_port_start=80' to /etc/sysctl.conf \
             (currently 1024), or choose a larger port number (>= 1024)",
        ),
    ] {
        let said = person.refusal(&["run", "--rm", "-p", port, "busybox", "true"]);
        assert!(said.contains(words), "{port}: {said}");
    }
    drop(taken);

    let anchor = anchor_of(person.house());
    person.house().kill();
    greeted(&person);
    person.house().start();
    greeted(&person);
    assert_eq!(anchor_of(person.house()), anchor, "the namespaces are the same");
    assert_eq!(
        person
            .ok(&["exec", "web", "ping", "-c1", "-W5", "hidden"])
            .lines()
            .next()
            .map(|line| line.starts_with("PING hidden")),
        Some(true)
    );
    person.house().stop();
    greeted(&person);
    // Even whoever keeps the namespaces may be killed: a daemon started anew finds them by who lives there.
    let keeper = processes(person.uid)
        .into_iter()
        .find(|pid| *pid != anchor && command_of(*pid).starts_with("gantry-outside"))
        .expect("it lives");
    rustix::process::kill_process(keeper, Signal::KILL).unwrap();
    person.house().start();
    assert_eq!(anchor_of(person.house()), anchor, "the namespaces are the same");
    greeted(&person);
    person.ok(&publish("late", "8083:80"));
    assert_eq!(heard(&person.lab.host, "127.0.0.1:8083"), "greetings\n");
    let said = person.ok(&[&run[..], &[&nc(&format!("{WORLD}:8000"))]].concat());
    assert_eq!(said, format!("hello {HOST}\n"));
    person.leave();
}

/// A daemon that listens on the host, for others.
#[test]
fn a_user_is_reached_from_elsewhere() {
    let host = format!("tcp://{HOST}:2375");
    let person = Person::on(Lab::new(), &[], &["-H", &host]);
    let asked = within(&person.lab.world, || {
        let mut stream = TcpStream::connect((HOST, 2375)).expect("it listens on the host");
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").expect("it hears");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    });
    assert!(asked.ends_with("OK"), "{asked}");
    person.leave();
}

#[test]
fn a_user_goes_out_by_ipv6() {
    for missing in ["MISSING=slirp4netns", "MISSING=pasta"] {
        goes_out_by_ipv6(missing);
    }
}

fn goes_out_by_ipv6(missing: &str) {
    let lab = Lab::new();
    for (netns, address) in [(&lab.host, "2001:db8::10/64"), (&lab.world, "2001:db8::1/64")] {
        let mut command = netns.command("ip");
        command.args(["addr", "add", address, "dev", "eth0", "nodad"]);
        succeed(command);
    }
    let mut command = lab.host.command("ip");
    command.args(["-6", "route", "add", "default", "via", "2001:db8::1"]);
    succeed(command);
    let mut person = Person::on(lab, &[missing], &[]);
    person.lab.serve(&person.lab.world, "[2001:db8::1]:8000");
    person.ok(&["network", "create", "--ipv6", "six"]);
    let script = "mkfifo /f; nc -w 5 2001:db8::1 8000 <>/f";
    let run = ["run", "--rm", "--network", "six", "busybox", "sh", "-c", script];
    assert_eq!(person.ok(&run), "hello 2001:db8::10\n", "{missing}");
    person.leave();
}

fn anchor_of(house: &House) -> Pid {
    let text = std::fs::read(house.exec_root().join("outside.json")).expect("a record");
    let record: serde_json::Value = serde_json::from_slice(&text).expect("a record");
    Pid::from_raw(record["anchor"]["pid"].as_i64().expect("a number") as i32).expect("a process")
}

#[test]
fn the_way_out_is_what_there_is() {
    for (missing, there) in [("MISSING=pasta", "slirp4netns"), ("MISSING=slirp4netns", "pasta")] {
        let mut person = Person::new(&[missing, "RESOLV=nameserver 127.0.0.1"]);
        person.lab.serve(&person.lab.world, &format!("{WORLD}:8000"));
        person.lab.serve_names(&person.lab.host, "127.0.0.1:53");
        // Its own end of the connection stays open: an old pasta may forget the other.
        let script = format!("mkfifo /f; nc -w 5 {WORLD} 8000 <>/f; nslookup anything.test");
        let said = person.ok(&["run", "--rm", "busybox", "sh", "-c", &script]);
        assert!(said.starts_with(&format!("hello {HOST}\n")), "{there}: {said}");
        assert!(said.contains("192.0.2.77"), "{there}: {said}");
        let runs = processes(person.uid).into_iter().any(|pid| command_of(pid).contains(there));
        assert!(runs, "{there}");
        person.leave();
    }
}

#[test]
fn what_is_missing_is_said_in_one_sentence() {
    let lab = Lab::new();
    let uid = 1_000_000 + std::process::id();
    for (environment, words) in [
        ("IDS=", "has no range of ids in /etc/subuid: let root give one"),
        ("MISSING=newuidmap", "newuidmap is not installed (its package is called uidmap)"),
        (
            "MISSING=pasta slirp4netns",
            "neither pasta (its package is called passt) nor slirp4netns is installed",
        ),
    ] {
        let (dir, run) = (tempfile::tempdir().unwrap(), run_dir("gt-"));
        let wrapper = wrapper(&lab, uid, &[environment]);
        let output = Command::new(&wrapper[0])
            .args(&wrapper[1..])
            .arg(House::binary())
            .arg("daemon")
            .args(["-H", &format!("unix://{}/s", dir.path().display())])
            .args(["--data-root", &dir.path().join("data").display().to_string()])
            .args(["--exec-root", &run.path().display().to_string()])
            .args(["--pidfile", &dir.path().join("pid").display().to_string()])
            .env_remove("NOTIFY_SOCKET")
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = shown(&output);
        assert!(said.contains(words), "{said}");
        all_end(uid);
    }
}

/// Executes words as a user: `$1` is his number, `$2` his directory, and what he executes is in there.
const A_USER: &str = r#"
set -e
uid=$1 dir=$2; shift 2
mkdir -p "$dir/bin" "$dir/home" "$dir/run"
cp /etc/passwd "$dir/passwd"
echo "gt:x:$uid:$uid::$dir/home:/bin/sh" >>"$dir/passwd"
mount --bind "$dir/passwd" /etc/passwd
echo "$IDS" >"$dir/ids"
for file in subuid subgid; do mount --bind "$dir/ids" "/etc/$file"; done
[ -e "$dir/tun" ] || mknod -m 666 "$dir/tun" c 10 200
mount --bind "$dir/tun" /dev/net/tun
: >>"$dir/bin/gantry"
mount --bind "$GANTRY" "$dir/bin/gantry"
printf '#!/bin/sh\n[ "$2" != show-environment ] || exit ${NONE:-0}\necho "$@" >>%s\n' "$dir/home/asked" >"$dir/bin/systemctl"
chmod 755 "$dir" "$dir/bin/systemctl"
chown "$uid:$uid" "$dir/home" "$dir/run"
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups -- \
    env HOME="$dir/home" XDG_RUNTIME_DIR="$dir/run" PATH="$dir/bin:/usr/bin:/bin" "$dir/bin/gantry" "$@"
"#;

/// What a user is told who has no daemon yet, and what he gets.
#[test]
fn a_daemon_is_set_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let uid = (1_000_000 + std::process::id()).to_string();
    let place = dir.path().display().to_string();
    let said = |environment: &[(&str, &str)], words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", A_USER, "sh", &uid, &place]).args(words);
        command.env("GANTRY", House::binary()).envs(environment.iter().copied());
        command.output().expect("it can be executed")
    };
    let with = [("IDS", "gt:100000:65536")];
    let refused = said(&[("IDS", "bob:100000:65536")], &["rootless", "install"]);
    assert!(!refused.status.success());
    let text = shown(&refused);
    assert!(text.contains("gt has no range of ids in /etc/subuid"), "{text}");
    assert!(text.contains("    usermod --add-subuids 165536-231071 gt\n"), "{text}");
    let unit = dir.path().join("home/.config/systemd/user/gantry.service");
    assert!(!unit.exists());

    let ready = said(&with, &["rootless", "check"]);
    assert_eq!(shown(&ready), "Nothing is missing.\n");
    let done = said(&with, &["rootless", "install"]);
    let text = shown(&done);
    assert!(done.status.success(), "{text}");
    assert!(
        text.contains(&format!("    export DOCKER_HOST=unix://{place}/run/gantry.sock\n")),
        "{text}"
    );
    assert!(!text.contains("export PATH"), "it is there already: {text}");
    let written = std::fs::read_to_string(&unit).expect("a unit");
    assert!(written.contains(&format!("\nExecStart={place}/bin/gantry daemon\n")), "{written}");
    let asked =
        || std::fs::read_to_string(dir.path().join("home/asked")).expect("systemd was asked");
    let started =
        "--user daemon-reload\n--user enable gantry.service\n--user restart gantry.service\n";
    assert_eq!(asked(), started);

    let gone = said(&with, &["rootless", "uninstall"]);
    assert!(gone.status.success() && !unit.exists(), "{}", shown(&gone));
    let ended = "--user disable --now gantry.service\n--user daemon-reload\n";
    assert_eq!(asked(), format!("{started}{ended}"));

    // Without a systemd of the user's it is his to start.
    let by_hand = said(&[with[0], ("NONE", "1")], &["rootless", "install"]);
    let text = shown(&by_hand);
    assert!(text.contains(&format!("    {place}/bin/gantry daemon\n")), "{text}");
    let root = Command::new(House::binary()).args(["rootless", "check"]).output();
    assert!(shown(&root.expect("it can be executed")).contains("for users who are not root"));
}
