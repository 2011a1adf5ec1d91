//! A shop of Debian's own packages: PostgreSQL, Redis, nginx and a web application, with limits, health checks, volumes and
//! a restart policy. They are killed one by one, and then everything of ours at once: all comes back, and what they had
//! acknowledged is there.

use rustix::process::{Pid, Signal, kill_process};
use testkit::house::{shown, succeed};
use testkit::{House, Netns, debian};

use crate::foreign::wait_for;

const ALL: [&str; 4] = ["postgres", "redis", "counter", "web"];

struct Shop<'a> {
    house: House,
    netns: &'a Netns,
}

impl<'a> Shop<'a> {
    fn open(netns: &'a Netns) -> Self {
        let house = House::within(netns);
        let archive = house.path("servers.tar");
        let mut copy = std::process::Command::new("skopeo");
        copy.args(["copy", "--quiet"]);
        copy.arg(format!("oci:{}:servers", debian::servers().display()));
        copy.arg(format!("docker-archive:{}:servers:latest", archive.display()));
        succeed(copy);
        house.ok(&["load", "-q", "-i", archive.to_str().expect("UTF-8")]);
        std::fs::remove_file(archive).expect("it is loaded");
        std::fs::write(house.path("counter.py"), include_str!("counter.py")).expect("a file");
        std::fs::write(house.path("nginx.conf"), include_str!("nginx.conf")).expect("a file");
        house.ok(&["network", "create", "shop"]);
        let shop = Self { house, netns };
        let [counter, nginx] = ["counter.py:/counter.py:ro", "nginx.conf:/nginx.conf:ro"]
            .map(|name| shop.house.path(name).display().to_string());
        shop.run(
            "postgres",
            "pg_isready -q -h 127.0.0.1",
            &[
                "--user",
                "postgres",
                "--memory",
                "256m",
                "--cpus",
                "1.5",
                "--pids-limit",
                "100",
                "--shm-size",
                "64m",
                "-v",
                "tables:/var/lib/postgresql",
                "--stop-signal",
                "SIGINT",
                "servers",
                "/usr/lib/postgresql/15/bin/postgres",
                "-D",
                "/var/lib/postgresql/15/main",
                "-c",
                "ssl=off",
                "-c",
                "listen_addresses=*",
                "-c",
                "config_file=/etc/postgresql/15/main/postgresql.conf",
                "-c",
                "unix_socket_directories=/tmp",
                "-c",
                "external_pid_file=",
            ],
        );
        shop.run(
            "redis",
            "redis-cli ping | grep -q PONG",
            &[
                "--user",
                "redis",
                "--memory",
                "96m",
                "--read-only",
                "--cap-drop",
                "ALL",
                "-v",
                "keys:/var/lib/redis",
                "--ulimit",
                "nofile=4096",
                "servers",
                "redis-server",
                "--dir",
                "/var/lib/redis",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--protected-mode",
                "no",
            ],
        );
        shop.run(
            "counter",
            "exec 3<>/dev/tcp/127.0.0.1/8000",
            &[
                "--memory",
                "128m",
                "-v",
                &counter,
                "-v",
                "visits:/visits",
                "--init",
                "servers",
                "python3",
                "/counter.py",
            ],
        );
        shop.run(
            "web",
            "exec 3<>/dev/tcp/127.0.0.1/80",
            &[
                "--memory",
                "64m",
                "-v",
                &nginx,
                "-p",
                "127.0.0.1:8080:80",
                "--tmpfs",
                "/run",
                "servers",
                "nginx",
                "-c",
                "/nginx.conf",
            ],
        );
        shop.all_well();
        shop
    }

    fn run(&self, name: &str, check: &str, rest: &[&str]) {
        let check = format!("bash -c '{check}'");
        let words = [
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "shop",
            "--restart",
            "always",
            "--health-cmd",
            &check,
            "--health-interval",
            "1s",
            "--health-timeout",
            "30s",
        ];
        self.house.ok(&[&words[..], rest].concat());
    }

    fn told(&self, name: &str, format: &str) -> String {
        self.house.ok(&["inspect", "-f", format, name]).trim().to_owned()
    }

    fn all_well(&self) {
        for name in ALL {
            wait_for(&format!("the health of {name}"), || {
                self.told(name, "{{.State.Health.Status}}") == "healthy"
            });
        }
    }

