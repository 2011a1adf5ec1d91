//! A user to whom systemd has given a part of the groups: his daemon's containers are scopes of his own systemd. He is one
//! that the guest has (`tests/guest/make`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::house::succeed;
use testkit::{House, TestImage};

use super::limits::{group_of, is_controllable, kills_are_told_apart, run};

const NAME: &str = "somebody";
const TAKEN: &str = "/run/gantry-test-user";

/// Executes a daemon's command line by the user's systemd: `$1` is his name, the rest is what the house says.
const AS_USER: &str = r#"
set -e
uid=$(id -u "$1"); shift
dir=$(dirname "${4#unix://}") run=$8
systemctl start "user@$uid.service"
mkdir -p "$dir/home"
chown "$uid:$uid" "$dir" "$run" "$dir/home"
chmod 666 "$NOTIFY_SOCKET"
exec setpriv --reuid "$uid" --regid "$uid" --init-groups -- \
    env HOME="$dir/home" XDG_RUNTIME_DIR="/run/user/$uid" $WHERE "$@"
"#;

/// The user, for as long as a test lives. He is one test's at a time: his systemd ends with it.
struct User {
    uid: String,
    _alone: File,
}

impl User {
    fn find() -> Option<Self> {
        let systemd = Path::new("/run/systemd/system").exists();
        let one_tree = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let his = users.lines().find(|line| line.starts_with(&format!("{NAME}:")));
        let uid = his.and_then(|line| line.split(':').nth(2))?;
        (systemd && one_tree).then(|| {
            let alone = File::create(TAKEN).expect("root may write there");
            alone.lock().expect("the kernel locks files");
            Self { uid: uid.to_owned(), _alone: alone }
        })
    }

    fn house(&self, by: &str) -> House {
        let place = format!("WHERE={by}");
        let wrapper = ["env", &place, "sh", "-c", AS_USER, "sh", NAME];
        let house = House::through_with(&wrapper, &["--cgroup-parent", "user.slice"]);
        house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
        house
    }

    fn group(&self) -> PathBuf {
        let uid = &self.uid;
        format!("/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service").into()
    }

    /// What his systemd says.
    fn shows(&self, unit: &str, properties: &str) -> String {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &self.uid, "--regid", &self.uid, "--clear-groups", "--"]);
        command.args(["systemctl", "--user", "show", unit, "-p", properties]);
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", self.uid));
        let mut lines: Vec<String> = succeed(command).lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _gone = Command::new("systemctl")
            .args(["stop", &format!("user@{}.service", self.uid)])
            .status();
    }
}

#[test]
fn limits_are_kept_in_his_slice() {
    let Some(user) = User::find() else { return };
    let mut house = user.house("systemd-run --user --scope --quiet --");
    let told =
        house.ok(&["info", "-f", "{{.CgroupDriver}} {{.CgroupVersion}} {{.SecurityOptions}}"]);
    assert!(told.starts_with("systemd 2 ") && told.contains("name=rootless"), "{told}");

    run(&house, "one");
    let id = house.ok(&["inspect", "-f", "{{.Id}}", "one"]);
    let scope = format!("gantry-{}.scope", id.trim());
    let group = group_of(&house, "one", "memory");
    assert_eq!(group, user.group().join("user.slice").join(&scope));
    is_controllable(&house, "one");
    let expected = "CPUQuotaPerSecUSec=500ms\nDelegate=yes\nMemoryMax=33554432\nTasksMax=50";
    let properties = "MemoryMax,TasksMax,CPUQuotaPerSecUSec,Delegate";
    assert_eq!(user.shows(&scope, properties), expected);
    kills_are_told_apart(&house);

    house.kill();
    house.start();
    is_controllable(&house, "one");
    house.ok(&["restart", "-t", "0", "one"]);
    is_controllable(&house, "one");
    house.ok(&["rm", "-f", "one"]);
    assert!(!group.exists());
    assert_eq!(user.shows(&scope, "LoadState"), "LoadState=not-found");
    drop(house);
}

/// Who has started his daemon elsewhere has no group to give.
#[test]
fn limits_are_dropped_outside_of_his_slice() {
    let Some(user) = User::find() else { return };
    let house = user.house("");
    assert_eq!(house.ok(&["info", "-f", "{{.CgroupDriver}}"]), "none\n");
    let run = ["run", "--rm", "--network", "none", "--memory", "32m", "busybox", "echo", "runs"];
    let output = house.docker(&run).output().expect("docker can be executed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "runs\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Limitation discarded."));
    drop(house);
}
