//! firewalld beside us, on a bus of its own: our bridges are in its zone, whatever becomes of it, and containers reach and
//! are reached.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::house::succeed;
use testkit::{House, Netns, TestImage};

use crate::foreign::{text, theirs, wait_for};
use crate::inside::in_namespace;
use crate::publish::{get, local, run_web};

/// A host with a message bus, where firewalld can be started and stopped.
struct Host {
    netns: Netns,
    dir: tempfile::TempDir,
    bus: Child,
    firewalld: Option<Child>,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("gfw-").tempdir().expect("a place for a test");
        let netns = Netns::new();
        let socket = dir.path().join("bus");
        let config = dir.path().join("bus.conf");
        let policy = "<policy context='default'><allow user='*'/><allow own='*'/><allow send_destination='*'/><allow receive_sender='*'/></policy>";
        let listen = format!("<listen>unix:path={}</listen>", socket.display());
        let text = format!(
            "<busconfig><type>system</type>{listen}<auth>EXTERNAL</auth>{policy}</busconfig>"
        );
        fs::write(&config, text).expect("a configuration");
        fs::create_dir(dir.path().join("firewalld")).expect("a place for firewalld");
        let mut bus = netns
            .command("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon can be executed");
        let mut ready = String::new();
        let said = bus.stdout.take().expect("it is piped");
        BufReader::new(said).read_line(&mut ready).expect("the bus says where it is");
        assert!(ready.starts_with("unix:"), "the bus: {ready}");
        Self { netns, dir, bus, firewalld: None }
    }

    fn address(&self) -> String {
        format!("DBUS_SYSTEM_BUS_ADDRESS=unix:path={}", self.dir.path().join("bus").display())
    }

    fn house(&self) -> House {
        let net = format!("--net={}", self.netns.path().display());
        House::through(&["nsenter", &net, "--", "env", &self.address()])
    }

    /// Returns when it answers.
    fn start_firewalld(&mut self) {
        let log = self.dir.path().join("log");
        let firewalld = self
            .netns
            .command("env")
            .arg(self.address())
            .args(["firewalld", "--nofork", "--nopid", "--log-target", "file", "--log-file"])
            .arg(log)
            .arg("--system-config")
            .arg(self.dir.path().join("firewalld"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.firewalld = Some(firewalld.expect("firewalld can be executed"));
        wait_for("firewalld's first answer", || self.ask(&["--state"]).0);
    }

    fn stop_firewalld(&mut self) {
        self.signal(Signal::TERM);
        self.firewalld.take().expect("it runs").wait().expect("it ends");
    }

    fn signal(&self, signal: Signal) {
        let number = self.firewalld.as_ref().expect("it runs").id();
        let pid = Pid::from_raw(number as i32).expect("a process");
        kill_process(pid, signal).expect("it can be sent a signal");
    }

    fn ask(&self, words: &[&str]) -> (bool, String) {
        let mut ask = self.netns.command("env");
        ask.arg(self.address()).arg("firewall-cmd").args(words);
        let output = ask.output().expect("firewall-cmd can be executed");
        (output.status.success(), text(&output.stdout).trim().to_owned())
    }

    fn zone_of(&self, bridge: &str) -> String {
        self.ask(&[&format!("--get-zone-of-interface={bridge}")]).1
    }

    /// A wire to somebody else, who is told.
    fn neighbour(&self) -> Netns {
        let far = Netns::new();
        let name = |netns: &Netns| {
            netns.path().file_name().expect("a name").to_str().expect("UTF-8").to_owned()
        };
        let (near, beyond) = (name(&self.netns), name(&far));
        for words in [
            format!("-n {near} link add out type veth peer name in netns {beyond}"),
            format!("-n {near} addr add 192.0.2.1/24 dev out"),
            format!("-n {near} link set out up"),
            format!("-n {beyond} addr add 192.0.2.2/24 dev in"),
            format!("-n {beyond} link set in up"),
        ] {
            let mut ip = Command::new("ip");
            ip.args(words.split(' '));
            succeed(ip);
        }
        far
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in self.firewalld.iter_mut().chain([&mut self.bus]) {
            let _dead = child.kill();
            let _reaped = child.wait();
        }
    }
}

fn busybox(house: &House) {
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
}

/// Where a network namespace is entered.
fn open(path: PathBuf) -> File {
    File::open(path).expect("it is there")
}

#[test]
fn bridges_are_in_its_zone() {
    let _firewalld = theirs!("firewalld");
    let mut host = Host::new();
    let far = host.neighbour();
    host.start_firewalld();
    assert_eq!(host.ask(&["--get-default-zone"]).1, "public");
    let house = host.house();
    busybox(&house);
    let bridge = house.bridge();
    wait_for("the zone", || host.zone_of(&bridge) == "docker");
    assert_eq!(host.ask(&["--permanent", "--zone=docker", "--get-target"]).1, "ACCEPT");
    let policy = |words: &str| host.ask(&["--policy=docker-forwarding", words]).1;
    assert_eq!(policy("--list-ingress-zones"), "ANY");
    assert_eq!(policy("--list-egress-zones"), "docker");
    run_web(&house, "web", &["-p", "8080:80"]);

    let namespaces = (open(host.netns.path()), open(far.path()));
    let reached = || {
        in_namespace(&namespaces.1, || get(local("192.0.2.1", 8080)));
        // The host's own services, which its zone of others refuses.
        let listener = in_namespace(&namespaces.0, || {
            TcpListener::bind((house.gateway(), 0)).expect("a port")
        });
        let port = listener.local_addr().expect("an address").port();
        std::thread::scope(|scope| {
            let answering = scope.spawn(move || {
                let (mut stream, _) = listener.accept().expect("a caller");
                stream.write_all(b"the host").expect("it listens");
            });
            let call = format!("nc -w 20 {} {port} </dev/null", house.gateway());
            assert_eq!(house.ok(&["exec", "web", "sh", "-c", &call]), "the host");
            answering.join().expect("it has answered");
        });
    };
    reached();

    let own = format!("{bridge}x");
    let option = format!("com.docker.network.bridge.name={own}");
    house.ok(&["network", "create", "-o", &option, "own"]);
    wait_for("the zone of another", || host.zone_of(&own) == "docker");

    assert!(host.ask(&["--reload"]).0);
    // firewalld has forgotten them.
    for name in [&bridge, &own] {
        wait_for("the zone after a reload", || host.zone_of(name) == "docker");
    }
    reached();

    let report = house.gantry(&["network", "doctor", "--format", "json"]).output();
    let report: Value = serde_json::from_slice(&report.expect("it runs").stdout).expect("JSON");
    let findings = report["Findings"].as_array().expect("a list");
    let told = findings.iter().any(|one| {
        one["Problem"].as_str().is_some_and(|problem| problem.contains("in its zone docker"))
    });
    assert!(told, "{findings:?}");

    house.ok(&["network", "rm", "own"]);
    wait_for("no zone any more", || host.zone_of(&own).is_empty());
    assert_eq!(host.zone_of(&bridge), "docker");

    host.stop_firewalld();
    host.start_firewalld();
    wait_for("the zone after a restart", || host.zone_of(&bridge) == "docker");
    in_namespace(&namespaces.1, || get(local("192.0.2.1", 8080)));
    let log = house.log();
    assert_eq!(log.matches("made firewalld know").count(), 1, "{log}");
    // On a busy host firewalld takes longer than anybody waits for it.
    let warned = |line: &str| {
        line.contains("WARN") && line.contains("firewall") && !line.contains("does not answer")
    };
    assert!(!log.lines().any(warned), "{log}");
    house.ok(&["rm", "-f", "web"]);
}

#[test]
fn it_comes_later_and_hangs() {
    let _firewalld = theirs!("firewalld");
    let mut host = Host::new();
    let house = host.house();
    let bridge = house.bridge();
    host.start_firewalld();
    wait_for("the zone after its start", || host.zone_of(&bridge) == "docker");

    host.signal(Signal::STOP);
    let own = [format!("{bridge}x"), format!("{bridge}y")];
    for name in &own {
        let option = format!("com.docker.network.bridge.name={name}");
        house.ok(&["network", "create", "-o", &option, name]);
    }
    assert_eq!(house.log().matches("firewalld does not answer").count(), 1, "{}", house.log());
    host.signal(Signal::CONT);
    for name in &own {
        wait_for("the zone of what was made meanwhile", || host.zone_of(name) == "docker");
    }
    // Somebody knows better where this one belongs.
    assert!(host.ask(&["--permanent", "--zone=trusted", &format!("--add-interface={}", own[0])]).0);
    assert!(host.ask(&["--reload"]).0);
    wait_for("what is said of a bridge in another zone", || {
        house.log().contains(&format!("somebody has put {} into firewalld's zone trusted", own[0]))
    });
    assert_eq!(host.zone_of(&own[0]), "trusted");
    for name in &own {
        house.ok(&["network", "rm", name]);
    }
    assert_eq!(host.zone_of(&own[1]), "");
}
