//! Our own program as a sealed file in memory: what a container reaches through `/proc/self/exe` can never be written.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, memfd_create};

/// A sealed copy of the running program (CVE-2019-5736: a container overwrote the runtime through `/proc/self/exe`).
/// It is made once per daemon, and everything that ever shares a pid namespace with a container is executed from it.
pub fn seal_self(name: &str) -> io::Result<OwnedFd> {
    let exec = MemfdFlags::from_bits_retain(0x10); // MFD_EXEC (6.3): executable also where vm.memfd_noexec asks for intent
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match memfd_create(name, base | exec) {
        Err(rustix::io::Errno::INVAL) => memfd_create(name, base)?,
        other => other?,
    };
    let own = File::open("/proc/self/exe")?;
    let size = own.metadata()?.len();
    let mut done = 0;
    while done < size {
        match rustix::fs::sendfile(&memfd, &own, None, (size - done) as usize)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            sent => done += sent as u64,
        }
    }
    rustix::fs::fcntl_add_seals(
        &memfd,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(memfd)
}

/// Whether the running program is such a copy already.
pub fn is_sealed_self() -> io::Result<bool> {
    let own = File::open("/proc/self/exe")?;
    match rustix::fs::fcntl_get_seals(&own) {
        Ok(seals) => Ok(seals.contains(SealFlags::WRITE | SealFlags::SEAL)),
        Err(rustix::io::Errno::INVAL) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_sealed_copy_cannot_be_written() {
        let memfd = seal_self("test").unwrap();
        let mut file = File::from(memfd);
        assert_eq!(
            file.metadata().unwrap().len(),
            std::fs::metadata("/proc/self/exe").unwrap().len()
        );
        assert_eq!(file.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(!is_sealed_self().unwrap());
    }
}
