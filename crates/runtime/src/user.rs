//! Who the process is: Docker's `user[:group]`, looked up in the container's own passwd and group files.
//!
//! What stands in those files is the image's word, so it is read with a bound, from regular files only, by one parser.
//! A number is a number: it never falls back to a name spelt in digits (CVE-2016-3697, CVE-2026-46680), and one that does
//! not fit is refused instead of wrapped (CVE-2024-40635).

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use oci::runtime::User;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use stdx::{Context, Error, Result};

/// No honest passwd is larger (CVE-2026-47262).
const LIMIT: u64 = 10 << 20;

/// Who it is in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// With the primary group among them (CVE-2022-36109).
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Numbers as they stand in the spec, or, where it has names, looked up below `root`.
pub(crate) fn identify(user: &User, root: BorrowedFd<'_>) -> Result<Identity> {
    if user.username.is_empty() {
        let home = read(root, "etc/passwd").ok().and_then(|passwd| home_of(&passwd, user.uid));
        return Ok(Identity {
            uid: user.uid,
            gid: user.gid,
            groups: user.additional_gids.clone(),
            home: home.unwrap_or_else(|| "/".to_owned()),
        });
    }
    let passwd = read(root, "etc/passwd")?;
    let group = read(root, "etc/group")?;
    let mut identity = lookup(&user.username, &passwd, &group)?;
    for name in &user.additional_groups {
        let gid = group_named(name, &group)?;
        if !identity.groups.contains(&gid) {
            identity.groups.push(gid);
        }
    }
    for gid in &user.additional_gids {
        if !identity.groups.contains(gid) {
            identity.groups.push(*gid);
        }
    }
    Ok(identity)
}

/// The numbers of a `user[:group]` as the files below `root` have them.
pub fn user_in(root: BorrowedFd<'_>, spec: &str) -> Result<(u32, u32)> {
    let identity = identify(&User { username: spec.to_owned(), ..User::default() }, root)?;
    Ok((identity.uid, identity.gid))
}

/// One file of the container. Missing is empty; anything but a regular file is refused without waiting on it.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String> {
    let context = || format!("cannot read /{path} of the container");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno).context(context),
    };
    let metadata = file.metadata().context(context)?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!("/{path} of the container is not a regular file")));
    }
    if metadata.len() > LIMIT {
        return Err(Error::invalid(format!(
            "/{path} of the container is larger than {LIMIT} bytes"
        )));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(LIMIT).read_to_end(&mut bytes).context(context)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of passwd.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let _comment = fields.next();
        Some(Account { name, uid, gid, home: fields.next().unwrap_or_default() })
    })
}

/// A line of group: name, number, members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn home_of(passwd: &str, uid: u32) -> Option<String> {
    accounts(passwd)
        .find(|account| account.uid == uid)
        .map(|account| account.home.to_owned())
        .filter(|home| !home.is_empty())
}

/// A number if it is written as one: digits only, and within Docker's bounds.
fn number(text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(number) if number <= i32::MAX as u32 => Ok(Some(number)),
        _ => Err(Error::invalid("uids and gids must be in range 0-2147483647")),
    }
}

fn lookup(spec: &str, passwd: &str, group: &str) -> Result<Identity> {
    let (user, wanted_group) = spec.split_once(':').unwrap_or((spec, ""));
    let uid = if user.is_empty() { Some(0) } else { number(user)? };
    let account = match uid {
        Some(uid) => accounts(passwd).find(|account| account.uid == uid),
        None => accounts(passwd).find(|account| account.name == user),
    };
    let (name, uid, gid, home) = match (account, uid) {
        (Some(found), _) => {
            // A file cannot hand out numbers that a flag cannot.
            number(&found.uid.to_string())?;
            (Some(found.name), found.uid, found.gid, found.home)
        }
        (None, Some(uid)) => (None, uid, 0, ""),
        (None, None) => {
            return Err(Error::invalid(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    };
    let mut identity = Identity {
        uid,
        gid,
        groups: Vec::new(),
        home: if home.is_empty() { "/" } else { home }.to_owned(),
    };
    if !wanted_group.is_empty() {
        identity.gid = group_named(wanted_group, group)?;
    }
    identity.groups.push(identity.gid);
    if wanted_group.is_empty()
        && let Some(name) = name
    {
        for (_, gid, members) in groups(group) {
            if members.split(',').any(|member| member == name) && !identity.groups.contains(&gid) {
                identity.groups.push(gid);
            }
        }
    }
    Ok(identity)
}

fn group_named(name: &str, group: &str) -> Result<u32> {
    if let Some(gid) = number(name)? {
        return Ok(gid);
    }
    let found = groups(group).find(|(known, _, _)| *known == name).map(|(_, gid, _)| gid);
    found.ok_or_else(|| {
        Error::invalid(format!("unable to find group {name}: no matching entries in group file"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n1000:x:0:0:::\nbad\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,alice\nstaff:x:50:alice\nusers:x:1001:\n";

    fn check(spec: &str, expected: &str) {
        let shown = match lookup(spec, PASSWD, GROUP) {
            Ok(who) => format!("{}:{} {:?} {}", who.uid, who.gid, who.groups, who.home),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "{spec}");
    }

    #[test]
    fn every_form_of_user() {
        check("", "0:0 [0, 10] /root");
        check("0", "0:0 [0, 10] /root");
        check("alice", "1000:1001 [1001, 10, 50] /home/alice");
        check("alice:", "1000:1001 [1001, 10, 50] /home/alice");
        check("alice:staff", "1000:50 [50] /home/alice");
        check("alice:7", "1000:7 [7] /home/alice");
        check("1", "1:0 [0] /");
        check("1:2", "1:2 [2] /");
        check(":7", "0:7 [7] /root");
        // A name of digits is never meant.
        check("1000", "1000:1001 [1001, 10, 50] /home/alice");
        check("2147483647", "2147483647:0 [0] /");
        for beyond in ["-1", "2147483648", "4294967295", "4294967296", "99999999999999999999"] {
            check(beyond, "uids and gids must be in range 0-2147483647");
        }
        for nobody in ["+1", " 1", "-", "0x1", "bob"] {
            check(
                nobody,
                &format!("unable to find user {nobody}: no matching entries in passwd file"),
            );
        }
        check("alice:nogroup", "unable to find group nogroup: no matching entries in group file");
    }
}
