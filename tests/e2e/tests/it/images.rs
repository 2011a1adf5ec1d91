//! Images, as people and scripts handle them: every test is passed by the docker command and by ours.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use oci::Platform;
use serde_json::json;
use testkit::house::shown;
use testkit::images::{Compression, Style, push_index};
use testkit::{House, Registry, TestImage};

/// One of the two clients, and a daemon that nobody else has spoken to.
struct Client {
    house: House,
    ours: bool,
}

impl Client {
    fn command(&self, args: &[&str]) -> Command {
        match self.ours {
            true => self.house.gantry(args),
            false => self.house.docker(args),
        }
    }

    /// All that a command printed, and its exit code unless that is 0.
    fn say(&self, args: &[&str]) -> String {
        self.finish(self.command(args))
    }

    /// The same with something to read.
    fn give(&self, args: &[&str], input: &[u8]) -> String {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(input).expect("a file takes bytes");
        std::io::Seek::rewind(&mut file).expect("a file can be read again");
        let mut command = self.command(args);
        command.stdin(file);
        self.finish(command)
    }

    fn finish(&self, mut command: Command) -> String {
        let output = command.output().expect("the client can be executed");
        let code = output.status.code().expect("clients end by themselves");
        let code = if code == 0 { String::new() } else { format!("[{code}]") };
        shown(&output) + &code
    }

    /// What a client prints while layers arrive, each one's lines together.
    fn pull(&self, args: &[&str]) -> String {
        let said = self.say(&[&["pull"], args].concat());
        let mut lines: Vec<&str> = said.lines().collect();
        let layer =
            |line: &&str| line.find(": ").filter(|at| *at == 12).map(|at| line[..at].to_owned());
        lines.sort_by_key(|line| {
            (!line.contains("Pulling from"), layer(line).is_none(), layer(line))
        });
        lines.join("\n")
    }

    fn ids(&self, args: &[&str]) -> Vec<String> {
        let said = self.say(&[&["images", "--quiet", "--no-trunc"], args].concat());
        said.lines().map(str::to_owned).collect()
    }
}

/// Passes a test with both clients. The daemons start without any image.
fn both(test: impl Fn(&Client)) {
    for ours in [false, true] {
        let client = Client { house: House::new(), ours };
        client.house.api("DELETE", "/images/hello-world", None);
        test(&client);
    }
}

/// The short digests of an image's layers as a registry has them.
fn blobs(image: &TestImage) -> Vec<String> {
    let packed = image.layers.iter().map(|layer| Compression::Gzip.apply(layer));
    packed.map(|blob| oci::Digest::of(&blob).short().to_owned()).collect()
}

fn fresh(layer: &str) -> Vec<String> {
    ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"]
        .map(|step| format!("{layer}: {step}"))
        .to_vec()
}

#[test]
fn pulls_are_told_as_docker_tells_them() {
    let registry = Registry::start();
    let (one, two) = (TestImage::small("one"), TestImage::small("two"));
    let first = one.push(&registry, "some/thing", "1");
    let second = two.push(&registry, "some/thing", "latest");
    let name = registry.reference("some/thing");
    both(|client| {
        let tagged = format!("{name}:1");
        let mut layers: Vec<Vec<String>> = blobs(&one).iter().map(|blob| fresh(blob)).collect();
        layers.sort();
        let expected = format!(
            "1: Pulling from some/thing\n{}\nDigest: {first}\nStatus: Downloaded newer image for {tagged}\n{tagged}",
            layers.concat().join("\n")
        );
        assert_eq!(client.pull(&[&tagged]), expected);
        let again = format!(
            "1: Pulling from some/thing\nDigest: {first}\nStatus: Image is up to date for {tagged}\n{tagged}"
        );
        assert_eq!(client.pull(&[&tagged]), again);
        assert_eq!(client.pull(&["--quiet", &tagged]), tagged);

        // `latest` where nothing is said; of two layers one is known.
        let (base, top) = (&blobs(&two)[0], &blobs(&two)[1]);
        let said = client.pull(&[&name]);
        for line in [
            "Using default tag: latest",
            "latest: Pulling from some/thing",
            &format!("{base}: Already exists"),
        ] {
            assert!(said.lines().any(|said| said == line), "{line:?} is not in\n{said}");
        }
        assert!(said.contains(&fresh(top).join("\n")), "{said}");
        assert!(
            said.ends_with(&format!("Downloaded newer image for {name}:latest\n{name}:latest")),
            "{said}"
        );

        let exact = format!("{name}@{first}");
        assert_eq!(
            client.pull(&[&exact]),
            format!(
                "{exact}: Pulling from some/thing\nDigest: {first}\nStatus: Image is up to date for {exact}\n{exact}"
            )
        );
        assert_eq!(
            client.say(&["pull", "--all-tags", &name]),
            format!(
                "1: Pulling from some/thing\nDigest: {first}\nlatest: Pulling from some/thing\nDigest: {second}\nStatus: Image is up to date for {name}\n{name}\n"
            )
        );
    });
}

