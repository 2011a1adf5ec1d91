//! `DOCKER-USER`: there before anybody fills it, and never written into.

use std::fs;

use network::NetworkConfig;

use crate::lab::{
    Daemon, INTERNET, UPLINK, config, internet, ip, new_namespace, on_a_host, run, soon, talk,
    within,
};

/// What each iptables says of its whole table.
fn said() -> [String; 2] {
    ["iptables-nft", "ip6tables-nft"].map(|program| run(&[program, "-S"]))
}

/// Waits until the rules of what is forwarded are these.
#[track_caller]
fn becomes(wanted: &[&str]) {
    let rules = || run(&["iptables-nft", "-S", "FORWARD"]);
    let right = || rules().lines().eq(wanted.iter().copied()).then_some(());
    assert!(soon(right).is_some(), "{}", rules());
}

/// Everything but numbers of objects and counts of packets.
fn listed(family: &str) -> String {
    run(&["nft", "--stateless", "list", "table", family, "filter"])
}

#[test]
fn it_is_as_iptables_would_have_made_it() {
    on_a_host(|| {
        let by_iptables = within(&new_namespace(), || {
            for program in ["iptables-nft", "ip6tables-nft"] {
                run(&[program, "-N", "DOCKER-USER"]);
                run(&[program, "-I", "FORWARD", "-j", "DOCKER-USER"]);
            }
            (said(), ["ip", "ip6"].map(listed))
        });
        let _daemon = Daemon::start(config("gt-shape"));
        assert_eq!((said(), ["ip", "ip6"].map(listed)), by_iptables);
    });
}

#[test]
fn only_where_rules_are_ours() {
    on_a_host(|| {
        let tables = || run(&["nft", "list", "tables"]);
        let one = |ipv4| NetworkConfig { iptables: ipv4, ip6tables: !ipv4, ..config("gt-one") };
        let daemon = Daemon::start(NetworkConfig { ip6tables: false, ..one(false) });
        assert_eq!(tables(), "");
        let daemon = daemon.crash_and_start(one(false));
        assert!(!tables().contains("ip filter") && tables().contains("ip6 filter"), "{}", tables());
        // What is in it outlives whoever made it, also one who has no rules.
        run(&["ip6tables-nft", "-I", "DOCKER-USER", "-s", "2001:db8::1", "-j", "DROP"]);
        let before = listed("ip6");
        let daemon = daemon.crash_and_start(NetworkConfig { ip6tables: false, ..one(false) });
        assert_eq!(listed("ip6"), before);
        let _daemon = daemon.crash_and_start(one(true));
        assert_eq!(listed("ip6"), before);
        assert!(tables().contains("ip filter"), "{}", tables());
    });
}

#[test]
fn what_is_refused_there_is_refused() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-user"));
        let (container, attachment) = daemon.attach("bridge");
        let out = || talk(Some(&internet), INTERNET, attachment.netns.as_ref());
        assert_eq!(out(), Some(UPLINK.into()));
        let source = format!("{}/32", ip(&attachment));
        let rule = ["-s", &source, "-j", "DROP"];
        run(&[&["iptables-nft", "-I", "DOCKER-USER"], &rule[..]].concat());
        assert_eq!(out(), None);
        let contents = || run(&["iptables-nft", "-S", "DOCKER-USER"]);
        let before = contents();
        assert_eq!(before, format!("-N DOCKER-USER\n-A DOCKER-USER {}\n", rule.join(" ")));
        daemon.networks.recover(std::slice::from_ref(&container)).unwrap();
        assert_eq!(contents(), before);
        let daemon = daemon.crash_and_start(config("gt-user"));
        daemon.networks.recover(std::slice::from_ref(&container)).unwrap();
        assert_eq!(contents(), before, "nor by the next one");
        assert_eq!(out(), None);
        run(&[&["iptables-nft", "-D", "DOCKER-USER"], &rule[..]].concat());
        assert_eq!(out(), Some(UPLINK.into()));
    });
}

