//! How the kernel shares out time, I/O and memory nodes to a process.

use std::io;

use crate::check;

/// The kernel's `struct sched_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attr {
    /// Filled in by [`set_attr`].
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets scheduling policy and parameters of this thread.
pub fn set_attr(attr: &Attr) -> io::Result<()> {
    let attr = Attr { size: size_of::<Attr>() as u32, ..*attr };
    // SAFETY: `attr` carries its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })?;
    Ok(())
}

/// Sets this process's I/O priority: class in the top three bits, level below.
pub fn set_io_priority(class: u16, level: u16) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: takes integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })?;
    Ok(())
}

/// Sets this thread's memory policy over `nodes`, a bit mask in words of 64.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: the mask has at least the bits announced (the kernel counts one more than it reads).
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) })?;
    Ok(())
}
