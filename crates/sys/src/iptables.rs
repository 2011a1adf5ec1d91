//! What the old iptables has in the kernel: told by its own socket options, and by nothing else.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::check;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

const TABLE: &[u8] = b"filter";
/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; the same for IPv6.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `struct ipt_getinfo`: the table's name, which hooks it has, where each begins and where its policy is, how many entries
/// there are, and how long they are together.
const INFO: usize = 84;
const HOOKS: usize = 32;
const POLICIES: usize = 56;
const COUNT: usize = 76;
const LENGTH: usize = 80;
/// `struct ipt_get_entries` before the entries.
const ENTRIES: usize = 40;
const ENTRIES_LENGTH: usize = 32;
/// `struct xt_standard_target` before its verdict.
const VERDICT: usize = 32;
const FORWARD: usize = 2;
/// `-NF_ACCEPT - 1`
const ACCEPT: u32 = (-2i32).cast_unsigned();

/// Whether the table `filter` has a rule, or a policy that refuses what is forwarded, in the network namespace of this
/// thread. Only for a table that is there: asking for it would make it.
pub fn filters(family: Family) -> io::Result<bool> {
    let (domain, level, target_offset) = match family {
        Family::Ipv4 => (AddressFamily::INET, libc::SOL_IP, 88),
        Family::Ipv6 => (AddressFamily::INET6, libc::SOL_IPV6, 140),
    };
    let socket = socket_with(domain, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut info = vec![0; INFO];
    info[..TABLE.len()].copy_from_slice(TABLE);
    ask(&socket, level, GET_INFO, &mut info)?;
    let word = |bytes: &[u8], at: usize| -> io::Result<u32> {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map(|word| u32::from_ne_bytes(*word))
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    // One entry is the policy of each hook, and one the end.
    if word(&info, COUNT)? > word(&info, HOOKS)?.count_ones() + 1 {
        return Ok(true);
    }
    let length = word(&info, LENGTH)?;
    let mut entries = vec![0; ENTRIES + length as usize];
    entries[..TABLE.len()].copy_from_slice(TABLE);
    entries[ENTRIES_LENGTH..][..4].copy_from_slice(&length.to_ne_bytes());
    ask(&socket, level, GET_ENTRIES, &mut entries)?;
    let policy = ENTRIES + word(&info, POLICIES + FORWARD * 4)? as usize;
    let target = word(&entries, policy + target_offset)? & 0xffff;
    Ok(word(&entries, policy + target as usize + VERDICT)? != ACCEPT)
}

fn ask(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    answer: &mut [u8],
) -> io::Result<()> {
    let number = crate::fd::number(socket.as_fd()) as libc::c_int;
    let mut length = answer.len() as libc::socklen_t;
    // SAFETY: the kernel reads and writes no more than `length` bytes of `answer`, which lives until the call returns.
    let result = unsafe {
        libc::getsockopt(number, level, option, answer.as_mut_ptr().cast(), &raw mut length)
    };
    check(result.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::ns::unshare;
    use crate::process::CloneFlags;

    #[test]
    fn rules_and_policies_are_seen() {
        let host = std::thread::spawn(|| {
            if unshare(CloneFlags::NEWNET).is_err() {
                return println!("skipped: needs root");
            }
            for (family, program) in
                [(Family::Ipv4, "iptables-legacy"), (Family::Ipv6, "ip6tables-legacy")]
            {
                let change = |words: &[&str]| {
                    let done = Command::new(program).args(words).output();
                    done.is_ok_and(|output| output.status.success())
                };
                if !change(&["-L"]) {
                    println!("skipped: no {program} here");
                    continue;
                }
                let mut seen = vec![filters(family).unwrap()];
                for words in [
                    ["-P", "FORWARD", "DROP"].as_slice(),
                    &["-P", "FORWARD", "ACCEPT"],
                    &["-P", "INPUT", "DROP"],
                    &["-A", "FORWARD", "-j", "ACCEPT"],
                    &["-F"],
                    &["-N", "MINE"],
                ] {
                    assert!(change(words), "{words:?}");
                    seen.push(filters(family).unwrap());
                }
                assert_eq!(seen, [false, true, false, false, true, false, true], "{program}");
            }
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