#[test]
fn pulls_that_find_nothing() {
    let registry = Registry::start();
    TestImage::small("one").push(&registry, "x", "1");
    let at = registry.address();
    both(|client| {
        let refused = |args: &[&str], words: &str| {
            let said = client.say(&[&["pull"], args].concat());
            assert_eq!(said, format!("{words}\n[1]"), "{args:?}");
        };
        refused(
            &[&format!("{at}/x:2")],
            &format!(
                "Error response from daemon: manifest for {at}/x:2 not found: manifest unknown: manifest unknown"
            ),
        );
        refused(
            &[&format!("{at}/y:1")],
            &format!(
                "Error response from daemon: repository {at}/y not found: name unknown: repository name not known to registry"
            ),
        );
        let digest = format!("sha256:{}", "0".repeat(64));
        refused(
            &["-q", &format!("{at}/x@{digest}")],
            &format!(
                "Error response from daemon: manifest for {at}/x@{digest} not found: manifest unknown: manifest unknown"
            ),
        );
        refused(
            &["-a", &format!("{at}/y")],
            &format!(
                "Error response from daemon: repository {at}/y not found: name unknown: repository name not known to registry"
            ),
        );
        refused(
            &["127.0.0.1:1/x:1"],
            "Error response from daemon: Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
        );
        refused(&["-a", "x:1"], "tag can't be used with --all-tags/-a");
        refused(
            &["BAD"],
            "invalid reference format: repository name (library/BAD) must be lowercase",
        );
        assert_eq!(client.ids(&[]), Vec::<String>::new());
    });
}

#[test]
fn pulls_for_a_platform() {
    let registry = Registry::start();
    let of = |platform: &str| -> (Platform, TestImage) {
        let platform: Platform = platform.parse().expect("a platform");
        let layer = TestImage::small(&platform.to_string()).layers;
        let image = TestImage::for_platform(layer, &json!({ "Cmd": ["/x"] }), &platform);
        (platform, image)
    };
    let foreign =
        if Platform::host().architecture == "s390x" { "linux/ppc64le" } else { "linux/s390x" };
    let (elsewhere, other) = of(foreign);
    let (here, host) = (Platform::host(), TestImage::small("host"));
    let packed = [
        (elsewhere.clone(), other.pack(Style::Docker, Compression::Gzip)),
        (here, host.pack(Style::Oci, Compression::Zstd)),
    ];
    let digest = push_index(&registry, "multi", "1", &packed);
    let name = registry.reference("multi:1");
    push_index(&registry, "multi", "foreign", &packed[..1]);
    both(|client| {
        let said = client.pull(&[&name]);
        assert!(said.contains(&format!("\nDigest: {digest}\n")), "{said}");
        assert_eq!(client.ids(&[]), [host.id().to_string()]);
        let said = client.pull(&["--platform", foreign, &name]);
        assert!(
            said.ends_with(&format!("Status: Downloaded newer image for {name}\n{name}")),
            "{said}"
        );
        let architecture = ["image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", &name];
        assert_eq!(client.say(&architecture), format!("{foreign}\n"));
        let missing = registry.reference("multi:foreign");
        let words = format!(
            "no matching manifest for {} in the manifest list entries\n[1]",
            Platform::host()
        );
        assert_eq!(
            client.say(&["pull", &missing]),
            format!("foreign: Pulling from multi\n{words}")
        );
        assert_eq!(client.say(&["pull", "-q", &missing]), words);
        let said = client.say(&["pull", "--platform", "a/b/c/d", &name]);
        assert!(said.ends_with("[1]") && said.contains("a/b/c/d"), "{said}");
    });
}

