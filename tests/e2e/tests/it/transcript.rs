//! One afternoon with a web server, said twice: by the docker command and by ours. What they print is the same.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};

use crate::distribution::DistributionRegistry;
use testkit::{House, Netns, Terminal, debian};

const IMAGE: &str = "127.0.0.1:5000/library/nginx:1.22";

/// Who speaks.
#[derive(Clone, Copy)]
enum Client {
    Docker,
    Gantry,
}

/// What was typed and what came back.
struct Session<'a> {
    client: Client,
    house: &'a House,
    netns: &'a Netns,
    text: String,
}

impl Session<'_> {
    fn command(&self, args: &[&str]) -> Command {
        match self.client {
            Client::Docker => self.house.docker(args),
            Client::Gantry => self.house.gantry(args),
        }
    }

    /// Writes down a command and all that it printed; its standard output.
    fn say(&mut self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("the client can be executed");
        self.write_down(args, &output);
        String::from_utf8(output.stdout).expect("clients print UTF-8")
    }

    fn write_down(&mut self, args: &[&str], output: &Output) {
        let Output { status, stdout, stderr } = output;
        let stdout = String::from_utf8_lossy(stdout);
        let stderr = String::from_utf8_lossy(stderr);
        let code = status.code().expect("clients end by themselves");
        self.text += &format!("$ {}\n{stdout}{stderr}[{code}]\n", args.join(" "));
    }
}

/// The text without what no two runs have in common: identifiers of containers, ages, dates, and the order in which
/// layers arrived.
fn normal(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(normal_line).collect();
    // Layers arrive side by side: each one's lines are in order, and nothing more is promised.
    for run in lines.chunk_by_mut(|one, other| layer(one).is_some() && layer(other).is_some()) {
        run.sort_by(|one, other| layer(one).cmp(&layer(other)));
    }
    lines.join("\n")
}

/// Of a line about a layer's progress, which.
fn layer(line: &str) -> Option<&str> {
    line.split_once(": ").map(|(id, _)| id).filter(|id| id.len() == 12 && is_hex(id))
}

