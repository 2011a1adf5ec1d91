//! `update --publish-add` and `--publish-rm`: other ports for containers that run, and for those that do not.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use serde_json::{Value, json};
use testkit::house::{shown, succeed};
use testkit::{House, port};

use crate::containers::house;
use crate::inside::{pid, within};
use crate::publish::{get, kill_netd, local, places, run_web, try_get};

fn update(house: &House, args: &[&str]) -> String {
    succeed(house.gantry(&[&["update"], args].concat()))
}

fn refusal(house: &House, args: &[&str]) -> String {
    let output = house.gantry(&[&["update"], args].concat()).output().expect("it can be executed");
    assert!(!output.status.success(), "{}", shown(&output));
    shown(&output)
}

fn bindings(house: &House, name: &str) -> Value {
    let text = house.ok(&["inspect", "-f", "{{json .HostConfig.PortBindings}}", name]);
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn one_more_and_one_less_while_it_runs() {
    let mut house = house();
    let (first, second, six, udp) = (port::free(), port::free(), port::free(), port::free());
    run_web(&house, "web", &["-p", &format!("127.0.0.1:{first}:80")]);
    run_web(&house, "other", &[]);
    let process = pid(&house, "web");
    assert_eq!(
        update(
            &house,
            &[
                &format!("--publish-add={second}:80"),
                &format!("--publish-add=[::1]:{six}:80"),
                &format!("--publish-add=127.0.0.1:{udp}:53/udp"),
                "web",
            ]
        ),
        "web\n"
    );
    for at in [local("127.0.0.1", first), local("127.0.0.1", second), local("::1", second)] {
        get(at);
    }
    get(local("::1", six));
    assert_eq!(pid(&house, "web"), process, "it was not restarted");
    let all = places(&house, "web", "80/tcp");
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!(places(&house, "web", "53/udp"), [local("127.0.0.1", udp)]);
    let listing = house.ok(&["ps", "--filter", "name=web", "--format", "{{.Ports}}"]);
    for place in [
        format!("127.0.0.1:{first}->80/tcp"),
        format!("0.0.0.0:{second}->80/tcp"),
        format!("[::]:{second}->80/tcp"),
        format!("[::1]:{six}->80/tcp"),
        format!("127.0.0.1:{udp}->53/udp"),
    ] {
        assert!(listing.contains(&place), "{place}: {listing}");
    }
    assert_eq!(
        bindings(&house, "web"),
        json!({
            "53/udp": [{ "HostIp": "127.0.0.1", "HostPort": udp.to_string() }],
            "80/tcp": [
                { "HostIp": "127.0.0.1", "HostPort": first.to_string() },
                { "HostIp": "", "HostPort": second.to_string() },
                { "HostIp": "::1", "HostPort": six.to_string() },
            ],
        })
    );
    // What the docker CLI updates leaves them alone.
    house.ok(&["update", "--memory", "64m", "--memory-swap", "64m", "web"]);
    assert_eq!(places(&house, "web", "80/tcp"), all);

    // Whoever dies.
    let before = house.ok(&["port", "web"]);
    house.kill();
    get(local("127.0.0.1", second));
    house.start();
    kill_netd(&house);
    get(local("::1", six));
    assert_eq!(house.ok(&["port", "web"]), before);
    house.ok(&["restart", "-t", "0", "web"]);
    get(local("::1", second));
    assert_eq!(house.ok(&["port", "web"]), before);
    house.check();

    update(&house, &[&format!("--publish-rm={second}:80"), "--publish-rm=53/udp", "web"]);
    assert!(try_get(local("127.0.0.1", second)).is_err());
    assert!(try_get(local("::1", second)).is_err());
    drop(TcpListener::bind(("0.0.0.0", second)).expect("the port is free"));
    drop(UdpSocket::bind(("127.0.0.1", udp)).expect("the port is free"));
    get(local("127.0.0.1", first));
    get(local("::1", six));
    // Free for another, at once; and from one to the other.
    update(&house, &[&format!("--publish-add={second}:80"), "other"]);
    get(local("127.0.0.1", second));
    update(&house, &[&format!("--publish-rm={second}:80"), "other"]);
    assert_eq!(house.ok(&["port", "other"]), "");
    house.check();
    house.ok(&["rm", "-f", "web"]);
    drop(TcpListener::bind(("::1", six)).expect("the port is free"));
}

#[test]
fn ranges_and_numbers_that_nobody_chose() {
    let house = house();
    let first = port::free() - 16_000;
    let range = format!("127.0.0.1:{first}-{}", first + 20);
    run_web(&house, "one", &[]);
    run_web(&house, "two", &[]);
    update(&house, &[&format!("--publish-add={range}:80"), "one", "two"]);
    let (one, two) = (places(&house, "one", "80")[0], places(&house, "two", "80")[0]);
    assert_ne!(one.port(), two.port());
    get(one);
    get(two);
    update(&house, &["--publish-add=127.0.0.1::81", "one"]);
    let given = places(&house, "one", "81");
    assert_eq!(places(&house, "one", "80"), [one], "what is there keeps its number");
    // Whoever withdraws one names it as it is shown.
    update(&house, &[&format!("--publish-rm={}:81", given[0].port()), "one"]);
    update(&house, &[&format!("--publish-rm={}:80", one.port()), "one"]);
    assert_eq!(bindings(&house, "one"), json!({}));
    assert!(try_get(one).is_err());
    get(two);
    // All that is exposed, without one.
    run_web(&house, "all", &["-P", "--expose", "80", "--expose", "81"]);
    let kept = places(&house, "all", "80");
    update(&house, &["--publish-rm=81", "all"]);
    assert_eq!(places(&house, "all", "80"), kept);
    assert!(!house.ok(&["port", "all"]).contains("81/tcp"));
    house.ok(&["restart", "-t", "0", "all"]);
    assert!(!house.ok(&["port", "all"]).contains("81/tcp"));
    house.check();
}

#[test]
fn a_refusal_changes_nothing() {
    let house = house();
    let (port, other) = (port::free(), port::free());
    let thief = TcpListener::bind("0.0.0.0:0").expect("a port");
    let stolen = thief.local_addr().expect("an address").port();
    run_web(&house, "web", &["-p", &format!("{port}:80")]);
    run_web(&house, "taken", &["-p", &format!("127.0.0.1:{other}:80")]);
    let asked = bindings(&house, "web");
    let words = refusal(
        &house,
        &[
            "--memory=64m",
            "--memory-swap=64m",
            &format!("--publish-rm={port}:80"),
            &format!("--publish-add=127.0.0.1:{port}:80"),
            &format!("--publish-add={stolen}:81"),
            "web",
        ],
    );
    let begin = words.find("driver failed programming external connectivity on endpoint web (");
    assert!(begin.is_some(), "{words}");
    assert!(
        words.trim_end().ends_with(&format!(
            "): failed to bind host port 0.0.0.0:{stolen}/tcp: address already in use"
        )),
        "{words}"
    );
    let words = refusal(&house, &[&format!("--publish-add={other}:80"), "web"]);
    assert!(
        words
            .trim_end()
            .ends_with(&format!("): Bind for 127.0.0.1:{other} failed: port is already allocated")),
        "{words}"
    );
    let words = refusal(&house, &["--publish-rm=9:80", "web"]);
    assert!(words.trim_end().ends_with("port 80/tcp is not published at 9"), "{words}");
    assert_eq!(bindings(&house, "web"), asked);
    assert_eq!(house.ok(&["inspect", "-f", "{{.HostConfig.Memory}}", "web"]), "0\n");
    get(local("127.0.0.1", port));
    get(local("::1", port));
    house.check();
    // With a limit that the kernel refuses the ports go back, too.
    if Path::new("/sys/fs/cgroup/memory").exists() {
        let memory = ["-m", "200m", "busybox", "sleep", "99"];
        let publish = format!("127.0.0.1:{}:80", port::free());
        house.ok(&[&["run", "-d", "--name", "tight", "-p", &publish], &memory[..]].concat());
        let fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=30";
        house.ok(&["exec", "tight", "sh", "-c", fill]);
        let (asked, bound) = (bindings(&house, "tight"), house.ok(&["port", "tight"]));
        let body = json!({
            "Memory": 6 << 20,
            "MemorySwap": 6 << 20,
            "PublishAdd": { "81/tcp": [{ "HostPort": "" }] },
            "PublishRemove": { "80/tcp": null },
        });
        let answer = house.api("POST", "/containers/tight/update", Some(&body));
        assert!(answer.status >= 400, "{}", answer.text());
        assert_eq!(bindings(&house, "tight"), asked);
        assert_eq!(house.ok(&["port", "tight"]), bound);
        house.check();
    }
    // Where there is nothing to publish.
    house.ok(&[
        "run",
        "-d",
        "--name",
        "joined",
        "--network",
        "container:web",
        "busybox",
        "sleep",
        "99",
    ]);
    let words = refusal(&house, &["--publish-add=80:80", "joined"]);
    assert!(
        words.contains("conflicting options: port publishing and the container type network mode"),
        "{words}"
    );
    house.ok(&["run", "-d", "--name", "host", "--network", "host", "busybox", "sleep", "99"]);
    let output = house.gantry(&["update", "--publish-add=80:80", "host"]).output().expect("gantry");
    assert!(
        shown(&output).contains("Published ports are discarded when using host network mode"),
        "{}",
        shown(&output)
    );
}

#[test]
fn of_one_that_does_not_run() {
    let house = house();
    let port = port::free();
    run_web(&house, "web", &["-p", "127.0.0.1::80"]);
    house.ok(&["stop", "-t", "0", "web"]);
    update(&house, &["--publish-rm=80", &format!("--publish-add=127.0.0.1:{port}:80"), "web"]);
    assert_eq!(house.ok(&["port", "web"]), "");
    assert_eq!(
        bindings(&house, "web"),
        json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": port.to_string() }] })
    );
    // Taken by somebody else in the meantime: the start says so.
    let thief = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let output = house.docker(&["start", "web"]).output().expect("docker");
    let words = format!("failed to bind host port 127.0.0.1:{port}/tcp: address already in use");
    assert!(shown(&output).contains(&words), "{}", shown(&output));
    drop(thief);
    house.ok(&["start", "web"]);
    get(local("127.0.0.1", port));
}

/// A datagram's flow does not outlive the port that let it in.
#[test]
fn datagrams_stop_with_the_port() {
    let house = house();
    let port = port::free();
    house.ok(&["run", "-d", "--name", "echo", "busybox", "sleep", "1000"]);
    let inside = within(pid(&house, "echo"), || UdpSocket::bind("0.0.0.0:5000").expect("a port"));
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    client.connect(("127.0.0.1", port)).expect("a way");
    let mut buffer = [0; 16];
    let send = |word: &[u8]| {
        let _told = client.take_error();
        client.send(word).expect("it can be sent");
    };
    send(b"early");
    let publish = format!("127.0.0.1:{port}:5000/udp");
    update(&house, &["--publish-add", &publish, "echo"]);
    send(b"one");
    let (length, _) = inside.recv_from(&mut buffer).expect("a datagram");
    assert_eq!(&buffer[..length], b"one");
    update(&house, &["--publish-rm", &publish, "echo"]);
    send(b"two");
    update(&house, &["--publish-add", &publish, "echo"]);
    send(b"three");
    let (length, _) = inside.recv_from(&mut buffer).expect("a datagram");
    assert_eq!(&buffer[..length], b"three", "the one before was not let in");
}
