//! Kernel keyrings.

use std::ffi::CStr;
use std::io;

use crate::check;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_SETPERM: libc::c_int = 5;
const KEYCTL_DESCRIBE: libc::c_int = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(i32);

/// Leaves the inherited session keyring for a new one of this name.
pub fn join_session(name: &CStr) -> io::Result<Key> {
    // SAFETY: `name` ends with a NUL.
    let key = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr())
    })?;
    Ok(Key(key as i32))
}

/// Adds search permission for the user, so that what runs in the container under another uid finds its own keyring.
pub fn allow_search(key: Key) -> io::Result<()> {
    const UID_SEARCH: u32 = 0x0008_0000;
    let mut text = [0u8; 256];
    // SAFETY: the kernel writes at most the length given.
    let len = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key.0, text.as_mut_ptr(), text.len())
    })?;
    let text = String::from_utf8_lossy(&text[..(len as usize).min(text.len())]).into_owned();
    // "keyring;<uid>;<gid>;<perm in hex>;<name>"
    let Some(perm) = text.split(';').nth(3).and_then(|perm| u32::from_str_radix(perm, 16).ok())
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    // SAFETY: takes integers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key.0, perm | UID_SEARCH) })?;
    Ok(())
}
