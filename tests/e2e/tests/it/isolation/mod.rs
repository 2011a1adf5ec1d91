//! Who reaches whom: one table, asked of a host that has every kind of network at once (N1, N3, N5), and asked without end
//! while others break what they can (N2).

pub(crate) mod peer;
mod probe;
mod reboot;
pub(crate) mod stage;
mod user_chain;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peer::Peer;
use probe::{Question, ask};
use stage::{DEFAULT_BRIDGE, Knows, Stage, here, on_a_host, within};
use testkit::{House, TestImage};

/// Who asks, by what, whom; whether there is an answer here, and with Debian's dockerd 20.10 (`-`: it has no such thing);
/// and why, where the two differ or it is not plain.
const TABLE: &str = "
    # Containers of one network.
    peer       tcp   10.1.0.2:83             yes  yes
    peer       udp   10.1.0.2:83             yes  yes
    peer       icmp  10.1.0.2                yes  yes
    peer       tcp   [fd00:1::2]:83          yes  -
    peer       icmp  fd00:1::2               yes  -
    vault      tcp   10.3.0.3:80             yes  yes
    hermit     tcp   10.7.0.3:80             yes  -
    own        tcp   10.5.0.3:83             yes  -
    shy        tcp   10.4.0.3:80             no   no
    shy        udp   10.4.0.3:80             no   no
    shy        icmp  10.4.0.3                no   no

    # Where containers may not talk, a link opens what the other says that it listens on, and no way back.
    client     tcp   10.0.0.2:80             yes  yes
    client     udp   10.0.0.2:80             no   no
    client     tcp   10.0.0.2:83             no   no
    client     icmp  10.0.0.2                no   no
    shop       tcp   10.0.0.3:80             no   no
    passer     tcp   10.0.0.2:80             no   no
    peer       tcp   10.0.0.2:80             no   no
    client     tcp   198.51.100.2:80         yes  yes

    # Containers on the neighbours' wire: they are neighbours.
    mac        tcp   192.0.2.51:83           yes  yes
    mac        icmp  192.0.2.51              yes  yes
    mac        tcp   [2001:db8:1::51]:83     yes  -
    mac        tcp   192.0.2.2:80            yes  yes
    mac        tcp   192.0.2.1:22            yes  yes
    mac        tcp   192.0.2.1:8080          yes  yes
    mac        tcp   192.0.2.1:8081          no   no
    mac        tcp   192.0.2.1:8090          no   no   there is nobody to publish what is on a wire already
    mac        tcp   10.1.0.2:80             no   yes  as any neighbour
    mac        tcp   10.1.0.2:83             no   no
    mac        tcp   10.3.0.2:80             no   no
    mac        tcp   198.51.100.2:80         no   no
    neighbour  tcp   192.0.2.50:83           yes  yes
    neighbour  udp   192.0.2.50:83           yes  yes
    neighbour  tcp   [2001:db8:1::50]:83     yes  -
    host       tcp   192.0.2.50:83           yes  yes  the wire is behind another device than the shared one
    peer       tcp   192.0.2.50:83           yes  yes
    vault      tcp   192.0.2.50:83           no   no
    monk       tcp   192.0.3.3:83            no   no   private: they see the wire and not each other
    monk       icmp  192.0.3.3               no   no
    monk       tcp   198.51.100.2:80         no   no

    # Containers of different networks.
    peer       tcp   10.2.0.2:80             no   no
    peer       udp   10.2.0.2:80             no   no
    peer       icmp  10.2.0.2                no   no
    db         tcp   10.1.0.2:80             no   no
    db         udp   10.1.0.2:80             no   no
    db         icmp  10.1.0.2                no   no
    peer       tcp   10.3.0.2:80             no   no
    vault      tcp   10.1.0.2:80             no   no
    vault      icmp  10.1.0.2                no   no
    peer       tcp   10.4.0.2:80             no   no
    peer       tcp   10.7.0.2:80             no   -
    hermit     tcp   10.1.0.2:80             no   -
    peer       tcp   10.5.0.2:80             yes  -    published, and routed: its own address is where it is
    peer       tcp   10.5.0.2:83             no   -
    peer       tcp   [fd00:5::2]:80          yes  -
    peer       tcp   [fd00:5::2]:83          no   -
    peer       tcp   10.6.0.2:83             yes  -    nat-unprotected is said aloud

    # Out.
    peer       tcp   198.51.100.2:80         yes  yes
    peer       udp   198.51.100.2:80         yes  yes
    peer       icmp  198.51.100.2            yes  yes
    peer       tcp   [2001:db8:2::2]:80      yes  -
    peer       icmp  2001:db8:2::2           yes  -
    shy        tcp   198.51.100.2:80         yes  yes
    own        tcp   198.51.100.2:80         yes  -
    own        tcp   [2001:db8:2::2]:80      yes  -
    open       tcp   198.51.100.2:80         yes  -
    vault      tcp   198.51.100.2:80         no   no
    vault      udp   198.51.100.2:80         no   no
    vault      icmp  198.51.100.2            no   no
    vault      tcp   192.0.2.2:80            no   no
    hermit     tcp   198.51.100.2:80         no   -
    liar       sent  198.51.100.2:80         no   yes  from an address of another network: we know who lives where

    # To the host itself.
    peer       tcp   10.1.0.1:22             yes  yes
    peer       tcp   10.2.0.1:22             yes  yes  every address of the host is the host
    peer       tcp   192.0.2.1:22            yes  yes
    peer       tcp   [fd00:1::1]:22          yes  -
    vault      tcp   10.3.0.1:22             yes  yes
    vault      tcp   10.1.0.1:22             no   yes  an internal network sees its gateway, and no other address
    vault      tcp   192.0.2.1:22            no   yes
    vault      icmp  192.0.2.1               no   yes
    martian    tcp   127.0.0.1:23            no   no
    martian    udp   127.0.0.1:24            no   no
    martian    tcp   127.0.0.1:8080          no   no
    martian    tcp   127.0.0.1:8081          no   no

    # Published ports, from containers.
    peer       tcp   192.0.2.1:8080          yes  yes
    peer       udp   192.0.2.1:8080          yes  no   its proxy answers from another address than was asked
    peer       tcp   10.1.0.1:8080           yes  yes
    web        tcp   192.0.2.1:8080          yes  yes  to itself
    web        udp   192.0.2.1:8080          yes  no
    peer       tcp   192.0.2.1:8081          no   no
    peer       tcp   10.1.0.1:8081           no   no
    peer       tcp   [2001:db8:1::1]:8080    yes  -
    web        tcp   [2001:db8:1::1]:8080    yes  -
    peer       tcp   [2001:db8:1::1]:8085    no   -
    peer       tcp   [fd00:1::1]:8085        no   -
    db         tcp   192.0.2.1:8080          yes  yes  a published port is published to everybody
    db         tcp   10.1.0.1:8080           yes  yes
    db         tcp   192.0.2.1:8081          no   no
    shy2       tcp   192.0.2.1:8084          yes  yes
    vault      tcp   192.0.2.1:8080          no   no
    vault      tcp   10.3.0.1:8080           no   no

    # From neighbours.
    neighbour  tcp   192.0.2.1:8080          yes  yes
    neighbour  udp   192.0.2.1:8080          yes  yes
    neighbour  tcp   192.0.2.1:8082          yes  yes
    neighbour  tcp   192.0.2.1:8081          no   no
    neighbour  tcp   192.0.2.1:8084          yes  yes
    neighbour  tcp   192.0.2.1:8086          yes  -
    neighbour  tcp   198.51.100.1:8080       yes  yes
    neighbour  tcp   198.51.100.1:8082       no   no
    far        tcp   198.51.100.1:8080       yes  yes
    far        tcp   198.51.100.1:8082       no   no
    far        tcp   192.0.2.1:8082          yes  yes
    neighbour  tcp   [2001:db8:1::1]:8080    yes  -
    neighbour  tcp   [2001:db8:1::1]:8082    yes  -
    neighbour  tcp   [2001:db8:2::1]:8082    no   -
    neighbour  tcp   [2001:db8:1::1]:8085    no   -
    neighbour  tcp   [fd00:1::2]:81          no   -    published on ::1
    neighbour  tcp   10.1.0.2:80             no   yes  20.10 lets whoever knows the way in to published ports
    neighbour  tcp   10.1.0.2:81             no   yes  even of those that are published on 127.0.0.1
    neighbour  tcp   10.1.0.2:82             no   yes
    neighbour  tcp   10.1.0.2:83             no   no
    neighbour  udp   10.1.0.2:80             no   yes
    neighbour  udp   10.1.0.2:83             no   no
    neighbour  icmp  10.1.0.2                no   no
    neighbour  tcp   [fd00:1::2]:80          no   -
    neighbour  tcp   [fd00:1::2]:83          no   -
    neighbour  icmp  fd00:1::2               no   -
    neighbour  tcp   10.2.0.2:80             no   no
    neighbour  tcp   10.3.0.2:80             no   no
    neighbour  icmp  10.3.0.2                no   no
    neighbour  tcp   10.4.0.2:80             no   yes
    neighbour  tcp   10.7.0.2:80             no   -
    neighbour  tcp   10.5.0.2:80             yes  -
    neighbour  tcp   10.5.0.2:83             no   -
    neighbour  udp   10.5.0.2:80             no   -
    neighbour  icmp  10.5.0.2                yes  -
    neighbour  tcp   [fd00:5::2]:80          yes  -
    neighbour  tcp   [fd00:5::2]:83          no   -
    neighbour  icmp  fd00:5::2               yes  -
    neighbour  tcp   10.6.0.2:83             yes  -
    neighbour  icmp  10.6.0.2                yes  -
    rogue      tcp   127.0.0.1:23            no   no
    rogue      udp   127.0.0.1:24            no   no
    rogue      tcp   127.0.0.1:8080          no   yes  20.10 translates before the kernel knows a martian
    rogue      tcp   127.0.0.1:8081          no   yes
    neighbour  tcp   198.51.100.2:80         no   no   the host forwards for its containers, not for its neighbours
    far        icmp  2001:db8:1::2           no   -

    # From the host itself.
    host       tcp   10.1.0.2:83             yes  yes
    host       tcp   127.0.0.1:8080          yes  yes
    host       udp   127.0.0.1:8080          yes  yes
    host       tcp   127.0.0.1:8081          yes  yes
    host       tcp   127.0.0.1:8082          no   no
    host       tcp   192.0.2.1:8080          yes  yes
    host       tcp   192.0.2.1:8082          yes  yes
    host       tcp   192.0.2.1:8081          no   no
    host       tcp   [2001:db8:1::1]:8082    yes  -
    host       tcp   [::1]:8085              yes  -
    host       tcp   [2001:db8:1::1]:8085    no   -
    host       tcp   127.0.0.1:8084          yes  yes
    host       tcp   10.5.0.2:83             yes  -
