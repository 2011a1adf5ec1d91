//! Becoming the user: groups, ids, and where they are at home.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use stdx::{Context, Result};

use super::Plan;
use crate::rootfs::RootFd;

impl Plan {
    /// Standard streams belong to who uses them: else a program cannot open its own `/dev/stdout`.
    pub(super) fn own_stdio(&self) -> Result<()> {
        let uid = self.process.user.uid;
        for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
            let Ok(found) = rustix::fs::fstat(stream) else { continue };
            let is_null = found.st_rdev == rustix::fs::makedev(1, 3);
            if found.st_uid == uid || is_null {
                continue;
            }
            match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None) {
                // Not ours to give, or on something that has no owners; the program can use what it has open.
                Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS | Errno::NOSYS) => {}
                Err(err) => {
                    return Err(err)
                        .context(|| "cannot give the standard streams to the user".to_owned());
                }
            }
        }
        Ok(())
    }

    /// The numbers are as they are given: no name is looked up, nothing falls back (CVE-2026-30892).
    pub(super) fn become_user(&self) -> Result<()> {
        let user = &self.process.user;
        let groups: Vec<Gid> = user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
        match set_thread_groups(&groups) {
            // A user namespace made without privilege denies it; then there are none to drop.
            Err(Errno::PERM) if groups.is_empty() => {}
            other => other.context(|| "unable to set additional groups".to_owned())?,
        }
        set_keep_capabilities(true).context(|| "unable to keep capabilities".to_owned())?;
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        set_thread_res_gid(gid, gid, gid).context(|| format!("unable to set gid {}", user.gid))?;
        set_thread_res_uid(uid, uid, uid).context(|| format!("unable to set uid {}", user.uid))?;
        set_keep_capabilities(false).context(|| "unable to stop keeping capabilities".to_owned())
    }
}

/// More than any `/etc/passwd` should be; what is behind that is not looked at.
const PASSWD: u64 = 1 << 20;

/// `HOME=` of a user by the container's `/etc/passwd`; the root directory for whoever is not in there.
pub(crate) fn home_of(uid: u32, root: OwnedFd) -> CString {
    let mut text = Vec::new();
    if let Ok(file) = RootFd::new(root).open_regular(Path::new("/etc/passwd")) {
        // What cannot be read to its end is as good as what was read of it.
        let _partly = File::from(file).take(PASSWD).read_to_end(&mut text);
    }
    let home = home_in(&text, uid).unwrap_or(b"/");
    CString::new([b"HOME=", home].concat()).unwrap_or_else(|_| c"HOME=/".to_owned())
}

fn home_in(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    let line = passwd.split(|byte| *byte == b'\n').find(|line| {
        let number = line.split(|byte| *byte == b':').nth(2);
        number.and_then(|number| std::str::from_utf8(number).ok()?.parse::<u32>().ok()) == Some(uid)
    })?;
    line.split(|byte| *byte == b':').nth(5).filter(|home| !home.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes() {
        let passwd = b"root:x:0:0:r:/root:/bin/sh\nbad:x:zero:0::/x:\nn:x:7:7::/srv:\nempty:x:8:8:::\n\xff:x:9:9::/\xff:\n";
        assert_eq!(home_in(passwd, 0), Some(&b"/root"[..]));
        assert_eq!(home_in(passwd, 7), Some(&b"/srv"[..]));
        assert_eq!(home_in(passwd, 8), None);
        assert_eq!(home_in(passwd, 9), Some(&b"/\xff"[..]));
        assert_eq!(home_in(passwd, 10), None);
    }
}
