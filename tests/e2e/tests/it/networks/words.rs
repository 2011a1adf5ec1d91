//! Every word of the network commands and of `docker port`, and of links: typed at Debian's dockerd and at ours by the docker command,
//! and at ours by our own. What is said is the same, but where a file in `words/` has a reason and what we say instead. A
//! reason that is not needed any more is a failure.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::house::shown;
use testkit::{House, Netns, TestImage};

use crate::peer::{DOCKERD, Peer};

/// One line that is typed. What differs has a reason, and ours is written down.
struct Line<'a> {
    typed: &'a str,
    differs: Option<(&'a str, String)>,
}

/// `$ ` is typed, `# ` is why we say something else, and what follows with two blanks is what we say.
fn lines(script: &str) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for text in script.lines().filter(|text| !text.is_empty()) {
        if let Some(typed) = text.strip_prefix("$ ") {
            lines.push(Line { typed, differs: None });
            continue;
        }
        let line = lines.last_mut().expect("something is typed first");
        match (text.strip_prefix("# "), text.strip_prefix("  ")) {
            (Some(reason), _) => line.differs = Some((reason, String::new())),
            (None, Some(ours)) => {
                let (_, said) = line.differs.as_mut().expect("a reason stands above");
                *said += &format!("{ours}\n");
            }
            (None, None) => panic!("neither typed, nor a reason, nor an answer: {text}"),
        }
    }
    lines
}

/// What one client says of one engine, line by line.
fn say(lines: &[Line<'_>], socket: &Path, client: &Path) -> Vec<String> {
    // Whoever it is, `docker` it is called.
    let bin = tempfile::tempdir().expect("a place for a link");
    symlink(client, bin.path().join("docker")).expect("a link");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.path().display());
    let answer = |line: &Line<'_>| {
        let output = Command::new("sh")
            .args(["-c", line.typed])
            .env("PATH", &path)
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("DOCKER_CONFIG", bin.path())
            // The newest that the docker command knows: ours knows more.
            .env("DOCKER_API_VERSION", if client == House::binary() { "1.50" } else { "" })
            .env_remove("DOCKER_CONTEXT")
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        format!("{}[{}]\n", normal(&shown(&output)), output.status.code().unwrap_or(-1))
    };
    lines.iter().map(answer).collect()
}

/// Without what no two engines have in common: identifiers, dates, MAC addresses, ephemeral ports, the order of fields, and
/// those that only one version of the API has. A pool gives its subnets in an order of its own, and dockerd has a container's
/// links in none.
fn normal(said: &str) -> String {
    if let Ok(document) = serde_json::from_str::<Value>(said) {
        let text = serde_json::to_string_pretty(&plain(document)).expect("it was JSON before");
        return normal_words(&text) + "\n";
    }
    let line = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(document @ Value::Object(_)) => plain(document).to_string(),
        _ => line.trim_end().to_owned(),
    };
    said.lines().map(|text| normal_words(&line(text)) + "\n").collect()
}

fn plain(document: Value) -> Value {
    match document {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(plain).collect();
            let is_link = |item: &Value| item.as_str().is_some_and(|text| text.contains(":/"));
            if items.iter().all(is_link) {
                items.sort_by_key(Value::to_string);
            }
            items.into()
        }
        Value::Object(fields) => {
            let kept = fields
                .into_iter()
                .filter(|(name, _)| !["EnableIPv4", "IPv4"].contains(&name.as_str()));
            let mut fields: Vec<(String, Value)> =
                kept.map(|(name, value)| (name, plain(value))).collect();
            // Containers stand under their identifiers.
            fields.sort_by_key(|(_, value)| value["Name"].to_string());
            let is_id = |name: &str| name.len() == 64 && is_hex(name);
            let named = fields.into_iter().map(|(name, value)| match value["Name"].as_str() {
                Some(container) if is_id(&name) => (container.to_owned(), value),
                _ => (name, value),
            });
            Value::Object(named.collect())
        }
        other => other,
    }
}

fn is_hex(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Words are what letters, digits, dots and colons make.
fn normal_words(text: &str) -> String {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '+');
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.push_str(&normal_word(word));
        let next = after.find(inside).unwrap_or(after.len());
        out.push_str(&after[..next]);
        rest = &after[next..];
    }
    out
}

fn normal_word(word: &str) -> String {
    let date = word.starts_with("20") && word.len() > 18 && word.contains('T');
    // In listings dates are three words more.
    let time = word.len() > 8 && word.matches(':').count() == 2 && word.contains('.');
    let mac = word.len() == 17 && word.matches(':').count() == 5;
    if let Some(rest) = word.strip_prefix("10.")
        && rest
            .split('.')
            .next()
            .and_then(|octet| octet.parse().ok())
            .is_some_and(|at: u8| at >= 128)
    {
        // On the default bridge: an address is free a moment after its container has gone.
        let port = word.rsplit_once(':').map_or(String::new(), |(_, port)| format!(":{port}"));
        return format!("<address>{port}");
    }
    match word.rsplit_once(':') {
        _ if is_hex(word) && matches!(word.len(), 12 | 64) => "<id>".to_owned(),
        _ if date => "<date>".to_owned(),
        _ if word.starts_with("100.") => "<of the pool>".to_owned(),
        _ if time => "<time>".to_owned(),
        _ if mac => "<mac>".to_owned(),
        Some((before, port)) if port.parse::<u16>().is_ok_and(|port| port >= 32768) => {
            format!("{before}:<port>")
        }
        _ => word.to_owned(),
    }
}

#[test]
fn of_the_network_commands() {
    as_docker_says_it(include_str!("words/networks.txt"));
}

#[test]
fn of_links() {
    as_docker_says_it(include_str!("words/links.txt"));
}

pub(crate) fn as_docker_says_it(script: &str) {
    if !Path::new(DOCKERD).exists() {
        return;
    }
    let image = TestImage::busybox().docker_archive(&["busybox:latest"]);
    let (our_net, their_net) = (Netns::new(), Netns::new());
    let house = House::within(&our_net);
    let pool = format!("base={}/24,size=28", house.pool());
    let bip = format!("{}/24", house.gateway());
    let flags = ["--bip", &bip, "--default-address-pool", &pool, "--storage-driver", "vfs"];
    let peer = Peer::within(&their_net, &flags);
    house.load(&image);
    let loaded = peer.client().send("POST", "/images/load?quiet=1", "application/x-tar", &image);
    assert_eq!(loaded.expect("dockerd answers").status, 200);

    let lines = lines(script);
    let docker = Path::new("/usr/local/bin/docker");
    let socket = house.socket();
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| say(&lines, &peer.path("s"), docker));
        let ours = [docker, &House::binary()].map(|client| say(&lines, &socket, client));
        (theirs.join().expect("dockerd was asked"), ours)
    });
    let mut wrong = String::new();
    for (index, line) in lines.iter().enumerate() {
        let expected = match &line.differs {
            Some((reason, ours)) if *ours == theirs[index] => {
                wrong += &format!("$ {}\nthe reason is not needed: {reason}\n", line.typed);
                ours
            }
            Some((_, ours)) => ours,
            None => &theirs[index],
        };
        for (client, ours) in ["docker", "our command"].iter().zip(&ours) {
            if ours[index] != *expected {
                let typed = line.typed;
                wrong += &format!("$ {typed}\nby {client}:\n{}expected:\n{expected}", ours[index]);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
