//! A shop of three services on two networks: made by hand with the docker command, and by docker-compose 1.29, which
//! speaks through docker-py. What is said is `shop/transcript.txt`, and Debian's dockerd says the same.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testkit::house::{PATIENCE, shown};
use testkit::{House, Netns, TestImage};

use super::{address, reaches};
use crate::isolation::peer::Peer;
use crate::isolation::stage::on_a_host;

const PROJECT: &str = include_str!("shop/docker-compose.yml");

/// What is typed, line by line. A failure is shown by `no`, not by a program's own number for it.
const TYPED: &str = r#"
docker network create front
docker network create --internal back
docker run -d --name db --network back --network-alias store busybox httpd -f -p 5432 -h /etc
docker run -d --name api --network front --network-alias interface busybox httpd -f -p 8000 -h /etc
docker network connect --alias backend back api
docker run -d --name web --network front -p 18081:80 -p 127.0.0.1:18082:81/udp busybox httpd -f -p 80 -h /etc
docker exec api wget -q -O - http://store:5432/hostname
docker exec db wget -q -O - http://backend:8000/hostname
docker exec web wget -q -O - http://interface:8000/hostname
docker exec web sh -c "wget -T 3 -q -O - http://store:5432/hostname 2>/dev/null || echo no"
docker exec db sh -c "wget -T 3 -q -O - http://web/hostname 2>/dev/null || echo no"
docker exec db sh -c "wget -T 3 -q -O - http://interface:8000/hostname 2>/dev/null || echo no"
docker port web
docker ps --format "{{.Names}} {{.Ports}} {{.Networks}}"
docker network disconnect back api
docker exec db sh -c "wget -T 3 -q -O - http://api:8000/hostname 2>/dev/null || echo no"
docker rm -f web api db
docker network rm front back
docker-compose config --services
docker-compose up -d
until [ -z "$(docker ps -q --filter health=starting)" ]; do :; done
docker-compose ps
docker-compose logs --no-color api
docker-compose logs --no-color --tail 1 db
docker-compose exec -T web wget -q -O - http://api:8000/
docker-compose exec -T api wget -q -O - http://db:5432/rows
docker-compose exec -T api sh -c "wget -T 3 -q -O - http://store:5432/rows 2>/dev/null || echo no"
docker-compose exec -T web sh -c "wget -T 3 -q -O - http://db:5432/rows 2>/dev/null || echo no"
docker-compose exec -T db wget -q -O - http://backend:8000/
docker-compose exec -T -e A=b -w /www web sh -c 'echo $A $PWD; exit 7'
docker-compose port web 80
docker-compose port --index 1 api 8000
docker-compose up -d
docker-compose scale api=3
until [ -z "$(docker ps -q --filter health=starting)" ]; do :; done
docker-compose ps
docker-compose up -d --scale api=1
docker-compose restart db
docker-compose stop web
docker-compose up -d --force-recreate --no-deps web
docker-compose run --rm --no-deps web wget -q -O - http://api:8000/
docker-compose kill web
docker-compose ps -a
docker-compose rm -f -v web
docker-compose up -d
"#;

/// What is left at the end.
const END: &str = r#"
docker-compose down -v
docker ps -aq
docker network ls --format "{{.Name}} {{.Driver}}"
docker volume ls -q
"#;

/// One engine and where the project's file is.
struct Shop<'a> {
    socket: &'a Path,
    dir: &'a Path,
}

impl Shop<'_> {
    fn say(&self, lines: &str) -> String {
        std::fs::write(self.dir.join("docker-compose.yml"), PROJECT).expect("a file");
        let mut text = String::new();
        for line in lines.lines().filter(|line| !line.is_empty()) {
            let output = Command::new("sh")
                .args(["-c", line])
                .current_dir(self.dir)
                .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
                .env("DOCKER_CONFIG", self.dir.join("config"))
                .env("COMPOSE_PROJECT_NAME", "shop")
                .env("COMPOSE_ANSI", "never")
                // As with Docker 26 and later: to recreate a container, this Compose needs what newer versions left out.
                .env("COMPOSE_API_VERSION", "1.41")
                .env("COLUMNS", "160")
                .env_remove("DOCKER_CONTEXT")
                .stdin(Stdio::null())
                .output()
                .expect("a shell");
            let code = output.status.code().expect("clients end by themselves");
            let said = shown(&output);
            write!(text, "$ {line}\n{}[{code}]\n", normal(&said)).expect("text is never full");
        }
        text
    }
}

