//! What passes and what does not.

use network::NetworkConfig;

use crate::lab::{Daemon, INTERNET, UPLINK, config, internet, ip, on_a_host, run, talk};

#[test]
fn outgoing_carries_the_hosts_address() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-masq"));
        let (_, attachment) = daemon.attach("bridge");
        assert_eq!(talk(Some(&internet), INTERNET, attachment.netns.as_ref()), Some(UPLINK.into()));
    });
}

#[test]
fn without_masquerade_the_containers_own() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(NetworkConfig { ip_masq: false, ..config("gt-nomasq") });
        let (_, attachment) = daemon.attach("bridge");
        assert_eq!(
            talk(Some(&internet), INTERNET, attachment.netns.as_ref()),
            Some(ip(&attachment).into())
        );
    });
}

#[test]
fn nobody_gets_in_unasked() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-in"));
        let (_, attachment) = daemon.attach("bridge");
        assert_eq!(talk(attachment.netns.as_ref(), ip(&attachment), Some(&internet)), None);
        let open =
            Daemon::start(NetworkConfig { iptables: false, ip6tables: false, ..config("gt-open") });
        let (_, attachment) = open.attach("bridge");
        assert!(
            talk(attachment.netns.as_ref(), ip(&attachment), Some(&internet)).is_some(),
            "without rules it would"
        );
    });
}

#[test]
fn beside_a_forward_policy_of_drop() {
    on_a_host(|| {
        run(&["iptables-nft", "-P", "FORWARD", "DROP"]);
        run(&["iptables-nft", "-A", "FORWARD", "-d", "203.0.113.66/32", "-j", "DROP"]);
        let internet = internet();
        let daemon = Daemon::start(config("gt-drop"));
        let (container, attachment) = daemon.attach("bridge");
        assert_eq!(talk(Some(&internet), INTERNET, attachment.netns.as_ref()), Some(UPLINK.into()));
        assert_eq!(talk(attachment.netns.as_ref(), ip(&attachment), Some(&internet)), None);
        let rules = "-P FORWARD DROP\n-A FORWARD -d 203.0.113.66/32 -j DROP\n-A FORWARD -i gt-drop -m comment --comment \"gantry-gt-drop: out of gt-drop\" -j ACCEPT\n-A FORWARD -o gt-drop -m comment --comment \"gantry-gt-drop: into gt-drop\" -j ACCEPT\n";
        assert_eq!(
            run(&["iptables-nft", "-S", "FORWARD"]),
            rules,
            "iptables understands them, and the administrator's come first"
        );
        daemon.networks.recover(&[container]).unwrap();
        assert_eq!(run(&["iptables-nft", "-S", "FORWARD"]), rules, "once is enough");
    });
}

#[test]
fn without_iptables_no_rules() {
    on_a_host(|| {
        let daemon = Daemon::start(NetworkConfig {
            iptables: false,
            ip6tables: false,
            ..config("gt-norules")
        });
        daemon.attach("bridge");
        assert_eq!(run(&["nft", "list", "tables"]), "");
        assert_eq!(
            daemon.networks.check(&[]).unwrap().iter().filter(|one| one.invariant == "I5").count(),
            0
        );
    });
}

#[test]
fn nobody_takes_the_rules_away() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-held"));
        let (container, attachment) = daemon.attach("bridge");
        let table = "gantry-gt-held";
        let list = || run(&["nft", "-a", "list", "table", "inet", table]);
        let before = list();
        run(&["nft", "flush", "ruleset"]);
        assert_eq!(list(), before, "it is not theirs");
        assert_eq!(talk(attachment.netns.as_ref(), ip(&attachment), Some(&internet)), None);
        let daemon = daemon.crash_and_start(config("gt-held"));
        daemon.networks.recover(std::slice::from_ref(&container)).unwrap();
        assert_eq!(daemon.findings(&[container]), Vec::<String>::new());
    });
}
