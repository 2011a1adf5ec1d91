//! What passes and what does not.

use expect_test::expect;
use network::NetworkConfig;

use crate::lab::{Daemon, INTERNET, UPLINK, config, internet, ip, on_a_host, run, talk};

#[test]
fn nft_reads_what_we_render() {
    on_a_host(|| {
        let _daemon = Daemon::start(NetworkConfig::default());
        expect![[r#"
            table inet gantry {
            	set bridges {
            		type ifname
            		elements = { "gantry0" }
            	}

            	set icc {
            		type ifname . ifname
            		elements = { "gantry0" . "gantry0" }
            	}

            	set internal {
            		type ifname
            	}

            	map masquerade {
            		type ipv4_addr : verdict
            		flags interval
            		elements = { 172.17.0.0/16 : jump masquerade-gantry0 }
            	}

            	chain forward {
            		type filter hook forward priority filter; policy accept;
            		oifname @bridges goto inward
            		iifname @internal drop
            	}

            	chain inward {
            		ct state established,related accept
            		iifname . oifname @icc accept
            		drop
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip saddr vmap @masquerade
            	}

            	chain masquerade-gantry0 {
            		oifname != "gantry0" masquerade
            	}
            }
        "#]]
        .assert_eq(&run(&["nft", "list", "table", "inet", "gantry"]));
    });
}

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
        let open = Daemon::start(NetworkConfig { iptables: false, ..config("gt-open") });
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
        let daemon = Daemon::start(NetworkConfig { iptables: false, ..config("gt-norules") });
        daemon.attach("bridge");
        assert_eq!(run(&["nft", "list", "tables"]), "");
        assert_eq!(
            daemon.networks.check(&[]).unwrap().iter().filter(|one| one.invariant == "I5").count(),
            0
        );
    });
}

#[test]
fn changed_rules_are_found_and_mended() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-mend"));
        let table = "gantry-gt-mend";
        let list = || run(&["nft", "-a", "list", "table", "inet", table]);
        let before = list();
        daemon.networks.recover(&[]).unwrap();
        assert_eq!(list(), before, "rules that are right are left alone");

        let problems = |change: &[&str]| {
            run(change);
            let found = daemon.findings(&[]);
            daemon.networks.recover(&[]).unwrap();
            assert_eq!(daemon.findings(&[]), Vec::<String>::new(), "mended");
            found.join("\n")
        };
        expect!["I5 gantry-gt-mend: the rules of chain inward were changed"]
            .assert_eq(&problems(&["nft", "insert", "rule", "inet", table, "inward", "accept"]));
        expect!["I5 gantry-gt-mend: the elements of set bridges were changed"].assert_eq(
            &problems(&["nft", "add", "element", "inet", table, "bridges", "{ \"eth9\" }"]),
        );
        expect!["I5 gantry-gt-mend: chain mine is not ours"]
            .assert_eq(&problems(&["nft", "add", "chain", "inet", table, "mine"]));
        let all = problems(&["nft", "flush", "ruleset"]);
        assert!(
            all.contains("chain forward is missing") && all.contains("set icc is missing"),
            "{all}"
        );
    });
}
