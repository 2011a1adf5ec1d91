//! Memory given back.

use std::io;

use crate::check;

/// Returns freed memory of this process to the kernel, as far as the allocator can: for processes that have done their big
/// work and will live long with little.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has all threads take memory from a few places that they share, and larger pieces from the kernel each time. By itself the
/// allocator has a place for each thread, up to eight for each processor, and keeps in all of them what one needed at its
/// busiest: a daemon with much to do never stops growing. To be called before there are other threads.
pub fn share() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [(libc::M_ARENA_MAX, 4), (libc::M_MMAP_THRESHOLD, 256 << 10)] {
        // SAFETY: mallopt takes two numbers, and says no to those it does not know.
        unsafe {
            libc::mallopt(what, value);
        }
    }
}

/// Lets go of this program's code and constants: what runs on comes back from the file page by page, and what only the start
/// or a rush of work needed does not.
pub fn forget_program() -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for (start, end) in maps.lines().filter_map(never_written) {
        let start = start as *mut libc::c_void;
        let length = end - start.addr();
        // SAFETY: a private mapping of a file that could never be written has no page of its own: each is read from the
        // file again when it is next used.
        let answer = unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
        check(answer.into())?;
    }
    Ok(())
}

/// The range of a line of `/proc/self/maps`, if it is code, or the beginning of a program. What else can only be read may
/// have been written before it was protected: it has the addresses that a loader has put in.
fn never_written(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, mode, offset) = (words.next()?, words.next()?, words.next()?);
    // Device, inode; the kernel's own pages have none.
    let inode = words.nth(1)?;
    if inode == "0" || !(mode == "r-xp" || mode == "r--p" && offset.bytes().all(|c| c == b'0')) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_constants_were_never_written() {
        let code = "7f5e690d2000-7f5e69f93000 r-xp 002d1000 fe:00 5349520    /usr/bin/gantry";
        assert_eq!(never_written(code), Some((0x7f5e_690d_2000, 0x7f5e_69f9_3000)));
        let begin = "7f5e68e01000-7f5e690d2000 r--p 00000000 fe:00 5349520    /usr/bin/gantry";
        assert_eq!(never_written(begin), Some((0x7f5e_68e0_1000, 0x7f5e_690d_2000)));
        for other in [
            "7f5e69f95000-7f5e6a000000 r--p 01191000 fe:00 5349520    /usr/bin/gantry",
            "7f5e690d2000-7f5e69f93000 rwxp 002d1000 fe:00 5349520    /usr/bin/gantry",
            "7f5e6a084000-7f5e6a086000 r-xp 00000000 00:00 0          [vdso]",
            "",
        ] {
            assert_eq!(never_written(other), None);
        }
    }

    #[test]
    fn what_was_forgotten_runs_on() {
        forget_program().unwrap();
        assert_eq!("7".parse::<i32>().unwrap() + 1, 8);
    }
}