#[test]
fn lists_and_their_filters() {
    let (one, two) = (TestImage::small("one"), TestImage::small("two"));
    let registry = Registry::start();
    let digest = one.push(&registry, "r", "1");
    both(|client| {
        client.house.load(&one.docker_archive(&["one:1", "one:2"]));
        client.house.load(&two.docker_archive(&["two:latest"]));
        client.house.load(&TestImage::small("three").docker_archive(&[]));
        let name = registry.reference("r:1");
        client.say(&["pull", "-q", &name]);
        let listed = |args: &[&str]| {
            let format = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
            let said = client.say(&[&format, args].concat());
            let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
            lines.sort();
            lines.join(" ")
        };
        assert_eq!(listed(&[]), format!("{name} <none>:<none> one:1 one:2 two:latest"));
        assert_eq!(listed(&["one"]), "one:1 one:2");
        assert_eq!(listed(&["one:2"]), "one:2");
        assert_eq!(listed(&["-f", "reference=*:1"]), "one:1");
        assert_eq!(listed(&["-f", "reference=*:1", "-f", "reference=two"]), "one:1 two:latest");
        assert_eq!(listed(&["-f", "dangling=true"]), "<none>:<none>");
        assert_eq!(listed(&["-f", "dangling=false"]), format!("{name} one:1 one:2 two:latest"));
        assert_eq!(listed(&["-f", "label=seed=two"]), "two:latest");
        assert_eq!(listed(&["-f", "label=seed", "two"]), "two:latest");
        // Before that moment, and not at it.
        let created = client.say(&["inspect", "-f", "{{.Created}}", "two"]);
        assert_eq!(listed(&["-f", &format!("until={}", created.trim()), "two"]), "");
        assert_eq!(listed(&["-f", "until=1s", "two"]), "two:latest");
        assert_eq!(listed(&["-f", "label=nothing"]), "");
        // All were created at the same moment, and it is not before itself.
        assert_eq!(listed(&["-f", "before=two"]), "");
        assert_eq!(listed(&["-f", "since=two"]), "");
        client.give(&["import", "-", "newer"], &one.layers[0]);
        assert_eq!(listed(&["-f", "since=two"]), "newer:latest");
        assert_eq!(listed(&["-f", "before=newer", "-f", "label=seed=two"]), "two:latest");
        assert_eq!(listed(&["-f", "before=newer", "-f", "since=two"]), "");
        client.say(&["rmi", "newer"]);
        assert_eq!(
            client.say(&["images", "-f", "since=nope"]),
            "Error response from daemon: No such image: nope:latest\n[1]"
        );
        assert_eq!(
            client.say(&["images", "-f", "bogus=1"]),
            "Error response from daemon: invalid filter 'bogus'\n[1]"
        );
        let id = two.id();
        assert_eq!(client.say(&["images", "-q", "two"]), format!("{}\n", id.short()));
        assert_eq!(client.ids(&["two"]), [id.to_string()]);
        let short = id.short();
        let lines = |args: &[&str]| {
            let said = client.say(&[&["images"], args].concat());
            let squeezed =
                said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            squeezed.collect::<Vec<_>>()
        };
        let age = lines(&["--format", "{{.CreatedSince}}", "two"]).join("");
        assert_eq!(
            lines(&["two"]),
            [
                "REPOSITORY TAG IMAGE ID CREATED SIZE".to_owned(),
                format!("two latest {short} {age} 8B")
            ]
        );
        assert_eq!(
            lines(&["--digests", &registry.reference("r")])[1],
            format!("{} 1 {digest} {} {age} 8B", registry.reference("r"), one.id().short())
        );
        assert_eq!(
            client.say(&["images", "--format", "json", "two"]),
            format!(
                "{{\"Containers\":\"N/A\",\"CreatedAt\":\"2024-01-02 03:04:05 +0000 UTC\",\"CreatedSince\":\"{age}\",\"Digest\":\"\\u003cnone\\u003e\",\"ID\":\"{short}\",\"Repository\":\"two\",\"SharedSize\":\"N/A\",\"Size\":\"8B\",\"Tag\":\"latest\",\"UniqueSize\":\"N/A\",\"VirtualSize\":\"8B\"}}\n"
            )
        );
    });
}