/// Without what no two engines have in common: identifiers, random ports, and the order of what happens side by side.
fn normal(said: &str) -> String {
    let mut lines: Vec<String> = said.lines().map(normal_line).collect();
    for run in lines.chunk_by_mut(|one, other| is_progress(one) && is_progress(other)) {
        if is_progress(&run[0]) {
            run.sort();
        }
    }
    lines.into_iter().fold(String::new(), |text, line| text + &line + "\n")
}

fn is_progress(line: &str) -> bool {
    line.contains(" ... ")
}

fn normal_line(line: &str) -> String {
    let mut text = String::new();
    for word in line.trim_end().split_inclusive([' ', ',']) {
        let plain = word.trim_end_matches([' ', ',']);
        let hex = plain.bytes().all(|byte| byte.is_ascii_hexdigit());
        match plain.split_once("127.0.0.1:3") {
            _ if hex && matches!(plain.len(), 12 | 64) => {
                text.push_str("<id>");
                text.push_str(&word[plain.len()..]);
            }
            Some((before, after)) if after.len() >= 4 => {
                text.push_str(before);
                text.push_str("127.0.0.1:<port>");
                text.push_str(&after[4..]);
                text.push_str(&word[plain.len()..]);
            }
            _ => text.push_str(word),
        }
    }
    text
}

fn is_installed() -> bool {
    Command::new("docker-compose").arg("version").output().is_ok()
}

#[test]
fn a_shop_on_two_networks() {
    if !is_installed() {
        println!("skipped: needs Debian's docker-compose");
        return;
    }
    let netns = Netns::new();
    let house = House::within(&netns);
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    let dir = tempfile::tempdir().expect("a place for a project");
    let shop = Shop { socket: &house.socket(), dir: dir.path() };
    let mut text = shop.say(TYPED);

    // Not only by name: there is no way.
    let db = address(&house, "shop_db_1", "shop_back", "IPAddress");
    assert!(reaches(&house, "shop_api_1", &db));
    assert!(!reaches(&house, "shop_web_1", &db));
    let mut visit = netns.command("curl");
    visit.args(["--silent", "--retry", "20", "--retry-connrefused", "http://127.0.0.1:18080/"]);
    let end = Instant::now() + PATIENCE;
    // It listens a moment after it has been started.
    while shown(&visit.output().expect("curl")) != "from the web\n" {
        assert!(Instant::now() < end, "nobody answers");
        std::thread::park_timeout(Duration::from_millis(50));
    }

    text += &shop.say(END);
    similar(&text);
}

/// By hand, after a change of what is typed: `cargo nextest run -p e2e --run-ignored all the_same_shop`.
#[test]
#[ignore = "shows that the transcript is Docker's; takes a minute"]
fn the_same_shop_at_docker_20() {
    let program = Path::new("/usr/sbin/dockerd");
    if !program.exists() || !is_installed() {
        println!("skipped: needs Debian's docker.io and docker-compose");
        return;
    }
    on_a_host(|| {
        let peer = Peer::start(program);
        let dir = tempfile::tempdir().expect("a place for a project");
        let shop = Shop { socket: &peer.socket(), dir: dir.path() };
        similar(&(shop.say(TYPED) + &shop.say(END)));
    });
}

#[track_caller]
fn similar(text: &str) {
    // The command takes them in whatever order its map has.
    let text = &*text.replace("front,back", "back,front");
    let expected = include_str!("shop/transcript.txt");
    let differs = text.lines().zip(expected.lines()).position(|(one, other)| one != other);
    let from = differs.unwrap_or(0).saturating_sub(3);
    let around = |text: &str| text.lines().skip(from).take(12).collect::<Vec<_>>().join("\n");
    assert!(text == expected, "said:\n{}\nexpected:\n{}", around(text), around(expected));
}
