//! Who is whom in the user's namespace: he is root there, and the ids that `/etc/subuid` and `/etc/subgid` give him are the
//! others. Pure.

use stdx::{Error, Result};

/// A line of a map: `count` ids from `inside` on are those from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) count: u32,
}

/// A user as the host knows him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) name: Option<String>,
}

impl User {
    /// `passwd` is the text of `/etc/passwd`; users of a directory service are known by number only.
    pub(crate) fn of(passwd: &str, uid: u32, gid: u32) -> Self {
        let named = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        Self { uid, gid, name: named }
    }

    fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.uid),
            None => self.uid.to_string(),
        }
    }
}

/// The map of users or of groups. `own` is the id that becomes root, `file` the one that `text` is of.
pub(crate) fn map(user: &User, own: u32, file: &str, text: &str) -> Result<Vec<Line>> {
    let mut lines = vec![Line { inside: 0, outside: own, count: 1 }];
    let mut next = 1;
    for (first, count) in ranges(user, text) {
        let count = count.min(u32::MAX - next);
        if count > 0 {
            lines.push(Line { inside: next, outside: first, count });
            next += count;
        }
    }
    if lines.len() == 1 {
        let name = user.name.clone().unwrap_or_else(|| user.uid.to_string());
        return Err(Error::invalid(format!(
            "user {} has no range of ids in {file}: let root give one, as with \
             \"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}\"",
            user.shown()
        )));
    }
    Ok(lines)
}

fn ranges(user: &User, text: &str) -> Vec<(u32, u32)> {
    let one = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let his = user.name.as_deref() == Some(owner) || owner.parse() == Ok(user.uid);
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        his.then_some((first, count))
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anna() -> User {
        User::of("root:x:0:0::/root:/bin/sh\nanna:x:1000:100::/home/anna:/bin/sh\n", 1000, 100)
    }

    #[test]
    fn all_ranges_of_a_user_follow_himself() {
        let text =
            "bob:100000:65536\nanna:200000:65536\n# anna:1:1\nanna:nonsense\n1000:400000:10\n";
        let lines = map(&anna(), 1000, "/etc/subuid", text).unwrap();
        let line = |inside, outside, count| Line { inside, outside, count };
        assert_eq!(lines, [line(0, 1000, 1), line(1, 200_000, 65_536), line(65_537, 400_000, 10)]);
    }

    #[test]
    fn without_ranges_it_says_how_to_get_some() {
        let error = map(&anna(), 1000, "/etc/subuid", "bob:100000:65536\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "user anna (1000) has no range of ids in /etc/subuid: let root give one, as with \
             \"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 anna\""
        );
        let nameless = User::of("", 7, 7);
        assert_eq!(map(&nameless, 7, "/etc/subgid", "7:5:5").unwrap().len(), 2);
        assert!(map(&nameless, 7, "/etc/subgid", "7:5:0").is_err());
    }
}