#[test]
fn names_come_and_go() {
    let (one, two) = (TestImage::small("one"), TestImage::small("two"));
    let deleted = |image: &TestImage, layers: usize| {
        let mut lines = format!("Deleted: {}\n", image.id());
        let chain = chain(image);
        for id in chain.iter().rev().take(layers) {
            lines += &format!("Deleted: {id}\n");
        }
        lines
    };
    both(|client| {
        client.house.load(&one.docker_archive(&["one:1"]));
        client.house.load(&two.docker_archive(&["two:1"]));
        assert_eq!(client.say(&["tag", "one:1", "other"]), "");
        assert_eq!(client.say(&["tag", one.id().short(), "third:3"]), "");
        assert_eq!(
            client.say(&["tag", "nope", "x"]),
            "Error response from daemon: No such image: nope:latest\n[1]"
        );
        let said = client.say(&["tag", "one:1", "BAD"]);
        assert!(
            said.contains("\"BAD\" is not a valid repository/tag: invalid reference format")
                && said.ends_with("[1]"),
            "{said}"
        );
        assert_eq!(client.say(&["rmi", "other"]), "Untagged: other:latest\n");
        assert_eq!(
            client.say(&["rmi", "nope"]),
            "Error response from daemon: No such image: nope:latest\n[1]"
        );
        assert_eq!(
            client.say(&["rmi", "-f", "nope"]),
            "Error response from daemon: No such image: nope:latest\n"
        );
        let said = client.say(&["rmi", one.id().short()]);
        assert_eq!(
            said,
            format!(
                "Error response from daemon: conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories\n[1]",
                one.id().short()
            )
        );

        let container = client.say(&["create", "--name", "ca", "one:1"]);
        let container = &container[..12];
        let in_use = |name: &str| {
            format!(
                "Error response from daemon: conflict: unable to remove repository reference \"{name}\" (must force) - container {container} is using its referenced image {}\n[1]",
                one.id().short()
            )
        };
        // Another name keeps it.
        assert_eq!(client.say(&["rmi", "third:3"]), "Untagged: third:3\n");
        assert_eq!(client.say(&["rmi", "one:1"]), in_use("one:1"));
        assert_eq!(
            client.say(&["rmi", "-f", "one:1"]),
            format!("Untagged: one:1\nDeleted: {}\n", one.id())
        );
        assert_eq!(client.say(&["rm", "ca"]), "ca\n");
        // A layer that another image stands on stays.
        assert_eq!(client.say(&["rmi", "two:1"]), format!("Untagged: two:1\n{}", deleted(&two, 2)));
        assert_eq!(client.ids(&["-a"]), Vec::<String>::new());

        client.house.load(&one.docker_archive(&["one:1", "one:2"]));
        client.house.load(&two.docker_archive(&["two:1"]));
        assert_eq!(
            client.say(&["image", "rm", "two:1", "nope"]),
            format!(
                "Untagged: two:1\n{}Error response from daemon: No such image: nope:latest\n[1]",
                deleted(&two, 1)
            )
        );
        let said = client.say(&["rmi", "-f", one.id().short()]);
        assert_eq!(said, format!("Untagged: one:1\nUntagged: one:2\n{}", deleted(&one, 2)));
    });
}

