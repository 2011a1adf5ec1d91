//! Becoming the user: groups and ids, and owning what the user writes to.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use stdx::{Context, Result};

use super::Plan;
use crate::user::Identity;

impl Plan {
    /// Standard streams belong to who uses them: else a program cannot open its own `/dev/stdout`.
    pub(super) fn own_stdio(&self, identity: &Identity) -> Result<()> {
        let uid = identity.uid;
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
    pub(super) fn become_user(&self, user: &Identity) -> Result<()> {
        let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
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
