//! eBPF programs on cgroups: how v2 decides who may open a device.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::check;

/// One eBPF instruction, as the kernel lays it out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// Destination register in the low half, source register in the high half.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
}

/// Loads a program that answers 1 (allow) or 0 (deny) for each opening of a device.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let load = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: `load` points to `program` and a C string, both alive across the call; the kernel verifies the program.
    let fd = check(unsafe { bpf(BPF_PROG_LOAD, &raw const load) })?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a device program to a cgroup, in place of `old` where one is given.
pub fn attach_device_program(
    cgroup: BorrowedFd,
    program: BorrowedFd,
    old: Option<BorrowedFd>,
) -> io::Result<()> {
    let attach = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | if old.is_some() { BPF_F_REPLACE } else { 0 },
        replace_bpf_fd: old.map_or(0, |old| old.as_raw_fd() as u32),
    };
    // SAFETY: integers only; the descriptors are borrowed.
    check(unsafe { bpf(BPF_PROG_ATTACH, &raw const attach) })?;
    Ok(())
}

pub fn detach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> io::Result<()> {
    let attach = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        ..Attach::default()
    };
    // SAFETY: integers only; the descriptors are borrowed.
    check(unsafe { bpf(BPF_PROG_DETACH, &raw const attach) })?;
    Ok(())
}

/// The device programs attached to a cgroup, opened.
pub fn device_programs(cgroup: BorrowedFd) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; 64];
    let mut query = Query {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..Query::default()
    };
    // SAFETY: `ids` has room for the number of programs announced; the kernel writes the count back into `query`.
    check(unsafe { bpf(BPF_PROG_QUERY, &raw mut query) })?;
    ids.iter().take(query.prog_cnt as usize).map(|id| program_by_id(*id)).collect()
}

fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let request = [id, 0, 0];
    // SAFETY: an id and two zeros: `next_id` and `open_flags`.
    let fd = check(unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &raw const request) })?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// # Safety
/// `attr` points to the attributes of `command`.
unsafe fn bpf<T>(command: libc::c_int, attr: *const T) -> libc::c_long {
    // SAFETY: by the contract above; the size is that of what it points to.
    unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) }
}