/// The names of an image's layers with what is below them.
fn chain(image: &TestImage) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff in image.diff_ids() {
        chain.push(match chain.last() {
            None => diff.to_string(),
            Some(below) => oci::Digest::of(format!("{below} {diff}").as_bytes()).to_string(),
        });
    }
    chain
}

#[test]
fn saved_and_loaded() {
    let (one, two) = (TestImage::small("one"), TestImage::small("two"));
    both(|client| {
        client.house.load(&one.docker_archive(&["one:1", "one:2"]));
        client.house.load(&two.docker_archive(&["two:latest"]));
        let file = client.house.path("all.tar");
        let path = file.to_str().expect("a path in UTF-8");
        assert_eq!(client.say(&["save", "-o", path, "one:1", "one:2", "two"]), "");
        // A configuration is as old as its image.
        let created = client.say(&["inspect", "-f", "{{.Created}}", "one:1"]);
        let config = format!("blobs/sha256/{}", one.id().hex());
        let listed = Command::new("tar")
            .args(["--utc", "--full-time", "-tvf", path, &config])
            .output()
            .expect("tar");
        let second = created[..19].replace('T', " ");
        assert!(shown(&listed).contains(&second), "{} {created}", shown(&listed));
        for name in ["one:1", "one:2", "two:latest"] {
            let seen = skopeo(&["inspect", "--config", &format!("docker-archive:{path}:{name}")]);
            assert!(seen.contains("\"seed\":"), "{seen}");
        }
        let saved = client.command(&["save", one.id().short()]).output().expect("a client");
        assert!(saved.status.success(), "{}", shown(&saved));
        let layout = client.house.path("layout");
        std::fs::create_dir(&layout).expect("a directory");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&layout).arg("-x").stdin(Stdio::piped());
        let mut tar = tar.spawn().expect("tar");
        tar.stdin.take().expect("a pipe").write_all(&saved.stdout).expect("tar reads");
        assert!(tar.wait().expect("tar ends").success());
        let seen = skopeo(&["inspect", "--config", &format!("oci:{}", layout.display())]);
        assert!(seen.contains("\"seed\": \"one\""), "{seen}");
        assert_eq!(
            client.say(&["save", "-o", "/nowhere/x", "two"]),
            "failed to save image: invalid output path: stat /nowhere: no such file or directory\n[1]"
        );
        let said = client.say(&["save", "-o", path, "nope"]);
        assert!(
            said.starts_with("Error response from daemon: No such image: nope")
                && said.ends_with("[1]"),
            "{said}"
        );

        client.say(&["rmi", "one:1", "one:2", "two"]);
        assert_eq!(client.ids(&["-a"]), Vec::<String>::new());
        assert_eq!(
            client.say(&["load", "-i", path]),
            "Loaded image: one:1\nLoaded image: one:2\nLoaded image: two:latest\n"
        );
        assert_eq!(client.ids(&["one:2"]), [one.id().to_string()]);
        client.say(&["rmi", "one:1", "one:2", "two"]);
        let mut archive = Vec::new();
        File::open(&file).expect("it was saved").read_to_end(&mut archive).expect("it can be read");
        assert_eq!(
            client.give(&["load", "-q"], &archive),
            "Loaded image: one:1\nLoaded image: one:2\nLoaded image: two:latest\n"
        );
        client.say(&["rmi", "one:1", "one:2", "two"]);
        let by_id = format!("Loaded image ID: {}\n", one.id());
        assert_eq!(client.give(&["load"], &saved.stdout), by_id);
        assert_eq!(client.say(&["rmi", one.id().short()]).lines().count(), 3);

        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let packed = compression.apply(&two.oci_archive(Some("named:1"), compression));
            assert_eq!(client.give(&["load"], &packed), "Loaded image: named:1\n");
            assert_eq!(client.ids(&["named:1"]), [two.id().to_string()]);
            client.say(&["rmi", "named:1"]);
        }
        assert_eq!(
            client.say(&["load", "-i", "/nowhere/x"]),
            "open /nowhere/x: no such file or directory\n[1]"
        );
        // More than any buffer between them holds: the refusal must not be lost while the client still sends.
        let noise = vec![b'x'; 8 << 20];
        assert_eq!(client.give(&["load"], &noise), "archive/tar: invalid tar header\n[1]");
    });
}

