//! Capabilities as plain masks: bit n is capability n, whether or not the libraries know its name yet.

use std::io;

use crate::check;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// The calling thread's sets.
pub fn get() -> io::Result<Sets> {
    let header = Header { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 fills two records.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Sets the calling thread's sets.
pub fn set(sets: &Sets) -> io::Result<()> {
    let header = Header { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two records.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}

/// Does something as if the calling thread's files were somebody else's (`setfsuid`), with all the capabilities it has.
///
/// A file system keeps whoever mounted it, and acts in his name: an overlay whose upper layer knows a range of users
/// can only be written by one of these.
pub fn with_files_of<T>(uid: u32, gid: u32, act: impl FnOnce() -> T) -> io::Result<T> {
    let sets = get()?;
    let own = become_for_files(uid, gid);
    // A change from root takes the capabilities that go with files out of the effective set.
    let outcome = set(&sets).map(|()| act());
    become_for_files(own.0, own.1);
    set(&sets)?;
    outcome
}

/// Who it was before. These calls have no other answer.
fn become_for_files(uid: u32, gid: u32) -> (u32, u32) {
    // SAFETY: both take an integer, and answer the one before.
    let (gid, uid) =
        unsafe { (libc::syscall(libc::SYS_setfsgid, gid), libc::syscall(libc::SYS_setfsuid, uid)) };
    (uid as u32, gid as u32)
}

/// Whether a capability is in the bounding set; `None` where the kernel does not know it.
pub fn bounding(capability: u32) -> Option<bool> {
    prctl(libc::PR_CAPBSET_READ, capability.into(), 0).ok().map(|answer| answer == 1)
}

/// The bounding set as a mask.
pub fn bounding_set() -> u64 {
    (0..64).map_while(|bit| bounding(bit).map(|has| u64::from(has) << bit)).sum()
}

pub fn drop_bounding(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0)?;
    Ok(())
}

pub fn raise_ambient(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, capability.into())?;
    Ok(())
}

pub fn clear_ambient() -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    Ok(())
}

fn prctl(what: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> io::Result<libc::c_long> {
    // SAFETY: the capability calls of prctl take integers only; unused arguments must be zero.
    check(unsafe { libc::prctl(what, a, b, 0 as libc::c_ulong, 0 as libc::c_ulong) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_can_be_written() {
        let sets = get().unwrap();
        set(&sets).unwrap();
        assert_eq!(get().unwrap(), sets);
        assert_eq!(sets.permitted & !bounding_set(), 0);
    }
}
