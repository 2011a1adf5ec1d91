//! What the doctor says of a real host, and what he says when somebody has been there.

use std::net::TcpListener;

use network::{Level, NetworkConfig, PortRequest, Protocol, Reach, Report};
use stdx::Id;

use crate::lab::{Daemon, config, internet, on_a_host, request, run};

fn of(report: &Report, subject: &str) -> Vec<String> {
    let mine = report.findings.iter().filter(|one| one.subject.starts_with(subject));
    mine.map(|one| format!("{:?}: {}", one.level, one.problem)).collect()
}

#[test]
fn says_what_the_kernel_has() {
    on_a_host(|| {
        let _internet = internet();
        run(&["ip", "addr", "add", "10.9.9.9/24", "dev", "uplink"]);
        // A port that is free, for as long as nobody else wants it.
        let free = TcpListener::bind(("0.0.0.0", 0)).unwrap().local_addr().unwrap().port();
        let publish = |host_ip: Option<&str>, host_port| PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_ports: Some(host_port..=host_port),
        };
        let daemon = Daemon::start(config("gt-doctor"));
        let container = Id::random();
        let mut request = request(&container, "bridge");
        request.ports = vec![
            publish(Some("0.0.0.0"), free),
            publish(Some("127.0.0.1"), free - 1),
            publish(Some("10.9.9.9"), free - 2),
        ];
        daemon.networks.attach(&request).unwrap();
        let doctor = || daemon.networks.doctor(None).unwrap();
        let report = doctor();
        let reach: Vec<_> = report.ports.iter().map(|port| (port.host_port, port.reach)).collect();
        // 203.0.113.2 is an address that the internet knows.
        for expected in [(free, Reach::Anywhere), (free - 1, Reach::Host), (free - 2, Reach::Lan)] {
            assert!(reach.contains(&expected), "{reach:?}");
        }
        assert_eq!(of(&report, "bridge"), Vec::<String>::new());
        assert_eq!(
            of(&report, "web").len(),
            1,
            "the one at every address: {:?}",
            of(&report, "web")
        );
        // By itself, by its network, and nobody.
        assert_eq!(daemon.networks.doctor(Some("web")).unwrap().ports.len(), 3);
        assert_eq!(daemon.networks.doctor(Some("bridge")).unwrap().networks.len(), 1);
        assert!(daemon.networks.doctor(Some("nobody")).is_err());

        run(&["nft", "add table inet theirs"]);
        run(&[
            "nft",
            "add chain inet theirs f { type filter hook forward priority 0; policy drop; }",
        ]);
        let report = doctor();
        assert!(report.is_broken());
        assert_eq!(
            of(&report, "bridge"),
            [
                "Broken: chain inet theirs f drops what is forwarded, and does not let gt-doctor through",
            ]
        );
        let reach: Vec<_> = report.ports.iter().map(|port| (port.host_port, port.reach)).collect();
        assert!(
            reach.contains(&(free, Reach::Nobody)) && reach.contains(&(free - 1, Reach::Host)),
            "{reach:?}"
        );
        run(&["nft", "delete table inet theirs"]);
        run(&["iptables-nft", "-P", "FORWARD", "DROP"]);
        daemon.networks.recover(&[container]).unwrap();
        assert!(
            !of(&doctor(), "bridge").iter().any(|line| line.starts_with("Broken")),
            "we are let through there"
        );
    });
}

#[test]
fn without_rules_of_ours() {
    on_a_host(|| {
        let daemon = Daemon::start(NetworkConfig {
            iptables: false,
            ip6tables: false,
            ..config("gt-nodoc")
        });
        let report = daemon.networks.doctor(None).unwrap();
        assert!(
            report
                .findings
                .iter()
                .all(|one| one.level != Level::Warning || one.subject != "bridge")
        );
    });
}