fn skopeo(args: &[&str]) -> String {
    let output = Command::new("skopeo").args(args).output().expect("skopeo is installed");
    assert!(output.status.success(), "{}", shown(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn imported() {
    let busybox = TestImage::busybox();
    let tree = &busybox.layers[0];
    both(|client| {
        let said = client.give(&["import", "-", "from:stdin"], tree);
        assert_eq!(client.ids(&["from:stdin"]).join("") + "\n", said);
        let file = client.house.path("tree.tar.gz");
        std::fs::write(&file, Compression::Gzip.apply(tree)).expect("a file");
        let path = file.to_str().expect("a path in UTF-8");
        let changes = [
            "-c",
            "CMD [\"echo\", \"hi\"]",
            "-c",
            "ENV A=b",
            "-c",
            "LABEL k=v",
            "-c",
            "EXPOSE 80/tcp",
        ];
        let id = client
            .say(&[&["import", "-m", "by hand"], &changes[..], &[path, "from:file"]].concat());
        assert_eq!(client.ids(&["from:file"]).join("") + "\n", id);
        let inspect = |format: &str| client.say(&["image", "inspect", "-f", format, "from:file"]);
        assert_eq!(
            inspect(
                "{{json .Config.Cmd}} {{json .Config.Env}} {{json .Config.Labels}} {{json .Config.ExposedPorts}}"
            ),
            "[\"echo\",\"hi\"] [\"A=b\"] {\"k\":\"v\"} {\"80/tcp\":{}}\n"
        );
        assert_eq!(
            inspect("{{.Comment}} {{.Os}}/{{.Architecture}}"),
            format!("by hand linux/{}\n", Platform::host().architecture)
        );
        assert_eq!(inspect("{{index .RootFS.Layers 0}}"), format!("{}\n", busybox.diff_ids()[0]));
        assert_eq!(client.say(&["run", "--rm", "--network", "none", "from:file"]), "hi\n");
        assert_eq!(
            client.say(&[
                "history",
                "--format",
                "{{.ID}}|{{.CreatedBy}}|{{.Comment}}",
                "--no-trunc",
                "from:file"
            ]),
            format!("{}||by hand\n", id.trim())
        );
        let refused = |args: &[&str], words: &str| {
            assert_eq!(
                client.say(&[&["import"], args].concat()),
                format!("{words}\n[1]"),
                "{args:?}"
            );
        };
        // The file is larger than what fits between client and daemon.
        refused(
            &["-c", "RUN x", path, "bad:1"],
            "Error response from daemon: run is not a valid change command",
        );
        let digest = format!("x@{}", busybox.id());
        refused(&[path, &digest], "Error response from daemon: cannot import digest reference");
        refused(&["/nowhere/x"], "open /nowhere/x: no such file or directory");
        assert_eq!(client.give(&["import", "-"], b"no archive at all").lines().last(), Some("[1]"));
    });
}

#[test]
fn past_and_insides() {
    let one = TestImage::small("one");
    both(|client| {
        client.house.load(&one.docker_archive(&["one:1"]));
        let (id, short) = (one.id(), one.id().short().to_owned());
        assert_eq!(
            client.say(&["history", "-H=false", "one:1"]),
            format!(
                "IMAGE          CREATED AT             CREATED BY                      SIZE      COMMENT\n\
                 {short}   2024-01-02T03:04:05Z   /bin/sh -c #(nop) ADD 1 in /    3         \n\
                 <missing>      2024-01-02T03:04:05Z   /bin/sh -c #(nop) ADD 0 in /    5         \n"
            )
        );
        assert_eq!(client.say(&["history", "-q", "one:1"]), format!("{short}\n<missing>\n"));
        assert_eq!(
            client.say(&["image", "history", "-q", "--no-trunc", "one:1"]),
            format!("{id}\n<missing>\n")
        );
        assert_eq!(
            client.say(&["history", "nope"]),
            "Error response from daemon: No such image: nope:latest\n[1]"
        );
        let inspect = |format: &str| client.say(&["image", "inspect", "-f", format, "one:1"]);
        assert_eq!(
            inspect("{{.Id}} {{.RepoTags}} {{.Created}} {{.Size}}"),
            format!("{id} [one:1] 2024-01-02T03:04:05.678Z 8\n")
        );
        assert_eq!(
            inspect("{{json .RootFS}}"),
            format!("{{\"Type\":\"layers\",\"Layers\":{}}}\n", json!(one.diff_ids()))
        );
        assert_eq!(
            inspect("{{json .Config.Labels}} {{.Config.Cmd}}"),
            "{\"seed\":\"one\"} [/none]\n"
        );
        assert_eq!(
            inspect("{{.Os}}|{{.Parent}}|{{.Comment}}|{{.Config.Entrypoint}}|{{.Config.User}}|"),
            "linux|||[]||\n"
        );
        let whole: serde_json::Value =
            serde_json::from_str(&client.say(&["image", "inspect", "one:1", &short]))
                .expect("JSON");
        assert_eq!((&whole[0]["Id"], &whole[1]["Id"]), (&json!(id), &json!(id)));
        assert_eq!(
            client.say(&["image", "inspect", "nope"]),
            "[]\nError response from daemon: No such image: nope:latest\n[1]"
        );
        assert_eq!(client.say(&["inspect", "nope"]), "[]\nError: No such object: nope\n[1]");
    });
}

#[test]
fn pruned() {
    let names = ["kept", "used", "dangling", "other"];
    let [kept, used, dangling, other] = names.map(TestImage::small);
    both(|client| {
        client.house.load(&kept.docker_archive(&["kept:1"]));
        client.house.load(&used.docker_archive(&["used:1"]));
        client.house.load(&dangling.docker_archive(&[]));
        client.house.load(&other.docker_archive(&["other:1"]));
        client.say(&["create", "--name", "ca", "used:1"]);
        let top = |image: &TestImage| chain(image)[1].clone();
        assert_eq!(
            client.say(&["image", "prune", "-f"]),
            format!(
                "Deleted Images:\ndeleted: {}\ndeleted: {}\n\nTotal reclaimed space: 8B\n",
                dangling.id(),
                top(&dangling)
            )
        );
        assert_eq!(
            client.say(&["image", "prune", "-af", "--filter", "label=seed=nothing"]),
            "Total reclaimed space: 0B\n"
        );
        assert_eq!(
            client.say(&["image", "prune", "-f", "--filter", "bogus=1"]),
            "Error response from daemon: invalid filter 'bogus'\n[1]"
        );
        assert_eq!(
            client.say(&["image", "prune", "-af", "--filter", "label!=seed=kept"]),
            format!(
                "Deleted Images:\nuntagged: other:1\ndeleted: {}\ndeleted: {}\n\nTotal reclaimed space: 5B\n",
                other.id(),
                top(&other)
            )
        );
        let said = client.give(&["image", "prune", "-a"], b"n\n");
        assert!(said.starts_with("WARNING! This will remove all images without at least one container associated to them.\nAre you sure you want to continue? [y/N] "), "{said}");
        assert_eq!(client.ids(&[]).len(), 2);
        client.say(&["tag", "used:1", "nobody:1"]);
        let said = client.give(&["image", "prune", "-a"], b"y\n");
        assert!(said.contains(&format!("untagged: kept:1\ndeleted: {}\n", kept.id())), "{said}");
        // Of one that is used, the name stays by which a container has asked for it.
        assert!(said.contains("untagged: nobody:1\n") && !said.contains("used:1"), "{said}");
        assert_eq!(client.ids(&[]), [used.id().to_string()]);
    });
}