fn is_hex(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn normal_line(line: &str) -> String {
    let container = line.len() == 64 && is_hex(line) || line.ends_with(" web");
    let mut words: Vec<&str> = Vec::new();
    for word in line.split(' ') {
        match word {
            id if container && matches!(id.len(), 12 | 64) && is_hex(id) => words.push("ID"),
            date if date.starts_with('[') && date.matches(':').count() == 3 => words.push("[DATE"),
            "second" | "seconds" | "minute" | "minutes" => {
                let number = |last: &&str| {
                    matches!(*last, "About" | "Less" | "a" | "than") || last.parse::<u32>().is_ok()
                };
                while words.pop_if(|last| number(last)).is_some() {}
                words.push("AGE");
            }
            other => words.push(other),
        }
    }
    // Columns are as wide as their widest age.
    match words.contains(&"AGE") || line.starts_with("CONTAINER ID") {
        true => words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "),
        false => words.join(" "),
    }
}

/// The page that the server inside gives.
fn fetch(netns: &Netns) -> String {
    let output = netns
        .command("curl")
        .args(["--silent", "--show-error", "--fail", "--retry", "20", "--retry-connrefused"])
        .args(["--retry-delay", "1", "--user-agent", "a browser", "http://127.0.0.1/"])
        .output()
        .expect("curl is installed");
    assert!(output.status.success(), "{}", testkit::house::shown(&output));
    String::from_utf8(output.stdout).expect("a page in UTF-8")
}

/// Pull, run, visit, look inside, follow the log, stop, remove.
fn afternoon(client: Client) -> String {
    let netns = Netns::new();
    let _registry = DistributionRegistry::start(&netns, None);
    let push = netns
        .command("skopeo")
        .args(["copy", "--quiet", "--format", "v2s2", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:nginx", debian::nginx().display()))
        .arg(format!("docker://{IMAGE}"))
        .output()
        .expect("skopeo is installed");
    assert!(push.status.success(), "{}", testkit::house::shown(&push));

    let house = House::within(&netns);
    let mut session = Session { client, house: &house, netns: &netns, text: String::new() };
    session.say(&["pull", IMAGE]);
    session.say(&["pull", IMAGE]);
    let digest = session.say(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", IMAGE]);
    session.say(&["pull", digest.trim()]);
    session.say(&["pull", "--quiet", IMAGE]);
    session.say(&["images", "--digests"]);
    session.say(&["history", IMAGE]);

    session.say(&["run", "--detach", "--network", "host", "--name", "web", IMAGE]);
    let follow = ["logs", "--follow", "web"];
    let mut logs = session.command(&follow);
    let mut logs = logs.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a client");
    let mut lines = BufReader::new(logs.stdout.take().expect("a pipe"));
    session.text += &fetch(session.netns);
    let mut visit = String::new();
    lines.read_line(&mut visit).expect("a line of the log");
    assert!(visit.contains("\"GET / HTTP/1.1\" 200") && visit.contains("a browser"), "{visit}");

    session.say(&["ps", "--format", "{{.Image}} {{.Command}} {{.Status}} {{.Ports}} {{.Names}}"]);
    session.look_inside();
    session.say(&["stop", "web"]);
    let mut rest = Vec::from(visit);
    lines.read_to_end(&mut rest).expect("the log ends");
    let output = logs.wait_with_output().expect("the client ends when the container has");
    session.write_down(&follow, &Output { stdout: rest, ..output });
    let code = session.say(&["inspect", "--format", "{{.State.ExitCode}}", "web"]);
    assert_eq!(code, "0\n", "{}", session.text);
    session.say(&["ps", "--all"]);
    session.say(&["rm", "web"]);
    session.say(&["rmi", IMAGE]);
    session.say(&["rmi", digest.trim()]);
    session.say(&["images"]);
    normal(&session.text)
}

impl Session<'_> {
    /// A shell with a terminal, whose size follows ours.
    fn look_inside(&mut self) {
        let shell = ["exec", "--interactive", "--tty", "--env", "PS1=> ", "web", "sh"];
        let mut terminal = Terminal::spawn(&self.command(&shell), 24, 80);
        self.text += &format!("$ {}\n", shell.join(" "));
        self.text += &terminal.wait_for("> ");
        for line in ["tty", "stty size", "cat /proc/1/comm", "test -t 2; echo $?"] {
            terminal.type_in(&format!("{line}\n"));
            self.text += &terminal.wait_for("> ");
        }
        terminal.type_in("until [ \"$(stty size)\" = '40 132' ]; do sleep 0.1; done; stty size\n");
        self.text += &terminal.wait_for("\r\n");
        terminal.resize(40, 132);
        self.text += &terminal.wait_for("> ");
        terminal.type_in("exit 3\n");
        let (rest, status) = terminal.end();
        let code = status.code().expect("clients end by themselves");
        self.text += &format!("{rest}[{code}]\n");
    }
}

#[test]
fn both_clients_tell_the_same_story() {
    let docker = afternoon(Client::Docker);
    let gantry = afternoon(Client::Gantry);
    for part in [
        "\nStatus: Downloaded newer image for 127.0.0.1:5000/library/nginx:1.22\n",
        "\nStatus: Image is up to date for 127.0.0.1:5000/library/nginx:1.22\n",
        "\n<h1>Welcome to nginx!</h1>\n",
        "\n> tty\n/dev/pts/0\n> stty size\n24 80\n",
        "; stty size\n40 132\n> exit 3\n[3]\n",
        "\n127.0.0.1 - - [DATE +0000] \"GET / HTTP/1.1\" 200 615 \"-\" \"a browser\"\n",
        "\n$ stop web\nweb\n[0]\n",
        "Exited (0) AGE ago web\n",
        "\nUntagged: 127.0.0.1:5000/library/nginx:1.22\n",
    ] {
        assert!(docker.contains(part), "{part:?} is not in\n{docker}");
    }
    if docker != gantry {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (docker, gantry) = (lines(&docker), lines(&gantry));
        let same = docker.iter().zip(&gantry).take_while(|(one, other)| one == other).count();
        panic!(
            "after these lines:\n{}\ndocker said:\n{}\nand we:\n{}",
            docker[..same].join("\n"),
            docker[same..].join("\n"),
            gantry[same..].join("\n")
        );
    }
}
