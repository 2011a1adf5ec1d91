//! Debian's registry, on a loopback where every port is free; and what the daemon asks of its host to reach one.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use testkit::house::{shown, succeed};
use testkit::{House, Netns, TestImage};

pub(crate) struct DistributionRegistry {
    server: Child,
    _dir: tempfile::TempDir,
}

impl DistributionRegistry {
    /// Listens on 127.0.0.1:5000; with a certificate, by TLS.
    pub(crate) fn start(netns: &Netns, certificate: Option<&Certificate>) -> Self {
        let dir = tempfile::tempdir().expect("a place for a registry");
        let config = dir.path().join("config.yml");
        let root = dir.path().join("data");
        let tls = certificate.map_or_else(String::new, |one| {
            format!(", tls: {{certificate: {:?}, key: {:?}}}", one.chain, one.key)
        });
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root:?}}}}}\nhttp: {{addr: 127.0.0.1:5000{tls}}}\n"
        );
        std::fs::write(&config, text).expect("a configuration");
        let mut server = netns.command("docker-registry");
        server.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut server = server.spawn().expect("docker-registry is installed");
        let mut log = BufReader::new(server.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("its log"), 0, "the registry ended");
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { server, _dir: dir }
    }
}

impl Drop for DistributionRegistry {
    fn drop(&mut self) {
        let _ended = self.server.kill();
        let _ended = self.server.wait();
    }
}

pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
}

/// An authority that nobody knows, and what it says of a host.
fn certificate(dir: &Path, host: &str) -> (PathBuf, Certificate) {
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).current_dir(dir);
        succeed(command);
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=nobody",
    );
    openssl(&format!("req -newkey rsa:2048 -nodes -keyout key -out request -subj /CN={host}"));
    std::fs::write(dir.join("names"), format!("subjectAltName=DNS:{host}")).expect("a file");
    openssl(
        "x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -out crt -days 2 -extfile names",
    );
    (dir.join("ca.crt"), Certificate { chain: dir.join("crt"), key: dir.join("key") })
}

const HOST: &str = "registry.gantry.test";

#[test]
fn a_registry_is_found_by_the_hosts_file_and_believed_by_the_hosts_authorities() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, certificate) = certificate(dir.path(), HOST);
    let netns = Netns::new();
    let _registry = DistributionRegistry::start(&netns, Some(&certificate));
    let archive = dir.path().join("image.tar");
    std::fs::write(&archive, TestImage::busybox().docker_archive(&["busybox:latest"])).unwrap();
    let mut copy = netns.command("skopeo");
    copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
    copy.arg(format!("docker-archive:{}", archive.display()));
    copy.arg("docker://127.0.0.1:5000/library/busybox:latest");
    succeed(copy);

    // The host as the daemon sees it: other files in two places.
    let hosts = dir.path().join("hosts");
    let authorities = dir.path().join("authorities");
    let image = format!("{HOST}:5000/library/busybox:latest");
    let pull = |known: &str, trusted: &[&Path]| {
        std::fs::write(&hosts, format!("127.0.0.1 localhost\n127.0.0.1 {known}\n")).unwrap();
        let texts = trusted.iter().map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(&authorities, texts.collect::<String>()).unwrap();
        let view = format!(
            "mount --bind {} /etc/hosts && mount -t tmpfs certs /etc/ssl/certs && cp {} /etc/ssl/certs/ca-certificates.crt \
             && exec \"$@\"",
            hosts.display(),
            authorities.display()
        );
        let net = format!("--net={}", netns.path().display());
        let house = House::through(&[
            "nsenter", &net, "--", "unshare", "--mount", "--", "sh", "-c", &view, "sh",
        ]);
        let output = house.docker(&["pull", "--quiet", &image]).output().unwrap();
        (output.status.success(), shown(&output))
    };
    let system = Path::new("/etc/ssl/certs/ca-certificates.crt");
    assert_eq!(pull(HOST, &[system, &authority]), (true, format!("{image}\n")));
    let (done, said) = pull(HOST, &[system]);
    assert!(!done && said.contains("x509: certificate signed by unknown authority"), "{said}");
    let (done, said) = pull("other.test", &[system, &authority]);
    assert!(!done && said.contains(&format!("lookup {HOST}")), "{said}");
}