#[test]
fn the_way_into_it_comes_back() {
    on_a_host(|| {
        run(&["iptables-nft", "-A", "FORWARD", "-d", "203.0.113.66/32", "-j", "ACCEPT"]);
        run(&["iptables-nft", "-N", "DOCKER-USER"]);
        run(&["iptables-nft", "-A", "FORWARD", "-j", "DOCKER-USER"]);
        const THEIRS: &str = "-A FORWARD -d 203.0.113.66/32 -j ACCEPT";
        const OURS: &str = "-A FORWARD -j DOCKER-USER";
        let daemon = Daemon::start(config("gt-back"));
        becomes(&["-P FORWARD ACCEPT", OURS, THEIRS]);
        run(&["iptables-nft", "-A", "DOCKER-USER", "-s", "203.0.113.66/32", "-j", "DROP"]);
        let contents = run(&["iptables-nft", "-S", "DOCKER-USER"]);
        run(&["iptables-nft", "-D", "FORWARD", "-j", "DOCKER-USER"]);
        becomes(&["-P FORWARD ACCEPT", OURS, THEIRS]);
        run(&["iptables-nft", "-F", "FORWARD"]);
        becomes(&["-P FORWARD ACCEPT", OURS]);
        assert_eq!(run(&["iptables-nft", "-S", "DOCKER-USER"]), contents, "it is not ours to mend");

        // What somebody puts above it while we live, and what another daemon adds once more.
        run(&["iptables-nft", "-I", "FORWARD", "-d", "203.0.113.66/32", "-j", "ACCEPT"]);
        run(&["iptables-nft", "-A", "FORWARD", "-j", "DOCKER-USER"]);
        becomes(&["-P FORWARD ACCEPT", THEIRS, OURS]);

        run(&["nft", "flush", "ruleset"]);
        becomes(&["-P FORWARD ACCEPT", OURS]);
        assert_eq!(run(&["iptables-nft", "-S", "DOCKER-USER"]), "-N DOCKER-USER\n");
        let whole = || daemon.findings(&[]).is_empty().then_some(());
        assert!(soon(whole).is_some(), "{:?}", daemon.findings(&[]));
    });
}

/// Nobody mends it while no daemon lives, and whoever looks is told.
#[test]
fn what_is_missing_is_found() {
    on_a_host(|| {
        // A chain of that name which is not asked: there is no way to begin.
        run(&["nft", "add table ip filter; add chain ip filter FORWARD"]);
        let daemon = Daemon::start(config("gt-found"));
        assert_eq!(daemon.findings(&[]), Vec::<String>::new(), "it cannot be had");
        assert!(run(&["nft", "list", "chains", "ip"]).contains("FORWARD"));
        assert!(!run(&["nft", "list", "chains", "ip"]).contains("DOCKER-USER"));
        run(&["nft", "delete chain ip filter FORWARD"]);
        becomes(&["-P FORWARD ACCEPT", "-A FORWARD -j DOCKER-USER"]);
    });
}

/// A host of the old iptables has no shadow of its table in the new one.
#[test]
fn not_beside_the_old_iptables() {
    on_a_host(|| {
        let listed = std::process::Command::new("iptables-legacy").arg("-L").output();
        if !listed.is_ok_and(|output| output.status.success()) {
            return println!("skipped: no iptables-legacy here");
        }
        assert!(
            fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap().contains("filter")
        );
        let daemon = Daemon::start(config("gt-old"));
        assert!(run(&["nft", "list", "tables"]).contains("ip filter"), "it was only looked at");
        drop(daemon);
        run(&["nft", "delete", "table", "ip", "filter"]);
        run(&["nft", "delete", "table", "ip6", "filter"]);
        run(&["iptables-legacy", "-A", "FORWARD", "-d", "203.0.113.66/32", "-j", "DROP"]);
        let daemon = Daemon::start(config("gt-old"));
        assert!(!run(&["nft", "list", "tables"]).contains(" filter"));
        assert_eq!(daemon.findings(&[]), Vec::<String>::new());
    });
}