    fn sql(&self, text: &str) -> String {
        let psql = ["exec", "postgres", "psql", "-h", "/tmp", "-qtAc", text];
        self.house.ok(&psql).trim().to_owned()
    }

    /// Asks through nginx; what failed is asked again until somebody is there.
    fn web(&self, method: &str) -> String {
        let mut answer = None;
        wait_for("an answer of the web server", || {
            let output = self
                .netns
                .command("curl")
                .args(["--silent", "--fail", "-X", method, "http://127.0.0.1:8080/"])
                .output()
                .expect("curl is installed");
            answer = output.status.success().then(|| shown(&output).trim().to_owned());
            answer.is_some()
        });
        answer.expect("it was waited for")
    }

    /// What the shop has acknowledged is what it has.
    fn has(&self, rows: u32, visits: u32) {
        // Numbers of a sequence may be skipped by a crash; rows may not.
        assert_eq!(self.sql("select count(distinct id) from orders"), rows.to_string());
        assert_eq!(
            self.house.ok(&["exec", "redis", "redis-cli", "get", "visits"]).trim(),
            visits.to_string()
        );
        assert_eq!(self.web("GET"), visits.to_string());
    }

    fn pid(&self, name: &str) -> Pid {
        let pid = self.told(name, "{{.State.Pid}}").parse().expect("a number");
        Pid::from_raw(pid).expect("it runs")
    }

    /// Waits for another run of a container than the one with this first process.
    fn comes_back(&self, name: &str, before: Pid) {
        let before = before.as_raw_nonzero().to_string();
        wait_for(&format!("the return of {name}"), || {
            let now = self.told(name, "{{.State.Pid}} {{.State.Status}}");
            now.ends_with(" running") && !now.starts_with(&format!("{before} "))
        });
        self.all_well();
    }
}

fn parent(pid: Pid) -> Pid {
    let status = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(status).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    Pid::from_raw(parent.trim().parse().expect("a number")).expect("not zero")
}

fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).expect("it runs");
}

/// By hand, as its image takes minutes to make: `cargo nextest run -p e2e --run-ignored all applications`.
#[test]
#[ignore = "its image takes minutes to make"]
fn a_shop_outlives_everything() {
    let netns = Netns::new();
    let mut shop = Shop::open(&netns);
    shop.sql("create table orders (id serial primary key, what text)");
    shop.sql("insert into orders (what) select 'thing ' || i from generate_series(1, 1000) i");
    for _ in 0..5 {
        shop.web("POST");
    }
    shop.has(1000, 5);

    // By hand: it stays down until it is started.
    shop.house.ok(&["kill", "postgres"]);
    assert_eq!(shop.house.ok(&["wait", "postgres"]).trim(), "137");
    assert_eq!(shop.told("postgres", "{{.State.Status}}"), "exited");
    shop.house.ok(&["start", "postgres"]);
    shop.all_well();
    shop.has(1000, 5);

    // The first process: the policy brings it back.
    let redis = shop.pid("redis");
    kill(redis);
    shop.comes_back("redis", redis);
    assert_eq!(shop.told("redis", "{{.RestartCount}}"), "1");
    shop.web("POST");
    shop.has(1000, 6);

    // The shim: its container goes with it, and comes back.
    let counter = shop.pid("counter");
    kill(parent(counter));
    shop.comes_back("counter", counter);
    shop.web("POST");
    shop.has(1000, 7);

    // Everything of ours at once, in the middle of work.
    shop.sql("insert into orders (what) select 'more' from generate_series(1, 500)");
    let first = ALL.map(|name| shop.pid(name));
    let shims = first.map(parent);
    let netd = network::netd::pid(&shop.house.exec_root()).expect("netd runs");
    let netd = Pid::from_raw(i32::try_from(netd).expect("a pid")).expect("not zero");
    shop.house.kill();
    kill(netd);
    for process in shims.into_iter().chain(first) {
        // With a shim went its container, perhaps already.
        let _gone = kill_process(process, Signal::KILL);
    }
    shop.house.start();
    for (name, before) in ALL.into_iter().zip(first) {
        shop.comes_back(name, before);
    }
    shop.has(1500, 7);
    shop.web("POST");
    shop.has(1500, 8);
    shop.house.ok(&["stop", "web", "counter", "redis", "postgres"]);
    assert_eq!(shop.told("postgres", "{{.State.ExitCode}} {{.State.OOMKilled}}"), "0 false");
}
