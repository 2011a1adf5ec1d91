//! Installing a seccomp filter. Compiling one is the runtime's business.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::check;

/// One classic BPF instruction, as the kernel lays it out.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// `SECCOMP_FILTER_FLAG_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    pub const TSYNC: Self = Self(1 << 0);
    pub const LOG: Self = Self(1 << 1);
    pub const SPEC_ALLOW: Self = Self(1 << 2);
    pub const NEW_LISTENER: Self = Self(1 << 3);
    pub const WAIT_KILLABLE_RECV: Self = Self(1 << 5);

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

const SECCOMP_SET_MODE_FILTER: u32 = 1;

/// Puts the filter on this thread, for ever. Allocates nothing. With [`Flags::NEW_LISTENER`] answers the descriptor that
/// hears of trapped calls.
pub fn install(filter: &[Instruction], flags: Flags) -> io::Result<Option<OwnedFd>> {
    let len =
        u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = Program { len, filter: filter.as_ptr() };
    // SAFETY: `program` describes `filter`, which is borrowed across the call; the kernel copies and verifies it.
    let answer = check(unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags.0, &raw const program)
    })?;
    if !flags.contains(Flags::NEW_LISTENER) {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the answer is a descriptor the kernel has just opened for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(answer as i32) }))
}

/// Whether the kernel knows this action (`SECCOMP_RET_*`).
pub fn action_available(action: u32) -> bool {
    const SECCOMP_GET_ACTION_AVAIL: u32 = 2;
    // SAFETY: reads one u32.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    })
    .is_ok()
}
