//! Whether a user can have an engine on this host, and what root does about it if not. What the host is like is gathered first;
//! what it lacks is a function of that.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use crate::ids::{self, User};
use crate::link::{self, Kind};
use crate::program;

/// Something that is missing, and the command by which root provides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub what: String,
    pub remedy: String,
}

/// What the host is like.
#[derive(Clone, Debug, Default)]
struct Facts {
    user: Option<User>,
    subuid: String,
    subgid: String,
    /// Those of `newuidmap` and `newgidmap` that are not installed, or may do no more than the user.
    missing: Vec<&'static str>,
    powerless: Vec<&'static str>,
    link: Option<String>,
    tun: bool,
    /// Switches of the kernel's by which a user may have no namespaces: name and value.
    switches: Vec<(&'static str, String)>,
}

/// The kernel's switches, the value that forbids, and the one that allows.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("user/max_user_namespaces", "0", "28633"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
];
/// Where ranges of ids begin on most hosts, and how many a user has.
const FIRST: u32 = 100_000;
const RANGE: u32 = 65_536;

/// What this host lacks for the user of this process. `path` is where programs are looked for.
pub fn lacks(path: &str) -> Vec<Lack> {
    lacking(&facts(path))
}

fn facts(path: &str) -> Facts {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mut facts = Facts {
        user: Some(User::of(&read("/etc/passwd"), uid, gid)),
        subuid: read("/etc/subuid"),
        subgid: read("/etc/subgid"),
        link: link::choose(Kind::Any, path).err().map(|error| error.to_string()),
        tun: std::fs::metadata("/dev/net/tun").is_ok_and(|file| file.file_type().is_char_device()),
        ..Facts::default()
    };
    for name in ["newuidmap", "newgidmap"] {
        match program::find(name, path) {
            None => facts.missing.push(name),
            Some(tool) if !has_power(&tool) => facts.powerless.push(name),
            Some(_) => {}
        }
    }
    for (name, ..) in SWITCHES {
        if let Ok(value) = std::fs::read_to_string(format!("/proc/sys/{name}")) {
            facts.switches.push((name, value.trim().to_owned()));
        }
    }
    facts
}

/// Whether a program may do more than who executes it.
fn has_power(program: &Path) -> bool {
    const SET_USER_ID: u32 = 0o4000;
    let as_owner =
        std::fs::metadata(program).is_ok_and(|found| found.permissions().mode() & SET_USER_ID != 0);
    as_owner || rustix::fs::getxattr(program, "security.capability", &mut [0_u8; 64]).is_ok()
}

fn lacking(facts: &Facts) -> Vec<Lack> {
    let mut lacks = Vec::new();
    let mut lack =
        |what: String, remedy: &str| lacks.push(Lack { what, remedy: remedy.to_owned() });
    if let [first, ..] = facts.missing.as_slice() {
        lack(
            format!(
                "{first} is not installed: only it can give a user's containers more than one id"
            ),
            "apt-get install -y uidmap",
        );
    }
    for name in &facts.powerless {
        lack(
            format!("{name} may do no more than who executes it"),
            &format!("chmod u+s $(command -v {name})"),
        );
    }
    if let Some(user) = &facts.user {
        let has = |own: u32, file: &str, text: &str| ids::map(user, own, file, text).is_ok();
        let name = user.name.clone().unwrap_or_else(|| user.uid.to_string());
        for (file, own, text, flag) in [
            ("/etc/subuid", user.uid, &facts.subuid, "subuids"),
            ("/etc/subgid", user.gid, &facts.subgid, "subgids"),
        ] {
            if !has(own, file, text) {
                let first = first_free(text);
                let last = first + RANGE - 1;
                lack(
                    format!("{name} has no range of ids in {file}"),
                    &format!("usermod --add-{flag} {first}-{last} {name}"),
                );
            }
        }
    }
    if let Some(words) = &facts.link {
        lack(words.clone(), "apt-get install -y passt");
    }
    if !facts.tun {
        lack("/dev/net/tun is not there: the way out is made of it".to_owned(), "modprobe tun");
    }
    for (name, forbidding, allowing) in SWITCHES {
        let found = facts.switches.iter().find(|(found, _)| *found == name);
        if found.is_some_and(|(_, value)| value == forbidding) {
            let name = name.replace('/', ".");
            lack(
                format!("the host lets users have no namespaces: {name} is {forbidding}"),
                &format!("sysctl -w {name}={allowing}"),
            );
        }
    }
    lacks
}

/// The first id that is in nobody's range, nor could be taken for a person's.
fn first_free(text: &str) -> u32 {
    let end = |line: &str| {
        let mut numbers = line.split(':').skip(1).map(|field| field.trim().parse::<u32>());
        let (first, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        first.checked_add(count)
    };
    text.lines().filter_map(end).fold(FIRST, u32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Facts {
        Facts {
            user: Some(User { uid: 1000, gid: 1000, name: Some("ann".to_owned()) }),
            subuid: "bob:100000:65536\nann:165536:65536\n".to_owned(),
            subgid: "ann:165536:65536\n".to_owned(),
            tun: true,
            switches: vec![("user/max_user_namespaces", "15000".to_owned())],
            ..Facts::default()
        }
    }

    #[track_caller]
    fn check(facts: &Facts, remedies: &[&str]) {
        let found = lacking(facts);
        let found: Vec<&str> = found.iter().map(|lack| lack.remedy.as_str()).collect();
        assert_eq!(found, remedies);
    }

    #[test]
    fn what_root_does_about_it() {
        check(&ready(), &[]);
        check(
            &Facts { missing: vec!["newuidmap", "newgidmap"], ..ready() },
            &["apt-get install -y uidmap"],
        );
        check(
            &Facts { powerless: vec!["newgidmap"], ..ready() },
            &["chmod u+s $(command -v newgidmap)"],
        );
        check(
            &Facts { subuid: "bob:100000:65536\n".to_owned(), subgid: String::new(), ..ready() },
            &["usermod --add-subuids 165536-231071 ann", "usermod --add-subgids 100000-165535 ann"],
        );
        check(
            &Facts { link: Some("no pasta".to_owned()), tun: false, ..ready() },
            &["apt-get install -y passt", "modprobe tun"],
        );
        let forbidden = [
            ("kernel/unprivileged_userns_clone", "0"),
            ("user/max_user_namespaces", "0"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ];
        check(
            &Facts {
                switches: forbidden.map(|(name, value)| (name, value.to_owned())).into(),
                ..ready()
            },
            &[
                "sysctl -w kernel.unprivileged_userns_clone=1",
                "sysctl -w user.max_user_namespaces=28633",
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ],
        );
    }
}