";

#[derive(Clone, Debug)]
struct Row {
    text: &'static str,
    who: &'static str,
    question: Question,
    /// An address that the one who asks gave itself.
    from: Option<IpAddr>,
    ours: bool,
    theirs: Option<bool>,
}

impl Row {
    /// Rows of which many a second are asked: where an answer comes soon or never, and nothing answers for another.
    fn samples(&self) -> bool {
        !matches!(self.question, Question::Icmp(_))
    }
}

fn rows() -> Vec<Row> {
    let lines =
        TABLE.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(row).collect()
}

fn row(text: &'static str) -> Row {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [who, how, whom, ours, theirs, ..] = words[..] else { panic!("half a row: {text}") };
    let question = match how {
        "tcp" => Question::Tcp(whom.parse().unwrap()),
        "udp" => Question::Udp(whom.parse().unwrap()),
        "sent" => Question::Sent(whom.parse().unwrap()),
        "icmp" => Question::Icmp(whom.parse().unwrap()),
        other => panic!("{other}: {text}"),
    };
    let answer = |word: &str| match word {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    let from = (who == "liar").then(|| [10, 2, 0, 77].into());
    Row { text, who, question, from, ours: answer(ours).unwrap(), theirs: answer(theirs) }
}

/// An answer that should come is waited for, one that should not comes soon or never.
const ANSWER: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(1500);
const SAMPLE: Duration = Duration::from_millis(20);

/// Asks all at once; tells which answers are not as expected.
fn surprises(stage: &Stage, rows: &[(Row, bool)]) -> Vec<String> {
    let own = here();
    std::thread::scope(|scope| {
        let asked: Vec<_> = rows
            .iter()
            .map(|(row, expected)| {
                let place = stage.places.get(row.who).unwrap_or(&own);
                let patience = if *expected { ANSWER } else { SILENCE };
                scope.spawn(move || within(place, || ask(row.question, row.from, patience)))
            })
            .collect();
        rows.iter()
            .zip(asked)
            .filter_map(|((row, expected), asked)| {
                let found = asked.join().unwrap();
                (found != *expected).then(|| format!("{} (found: {found})", row.text))
            })
            .collect()
    })
}

fn ours() -> Vec<(Row, bool)> {
    rows().into_iter().map(|row| (row.clone(), row.ours)).collect()
}

fn busybox() -> Vec<u8> {
    TestImage::busybox().docker_archive(&["busybox:latest"])
}

#[test]
fn who_reaches_whom() {
    on_a_host(|| {
        let mut stage = Stage::around();
        let house = House::with(&DEFAULT_BRIDGE);
        house.load(&busybox());
        stage.populate(Knows::Everything, |words| house.ok(words));
        assert_eq!(surprises(&stage, &ours()), Vec::<String>::new());
    });
}

/// What others do to the firewall while we look, and to the switch that makes a host a router.
fn vandalise(table: &str) {
    for state in ["0", "1"] {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", state).unwrap();
    }
    for words in ["flush ruleset".to_owned(), format!("delete table inet {table}")] {
        // Refused, where the table is held.
        let _refused = Command::new("nft").arg(words).output();
    }
    for words in [["-F"], ["-X"]] {
        let _refused = Command::new("iptables-nft").args(words).output();
    }
}

#[test]
fn nothing_opens() {
    on_a_host(|| {
        let mut stage = Stage::around();
        let mut house = House::with(&DEFAULT_BRIDGE);
        house.load(&busybox());
        stage.populate(Knows::Everything, |words| house.ok(words));
        let table = format!("gantry-{}", house.bridge());
        let own = here();
        let stop = AtomicBool::new(false);
        let opened = Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            for (row, _) in ours().into_iter().filter(|(row, open)| !open && row.samples()) {
                let place = stage.places.get(row.who).unwrap_or(&own);
                let (stop, opened) = (&stop, &opened);
                scope.spawn(move || {
                    within(place, || {
                        while !stop.load(Ordering::Relaxed) {
                            if ask(row.question, row.from, SAMPLE) {
                                opened.lock().unwrap().insert(row.text);
                            }
                        }
                    });
                });
            }
            let vandals = |times: u32| {
                let (never, pause) = std::sync::mpsc::channel::<()>();
                for _ in 0..times {
                    vandalise(&table);
                    let _time = pause.recv_timeout(Duration::from_millis(100));
                }
                drop(never);
            };
            vandals(20);
            house.kill();
            vandals(10);
            house.start();
            vandals(5);
            house.stop();
            vandals(5);
            house.start();
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(opened.into_inner().unwrap(), BTreeSet::new());
        assert_eq!(surprises(&stage, &ours()), Vec::<String>::new());
    });
}

/// The same of Debian's dockerd, so that the table's last column is not hearsay.
#[test]
fn what_docker_20_does() {
    let Some(program) = ["/usr/sbin/dockerd"].map(Path::new).into_iter().find(|file| file.exists())
    else {
        println!("skipped: needs Debian's docker.io");
        return;
    };
    on_a_host(|| {
        let mut stage = Stage::around();
        let peer = Peer::start(program);
        stage.populate(Knows::What20Knew, |words| peer.ok(words));
        let known = |row: Row| row.theirs.map(|theirs| (row, theirs));
        let rows: Vec<_> = rows().into_iter().filter_map(known).collect();
        assert_eq!(surprises(&stage, &rows), Vec::<String>::new());
        let laxer = rows.iter().filter(|(row, theirs)| row.ours && !theirs);
        let laxer: Vec<&str> = laxer.map(|(row, _)| row.text).collect();
        assert_eq!(laxer.len(), 2, "where more is reached than with Docker 20.10: {laxer:?}");
    });
}
