//! Messages with descriptors between our own processes.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    bind, connect, listen, socket_with,
};

/// The most descriptors one message carries (the kernel's own limit is 253).
pub const MAX_FDS: usize = 64;

/// Two connected ends that keep message borders (`SOCK_SEQPACKET`), both close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Listens at `dir/name` for as many as `backlog` at a time, for our own user only. What lay there under that name goes.
pub fn listen_in(dir: &Path, name: &str, backlog: i32) -> io::Result<OwnedFd> {
    match std::fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = seqpacket()?;
    // The file gets the mode of the socket's own inode: there is no moment when others could connect.
    fchmod(&socket, Mode::from_raw_mode(0o600))?;
    let (_dir, address) = address(dir, name)?;
    bind(&socket, &address)?;
    listen(&socket, backlog)?;
    Ok(socket)
}

/// Connects to who listens at `dir/name`. Neither way is waited for longer than `deadline`.
pub fn connect_in(dir: &Path, name: &str, deadline: Duration) -> io::Result<OwnedFd> {
    let socket = seqpacket()?;
    let (_dir, address) = address(dir, name)?;
    connect(&socket, &address)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(deadline))?;
    set_socket_timeout(&socket, Timeout::Send, Some(deadline))?;
    Ok(socket)
}

fn seqpacket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Short, however deep the directory is, as long as the descriptor that comes with it is open.
fn address(dir: &Path, name: &str) -> io::Result<(File, SocketAddrUnix)> {
    let dir = File::open(dir)?;
    let address = SocketAddrUnix::new(crate::fd::path(dir.as_fd()).join(name))?;
    Ok((dir, address))
}

/// Sends `bytes` and the descriptors as one message. Never raises SIGPIPE.
pub fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let sent =
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(sent)
}

/// Bytes sent on a unix stream socket that its peer has not received yet; on TCP, that it has not acknowledged
/// (`SIOCOUTQ`).
pub fn unreceived(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    let number = crate::fd::number(socket.as_fd()) as libc::c_int;
    // SAFETY: the kernel writes one int to a place of ours.
    let answer = unsafe { libc::ioctl(number, libc::TIOCOUTQ, &raw mut bytes) };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(usize::try_from(bytes).unwrap_or(0))
    }
}

#[derive(Debug, Default)]
pub struct Received {
    /// 0 at the end of the stream.
    pub bytes: usize,
    pub fds: Vec<OwnedFd>,
}

/// Receives one message; descriptors arrive close-on-exec. A message larger than `bytes`, or with more descriptors than
/// [`MAX_FDS`], is an error, not half an answer.
pub fn recv_with_fds(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let answer = loop {
        match rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if answer.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    Ok(Received { bytes: answer.bytes, fds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_travel() {
        let (left, right) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send_with_fds(&left, b"hello", &[file.as_fd(), file.as_fd()]).unwrap();
        let mut bytes = [0; 16];
        let received = recv_with_fds(&right, &mut bytes).unwrap();
        assert_eq!((&bytes[..received.bytes], received.fds.len()), (&b"hello"[..], 2));
        drop(left);
        assert_eq!(recv_with_fds(&right, &mut bytes).unwrap().bytes, 0);
    }

    #[test]
    fn half_a_message_is_an_error() {
        let (left, right) = pair().unwrap();
        send_with_fds(&left, b"longer than that", &[]).unwrap();
        assert_eq!(
            recv_with_fds(&right, &mut [0; 4]).unwrap_err().raw_os_error(),
            Some(libc::EMSGSIZE)
        );
    }
}
