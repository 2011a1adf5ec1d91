//! What passes and what does not.

use std::net::Ipv4Addr;

use network::NetworkConfig;

use crate::lab::{
    Daemon, INTERNET, UPLINK, beside, config, internet, ip, on_a_host, run, soon, talk,
};

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
        let rules = "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n-A FORWARD -d 203.0.113.66/32 -j DROP\n-A FORWARD -i gt-drop -m comment --comment \"gantry-gt-drop: out of gt-drop\" -j ACCEPT\n-A FORWARD -o gt-drop -m comment --comment \"gantry-gt-drop: into gt-drop\" -j ACCEPT\n";
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
fn a_policy_that_comes_later() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-later"));
        let (_, attachment) = daemon.attach("bridge");
        run(&["iptables-nft", "-P", "FORWARD", "DROP"]);
        // Until it is heard of, what somebody sends is lost, or refused.
        let out = || soon(|| talk(Some(&internet), INTERNET, attachment.netns.as_ref()));
        assert_eq!(out(), Some(UPLINK.into()));
        run(&["iptables-nft", "-F", "FORWARD"]);
        assert_eq!(out(), Some(UPLINK.into()));
        run(&["iptables-nft", "-P", "FORWARD", "ACCEPT"]);
        run(&["iptables-nft", "-A", "FORWARD", "-j", "REJECT"]);
        assert_eq!(out(), Some(UPLINK.into()), "a rule may stand for a policy");
        let rules = run(&["iptables-nft", "-S", "FORWARD"]);
        assert!(rules.ends_with("-j REJECT --reject-with icmp-port-unreachable\n"), "{rules}");
        // As `ufw default reject routed` has it: a chain that it asks in passing.
        run(&["iptables-nft", "-D", "FORWARD", "-j", "REJECT"]);
        run(&["iptables-nft", "-N", "reject-forward"]);
        run(&["iptables-nft", "-F", "FORWARD"]);
        run(&["iptables-nft", "-A", "FORWARD", "-j", "reject-forward"]);
        run(&["iptables-nft", "-P", "FORWARD", "DROP"]);
        let order = |ours_first: bool| {
            soon(|| {
                let rules = run(&["iptables-nft", "-S", "FORWARD"]);
                let ours = rules.find("gantry-gt-later:")?;
                let theirs = rules.find("reject-forward")?;
                ((ours < theirs) == ours_first).then_some(rules)
            })
        };
        order(false).expect("ours come last");
        run(&["iptables-nft", "-A", "reject-forward", "-j", "REJECT"]);
        let rules = order(true).expect("ours are asked before it");
        assert_eq!(rules.matches("gantry-gt-later:").count(), 2, "{rules}");
        assert_eq!(out(), Some(UPLINK.into()));
        // What its owner refuses in the chain that is his stays refused.
        run(&["iptables-nft", "-A", "DOCKER-USER", "-j", "DROP"]);
        assert_eq!(talk(Some(&internet), INTERNET, attachment.netns.as_ref()), None);
    });
}

#[test]
fn the_host_becomes_no_router() {
    on_a_host(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let near = beside("near", "192.0.2.1/24", "192.0.2.2/24");
        let far = beside("far", "198.51.100.1/24", "198.51.100.2/24");
        let there = Ipv4Addr::new(198, 51, 100, 2);
        let across = || talk(Some(&far), there, Some(&near));
        assert_eq!(across(), None, "it does not forward");
        let daemon = Daemon::start(config("gt-router"));
        let (_, attachment) = daemon.attach("bridge");
        let out = talk(Some(&far), there, attachment.netns.as_ref());
        assert_eq!(out, Some(Ipv4Addr::new(198, 51, 100, 1).into()));
        assert_eq!(across(), None, "nor for others when it forwards for us");
        let daemon = daemon.crash_and_start(config("gt-router"));
        assert_eq!(across(), None);
        let later = beside("later", "203.0.113.1/24", "203.0.113.2/24");
        assert!(talk(Some(&far), there, Some(&later)).is_some(), "what comes later is not ours");
        let wanted = NetworkConfig { ip_forward_no_drop: true, ..config("gt-router") };
        let _daemon = daemon.crash_and_start(wanted);
        assert!(across().is_some());
    });
}

#[test]
fn a_host_that_forwards_goes_on() {
    on_a_host(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let near = beside("near", "192.0.2.1/24", "192.0.2.2/24");
        let far = beside("far", "198.51.100.1/24", "198.51.100.2/24");
        let _daemon = Daemon::start(config("gt-routes"));
        let there = Ipv4Addr::new(198, 51, 100, 2);
        assert!(talk(Some(&far), there, Some(&near)).is_some());
    });
}

#[test]
fn operators_have_the_last_word() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-word"));
        let (_, attachment) = daemon.attach("bridge");
        let out = || talk(Some(&internet), INTERNET, attachment.netns.as_ref());
        let words = "table inet mine { chain forward { type filter hook forward priority filter - 1; \
                     oifname \"uplink\" drop; }; }";
        run(&["nft", words]);
        assert_eq!(out(), None, "what they drop is dropped");
        daemon.networks.recover(&[]).unwrap();
        assert!(run(&["nft", "list", "table", "inet", "mine"]).contains("drop"));
        run(&["nft", "delete", "table", "inet", "mine"]);
        let marked = Some("0x7/0xf".parse().unwrap());
        let daemon =
            daemon.crash_and_start(NetworkConfig { accept_fwmark: marked, ..config("gt-word") });
        let (_, attachment) = daemon.attach("bridge");
        let into = || talk(attachment.netns.as_ref(), ip(&attachment), Some(&internet));
        assert_eq!(into(), None);
        let words = "table inet mine { chain prerouting { type filter hook prerouting priority mangle; \
                     iifname \"uplink\" meta mark set 0x17; }; }";
        run(&["nft", words]);
        assert!(into().is_some(), "what they mark is let in");
    });
}

#[test]
fn without_iptables_no_rules() {
    on_a_host(|| {
        let none = || NetworkConfig { iptables: false, ip6tables: false, ..config("gt-norules") };
        let daemon = Daemon::start(none());
        daemon.attach("bridge");
        assert_eq!(run(&["nft", "list", "tables"]), "");
        // Nor those of a daemon that was to have some; the chain of operators is theirs from then on.
        let daemon = daemon.crash_and_start(config("gt-norules"));
        let tables = || run(&["nft", "list", "tables"]);
        assert!(
            tables().lines().any(|line| line == "table inet gantry-gt-norules"),
            "{}",
            tables()
        );
        let daemon = daemon.crash_and_start(none());
        assert_eq!(tables(), "table ip filter\ntable ip6 filter\n");
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
